package job

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A signal that comes while the mounts are asked for, such as those by which Go's runtime preempts, is no
// news of them.
func TestSignalsAreNoMounts(t *testing.T) {
	var w mountWatch
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, first, err := w.hide(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(w.fd)
	thread, done := unix.Gettid(), make(chan struct{})
	stopped := make(chan error)
	go func() {
		var err error
		for err == nil {
			select {
			case <-done:
				stopped <- nil
				return
			default:
				err = unix.Tgkill(unix.Getpid(), thread, unix.SIGURG)
			}
		}
		stopped <- err
	}()
	seen := first
	for range 3000 {
		if _, seen, err = w.hide(nil); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if n := seen - first; n > 5 { // some may be others' mounts
		t.Errorf("the mounts have changed %d times", n)
	}
}

// A change of the mounts of which the pool was not told costs no more than the start that finds it.
func TestMissedChangeOfMounts(t *testing.T) {
	table := openWarm(t, 1)
	old := awaitWarm(t, table, 1)
	table.mounts.mu.Lock()
	table.mounts.seen++
	table.mounts.mu.Unlock()
	if job, out := run(t, table, sh("echo out")); job.Id == old[0] || out != "out\n" {
		t.Errorf("got %v, output %q", job, out)
	}
	for end := time.Now().Add(time.Minute); ; runtime.Gosched() {
		if now := table.Warm(); len(now) == 1 && now[0] != old[0] {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no sandbox is made ready any more")
		}
	}
	run(t, table, sh("true"))
	expectTimings(t, table, Timing{Cold: ColdNoneReady}, Timing{Template: true})
}
