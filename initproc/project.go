package initproc

import (
	"encoding/binary"
	"runtime"

	"golang.org/x/sys/unix"
)

// sysFileSetattr is file_setattr(2), of the same number everywhere; Linux 6.17.
const sysFileSetattr = 469

// auditArch is what seccomp calls the machine that this program is for.
var auditArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]

// keepProject keeps the job in the project whose quota limits its work directory. A project is no
// wall by itself: who owns a file may give it to another project, and may take the flag off a
// directory by which new files get its project (ioctl_xfs_fsgetxattr(2), ioctl_iflags(2)). So these
// calls are refused, and with them the other ways into the kernel, by which they could be made too.
// After forbidNewPrivileges, as for any filter.
func keepProject(b *builder, s Spec) {
	if !s.Project {
		return
	}
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		least = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		end   = unix.BPF_RET | unix.BPF_K

		x32 = 0x40000000 // the bit of system calls of the x32 entry
	)
	program := []unix.SockFilter{
		{Code: load, K: 4},                            // seccomp_data.arch
		{Code: equal, K: auditArch, Jf: 8},            // to refuse
		{Code: load, K: 0},                            // .nr
		{Code: least, K: x32, Jt: 6},                  // to refuse
		{Code: equal, K: sysFileSetattr, Jt: 5},       // to refuse
		{Code: equal, K: unix.SYS_IOCTL, Jf: 3},       // to allow
		{Code: load, K: 16 + 8},                       // .args[1], its low half, which is all that ioctl takes
		{Code: equal, K: unix.FS_IOC_SETFLAGS, Jt: 2}, // to refuse
		{Code: equal, K: fsIocFSSetXattr, Jt: 1},      // to refuse
		{Code: end, K: unix.SECCOMP_RET_ALLOW},
		{Code: end, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	}
	var code []byte
	for _, i := range program {
		code = binary.NativeEndian.AppendUint16(code, i.Code)
		code = append(code, i.Jt, i.Jf)
		code = binary.NativeEndian.AppendUint32(code, i.K)
	}
	// struct sock_fprog: how many, and where.
	header := b.words(uint64(len(program)), 0)
	b.relocs = append(b.relocs, reloc{uint32(header.value) + 8, uint32(b.bytes(code).value)})
	b.step("keep the job in its project", unix.SYS_SECCOMP, number(unix.SECCOMP_SET_MODE_FILTER), number(0), header)
}

const fsIocFSSetXattr = 0x401c5820 // FS_IOC_FSSETXATTR
