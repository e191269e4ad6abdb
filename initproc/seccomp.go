package initproc

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// sockFilterSize is the size of struct sock_filter, an instruction of a filter; maxFilter the most
// instructions that the kernel takes, BPF_MAXINSNS.
const (
	sockFilterSize = 8
	maxFilter      = 4096
)

// filterCalls installs the filter of system calls, seccomp(2): from here on the command's process and
// all that come from it are held to it, for ever. After forbidNewPrivileges, without which the kernel
// takes a filter from nobody but root, and after the last step that it would refuse. What follows
// goes through it already: chdir, close_range, execve.
//
// With a listener, calls of SECCOMP_RET_USER_NOTIF wait for an answer through it (notify.go). This
// process shares its table of descriptors with init (forkCommand), so that the listener is init's as
// well, at a number where the server finds it.
func filterCalls(b *builder, s Spec) {
	const name = "filter system calls"
	if len(s.Seccomp) == 0 {
		return
	}
	// struct sock_fprog: how many, and where.
	length := binary.NativeEndian.AppendUint16(nil, uint16(len(s.Seccomp)/sockFilterSize))
	program := b.bytes(append(length, make([]byte, 14)...))
	b.relocs = append(b.relocs, reloc{uint32(program.value) + 8, uint32(b.bytes(s.Seccomp).value)})
	if !s.SeccompListener {
		b.step(name, unix.SYS_SECCOMP, number(unix.SECCOMP_SET_MODE_FILTER), number(0), program)
		return
	}
	fd := b.stepResult(name, unix.SYS_SECCOMP, number(unix.SECCOMP_SET_MODE_FILTER),
		number(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER), program)
	b.keep("give init the listener", fd, fdListener)
}
