package initproc

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A parent is what all inits of this process begin with.
type parent struct {
	exe   string   // a path to the program that they execute
	pidfd *os.File // refers to this process
}

// self makes this process's, once. The program is a sealed copy of this one in memory: nothing that
// a job could ever open through its init, /proc/1/exe above all, is the host's own file, and nothing
// in it can be changed (CVE-2019-5736, of which a read-only bind mount is no cure).
//
// Its descriptor must survive what syscall.ForkExec does before the exec: that puts init's
// descriptors to the low numbers (fds.go), and some of them meanwhile to those above the highest of
// what it was given. So the program's is above the one, and the pidfd, which is given, above it.
var self = sync.OnceValues(func() (p parent, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("prepare for starting inits: %w", err)
		}
	}()
	exe, err := copyBinary()
	if err != nil {
		return p, err
	}
	if exe, err = raise(exe, 1<<6); err != nil {
		return p, err
	}
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return p, os.NewSyscallError("pidfd_open", err)
	}
	if pidfd, err = raise(pidfd, exe+1); err != nil {
		return p, err
	}
	// Both stay open for as long as this process lives.
	return parent{fmt.Sprintf("/proc/self/fd/%d", exe), os.NewFile(uintptr(pidfd), "pidfd")}, nil
})

// raise moves a descriptor to a number of at least least.
func raise(fd, least int) (int, error) {
	defer unix.Close(fd)
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, least)
	return fd, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
}

func copyBinary() (fd int, err error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return -1, err
	}
	defer self.Close()
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	if fd, err = unix.MemfdCreate(InitName, flags|unix.MFD_EXEC); err == unix.EINVAL {
		fd, err = unix.MemfdCreate(InitName, flags) // before Linux 6.3
	}
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	memory := os.NewFile(uintptr(fd), InitName)
	defer func() {
		if err != nil {
			_ = memory.Close() // it is incomplete
		}
	}()
	if _, err := io.Copy(memory, self); err != nil {
		return -1, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(memory.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return -1, os.NewSyscallError("fcntl F_ADD_SEALS", err)
	}
	// Execve wants a file that nobody has open for writing: this one, which is read-only.
	fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", memory.Fd()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open", err)
	}
	return fd, memory.Close()
}
