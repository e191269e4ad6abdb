package initproc

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// sealedExe returns what inits execute: a sealed copy of this program in memory, made once.
// Nothing that a job could ever open through its init, /proc/1/exe above all, is the host's own
// file, and nothing in it can be changed (CVE-2019-5736, of which a read-only bind mount is no cure).
var sealedExe = sync.OnceValues(func() (*os.File, error) {
	fd, err := copyBinary()
	if err != nil {
		return nil, fmt.Errorf("copy this program into memory: %w", err)
	}
	return os.NewFile(uintptr(fd), InitName), nil // open for as long as the server lives
})

// exePath is where an init finds it. Its number here would not do: the path is looked up in the child
// when that has its own descriptors in place, and others on their way there.
var exePath = fmt.Sprintf("/proc/self/fd/%d", fdExe)

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
	// Who may execute a program and not read it has a process that others cannot look into, from its first
	// moment (execve(2), PR_SET_DUMPABLE): an agent, which is a job's user.
	if err := memory.Chmod(0o711); err != nil {
		return -1, err
	}
	// Execve wants a file that nobody has open for writing: this one, which is read-only.
	fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", memory.Fd()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open", err)
	}
	return fd, memory.Close()
}
