package initproc

import "unsafe"

// sys makes a system call without telling the Go runtime: no scheduling, no allocation, no errno
// variable. What it returns is the kernel's own answer, -errno for an error. It is all that the
// interpreter calls, so that the interpreter also works where no Go runtime lives: in a child
// after a plain clone(2).
//
//go:noescape
func sys(nr, a1, a2, a3, a4, a5, a6 uintptr) uintptr

// onChild returns the address of a signal handler that adds one to the eventfd fdChild and does
// nothing else; restorer the one of the code that ends a handler (sigreturn(2)).
func onChild() uintptr
func restorer() uintptr

// failed tells whether r is an error, and errno which one.
//
//go:norace
//go:nosplit
func failed(r uintptr) bool { return r > ^uintptr(4095) }

//go:norace
//go:nosplit
func errno(r uintptr) int32 { return int32(-r) }

// at is the memory at an address that did not come from Go: the plan's, which is mapped by mmap(2)
// and never moves.
//
//go:norace
//go:nosplit
func at(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }
