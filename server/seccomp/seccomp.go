package seccomp

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Filter is the program for the kernel: it refuses by itself. The caller does not change it.
var Filter = sync.OnceValue(func() []byte { return encode(assemble(native, false)) })

// LogFilter is the program that asks whoever holds its listener, which answers what Judge says. For
// each system call that Filter allows it does the same.
var LogFilter = sync.OnceValue(func() []byte { return encode(assemble(native, true)) })

// A Call is a system call as a filter sees it, struct seccomp_data.
type Call struct {
	Number int32
	Arch   uint32 // AUDIT_ARCH_*, the entry point that it came by
	Args   [6]uint64
}

// judge runs Filter's program.
var judge = sync.OnceValue(func() *bpf.VM { return machine(native) })

func machine(a arch) *bpf.VM {
	vm, err := bpf.NewVM(assemble(a, false))
	if err != nil {
		panic(err) // the rules are constant, and so is this
	}
	return vm
}

// Judge returns the error that Filter answers to a call, 0 when it lets it through.
func Judge(c Call) syscall.Errno {
	action := run(judge(), c)
	if action == unix.SECCOMP_RET_ALLOW {
		return 0
	}
	return syscall.Errno(action & unix.SECCOMP_RET_DATA)
}

// run returns what a program says to a call. The machine reads packets, whose words are big-endian.
func run(vm *bpf.VM, c Call) uint32 {
	var data [64]byte
	binary.BigEndian.PutUint32(data[offNumber:], uint32(c.Number))
	binary.BigEndian.PutUint32(data[offArch:], c.Arch)
	for i, arg := range c.Args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], uint32(arg))
		binary.BigEndian.PutUint32(data[offArgs+8*i+4:], uint32(arg>>32))
	}
	action, err := vm.Run(data[:])
	if err != nil {
		panic(err) // the program has been checked, and reads nothing but this array
	}
	return uint32(action)
}

// String is the call for people, with the argument that a refusal is about: "mount",
// "ioctl(TIOCSTI)", "socket(AF_VSOCK)", "32-bit system call 21".
func (c Call) String() string {
	switch {
	case c.Arch != native.audit:
		return fmt.Sprintf("32-bit system call %d", c.Number)
	case c.Number >= x32Bit:
		return fmt.Sprintf("x32 system call %d", c.Number-x32Bit)
	}
	for _, r := range rules {
		if r.verdict != allow && native.number(r) == int(c.Number) {
			return r.name + c.detail(r.verdict)
		}
	}
	return fmt.Sprintf("system call %d", c.Number)
}

const x32Bit = 0x40000000

func (c Call) detail(v verdict) string {
	switch v {
	case checkNamespaces:
		return "(" + namespaces(uint32(c.Args[0])) + ")"
	case checkTerminal:
		return "(" + nameOf(requestNames, uint32(c.Args[1]), "%#x") + ")"
	case checkFamily:
		return "(" + nameOf(familyNames, uint32(c.Args[0]), "%d") + ")"
	case checkPersonality:
		return fmt.Sprintf("(%#x)", uint32(c.Args[0]))
	}
	return ""
}

func nameOf(names map[uint32]string, value uint32, format string) string {
	if name, known := names[value]; known {
		return name
	}
	return fmt.Sprintf(format, value)
}

// namespaces names the flags that are refused.
func namespaces(flags uint32) string {
	var list []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{unix.CLONE_NEWUSER, "CLONE_NEWUSER"}, {unix.CLONE_NEWNS, "CLONE_NEWNS"},
		{unix.CLONE_NEWPID, "CLONE_NEWPID"}, {unix.CLONE_NEWNET, "CLONE_NEWNET"},
		{unix.CLONE_NEWIPC, "CLONE_NEWIPC"}, {unix.CLONE_NEWUTS, "CLONE_NEWUTS"},
		{unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP"}, {unix.CLONE_NEWTIME, "CLONE_NEWTIME"},
	} {
		if flags&f.bit != 0 {
			list = append(list, f.name)
		}
	}
	return strings.Join(list, "|")
}

var requestNames = map[uint32]string{unix.TIOCSTI: "TIOCSTI", tioclinux: "TIOCLINUX", unix.TIOCSETD: "TIOCSETD"}

var familyNames = map[uint32]string{
	unix.AF_PACKET: "AF_PACKET", unix.AF_KEY: "AF_KEY", unix.AF_RDS: "AF_RDS", unix.AF_CAN: "AF_CAN",
	unix.AF_TIPC: "AF_TIPC", unix.AF_BLUETOOTH: "AF_BLUETOOTH", unix.AF_ALG: "AF_ALG",
	unix.AF_VSOCK: "AF_VSOCK", unix.AF_KCM: "AF_KCM", unix.AF_QIPCRTR: "AF_QIPCRTR", unix.AF_SMC: "AF_SMC",
	unix.AF_XDP: "AF_XDP",
}
