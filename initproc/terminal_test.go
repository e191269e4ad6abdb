package initproc

import (
	"bytes"
	"io"
	"strings"
	"syscall"
	"testing"
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
func see(t *testing.T, i *Init, terminal *Terminal, texts ...string) string {
	t.Helper()
	var all []byte
	for _, text := range texts {
		for from := 0; !bytes.Contains(all[from:], []byte(text)); {
			from = max(0, len(all)-len(text))
			switch err := terminal.Move(); err {
			case nil:
			case io.EOF:
				readable(t, terminal.FD())
			default:
				t.Fatal(err)
			}
			all = append(all, output(t, i.Stdout)...)
		}
	}
	return string(all)
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
	if _, err := terminal.master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	exit, err := wait(t, i)
	if err != nil || exit.Status.Signal() != syscall.SIGINT {
		t.Errorf("%v, %v", exit, err)
	}
	for err = nil; err == nil; err = terminal.Move() {
	}
	if err != io.EOF {
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
	exit, err := wait(t, second)
	if err != nil || exit.Status != 0 {
		t.Errorf("%v, %v", exit, err)
	}
}

// A command may close its terminal and open it again; what it writes while the pipe is full waits.
func TestTerminalWaits(t *testing.T) {
	i, terminal, _ := startTerminal(t, "", "sh", "-c", "exec </dev/null >/dev/null 2>&1; seq 1 160000 >/dev/tty; exec sleep 1000")
	full := 0
	for full < pipeSize/4096 { // moves nothing any more
		readable(t, terminal.FD())
		if err := terminal.Move(); err == nil {
			full++
		} else if err != io.EOF {
			t.Fatal(err)
		}
	}
	if got := see(t, i, terminal, "\r\n160000\r\n"); strings.Count(got, "\n") != 160000 {
		t.Errorf("%d lines", strings.Count(got, "\n"))
	}
}
