package initproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// handOver is what a server that ends and the next one do.
func handOver(t *testing.T, i *Init) *Init {
	t.Helper()
	id, err := i.ID()
	if err != nil {
		t.Fatal(err)
	}
	i.Detach()
	next, err := Adopt(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Close)
	return next
}

// A job goes through many hands while it writes, and after it has ended: every byte is there once,
// and so is its end.
func TestAdopt(t *testing.T) {
	needRoot(t)
	i, err := start(t, spec(t, "sh", "-c", "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo $i; done; exit 9"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for range 50 {
		out.WriteString(output(t, i.Stdout))
		i = handOver(t, i)
		if err := i.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	exit, err := wait(t, i)
	if err != nil || exit.Status.ExitStatus() != 9 {
		t.Errorf("status %#x, %v", exit.Status, err)
	}
	i = handOver(t, i) // the end was seen, and nobody wrote it down
	if exit, err = wait(t, i); err != nil || exit.Status.ExitStatus() != 9 {
		t.Errorf("the second time: status %#x, %v", exit.Status, err)
	}
	out.WriteString(output(t, i.Stdout))
	var want strings.Builder
	for n := range 5000 {
		fmt.Fprintln(&want, n+1)
	}
	if out.String() != want.String() {
		t.Errorf("%d bytes of output, want %d", out.Len(), want.Len())
	}
	id, err := i.ID()
	if err != nil {
		t.Fatal(err)
	}
	i.Close()
	if _, err := Adopt(id); !errors.Is(err, ErrInitGone) || !Gone(id) {
		t.Errorf("after the end: %v", err)
	}
}

// A command that cannot be run is told to the server that took over meanwhile, which has no plan to
// name the step by.
func TestAdoptedStepFails(t *testing.T) {
	needRoot(t)
	plan, err := NewPlan(spec(t, "/no/such/program"))
	if err != nil {
		t.Fatal(err)
	}
	i, err := Start(plan, StartOptions{Cgroup: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.sendPart(); err != nil {
		t.Fatal(err)
	}
	if err := handOver(t, i).Await(t.Context()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v", err)
	}
}

// A signal reaches the command through an adopted init.
func TestAdoptedTakesSignals(t *testing.T) {
	needRoot(t)
	i, err := start(t, spec(t, "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	i = handOver(t, i)
	if err := i.SignalAll(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit, err := wait(t, i); err != nil || exit.Status.Signal() != unix.SIGTERM {
		t.Errorf("status %#x, %v", exit.Status, err)
	}
}

// What has another start time, or is of another boot, is another process.
func TestAdoptRefusesOthers(t *testing.T) {
	needRoot(t)
	i, err := start(t, spec(t, "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := i.ID()
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []ID{
		{id.Pid, id.StartTime + 1, id.BootID}, {id.Pid, id.StartTime, "another"}, {0, id.StartTime, id.BootID},
		{4 << 20, id.StartTime, id.BootID},
	} {
		if _, err := Adopt(other); !errors.Is(err, ErrInitGone) {
			t.Errorf("%+v: %v", other, err)
		}
	}
	if Gone(id) {
		t.Error("the one itself is gone")
	}
}

// idleServer starts an init that it gives the first part of its plan alone, says which, and waits to be killed.
func idleServer() {
	plan, err := NewPlan(Spec{Command: []string{"true"}, Anchor: os.Getenv("TELE_TEST_ANCHOR")})
	if err == nil {
		var i *Init
		if i, err = Start(plan, StartOptions{Cgroup: -1}); err == nil {
			if os.Getenv("TELE_TEST_IDLE") == "parked" {
				err = i.Prepared(context.Background())
			}
		}
		if err == nil {
			fmt.Println(i.Pid)
			_ = unix.Pause() // until it is killed
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// A server that dies before init has all of its plan leaves no init.
func TestIdleInitEndsWithItsServer(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"idle", "parked"} {
		t.Run(kind, func(t *testing.T) { endsWithItsServer(t, kind) })
	}
}

func endsWithItsServer(t *testing.T, kind string) {
	server := exec.Command("/proc/self/exe")
	server.Env = append(os.Environ(), "TELE_TEST_IDLE="+kind, "TELE_TEST_ANCHOR="+t.TempDir())
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, scanErr := fmt.Fscan(out, &pid)
	fd, openErr := unix.PidfdOpen(pid, 0)
	if err := server.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = server.Wait() // killed
	if scanErr != nil || openErr != nil {
		t.Fatal(scanErr, openErr)
	}
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 60_000); n != 1 {
		t.Errorf("init is still there: %v", err)
	}
}
