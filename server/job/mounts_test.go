package job

import (
	"runtime"
	"testing"

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
