package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// here is a client of the local server.
func here(t *testing.T) *Client { return dial(t, Options{Addr: os.Getenv("TELE_ADDR")}) }

func TestCommandRuns(t *testing.T) {
	var out, err bytes.Buffer
	cmd := here(t).Command("sh", "-c", `pwd; echo "$A$B$C"; cat >&2; exit 3`)
	cmd.Dir, cmd.Env = "/", []string{"A=1", "B=2", "A=3"}
	cmd.Spec = &telev1.JobSpec{Env: map[string]string{"B": "0", "C": "="}, Cwd: "/nowhere"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("typed"), &out, &err
	var exit *ExitError
	if got := cmd.Run(); !errors.As(got, &exit) || exit.ExitCode() != 3 || exit.Job != cmd.Job || exit.Stderr != nil {
		t.Errorf("got %v, of job %v", got, cmd.Job)
	}
	if out.String() != "/\n32=\n" || err.String() != "typed" {
		t.Errorf("wrote %q and %q", out.String(), err.String())
	}
	if cmd.Spec.Cwd != "/nowhere" || cmd.Spec.Env["B"] != "0" || cmd.Spec.Command != nil {
		t.Errorf("Start changed the caller's spec to %v", cmd.Spec)
	}
}

// Without a place to go, output is not even asked for, and input is none.
func TestCommandOfNothing(t *testing.T) {
	if err := here(t).Command("sh", "-c", "echo out; echo err >&2; cat").Run(); err != nil {
		t.Error(err)
	}
}

func TestCommandOutput(t *testing.T) {
	c := here(t)
	out, err := c.Command("sh", "-c", "echo out; echo err >&2; exit 4").Output()
	var exit *ExitError
	if string(out) != "out\n" || !errors.As(err, &exit) || exit.ExitCode() != 4 || string(exit.Stderr) != "err\n" {
		t.Errorf("got %q, %#v", out, err)
	}
	var to bytes.Buffer
	cmd := c.Command("sh", "-c", "echo err >&2; exit 4")
	cmd.Stderr = &to
	if _, err := cmd.Output(); !errors.As(err, &exit) || exit.Stderr != nil || to.String() != "err\n" {
		t.Errorf("with a place for stderr: got %#v, %q", err, to.String())
	}
	all, err := c.Command("sh", "-c", "echo out; echo err >&2").CombinedOutput()
	if !sameLines(string(all), "out\nerr\n") || err != nil {
		t.Errorf("got %q, %v", all, err)
	}
}

// sameLines compares without the order: a local command's two outputs have none.
func sameLines(got, want string) bool {
	a, b := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// Of much standard error the beginning and the end are kept.
func TestEnds(t *testing.T) {
	for _, size := range []int{1, 3, 5, 26} {
		e := ends{most: 4}
		letters := "abcdefghijklmnopqrstuvwxyz"
		for rest := letters; rest != ""; rest = rest[min(size, len(rest)):] {
			_, _ = e.Write([]byte(rest[:min(size, len(rest))])) // never fails
		}
		if got := string(e.bytes()); got != "abcd\n... 18 bytes left out ...\nwxyz" {
			t.Errorf("by %d: %q", size, got)
		}
	}
	for _, text := range []string{"", "abcd", "abcdefgh"} {
		e := ends{most: 4}
		_, _ = e.Write([]byte(text)) // never fails
		if got := string(e.bytes()); got != text {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// A command that talks with its caller over all three pipes.
func TestCommandPipes(t *testing.T) {
	cmd := here(t).Command("sh", "-c", `while read line; do echo "got $line"; done; echo end >&2`)
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	stderr, err3 := cmd.StderrPipe()
	if err := errors.Join(err1, err2, err3, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"one\n", "two\n"} {
		if _, err := io.WriteString(stdin, line); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len("got ")+len(line))
		if _, err := io.ReadFull(stdout, got); err != nil || string(got) != "got "+line {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if err := stdin.Close(); err != nil {
		t.Error(err)
	}
	// The other order than the command's.
	for _, row := range []struct {
		from io.Reader
		want string
	}{{stderr, "end\n"}, {stdout, ""}} {
		if got, err := io.ReadAll(row.from); err != nil || string(got) != row.want {
			t.Errorf("got %q, %v, want %q", got, err, row.want)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// One pipe can be read to its end while nobody reads the other, however much is in that.
func TestPipesDoNotHoldUpEachOther(t *testing.T) {
	cmd := here(t).Command("sh", "-c", "yes | head -c 3000000 >&2; echo out")
	stdout, err1 := cmd.StdoutPipe()
	stderr, err2 := cmd.StderrPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(stdout); err != nil || string(got) != "out\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if n, err := io.Copy(io.Discard, stderr); err != nil || n != 3000000 {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Both outputs in one pipe, as with os/exec.
func TestOnePipeForBoth(t *testing.T) {
	cmd := here(t).Command("sh", "-c", "echo out; echo err >&2")
	both, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(both); err != nil || !sameLines(string(got), "out\nerr\n") {
		t.Errorf("got %q, %v", got, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Wait ends what nobody reads and what nobody writes.
func TestWaitClosesPipes(t *testing.T) {
	cmd := here(t).Command("sh", "-c", "yes | head -c 3000000")
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Run()); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(stdin, "more"); err != ErrInputClosed {
		t.Errorf("write: got %v, want ErrInputClosed", err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != io.ErrClosedPipe {
		t.Errorf("read: got %v, want io.ErrClosedPipe", err)
	}
}

// A command whose output cannot be written, or whose pipe was closed, gets SIGPIPE.
func TestCommandOfABrokenPipe(t *testing.T) {
	c := here(t)
	cmd := c.Command("yes")
	stdout, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start(), stdout.Close()); err != nil {
		t.Fatal(err)
	}
	var exit *ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGPIPE) {
		t.Errorf("a closed pipe: got %v", err)
	}
	full := errors.New("full")
	cmd = c.Command("sh", "-c", "trap '' PIPE; echo out; echo err >&2")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = writeFunc(func([]byte) (int, error) { return 0, full }), &stderr
	var write *WriteError
	if err := cmd.Run(); !errors.As(err, &write) || !errors.Is(err, full) || stderr.String() != "err\n" {
		t.Errorf("a writer that fails: got %v, %q", err, stderr.String())
	}
}

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(data []byte) (int, error) { return f(data) }

// What goes wrong with the input is told when the command has not failed itself.
func TestCommandOfBrokenInput(t *testing.T) {
	broken := errors.New("broken")
	cmd := here(t).Command("cat")
	cmd.Stdin = iotest.ErrReader(broken)
	var read *ReadError
	if err := cmd.Run(); !errors.As(err, &read) || !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	cmd = here(t).Command("true") // does not read it
	reader, writer := io.Pipe()
	defer writer.Close()
	cmd.Stdin = reader
	if err := cmd.Run(); err != nil {
		t.Errorf("input that is not read: %v", err)
	}
}

func TestCommandContext(t *testing.T) {
	c := here(t)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := c.CommandContext(ctx, "sh", "-c", "echo ready; sleep 1000")
	stdout, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	cancel()
	var exit *ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Job.Reason != telev1.Reason_REASON_STOPPED {
		t.Errorf("killed: got %v", err)
	}
	if err := c.CommandContext(ctx, "true").Run(); err != context.Canceled {
		t.Errorf("a context that is done: got %v", err)
	}
	// A command that takes its Cancel for a reason to exit with 0.
	ctx, cancel = context.WithCancel(t.Context())
	cmd = c.CommandContext(ctx, "sh", "-c", "trap 'exit 0' TERM; echo ready; read never")
	cmd.Cancel = func() error { return cmd.Signal(syscall.SIGTERM) }
	stdout, err = cmd.StdoutPipe()
	if _, stdin := cmd.StdinPipe(); errors.Join(err, stdin, cmd.Start()) != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := cmd.Wait(); err != context.Canceled {
		t.Errorf("exited for it: got %v", err)
	}
}

func TestCommandSignals(t *testing.T) {
	cmd := here(t).Command("sleep", "1000")
	if err := errors.Join(cmd.Signal(syscall.SIGINT), cmd.Kill()); !errors.Is(err, errNotStarted) {
		t.Errorf("before the start: got %v", err)
	}
	if err := errors.Join(cmd.Start(), cmd.Signal(syscall.SIGINT)); err != nil {
		t.Fatal(err)
	}
	var exit *ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Errorf("got %v", err)
	}
	if err := cmd.Signal(syscall.SIGINT); err != os.ErrProcessDone {
		t.Errorf("Signal after the end: got %v", err)
	}
	if err := cmd.Kill(); err != os.ErrProcessDone {
		t.Errorf("Kill after the end: got %v", err)
	}
}

// What os/exec refuses, too.
func TestCommandMisuse(t *testing.T) {
	c := here(t)
	cmd := c.Command("true")
	if cmd.Wait() == nil {
		t.Error("Wait before Start")
	}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if cmd.Start() == nil {
		t.Error("Start after Start")
	}
	if cmd.Wait() == nil {
		t.Error("Wait after Wait")
	}
	_, err1 := cmd.StdinPipe()
	_, err2 := cmd.StdoutPipe()
	_, err3 := cmd.StderrPipe()
	if err1 == nil || err2 == nil || err3 == nil {
		t.Error("pipes after Start")
	}
	set := func() *Cmd {
		cmd := c.Command("true")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(""), io.Discard, io.Discard
		return cmd
	}
	for name, f := range map[string]func(*Cmd) error{
		"StdinPipe":      func(cmd *Cmd) error { _, err := cmd.StdinPipe(); return err },
		"StdoutPipe":     func(cmd *Cmd) error { _, err := cmd.StdoutPipe(); return err },
		"StderrPipe":     func(cmd *Cmd) error { _, err := cmd.StderrPipe(); return err },
		"Output":         func(cmd *Cmd) error { _, err := cmd.Output(); return err },
		"CombinedOutput": func(cmd *Cmd) error { _, err := cmd.CombinedOutput(); return err },
	} {
		if err := f(set()); err == nil || !strings.Contains(err.Error(), "is set already") {
			t.Errorf("%s of what is set: got %v", name, err)
		}
	}
	cmd = c.Command("true")
	cmd.Env = []string{"NAME"}
	if err := cmd.Run(); err == nil || !strings.Contains(err.Error(), `"NAME"`) {
		t.Errorf("environment: got %v", err)
	}
	// A start that fails leaves nothing to wait for, and pipes that are closed.
	cmd = c.Command("/no/such/command")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Run(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("no such command: got %v", err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != io.ErrClosedPipe {
		t.Errorf("its pipe: got %v", err)
	}
}

// A job that failed although its command exited with 0 has no exit code that says so.
func TestExitErrorOfZero(t *testing.T) {
	zero := int32(0)
	for _, job := range []*telev1.Job{{ExitCode: &zero}, {}} {
		if code := (&ExitError{Job: job}).ExitCode(); code != -1 {
			t.Errorf("%v: %d", job, code)
		}
	}
}

// A server that never ends what it says fills no memory.
func TestRemarks(t *testing.T) {
	var r remarks
	for range 100 {
		if n, err := r.Write(make([]byte, 64<<10)); n != 64<<10 || err != nil {
			t.Fatal(n, err)
		}
	}
	if r.Len() != maxRemarks {
		t.Errorf("%d bytes are kept", r.Len())
	}
}
