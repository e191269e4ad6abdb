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

	allSignals = ^uint64(0)
	butChild   = allSignals &^ (1 << (uint64(unix.SIGCHLD) - 1))
)

// takeSignals leaves SIGCHLD a handler, which counts up fdChild, and every other signal its default,
// which for PID 1 means that a signal from inside the sandbox does nothing (pid_namespaces(7)).
// Whatever handlers a Go runtime had are replaced. This thread blocks them all, so that its system
// calls are not interrupted, nor a runtime's preemption lands in them; SIGCHLD comes while it waits
// (beforeWait), or on another thread of a runtime.
//
//go:norace
//go:nosplit
func takeSignals() {
	all := allSignals
	sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)
	byDefault := sigaction{}
	onChild := sigaction{handler: onChild(), flags: childFlags, restorer: restorer()}
	for signal := uintptr(1); signal <= 64; signal++ {
		action := &byDefault
		if signal == uintptr(unix.SIGCHLD) {
			action = &onChild
		}
		sys(unix.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(action)), 0, 8, 0, 0)
	}
}
