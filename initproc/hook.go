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

// This is the way into an init where the kernel did not enter in entry_*.s: see entry.go. Go
// initialises packages in the order of their import paths once their imports are ready, and this one
// needs little: an init gets here before grpc, protobuf and kong have set themselves up, and stays
// here. There is no other way to be that early in Go, so this is the one package-level call.
var _ = becomeInit()

func becomeInit() struct{} {
	if len(os.Args) == 0 || os.Args[0] != InitName {
		return struct{}{}
	}
	// The initialisation of packages runs on the main thread and keeps it. A garbage collection
	// would find nothing to collect.
	debug.SetGCPercent(-1)
	var m machine
	m.begin()
	for {
		m.run()
		n := m.beforeWait()
		// The one place that goes through the runtime, which therefore knows that this thread sleeps:
		// else it would look after it a hundred times a second.
		_, _, _ = syscall.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&m.fds)), n, 0,
			uintptr(unsafe.Pointer(&m.asleep)), 8, 0)
		m.afterWait()
	}
}
