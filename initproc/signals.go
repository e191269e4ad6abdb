package initproc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A sigaction is what rt_sigaction(2) takes.
type sigaction struct {
	handler, flags, restorer, mask uintptr
}

const (
	saRestorer = 0x04000000
	// On the alternate stack, which Go gives to each of its threads: any of them may be chosen.
	// Without a Go runtime there is none, and this means nothing.
	childFlags = saRestorer | 0x08000000 | 0x10000000 | 1

	onlyChild = 1 << (uint64(unix.SIGCHLD) - 1)
)

// takeSignals leaves SIGCHLD a handler, which counts up fdChild, and every other signal its default,
// which for PID 1 means that a signal from inside the sandbox does nothing (pid_namespaces(7)).
// Whatever handlers a Go runtime had are replaced. This thread blocks SIGCHLD, so that its system
// calls are not interrupted; it comes while it waits (beforeWait), or on another thread of a runtime.
// It must not block the others: the kernel drops those that would end PID 1 before they are queued,
// but not while this thread blocks them, and then another thread's default is the end of all (Linux
// 6.1, complete_signal).
//
//go:norace
//go:nosplit
func takeSignals() {
	// All of them until none is the runtime's any more.
	mask := ^uint64(0)
	sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
	byDefault := sigaction{}
	onChild := sigaction{handler: onChild(), flags: childFlags, restorer: restorer()}
	for signal := uintptr(1); signal <= 64; signal++ {
		action := &byDefault
		if signal == uintptr(unix.SIGCHLD) {
			action = &onChild
		}
		sys(unix.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(action)), 0, 8, 0, 0)
	}
	mask = onlyChild
	sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
}
