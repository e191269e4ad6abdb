package initproc

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var triedHere = []probed{
	{"modify_ldt", unix.SYS_MODIFY_LDT, [3]uintptr{}, unix.EPERM},
	{"iopl", unix.SYS_IOPL, [3]uintptr{}, unix.EPERM},
	{"ioperm", unix.SYS_IOPERM, [3]uintptr{}, unix.EPERM},
	{"uselib", unix.SYS_USELIB, [3]uintptr{}, unix.EPERM},
	{"kexec_file_load", unix.SYS_KEXEC_FILE_LOAD, [3]uintptr{bad}, unix.EPERM},
}

// entryPoints are calls by the ways in that no job needs. 32-bit number 20 is getpid, x32's is 39.
var entryPoints = []probed{
	{name: "32-bit system call 20", nr: 20},
	{name: "32-bit system call 21", nr: 21}, // mount
	{name: "x32 system call 39", nr: 39},
	{name: "x32 system call 165", nr: 165}, // mount
}

func probeEntryPoints() {
	for n, p := range entryPoints {
		var errno syscall.Errno
		if n < 2 {
			errno = syscall.Errno(-int32(int80(p.nr)))
		} else {
			_, _, errno = syscall.RawSyscall(1<<30|p.nr, 0, 0, 0)
		}
		fmt.Println(p.name, unix.ErrnoName(errno))
	}
}

// int80 makes a 32-bit system call without arguments. There is no assembler for tests alone, so its
// two instructions, int 0x80 and ret, are written here: Go passes the first argument, and the
// result, in the register in which the kernel expects them.
func int80(nr uintptr) uintptr {
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(err)
	}
	copy(page, "\xcd\x80\xc3")
	code := &page[0]
	closure := unsafe.Pointer(&code)
	call := *(*func(uintptr) uintptr)(unsafe.Pointer(&closure))
	return call(nr)
}
