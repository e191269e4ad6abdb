package server

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// needed are the capabilities that the server uses, capabilities(7). docs/tele.service has the same,
// and what fails without each.
var needed = []uint{
	unix.CAP_SYS_ADMIN,        // namespaces and mounts, in init; cgroup programs
	unix.CAP_NET_ADMIN,        // loopback of a new network namespace, in init
	unix.CAP_NET_BIND_SERVICE, // a port below 1024
	unix.CAP_SETUID,           // the job's user, in init
	unix.CAP_SETGID,
	unix.CAP_SETPCAP,      // the bounding set of a job, in init
	unix.CAP_SYS_RESOURCE, // the OOM score of init
	unix.CAP_KILL,         // processes of other users
	unix.CAP_SYS_PTRACE,   // pidfd_getfd(2): jobs that are taken over
	unix.CAP_CHOWN,        // work directories
	unix.CAP_FOWNER,       // what jobs left in them
	unix.CAP_DAC_OVERRIDE,
	unix.CAP_SYS_CHROOT, // setns(2) into the mounts that sandboxes begin with
	unix.CAP_SETFCAP,    // an overlay copies files with all they have, capabilities too
}

// dropCapabilities gives up all of root's capabilities that are not needed, for this process and all
// that it starts, for good. Without root there are none.
func dropCapabilities() error {
	if os.Geteuid() != 0 {
		return nil
	}
	var header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	var keep [2]uint32
	for _, c := range needed {
		keep[c/32] |= 1 << (c % 32)
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if keep[c/32]&(1<<(c%32)) != 0 {
			continue
		}
		// EINVAL: an older kernel does not know it. EPERM: who started this server kept CAP_SETPCAP.
		_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0, 0)
		switch {
		case errno == syscall.ENOTSUP:
			return errors.New("this is a build with cgo, in which a thread cannot speak for all")
		case errno != 0 && errno != unix.EINVAL:
			return fmt.Errorf("drop capability %d: %w", c, os.NewSyscallError("prctl", errno))
		}
	}
	for i := range have {
		have[i].Permitted &= keep[i]
		have[i].Effective &= keep[i]
		have[i].Inheritable = 0
	}
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)),
		uintptr(unsafe.Pointer(&have)), 0, 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("capset", errno)
	}
	return nil
}
