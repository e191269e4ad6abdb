package cli

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// addTerminal asks for a terminal like the one that tele has: its size, where none is given, and what it is.
func addTerminal(spec *telev1.JobSpec) {
	if spec.Terminal.Rows == 0 && spec.Terminal.Columns == 0 {
		spec.Terminal = terminalSize(os.Stdout, os.Stdin)
	}
	spec.Env = terminalEnv(spec.Env)
}

// terminalEnv adds to env what says what terminal it is.
func terminalEnv(more map[string]string) map[string]string {
	env := map[string]string{"TERM": "xterm"}
	for _, name := range []string{"TERM", "COLORTERM"} {
		if value := os.Getenv(name); value != "" {
			env[name] = value
		}
	}
	maps.Copy(env, more)
	return env
}

// terminalSize is the size of the first that is a terminal, or the usual one.
func terminalSize(files ...*os.File) *telev1.TerminalSize {
	for _, f := range files {
		if size := sizeOf(f); size != nil && size.Row > 0 && size.Col > 0 {
			return &telev1.TerminalSize{Rows: uint32(size.Row), Columns: uint32(size.Col)}
		}
	}
	return &telev1.TerminalSize{Rows: 24, Columns: 80}
}

// takeTerminal makes tele's own terminal, where it has one, the job's: what is typed is passed on as it is.
// The caller calls restore before anything else is written to it.
func (s *session) takeTerminal() (in io.Reader, restore func()) {
	file, ok := s.streams.In.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return s.streams.In, func() {}
	}
	before, err := term.MakeRaw(int(file.Fd()))
	if err != nil {
		fmt.Fprintf(s.streams.Err, "tele: the terminal stays as it is: %v\n", err)
		return s.streams.In, func() {}
	}
	raw(s.streams.Err, true)
	return &keyboard{session: s, from: file}, func() {
		_ = term.Restore(int(file.Fd()), before) // a terminal that is gone needs it not
		raw(s.streams.Err, false)
	}
}

// followSize gives the job's terminal the size of tele's own, where it has one, until stop is called. A size
// that cannot be passed on does no harm.
func (s *session) followSize() (stop func()) {
	if sizeOf(os.Stdout) == nil && sizeOf(os.Stdin) == nil {
		return func() {}
	}
	sizes := make(chan os.Signal, 1)
	signal.Notify(sizes, unix.SIGWINCH)
	sizes <- unix.SIGWINCH // it may have changed since the job was started
	go func() {
		for {
			select {
			case <-sizes:
				if size := terminalSize(os.Stdout, os.Stdin); s.exec != nil {
					s.exec.Resize(size)
				} else {
					_ = s.client.Resize(s.ctx, s.id, size)
				}
			case <-s.ctx.Done():
				return
			}
		}
	}()
	return func() { signal.Stop(sizes) }
}

// A keyboard reads what is typed, and leaves the job when that is the detach keys. All but the last of
// these are passed on: to keep them back until the next is typed would make each look lost.
type keyboard struct {
	*session
	from  io.Reader
	typed []byte // the last ones, as many as there are detach keys
}

// Read waits for ever when the terminal is gone: its end is not that of the job's input.
func (k *keyboard) Read(p []byte) (int, error) {
	n, err := k.from.Read(p)
	for i, c := range p[:n] {
		k.typed = append(k.typed, c)
		k.typed = k.typed[max(0, len(k.typed)-len(k.keys)):]
		if len(k.keys) > 0 && bytes.Equal(k.typed, k.keys) {
			k.leave(errDetached)
			n, err = i, io.EOF
			break
		}
	}
	if err != nil {
		if n == 0 {
			<-k.ctx.Done()
		}
		return n, nil
	}
	return n, nil
}

// parseKeys reads keys like "ctrl-p,ctrl-q" or "~,.".
func parseKeys(text string) (keys []byte, err error) {
	if text == "" {
		return nil, nil
	}
	for key := range strings.SplitSeq(text, ",") {
		name, control := strings.CutPrefix(key, "ctrl-")
		switch {
		case len(name) != 1:
			return nil, fmt.Errorf("--detach-keys %s: %q is no key; write them like ctrl-p,ctrl-q", text, key)
		case !control:
			keys = append(keys, name[0])
		case strings.ContainsAny(name, "abcdefghijklmnopqrstuvwxyz@[\\]^_"):
			keys = append(keys, name[0]&0x1f)
		default:
			return nil, fmt.Errorf("--detach-keys %s: there is no %s; ctrl- goes with a to z and @ [ \\ ] ^ _", text, key)
		}
	}
	return keys, nil
}

// messages writes what tele says to a terminal that may be raw, where a line does not begin by itself.
type messages struct {
	to  io.Writer
	raw atomic.Bool
}

func raw(w io.Writer, on bool) {
	if m, ok := w.(*messages); ok {
		m.raw.Store(on)
	}
}

func (m *messages) Write(text []byte) (int, error) {
	out := text
	if m.raw.Load() {
		out = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	}
	if _, err := m.to.Write(out); err != nil {
		return 0, err
	}
	return len(text), nil
}
