package job

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A poller waits for the descriptors of all jobs in one epoll set, so that a job that is silent costs no
// goroutine. The set itself is in that of Go's runtime: one goroutine waits for it, which takes no thread.
type poller struct {
	set   int      // until close, before which everything is removed
	file  *os.File // the same, for the runtime
	ended chan struct{}

	mu      sync.Mutex
	watched map[int]*watched // by descriptor
}

// A watched is a descriptor in a poller's set.
type watched struct {
	fd    int
	ready func() (again bool) // nil before it is added

	mu      sync.Mutex // held while ready runs
	removed bool
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	_ = unix.SetNonblock(fd, true) // os.NewFile asks for that, to have the runtime wait
	p := &poller{set: fd, file: os.NewFile(uintptr(fd), "epoll"), ended: make(chan struct{}), watched: map[int]*watched{}}
	conn, err := p.file.SyscallConn()
	if err == nil {
		err = p.file.SetReadDeadline(time.Time{}) // fails if the runtime cannot wait for it
	}
	if err != nil {
		_ = p.file.Close() // nothing is in it
		return nil, err
	}
	go p.wait(conn)
	return p, nil
}

// close ends the poller, from which everything was removed before.
func (p *poller) close() {
	_ = p.file.Close() // ends wait
	<-p.ended
}

// add has ready called when fd can be read or has no other end any more, and again after that as long as it
// returns true: each time in a goroutine of its own, never twice at a time. It may be called for nothing.
func (p *poller) add(w *watched, fd int, ready func() (again bool)) error {
	w.fd, w.ready = fd, ready
	p.mu.Lock()
	p.watched[fd] = w
	p.mu.Unlock()
	if err := p.control(unix.EPOLL_CTL_ADD, w); err != nil {
		p.forget(w)
		return fmt.Errorf("wait for what a job does: %w", err)
	}
	return nil
}

// remove takes w out, before its descriptor is closed: that would not take it out, for the job's init has the
// same open file (epoll(7), questions and answers, 6). It returns when ready does not run, and then it never
// will; so it is not for ready itself to call. What was never added needs no removal.
func (p *poller) remove(w *watched) {
	if w.ready == nil {
		return
	}
	p.forget(w)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed = true
	_ = p.control(unix.EPOLL_CTL_DEL, w) // it is there, if it could be added
}

func (p *poller) forget(w *watched) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.watched, w.fd)
}

// control changes the set. What comes is told once, EPOLLONESHOT, until w is armed again: what is being read
// already shall not wake anybody.
func (p *poller) control(op int, w *watched) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(w.fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.set, op, w.fd, &e))
}

// wait hands out what comes, until the poller is closed.
func (p *poller) wait(conn syscall.RawConn) {
	defer close(p.ended)
	events := make([]unix.EpollEvent, 128)
	_ = conn.Read(func(set uintptr) bool {
		for n := len(events); n == len(events); {
			n, _ = unix.EpollWait(int(set), events, 0) // does not wait, so that nothing interrupts it
			p.hand(events[:max(n, 0)])
		}
		return false // there may be more: the runtime waits for that and calls again
	}) // the error is that it was closed
}

// hand calls those for whom events are. The last goroutine that is begun is the first to run, so the first
// event comes last: what a job wrote before it ended is read before its end.
func (p *poller) hand(events []unix.EpollEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(events) - 1; i >= 0; i-- {
		// It may have been removed meanwhile, or be another that has the number now, for which ready finds nothing.
		if w := p.watched[int(events[i].Fd)]; w != nil {
			go p.call(w)
		}
	}
}

func (p *poller) call(w *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.removed && w.ready() {
		_ = p.control(unix.EPOLL_CTL_MOD, w) // it is there
	}
}
