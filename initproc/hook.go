package initproc

import (
	"os"
	"runtime/debug"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// InitName is argv[0] of an init. The program that Start runs is the server's own; being called by
// this name makes it an init.
const InitName = "tele-init"

// Go initialises packages in the order of their import paths once their imports are ready, and
// this one needs little: an init gets here before grpc, protobuf and kong have set themselves up,
// and stays here. There is no other way to be that early, so this is the one package-level call.
var _ = becomeInit()

func becomeInit() struct{} {
	if len(os.Args) == 0 || os.Args[0] != InitName {
		return struct{}{}
	}
	if kind, err := unix.GetsockoptInt(fdControl, unix.SOL_SOCKET, unix.SO_TYPE); err != nil ||
		kind != unix.SOCK_SEQPACKET {
		os.Stderr.WriteString(InitName + ": this is the inner part of tele's sandbox and is started by " +
			"the server alone; to run a command use: tele run -- COMMAND\n")
		os.Exit(exitTele)
	}
	// The initialisation of packages runs on the main thread and keeps it. A garbage collection
	// would find nothing to collect.
	debug.SetGCPercent(-1)
	takeSignals()
	var m machine
	for {
		m.run()
		waitForWork(m.state < stateRunning)
	}
}

// waitForWork sleeps until the server sends something or a child ends; with mortal it does not come
// back when the server has ended. It is the one place in init that goes through the runtime, which
// therefore knows that this thread sleeps.
func waitForWork(mortal bool) {
	fds := [3]unix.PollFd{{Fd: fdControl, Events: unix.POLLIN}, {Fd: fdChild, Events: unix.POLLIN},
		{Fd: fdServer, Events: unix.POLLIN}}
	n := 2
	if mortal {
		n = 3
	}
	_, _, _ = syscall.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), uintptr(n), 0, 0, 0, 0)
	if fds[2].Revents != 0 && fds[0].Revents == 0 {
		exit(exitTele)
	}
}

// A sigaction is what rt_sigaction(2) takes.
type sigaction struct {
	handler, flags, restorer, mask uintptr
}

const (
	saRestorer = 0x04000000
	// On the alternate stack, which Go gives to each of its threads: any of them may be chosen.
	childFlags = saRestorer | 0x08000000 | 0x10000000 | 1
)

// takeSignals replaces the Go runtime's handlers: SIGCHLD, on whichever thread it arrives, counts
// up fdChild, and every other signal has its default again, which for PID 1 means that a signal
// from inside the sandbox does nothing (pid_namespaces(7)). This thread blocks them all, so that
// its system calls are not interrupted, nor the runtime's preemption lands in them.
func takeSignals() {
	all := ^uint64(0)
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
