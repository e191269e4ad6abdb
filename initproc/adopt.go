package initproc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// An ID names one process for ever: pids come again, and start times after a reboot.
type ID struct {
	Pid       int
	StartTime uint64 // in clock ticks since boot, proc_pid_stat(5), field 22
	BootID    string
}

// BootID is /proc/sys/kernel/random/boot_id: another one after each boot, random(4).
var BootID = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
})

// ID returns init's.
func (i *Init) ID() (ID, error) {
	id := ID{Pid: i.Pid}
	var err error
	if id.BootID, err = BootID(); err != nil {
		return id, err
	}
	id.StartTime, err = startTime(i.Pid)
	return id, err
}

func startTime(pid int) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses, which may hold anything.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("%s has %d fields", path, len(fields)+2)
	}
	return strconv.ParseUint(string(fields[22-3]), 10, 64)
}

// Adopt takes over the init that an earlier server started, with what it has said and the job has
// written meanwhile: init kept both ends of everything. ErrInitGone: there is no such process any
// more. The caller goes on with Await or Exit, and ends with Close or Detach.
//
// It takes CAP_SYS_PTRACE over init, for pidfd_getfd(2): root has it, and so has who made the user
// namespace.
func Adopt(id ID) (*Init, error) {
	i := &Init{Pid: id.Pid, Stdout: -1, Stderr: -1, adopted: &id}
	pidFD, err := i.open()
	if err != nil {
		return nil, err
	}
	defer unix.Close(pidFD)
	control, err := i.getfd(pidFD, fdServerControl, "control")
	if err == nil {
		i.control = os.NewFile(uintptr(control), "control") // non-blocking, as it was made; so are the pipes
		i.Stdout, err = i.getfd(pidFD, fdStdoutRead, "stdout")
	}
	if err == nil {
		i.Stderr, err = i.getfd(pidFD, fdStderrRead, "stderr")
	}
	if err != nil {
		i.Detach()
		return nil, err
	}
	return i, nil
}

// getfd takes one of init's descriptors, by its number there. It returns -1 with an error, and ErrInitGone
// when init has ended.
func (i *Init) getfd(pidFD, number int, name string) (int, error) {
	fd, err := unix.PidfdGetfd(pidFD, number, 0)
	if err == unix.ESRCH {
		return -1, ErrInitGone
	}
	if err != nil {
		return -1, fmt.Errorf("take descriptor %d (%s) of the sandbox's init, pid %d: %w", number, name, i.Pid,
			os.NewSyscallError("pidfd_getfd", err))
	}
	return fd, nil
}

// takeOne is getfd for one alone.
func (i *Init) takeOne(number int, name string) (int, error) {
	pidFD, err := i.open()
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidFD)
	return i.getfd(pidFD, number, name)
}

// Upper opens the upper layer of an overlay: all that the job has changed in its root. What is below
// the descriptor is the job's, who may change it at any time.
func (i *Init) Upper() (*os.File, error) {
	fd, err := i.takeOne(fdUpper, "upper layer")
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "upper"), nil
}

// open returns a pidfd of init, which the caller closes; ErrInitGone when init has ended. None is kept: with
// thousands of jobs it would be a quarter of what a server has open, and the socket tells init's end as well.
func (i *Init) open() (int, error) {
	if i.adopted != nil {
		return find(*i.adopted)
	}
	fd, err := unix.PidfdOpen(i.Pid, 0) // not reaped yet: it is the one
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	return fd, nil
}

// find opens the process, and makes sure that it is the one.
func find(id ID) (int, error) {
	boot, err := BootID()
	if err != nil {
		return -1, err
	}
	if boot != id.BootID || id.Pid <= 0 {
		return -1, ErrInitGone
	}
	fd, err := unix.PidfdOpen(id.Pid, 0)
	if err == unix.ESRCH || err == unix.EINVAL { // EINVAL: the pid is a thread's now
		return -1, ErrInitGone
	}
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	// From here on the pid cannot come again unseen: if it is the right process now, it was when the
	// pidfd was made, or else the pidfd's process is gone, which every use of it tells.
	start, err := startTime(id.Pid)
	if err != nil || start != id.StartTime || ended(fd) {
		_ = unix.Close(fd)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return -1, err
		}
		return -1, ErrInitGone
	}
	return fd, nil
}

// ended tells whether the process has ended, which it has also when nobody has reaped it.
func ended(pidFD int) bool {
	fds := []unix.PollFd{{Fd: int32(pidFD), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}

// Ended tells whether init has ended, which it has also when nobody has reaped it.
func (i *Init) Ended() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return true // the number may be another's by now
	}
	if i.adopted != nil {
		return Gone(*i.adopted)
	}
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, i.Pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err == nil && info.Signo != 0
		}
	}
}

// Gone tells whether the init called id has ended; what cannot be told is taken for alive.
func Gone(id ID) bool {
	fd, err := find(id)
	if err == nil {
		_ = unix.Close(fd) // it was looked at
	}
	return errors.Is(err, ErrInitGone)
}
