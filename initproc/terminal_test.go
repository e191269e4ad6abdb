package initproc

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startTerminal starts a command with a terminal, at which text is to be typed.
func startTerminal(t *testing.T, text string, command ...string) (*Init, *Terminal, *Input) {
	t.Helper()
	needRoot(t)
	s := spec(t, command...)
	s.Stdin, s.Terminal = true, &Size{30, 100}
	in := input(t, text)
	in.Pipe, in.read = nil, nil // it has a pipe, for other tests
	i, err := startWith(t, s, in)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := i.Terminal()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(terminal.Close)
	in.TypeAt(terminal)
	return i, terminal, in
}

// see reads what is on the terminal until all of the texts are.
func see(t *testing.T, i *Init, terminal *Terminal, texts ...string) (all string) {
	t.Helper()
	if err := terminal.Master.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		for !strings.Contains(all, text) {
			err := terminal.Move()
			all += output(t, i.Stdout)
			if err != nil && !strings.Contains(all, text) {
				t.Fatalf("saw %q, want %q: %v", all, text, err)
			}
		}
	}
	return all
}

func TestTerminal(t *testing.T) {
	i, terminal, in := startTerminal(t, "text\n",
		"sh", "-c", "trap 'stty size' WINCH; tty; stty size; stty -a; until read x; do :; done; echo got $x >&2; echo ready; exec sleep 1000")
	got := see(t, i, terminal, "/dev/pts/0\r\n30 100\r\n", "iutf8", "echoke")
	for _, mode := range []string{"intr = ^C;", "erase = ^?;", "susp = ^Z;", " icanon ", " echo "} {
		if !strings.Contains(got, mode) {
			t.Errorf("no %q in %s", mode, got)
		}
	}
	if err := terminal.Resize(Size{40, 120}); err != nil {
		t.Fatal(err)
	}
	see(t, i, terminal, "40 120\r\n")
	if n, err := in.Move(5); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	see(t, i, terminal, "text\r\n", "got text\r\n", "ready")
	if _, err := terminal.Master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	exit, err := i.Wait()
	if err != nil || exit.Status.Signal() != syscall.SIGINT {
		t.Errorf("%v, %v", exit, err)
	}
	if err := terminal.Rest(); err != io.EOF {
		t.Errorf("got %v", err)
	}
}

// A later server finds the terminal, and what is in it; the end of the input is typed.
func TestTerminalOutlivesTheServer(t *testing.T) {
	first, terminal, in := startTerminal(t, "one\ntwo\n", "cat")
	if n, err := in.Move(4); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	see(t, first, terminal, "one\r\none\r\n")
	id, err := first.ID()
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	terminal.Close()
	second, err := Adopt(id)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Detach()
	if terminal, err = second.Terminal(); err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if in, err = second.Input(false); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	in.TypeAt(terminal)
	if n, err := in.Move(100); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	see(t, second, terminal, "two\r\ntwo\r\n")
	if err := in.End(); err != nil {
		t.Fatal(err)
	}
	exit, err := second.Wait()
	if err != nil || exit.Status != 0 {
		t.Errorf("%v, %v", exit, err)
	}
	if err := terminal.Move(); err != io.EOF {
		t.Errorf("nobody has it: %v", err)
	}
}

// What is written while the pipe is full waits in the terminal, and what is waited for has an end.
func TestTerminalWaits(t *testing.T) {
	i, terminal, _ := startTerminal(t, "", "sh", "-c", "seq 1 300000; exec sleep 1000")
	stop := time.AfterFunc(10*time.Second, func() { _ = terminal.Pipe.Close(); _ = terminal.Master.Close() })
	defer stop.Stop()
	var all strings.Builder
	moved := make(chan error)
	go func() {
		for {
			if err := terminal.Move(); err != nil {
				moved <- err
				return
			}
		}
	}()
	for !strings.HasSuffix(all.String(), "\r\n300000\r\n") {
		all.WriteString(output(t, i.Stdout))
		if !stop.Stop() {
			t.Fatalf("after %d bytes", all.Len())
		}
		stop.Reset(10 * time.Second)
	}
	if err := terminal.Master.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := <-moved; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if n := strings.Count(all.String(), "\n"); n != 300000 {
		t.Errorf("%d lines", n)
	}
}
