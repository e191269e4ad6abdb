package initproc

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// startInput starts a command whose standard input is what text says, from a file.
func startInput(t *testing.T, text string, command ...string) (*Init, *Input) {
	t.Helper()
	needRoot(t)
	s := spec(t, command...)
	s.Stdin = true
	in := input(t, text)
	i, err := startWith(t, s, in)
	if err != nil {
		t.Fatal(err)
	}
	return i, in
}

// input is one of which the file has text.
func input(t *testing.T, text string) *Input {
	t.Helper()
	spool := filepath.Join(t.TempDir(), "stdin")
	if err := os.WriteFile(spool, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := NewInput(spool, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	return in
}

// moveInput moves n bytes from the file to the pipe.
func moveInput(t *testing.T, in *Input, n int) {
	t.Helper()
	for n > 0 {
		moved, err := in.Move(int64(n))
		if err != nil || moved == 0 {
			t.Fatal(moved, err)
		}
		n -= int(moved)
	}
}

// A later server finds how much of the input the command has been given, goes on there, and ends it.
func TestInputOutlivesTheServer(t *testing.T) {
	first, in := startInput(t, "one two three", "cat")
	moveInput(t, in, 4)
	id, err := first.ID()
	if err != nil {
		t.Fatal(err)
	}
	in.Close() // as when the server is killed: init has both ends
	second, err := Adopt(id)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Detach()
	in, err = second.Input(true)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if at, err := in.Spool.Seek(0, io.SeekCurrent); at != 4 || err != nil {
		t.Errorf("position %d, %v; want 4", at, err)
	}
	moveInput(t, in, 9)
	if err := second.CloseInput(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if exit, out := finish(t, second); out != "one two three" || exit.Status.ExitStatus() != 0 {
		t.Errorf("got %q, %v", out, exit)
	}
	if in, err := second.Input(true); in != nil || err != nil {
		t.Errorf("a closed input: %v, %v", in, err)
	}
}

// Writing fails when the command reads no more: init has no reading end.
func TestInputThatNobodyReads(t *testing.T) {
	i, in := startInput(t, "x", "sh", "-c", "exec <&-; echo closed; exec sleep 1000")
	hear(t, i, "closed")
	if _, err := in.Move(1); !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v, want EPIPE", err)
	}
}

// The input can be opened anew by its name, and is the command's alone: nothing else of it is there.
func TestInputInTheSandbox(t *testing.T) {
	i, in := startInput(t, "text", "sh", "-c", "cat /dev/stdin; ls -l /proc/self/fd")
	moveInput(t, in, 4)
	if err := i.CloseInput(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	exit, out := finish(t, i)
	if exit.Status.ExitStatus() != 0 || !strings.HasPrefix(out, "text") || strings.Count(out, "pipe:") != 3 {
		t.Errorf("%v, %s", exit, out)
	}
}

// A signal for the group reaches what the command has started in it, and nobody else.
func TestSignalGroup(t *testing.T) {
	needRoot(t)
	i, err := start(t, spec(t, "sh", "-c", `
		trap 'echo command' USR1; trap : USR2
		sh -c 'trap "echo child" USR1; echo ready; while :; do sleep 1000 & wait $!; done' &
		setsid sh -c 'trap n=1 USR1; trap "echo other\$n" USR2; echo ready; while :; do sleep 1000 & wait $!; done' &
		while :; do sleep 1000 & wait $!; done`))
	if err != nil {
		t.Fatal(err)
	}
	hear(t, i, "ready\nready\n")
	if err := i.SignalGroup(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if got := hear(t, i, "command\n", "child\n"); strings.Contains(got, "other") {
		t.Errorf("got %q", got)
	}
	if err := i.SignalAll(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	hear(t, i, "other\n")
}

// hear reads what the command writes until all of the texts are in it.
func hear(t *testing.T, i *Init, texts ...string) (all string) {
	t.Helper()
	for {
		all += output(t, i.Stdout)
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(all, text) }) {
			return all
		}
		readable(t, i.Stdout)
	}
}
