package seccomp

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A rule is about one system call. Its numbers are those of the two architectures, -1 where there is
// no such call; a test compares them with golang.org/x/sys.
type rule struct {
	name         string
	amd64, arm64 int
	verdict      verdict
}

// A verdict is what happens to a call.
type verdict uint8

const (
	allow verdict = iota
	// refuse is EPERM: what the kernel says to those without the capability.
	refuse
	// absent is ENOSYS, as on a kernel without the call, so that the caller tries another way. It is
	// not logged: nothing is lost by it.
	absent
	// closed is ENOSYS too: the entry points and calls that no job needs.
	closed
	// noFamily is EAFNOSUPPORT, as on a kernel without that kind of socket.
	noFamily
	// These look at an argument.
	checkNamespaces
	checkTerminal
	checkFamily
	checkPersonality
	checkNewer
)

// errnos are the answers to a refused call.
var errnos = map[verdict]syscall.Errno{
	refuse: unix.EPERM, absent: unix.ENOSYS, closed: unix.ENOSYS, noFamily: unix.EAFNOSUPPORT,
}

// newest is the last system call that was looked at for these rules. What a newer kernel has beyond
// it is closed: a list of what is refused cannot know what comes. New calls have the same number
// everywhere, so this is one number, and it is below those of x32.
const newest = 471 // rseq_slice_yield

// rules are the calls that are not simply allowed.
var rules = []rule{
	// Mounts, by the old interface and the new one.
	{"mount", 165, 40, refuse},
	{"umount2", 166, 39, refuse},
	{"pivot_root", 155, 41, refuse},
	{"chroot", 161, 51, refuse},
	{"open_tree", 428, 428, refuse},
	{"move_mount", 429, 429, refuse},
	{"fsopen", 430, 430, refuse},
	{"fsconfig", 431, 431, refuse},
	{"fsmount", 432, 432, refuse},
	{"fspick", 433, 433, refuse},
	{"mount_setattr", 442, 442, refuse},
	{"open_tree_attr", 467, 467, refuse},

	// Namespaces. The flags of clone3 are in memory, where a filter cannot look; the C library tries
	// clone next.
	{"clone", 56, 220, checkNamespaces},
	{"unshare", 272, 97, checkNamespaces},
	{"clone3", 435, 435, absent},
	{"setns", 308, 268, refuse},

	// Files by handle: past every mount (Docker's "shocker").
	{"open_by_handle_at", 304, 265, refuse},

	// Large parts of the kernel that unprivileged programs reach by one call.
	{"bpf", 321, 280, refuse},
	{"perf_event_open", 298, 241, refuse},
	{"userfaultfd", 323, 282, refuse},
	{"io_uring_setup", 425, 425, refuse},
	{"io_uring_enter", 426, 426, refuse},
	{"io_uring_register", 427, 427, refuse},
	{"fanotify_init", 300, 262, refuse},
	{"add_key", 248, 217, refuse},
	{"request_key", 249, 218, refuse},
	{"keyctl", 250, 219, refuse},
	{"kcmp", 312, 272, refuse},
	{"lookup_dcookie", 212, 18, refuse},
	{"modify_ldt", 154, -1, refuse},
	{"socket", 41, 198, checkFamily},
	{"socketpair", 53, 199, checkFamily}, // looks for the family's module as socket does

	// Memory policy: which node of the machine memory is on, and where pages are.
	{"mbind", 237, 235, refuse},
	{"set_mempolicy", 238, 237, refuse},
	{"get_mempolicy", 239, 236, refuse},
	{"migrate_pages", 256, 238, refuse},
	{"move_pages", 279, 239, refuse},
	{"set_mempolicy_home_node", 450, 450, refuse},

	// A terminal's input, and the console's.
	{"ioctl", 16, 29, checkTerminal},
	{"vhangup", 153, 58, refuse},

	{"personality", 135, 92, checkPersonality},

	// The machine itself.
	{"kexec_load", 246, 104, refuse},
	{"kexec_file_load", 320, 294, refuse},
	{"create_module", 174, -1, refuse},
	{"init_module", 175, 105, refuse},
	{"finit_module", 313, 273, refuse},
	{"delete_module", 176, 106, refuse},
	{"get_kernel_syms", 177, -1, refuse},
	{"query_module", 178, -1, refuse},
	{"settimeofday", 164, 170, refuse},
	{"clock_settime", 227, 112, refuse},
	{"sethostname", 170, 161, refuse},
	{"setdomainname", 171, 162, refuse},
	{"reboot", 169, 142, refuse},
	{"swapon", 167, 224, refuse},
	{"swapoff", 168, 225, refuse},
	{"acct", 163, 89, refuse},
	{"quotactl", 179, 60, refuse},
	{"quotactl_fd", 443, 443, refuse},
	{"syslog", 103, 116, refuse},
	{"iopl", 172, -1, refuse},
	{"ioperm", 173, -1, refuse},
	{"nfsservctl", 180, 42, refuse},
	{"_sysctl", 156, -1, refuse},
	{"uselib", 134, -1, refuse},
}

// newNamespaces are the flags that make a namespace: those of clone, and CLONE_NEWTIME, which is
// unshare's alone; in clone that bit belongs to the exit signal, and no signal has it.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWTIME

// terminalRequests write into a terminal what its next reader takes for typed: TIOCSTI, and TIOCLINUX
// by way of the console's selection. TIOCSETD loads the module of a line discipline, modems' and radios'
// of old, and puts it on any terminal, also one of the caller's own (CVE-2017-2636, CVE-2023-6546).
var terminalRequests = []uint32{unix.TIOCSTI, tioclinux, unix.TIOCSETD}

const tioclinux = 0x541c

// families are the kinds of sockets a job may have. The others are kernel code that few programs
// need, loaded when one asks; and AF_VSOCK, which no network namespace confines, leads to the
// machine's hypervisor.
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// Asking for the personality, and the two that change nothing but what uname says, PER_LINUX32 and
// UNAME26, are allowed, as Docker does. The others bring back old ways of laying out memory.
const (
	askPersonality    = 0xffffffff
	allowPersonality  = 0x0008 | 0x20000
	forbidPersonality = ^uint32(allowPersonality)
)

// An arch is one architecture: its entry point, and which number of a rule is its own.
type arch struct {
	audit  uint32 // AUDIT_ARCH_*
	number func(rule) int
}

var (
	amd64 = arch{unix.AUDIT_ARCH_X86_64, func(r rule) int { return r.amd64 }}
	arm64 = arch{unix.AUDIT_ARCH_AARCH64, func(r rule) int { return r.arm64 }}
)

// native is the architecture of this program. The other one is for tests.
var native = map[string]arch{"amd64": amd64, "arm64": arm64}[runtime.GOARCH]
