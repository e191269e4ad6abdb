package job

import (
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Many pipes that are written to at the same time are all read, each by one at a time, until they are
// removed; after that nobody is called any more.
func TestPoller(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	const pipes, bytes = 300, 50
	type pipe struct {
		watched
		read, write int
		busy        atomic.Bool
		got         int
	}
	var all [pipes]pipe
	var unread sync.WaitGroup
	unread.Add(pipes)
	for i := range all {
		c := &all[i]
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		c.read, c.write = fds[0], fds[1]
		err := p.add(&c.watched, c.read, func() bool {
			if !c.busy.CompareAndSwap(false, true) {
				t.Error("called twice at a time")
			}
			defer c.busy.Store(false)
			n, err := unix.Read(c.read, make([]byte, bytes))
			if err != nil && err != unix.EAGAIN {
				t.Error(err)
			}
			if n > 0 {
				if c.got += n; c.got == bytes {
					unread.Done()
				}
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range bytes / 4 {
				for i := range all {
					_, _ = unix.Write(all[i].write, []byte{1}) // unread says when one failed
				}
			}
		})
	}
	writers.Wait()
	for i := range all {
		_, _ = unix.Write(all[i].write, make([]byte, bytes%4)) // the same
	}
	unread.Wait()
	for i := range all {
		c := &all[i]
		p.remove(&c.watched)
		c.busy.Store(true) // the next call would fail
		_, _ = unix.Write(c.write, []byte{1})
	}
	// One more whose turn comes after all of theirs would have.
	var last watched
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{})
	if err := p.add(&last, fds[0], func() bool { close(told); return false }); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fds[1]) // that there is no other end any more is told as well
	<-told
	p.remove(&last)
	_ = unix.Close(fds[0])
	for i := range all {
		_ = unix.Close(all[i].read)
		_ = unix.Close(all[i].write)
	}
	if n := len(p.watched); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// Remove returns only when nobody is at the descriptor any more.
func TestPollerRemoveWaits(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	var w watched
	began, goOn := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(began) }) // it is called again until it is removed
	var running atomic.Bool
	err = p.add(&w, fds[0], func() bool {
		running.Store(true)
		begin()
		<-goOn
		running.Store(false)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = unix.Write(fds[1], []byte{1}) // began says when it failed
	<-began
	removed := make(chan struct{})
	go func() {
		p.remove(&w)
		if running.Load() {
			t.Error("removed while it runs")
		}
		close(removed)
	}()
	close(goOn)
	<-removed
}

// A descriptor that cannot be waited for is an error, and leaves nothing.
func TestPollerRefuses(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	var w watched
	if err := p.add(&w, 1<<20, func() bool { return false }); err == nil {
		t.Error("no error")
	}
	p.remove(&w)
	if n := len(p.watched); n != 0 {
		t.Errorf("%d are left", n)
	}
}
