package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// This file is `tele top` on a terminal. It draws with a handful of escape sequences that every terminal since
// the VT100 and xterm knows; docs/RATIONALE.md says why no library does.

const (
	takeScreen = "\x1b[?1049h\x1b[?25l" // another screen than the shell's, without a cursor
	giveBack   = "\x1b[?25h\x1b[?1049l"
	home       = "\x1b[H"
	clearLine  = "\x1b[K"
	clearBelow = "\x1b[J"
)

// topKeys sort.
var topKeys = map[byte]string{'c': "cpu", 'm': "memory", 'i': "io", 'p': "pids", 'a': "age", 'u': "user", 'j': "job"}

// errQuit ends the view.
var errQuit = errors.New("quit")

// A topView is what is shown, and how.
type topView struct {
	*Top
	out     io.Writer
	reverse bool
	loads   topLoads
}

// live shows the jobs until q is typed. However it ends, the terminal is as it was.
func (t *Top) live(ctx context.Context, c *client.Client, streams Streams) (err error) {
	if in, ok := streams.In.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return fmt.Errorf("take the terminal: %w (tele top --once needs none)", err)
		}
		raw(streams.Err, true)
		defer func() {
			raw(streams.Err, false)
			_ = term.Restore(int(in.Fd()), before) // a terminal that is gone needs it not
		}()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGWINCH, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	v := &topView{Top: t, out: streams.Out}
	if _, err := io.WriteString(v.out, takeScreen); err != nil {
		return err
	}
	defer func() { _, _ = io.WriteString(v.out, giveBack) }() // a terminal that is gone needs it not
	err = v.run(ctx, c, keysOf(ctx, streams.In), signals)
	if err == errQuit {
		return nil
	}
	return err
}

// keysOf reads what is typed. The goroutine ends with the process: nothing interrupts it.
func keysOf(ctx context.Context, in io.Reader) <-chan byte {
	keys := make(chan byte)
	go func() {
		var key [1]byte
		for {
			if _, err := io.ReadFull(in, key[:]); err != nil {
				return
			}
			select {
			case keys <- key[0]:
			case <-ctx.Done():
				return
			}
		}
	}()
	return keys
}

// run shows what comes, and does what is typed, also while the server is away.
func (v *topView) run(ctx context.Context, c *client.Client, keys <-chan byte, signals <-chan os.Signal) error {
	type look struct {
		jobs []*telev1.Job
		err  error
		at   time.Time
	}
	looks := make(chan look)
	go func() {
		for {
			jobs, err := v.list(ctx, c)
			select {
			case looks <- look{jobs, err, time.Now()}:
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(v.Interval):
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case l := <-looks:
			if l.err != nil {
				return l.err
			}
			v.loads.take(l.jobs, l.at)
		case key := <-keys:
			if err := v.press(key); err != nil {
				return err
			}
		case s := <-signals:
			if s != unix.SIGWINCH {
				return exitError(128 + int(s.(unix.Signal)))
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := v.draw(); err != nil {
			return err
		}
	}
}

func (v *topView) press(key byte) error {
	const ctrlC = 3
	switch by := topKeys[key]; {
	case key == 'q' || key == ctrlC:
		return errQuit
	case key == 'r':
		v.reverse = !v.reverse
	case by != "":
		v.Sort, v.reverse = by, false
	}
	return nil
}

// draw writes the whole screen in one go.
func (v *topView) draw() error {
	rows := 24
	if size := sizeOf(v.out); size != nil && size.Row > 0 {
		rows = int(size.Row)
	}
	s := screenOf(v.out)
	lines := []string{v.summary(), ""}
	lines = append(lines, v.loads.table(v.Sort, v.reverse, s.width)...)
	if len(lines) > rows {
		lines = lines[:rows]
	}
	for i, line := range lines {
		lines[i] = shorten(line, s.width) // none may go on in the next
		if i == 2 && s.color {
			lines[i] = colored(lines[i], "1")
		}
	}
	_, err := io.WriteString(v.out, home+strings.Join(lines, clearLine+"\r\n")+clearLine+clearBelow)
	return err
}

// summary is the first line.
func (v *topView) summary() string {
	if v.loads.at.IsZero() {
		return "waiting for the server"
	}
	var cpus float64
	var memory uint64
	for _, j := range v.loads.jobs {
		cpus += max(0, known(j.cpu))
		memory += j.usage().GetMemoryBytes()
	}
	return fmt.Sprintf("%s  %d jobs  %.1f cpus  %s memory  by %s  [cmipauj] sort  [r]everse  [q]uit",
		v.loads.at.Format(time.TimeOnly), len(v.loads.jobs), cpus, size(memory), v.Sort)
}
