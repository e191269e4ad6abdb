package initproc

import (
	"errors"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file is the server's side of a filter with a listener (Spec.SeccompListener): system calls of
// the job for which the filter says SECCOMP_RET_USER_NOTIF wait until somebody answers.
//
//	command                     kernel                      server
//	  | mount(…) ---------------> | (the command waits)        |
//	  |                           | --- readable ------------> | Next: id, number, arguments
//	  | <------------ -EPERM -----| <---- id, EPERM ---------- | Refuse
//
// Init keeps the listener, too, and so nothing is lost when a server goes: the command waits for the
// next one. It is gone with init; the command and what comes from it never had it, as it is
// close-on-exec. Refusing is all that is done here: to let a call through after looking at its
// arguments would be a race that the job wins (seccomp_unotify(2)).

// A Notification is a system call of a job that waits for an answer, struct seccomp_notif. What it
// tells was copied before the call began to wait, and cannot be changed by the job.
type Notification struct {
	id     uint64
	pid    uint32
	flags  uint32
	Number int32
	Arch   uint32 // AUDIT_ARCH_*
	_      uint64 // where in the program
	Args   [6]uint64
}

// A response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// ErrNoCall is returned by Next when no call waits.
var ErrNoCall = errors.New("no system call waits for an answer")

// A Listener receives notifications. One goroutine at a time uses it.
type Listener struct{ fd int }

// Listen returns the listener of a job whose Spec had SeccompListener and whose command runs: after
// Run, or Await for an adopted one. The caller closes it.
func (i *Init) Listen() (*Listener, error) {
	fd, err := i.takeOne(fdListener, "listener")
	if err != nil {
		return nil, err
	}
	return &Listener{fd}, nil
}

// FD is readable when Next has a call. Who has it in an epoll set takes it out before Close: init has the
// same open file.
func (l *Listener) FD() int { return l.fd }

// Next takes a notification. It returns ErrNoCall when there is none for now, and io.EOF when no process
// is left that could make one. The kernel's call would wait for one; with one reader, what poll has seen is
// still there, or its process has been killed, which is ENOENT.
func (l *Listener) Next() (n Notification, err error) {
	for {
		fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return n, os.NewSyscallError("poll", err)
		case fds[0].Revents&unix.POLLIN != 0:
		case fds[0].Revents&unix.POLLHUP != 0:
			return n, io.EOF
		default:
			return n, ErrNoCall
		}
		n = Notification{} // the kernel takes none but an empty one
		switch err := ioctl(l.fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err {
		case 0:
			return n, nil
		case unix.ENOENT, unix.EINTR:
		default:
			return n, os.NewSyscallError("receive a seccomp notification", err)
		}
	}
}

// Refuse makes a call that waits return an error, and tells whether it did: its process may have been
// killed, or interrupted by a signal, after which it asks again. A signal at the very moment of the
// answer makes it ask again all the same; to wait without that (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
// would leave a call that a killed server had taken without an answer for ever.
func (l *Listener) Refuse(n Notification, errno syscall.Errno) (bool, error) {
	r := response{id: n.id, errno: -int32(errno)}
	result := syscall.Errno(unix.EINTR)
	for result == unix.EINTR {
		result = ioctl(l.fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
	}
	switch {
	case result == unix.ENOENT || result == unix.EINPROGRESS:
		return false, nil
	case result != 0:
		return false, os.NewSyscallError("answer a seccomp notification", result)
	}
	return true, nil
}

func ioctl(fd int, request uintptr, p unsafe.Pointer) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(p))
	runtime.KeepAlive(p)
	return errno
}

// Close lets go of the listener. Init has it still.
func (l *Listener) Close() { _ = unix.Close(l.fd) } // nothing was written that could be lost
