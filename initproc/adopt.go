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
// more. The caller goes on with Await or Wait, and ends with Close or Detach.
//
// It takes CAP_SYS_PTRACE over init, for pidfd_getfd(2): root has it, and so has who made the user
// namespace.
func Adopt(id ID) (*Init, error) {
	i := &Init{Pid: id.Pid}
	if err := i.find(id); err != nil {
		return nil, err
	}
	for _, end := range []struct {
		file   **os.File
		number int
		name   string
	}{
		{&i.Control, fdServerControl, "control"},
		{&i.Stdout, fdStdoutRead, "output"},
		{&i.Stderr, fdStderrRead, "output"},
	} {
		fd, err := unix.PidfdGetfd(i.PidFD, end.number, 0)
		if err != nil {
			i.Detach()
			if err == unix.ESRCH {
				return nil, ErrInitGone
			}
			return nil, fmt.Errorf("take descriptor %d (%s) of the sandbox's init, pid %d: %w", end.number,
				end.name, id.Pid, os.NewSyscallError("pidfd_getfd", err))
		}
		*end.file = os.NewFile(uintptr(fd), end.name) // non-blocking, as it was made
	}
	return i, nil
}

// Upper opens the upper layer of an overlay: all that the job has changed in its root. What is below
// the descriptor is the job's, who may change it at any time.
func (i *Init) Upper() (*os.File, error) {
	fd, err := unix.PidfdGetfd(i.PidFD, fdUpper, 0)
	if err != nil {
		return nil, fmt.Errorf("take the upper layer of the sandbox's init, pid %d: %w", i.Pid, os.NewSyscallError("pidfd_getfd", err))
	}
	return os.NewFile(uintptr(fd), "upper"), nil
}

// find opens the process, and makes sure that it is the one.
func (i *Init) find(id ID) error {
	i.PidFD = -1
	boot, err := BootID()
	if err != nil {
		return err
	}
	if boot != id.BootID || id.Pid <= 0 {
		return ErrInitGone
	}
	fd, err := unix.PidfdOpen(id.Pid, 0)
	if err == unix.ESRCH || err == unix.EINVAL { // EINVAL: the pid is a thread's now
		return ErrInitGone
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	i.PidFD = fd
	// From here on the pid cannot come again unseen: if it is the right process now, it was when the
	// pidfd was made, or else the pidfd's process is gone, which every use of it tells.
	start, err := startTime(id.Pid)
	if err != nil || start != id.StartTime || i.Ended() {
		_ = unix.Close(fd)
		i.PidFD = -1
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return err
		}
		return ErrInitGone
	}
	return nil
}

// Ended tells whether init has ended, which it has also when nobody has reaped it.
func (i *Init) Ended() bool {
	fds := []unix.PollFd{{Fd: int32(i.PidFD), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}

// Gone tells whether the init called id has ended; what cannot be told is taken for alive.
func Gone(id ID) bool {
	var i Init
	if errors.Is(i.find(id), ErrInitGone) {
		return true
	}
	i.closeFiles()
	return false
}
