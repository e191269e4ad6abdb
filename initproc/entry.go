package initproc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// This process is an init, on its way to pid 1's work, in its namespaces and with the descriptors of
// fds.go. There are two ways in, and both run the same code, that of interp.go.
//
// A program linked with
//
//	go build -ldflags '-E _tele_entry'
//
// is entered by the kernel in entry_*.s, which looks at argv[0] before there is a Go runtime: an init
// goes on to beInit and never has one. That saves each start more than a millisecond and each job
// more than a megabyte. Called by any other name, the program goes on to where Go starts.
//
// Without the flag (go test, -race, a plain go build) an init gets as far as the initialisation of
// this package, in hook.go.

// beInit is the init: called by the entry with a machine of zeros, it never returns.
//
//lint:ignore U1000 the assembler calls it
//go:norace
//go:nosplit
func beInit(m *machine) {
	m.begin()
	for {
		m.run()
		n := m.beforeWait()
		sys(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&m.fds)), n, 0, uintptr(unsafe.Pointer(&m.asleep)), 8, 0)
		m.afterWait()
	}
}

// entryAddress is where the entry is in this program's memory.
func entryAddress() uintptr

// EarlyEntry tells whether inits of this program start before the Go runtime: whether the kernel
// entered this process, and so any other that executes the same file, where beInit is called.
func EarlyEntry() bool {
	auxv, err := unix.Auxv()
	if err != nil {
		return false
	}
	for _, entry := range auxv {
		if entry[0] == atEntry {
			return entry[1] == entryAddress()
		}
	}
	return false
}

const atEntry = 9 // AT_ENTRY of getauxval(3)
