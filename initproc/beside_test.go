package initproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/telerun/tele/server/seccomp"
	"golang.org/x/sys/unix"
)

// news are the events of an init.
type news struct {
	*Init
	events []Event
}

func hearNews(i *Init) *news {
	n := &news{Init: i}
	i.Heard = func(e Event) { n.events = append(n.events, e) }
	return n
}

// sleeping is an init whose command does nothing.
func sleeping(t *testing.T) (Spec, *news) {
	t.Helper()
	needRoot(t)
	s := spec(t, "sleep", "1000")
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return s, hearNews(i)
}

// next is the next event.
func (n *news) next(t *testing.T) (e Event) {
	t.Helper()
	for len(n.events) == 0 {
		if exit, err := n.Exit(); len(n.events) == 0 && err != ErrRunning {
			t.Fatalf("the command ended: %v, %v", exit, err)
		}
		if len(n.events) == 0 {
			readable(t, n.FD())
		}
	}
	e, n.events = n.events[0], n.events[1:]
	return e
}

// token is that of the command that was begun last.
var token uint64

// beside begins a command beside the one of s, and returns what became of it.
func beside(t *testing.T, i *news, s Spec, command ...string) (*Beside, Event, error) {
	t.Helper()
	s.Command = command
	plan, err := NewBesidePlan(s)
	if err != nil {
		t.Fatal(err)
	}
	return send(t, i, s, plan)
}

func send(t *testing.T, i *news, s Spec, plan *Plan) (*Beside, Event, error) {
	t.Helper()
	token++
	b, err := i.RunBeside(plan, s, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	e := i.next(t)
	for e.Token != token {
		e = i.next(t)
	}
	err = e.Err(plan)
	if err == nil {
		err = b.Executed(t.Context(), plan)
	}
	return b, e, err
}

func all(t *testing.T, f *os.File) string {
	t.Helper()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A command beside the main one has its own input, output and exit code, and is the same user behind the
// same walls.
func TestBeside(t *testing.T) {
	needRoot(t)
	s := spec(t, "sh", "-c", "echo main >/tmp/file; id -u; exec sleep 1000")
	started, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	i := hearNews(started)
	hear(t, started, "1879048192")
	had := descriptors(t, i.Pid)
	s.Stdin = true
	b, e, _ := beside(t, i, s, "sh", "-c", "cat /tmp/file; id -u; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; cat /dev/stdin >&2; exit 7")
	if !e.Forked || e.Pid < 2 {
		t.Fatalf("%+v", e)
	}
	if _, err := b.Stdin.WriteString("input"); err != nil {
		t.Fatal(err)
	}
	_ = b.Stdin.Close()
	out, errs := all(t, b.Stdout), all(t, b.Stderr)
	want := "main\n1879048192\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t0\n0 1 2 3 "
	if out != want || errs != "input" {
		t.Errorf("got %q and %q, want %q", out, errs, want)
	}
	if end := i.next(t); end.Forked || end.Pid != e.Pid || end.Status.ExitStatus() != 7 {
		t.Errorf("%+v", end)
	}
	// Nothing of it is left in init, nor anything else.
	if has := descriptors(t, i.Pid); !slices.Equal(has, had) {
		t.Errorf("init had %v and has %v", had, has)
	}
	s.Stdin = false
	b, _, _ = beside(t, i, s, "sh", "-c", "readlink /proc/self/fd/0; exec sleep 1000")
	buf := make([]byte, 100)
	if n, err := b.Stdout.Read(buf); err != nil || string(buf[:n]) != "/dev/null\n" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	// The main command's end is that of all.
	if err := i.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := i.next(t); e.Status.Signal() != syscall.SIGKILL {
		t.Errorf("%+v", e)
	}
	if exit, err := wait(t, started); err != nil || exit.Status.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %v", exit, err)
	}
}

func TestBesideTerminal(t *testing.T) {
	s, i := sleeping(t)
	s.Terminal = &Size{30, 100}
	b, e, _ := beside(t, i, s, "sh", "-c", "tty; stty size; read x; echo got $x; exec sleep 1000")
	if err := i.TakeTerminal(b); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Terminal.WriteString("text\n"); err != nil {
		t.Fatal(err)
	}
	var got string
	for buf := make([]byte, 1000); !strings.Contains(got, "got text\r\n"); {
		n, err := b.Terminal.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += string(buf[:n])
	}
	if !strings.Contains(got, "/dev/pts/0\r\n30 100\r\n") {
		t.Errorf("got %q", got)
	}
	if err := i.SignalBeside(e.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if end := i.next(t); end.Pid != e.Pid || end.Status.Signal() != syscall.SIGINT {
		t.Errorf("%+v", end)
	}
	if _, err := b.Terminal.Read(make([]byte, 1)); !errors.Is(err, unix.EIO) {
		t.Errorf("init still has the terminal: %v", err)
	}
}

// What goes wrong beside the main command does it no harm.
func TestBesideFails(t *testing.T) {
	s, i := sleeping(t)
	var step *StepError
	if _, _, err := beside(t, i, s, "no-such-program"); !errors.As(err, &step) || !step.NotFound() {
		t.Errorf("%v", err)
	}
	s.Command = []string{"true"}
	besideStepsFail(t, i, s)
	s.Command, s.Agent, s.Stdin = []string{testAgent}, true, true
	besideStepsFail(t, i, s)
	s.Agent, s.Stdin = false, false
	if _, e, err := beside(t, i, s, "sh", "-c", "exit 77"); err != nil || !e.Forked {
		t.Fatal(err)
	}
	for children(t, i.Pid) > 1 { // also those whose plans went wrong once they were forked
		i.next(t)
	}
	for range maxBeside {
		if _, e, err := beside(t, i, s, "sleep", "1000"); !e.Forked {
			t.Fatal(err)
		}
	}
	if _, _, err := beside(t, i, s, "true"); err != ErrBesides {
		t.Error(err)
	}
	if _, err := i.Exit(); err != ErrRunning {
		t.Errorf("the main command: %v", err)
	}
}

// A command can be ended as soon as it is forked, before it has a session, and so a process group.
func TestBesideEndsBeforeItsSession(t *testing.T) {
	s, i := sleeping(t)
	s.Command = []string{"true"}
	plan, v := besidePlanOf(t, s)
	session := slices.IndexFunc(v.steps, func(s step) bool { return s.nr == unix.SYS_SETSID })
	replaceStep(plan.parts[0], session, unix.SYS_PPOLL, 0) // of nothing, for ever
	token++
	b, err := i.RunBeside(plan, s, token)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	e := i.next(t)
	if !e.Forked || e.Token != token {
		t.Fatalf("%+v", e)
	}
	if err := i.SignalBeside(e.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if end := i.next(t); end.Pid != e.Pid || end.Status.Signal() != syscall.SIGKILL {
		t.Errorf("%+v", end)
	}
	// The main command is in no group of the one that is gone.
	if err := i.SignalBeside(e.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if out, _, err := beside(t, i, s, "echo", "still"); err != nil || all(t, out.Stdout) != "still\n" {
		t.Error(err)
	}
}

// children is how many children a process has.
func children(t *testing.T, pid int) (n int) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // proc_pid_task(5)
	if err != nil || len(lists) == 0 {
		t.Fatalf("%q, %v", lists, err)
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		n += len(strings.Fields(string(text)))
	}
	return n
}

// besidePlanOf is the plan of s beside the main command, and what is in it.
func besidePlanOf(t *testing.T, s Spec) (*Plan, *view) {
	t.Helper()
	plan, err := NewBesidePlan(s)
	if err != nil {
		t.Fatal(err)
	}
	v, err := decode(plan.parts[0])
	if err != nil {
		t.Fatal(err)
	}
	return plan, v
}

// besideStepsFail makes each step of a command's plan fail.
func besideStepsFail(t *testing.T, i *news, s Spec) {
	t.Helper()
	var step *StepError
	plan, v := besidePlanOf(t, s)
	for index := range v.steps {
		name := v.string(uint64(v.steps[index].name))
		if name == "drop capabilities" && index%16 != 0 || v.steps[index].nr == opFail || laterTry(v, index) {
			continue
		}
		broken := &Plan{parts: [][]byte{slices.Clone(plan.parts[0])}}
		breakStep(broken.parts[0], index, syscall.EUCLEAN)
		b, e, err := send(t, i, s, broken)
		if v.steps[index].nr == opSupervise && err == nil { // it runs by then
			for e = i.next(t); e.Token != token; e = i.next(t) {
			}
			err = e.Err(broken)
		}
		if !errors.As(err, &step) || step.Step != index || step.Errno != syscall.EUCLEAN || step.Name != name {
			t.Errorf("step %d, %s: %v", index, name, err)
		}
		b.Close()
	}
}

// testAgent is argv[0] of this test's own program as an agent.
const testAgent = "test-agent"

// This program runs in the sandbox, whatever is there, and nobody can write to it.
func TestAgent(t *testing.T) {
	s, i := sleeping(t)
	had := descriptors(t, i.Pid)
	s.Agent, s.Stdin, s.Env = true, true, []string{"ONLY=this"}
	b, e, err := beside(t, i, s, testAgent, "argument")
	if err != nil {
		t.Fatal(err)
	}
	if got := all(t, b.Stdout); got != "[argument] [ONLY=this]\n" {
		t.Errorf("got %q, %q", got, all(t, b.Stderr))
	}
	if end := i.next(t); end.Pid != e.Pid || end.Status.ExitStatus() != 7 {
		t.Errorf("%+v", end)
	}
	if has := descriptors(t, i.Pid); !slices.Equal(has, had) {
		t.Errorf("init had %v and has %v", had, has)
	}
	exe, err := sealedExe()
	if err != nil {
		t.Fatal(err)
	}
	if f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), os.O_RDWR, 0); err == nil {
		if _, err := f.Write([]byte("x")); !errors.Is(err, syscall.EPERM) {
			t.Errorf("what agents execute can be written to: %v", err)
		}
		_ = f.Close()
	}
}

// When the main command has ended, what comes after it is carried out and nothing else, also for a next server; how
// it ended stays known.
func TestRunAfter(t *testing.T) {
	needRoot(t)
	s := spec(t, "sh", "-c", "echo main >/tmp/file; sleep 1000 & exit 9")
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	ended := func() {
		t.Helper()
		exit, err := i.Exit()
		for ; err == ErrRunning; exit, err = i.Exit() {
			readable(t, i.FD())
		}
		if err != nil || exit.Status.ExitStatus() != 9 {
			t.Fatalf("got %v, %v", exit, err)
		}
	}
	ended()
	s.Command = []string{"sh", "-c", "cat /tmp/file; kill -0 -1 2>/dev/null || echo alone"}
	plan, err := NewBesidePlan(s)
	if err != nil {
		t.Fatal(err)
	}
	late, err := i.RunBeside(plan, s, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(late.Close)
	if out := all(t, late.Stdout); out != "" {
		t.Errorf("a command beside one that has ended wrote %q", out)
	}
	for range 3 {
		b, err := i.RunAfter(plan, s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		if err := b.Executed(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		if out := all(t, b.Stdout); out != "main\nalone\n" {
			t.Errorf("got %q, %q", out, all(t, b.Stderr))
		}
		ended()
	}
}

// This program is a main command, too, from a file behind all others that come with a plan, of which init keeps
// none.
func TestAgentAsTheCommand(t *testing.T) {
	needRoot(t)
	var had []string
	for _, agent := range []bool{false, true} {
		s := spec(t, "sleep", "1000")
		s.Stdin, s.Secrets, s.SeccompListener = true, []Secret{{"token", 4}}, true
		s.Seccomp = seccomp.LogFilter()
		if s.Agent = agent; agent {
			s.Command = []string{testAgent, "argument"}
		}
		i, err := startWith(t, s, input(t, ""))
		if err != nil {
			t.Fatal(err)
		}
		has := descriptors(t, i.Pid)
		for n := range has {
			has[n], _, _ = strings.Cut(has[n], "/00") // a temporary directory of its own
		}
		if agent && !slices.Equal(has, had) {
			t.Errorf("init has %v, with another command %v", has, had)
		}
		if had = has; !agent {
			continue
		}
		exit, out := finish(t, i)
		if exit.Status.ExitStatus() != 7 || out != fmt.Sprintf("[argument] %v\n", s.Env) {
			t.Errorf("got %v, %q", exit.Status, out)
		}
	}
}
