package seccomp

import (
	"encoding/binary"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// arches are the architectures with the names of their files in golang.org/x/sys.
var arches = map[string]arch{"amd64": amd64, "arm64": arm64}

// numbers reads an architecture's system call numbers out of golang.org/x/sys.
func numbers(t *testing.T, goarch string) map[string]int {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		if _, missing := exec.LookPath("go"); missing != nil {
			t.Skip("needs the go command, to find the table of numbers")
		}
		t.Fatal(err)
	}
	path := filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+goarch+".go")
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]int{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, is := n.(*ast.ValueSpec); is {
			n, err := strconv.Atoi(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			table[strings.ToLower(strings.TrimPrefix(spec.Names[0].Name, "SYS_"))] = n
		}
		return true
	})
	return table
}

// compile is a program as the kernel would read it, in a machine that runs it.
func compile(t *testing.T, raw []byte) *bpf.VM {
	t.Helper()
	var list []bpf.Instruction
	for ; len(raw) > 0; raw = raw[8:] {
		list = append(list, bpf.RawInstruction{Op: binary.NativeEndian.Uint16(raw), Jt: raw[2], Jf: raw[3],
			K: binary.NativeEndian.Uint32(raw[4:])}.Disassemble())
	}
	vm, err := bpf.NewVM(list)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// TestRules compares the rules' numbers with those of golang.org/x/sys, and tells of calls that
// nobody has looked at.
func TestRules(t *testing.T) {
	for name, a := range arches {
		table := numbers(t, name)
		for _, r := range rules {
			if r.name == "umount2" && name == "arm64" {
				table["umount2"] = 39 // the same, by its generic name
			}
			want, known := table[r.name]
			if !known {
				want = -1
			}
			if got := a.number(r); got != want {
				t.Errorf("%s: %s is %d, and here %d", name, r.name, want, got)
			}
		}
		for call, n := range table {
			if n > newest {
				t.Errorf("%s: %s, %d, is newer than the rules: decide about it, and raise newest", name, call, n)
			}
		}
	}
}

// refused are the calls of the rules and what each must answer; what looks at arguments has a case
// for each outcome below.
var refused = strings.Fields(`mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount
	fspick mount_setattr open_tree_attr setns open_by_handle_at bpf perf_event_open userfaultfd
	io_uring_setup io_uring_enter io_uring_register fanotify_init add_key request_key keyctl kcmp
	lookup_dcookie modify_ldt mbind set_mempolicy get_mempolicy migrate_pages move_pages
	set_mempolicy_home_node vhangup kexec_load kexec_file_load create_module init_module finit_module
	delete_module get_kernel_syms query_module settimeofday clock_settime sethostname setdomainname
	reboot swapon swapoff acct quotactl quotactl_fd syslog iopl ioperm nfsservctl _sysctl uselib`)

// high is what the kernel does not look at, in the upper half of an argument.
const high = 0xdead << 32

var byArgument = []struct {
	name string
	args [6]uint64
	want syscall.Errno
}{
	{"clone", [6]uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, 0},
	{"clone", [6]uint64{0x003d0f00 /* a thread */}, 0},
	{"clone", [6]uint64{unix.CLONE_NEWUSER}, unix.EPERM},
	{"clone", [6]uint64{high | unix.CLONE_NEWNS | uint64(unix.SIGCHLD)}, unix.EPERM},
	{"clone", [6]uint64{unix.CLONE_NEWPID}, unix.EPERM},
	{"clone", [6]uint64{unix.CLONE_NEWNET}, unix.EPERM},
	{"clone", [6]uint64{unix.CLONE_NEWIPC}, unix.EPERM},
	{"clone", [6]uint64{unix.CLONE_NEWUTS}, unix.EPERM},
	{"clone", [6]uint64{unix.CLONE_NEWCGROUP}, unix.EPERM},
	{"clone", [6]uint64{0, unix.CLONE_NEWUSER}, 0}, // another argument
	{"clone3", [6]uint64{}, unix.ENOSYS},
	{"unshare", [6]uint64{unix.CLONE_FILES | unix.CLONE_FS}, 0},
	{"unshare", [6]uint64{unix.CLONE_NEWUSER}, unix.EPERM},
	{"unshare", [6]uint64{unix.CLONE_NEWTIME}, unix.EPERM},
	{"ioctl", [6]uint64{1, unix.TCGETS}, 0},
	{"ioctl", [6]uint64{unix.TIOCSTI, unix.TCGETS}, 0},
	{"ioctl", [6]uint64{0, unix.TIOCSTI}, unix.EPERM},
	{"ioctl", [6]uint64{0, high | unix.TIOCSTI}, unix.EPERM}, // CVE-2019-10063
	{"ioctl", [6]uint64{0, high | tioclinux}, unix.EPERM},
	{"ioctl", [6]uint64{0, unix.TIOCSETD}, unix.EPERM},
	{"socket", [6]uint64{unix.AF_UNIX}, 0},
	{"socket", [6]uint64{high | unix.AF_INET}, 0},
	{"socket", [6]uint64{unix.AF_INET6}, 0},
	{"socket", [6]uint64{unix.AF_NETLINK}, 0},
	{"socket", [6]uint64{unix.AF_PACKET}, unix.EAFNOSUPPORT},
	{"socket", [6]uint64{unix.AF_ALG}, unix.EAFNOSUPPORT},
	{"socket", [6]uint64{high | unix.AF_VSOCK}, unix.EAFNOSUPPORT},
	{"socket", [6]uint64{0}, unix.EAFNOSUPPORT},
	{"socketpair", [6]uint64{unix.AF_UNIX}, 0},
	{"socketpair", [6]uint64{unix.AF_TIPC}, unix.EAFNOSUPPORT},
	{"personality", [6]uint64{0}, 0},
	{"personality", [6]uint64{8}, 0},
	{"personality", [6]uint64{0x20000}, 0},
	{"personality", [6]uint64{0x20008}, 0},
	{"personality", [6]uint64{0xffffffff}, 0},
	{"personality", [6]uint64{0x0400000 /* READ_IMPLIES_EXEC */}, unix.EPERM},
	{"personality", [6]uint64{0x0040000 /* ADDR_NO_RANDOMIZE */}, unix.EPERM},
	{"personality", [6]uint64{0xfffffffe}, unix.EPERM},
}

// TestEveryCall asks for every number that there is, on both architectures, without arguments that
// matter: those of the list above are refused, and nothing else.
func TestEveryCall(t *testing.T) {
	for name, a := range arches {
		table := numbers(t, name)
		table["umount2"] = map[string]int{"amd64": 166, "arm64": 39}[name]
		want := map[int]uint32{}
		for _, call := range refused {
			if n, exists := table[call]; exists {
				want[n] = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
			}
		}
		want[table["clone3"]] = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		plain, log := compile(t, encode(assemble(a, false))), compile(t, encode(assemble(a, true)))
		for n := range 600 {
			// The arguments pass every check: AF_UNIX or SIGHUP, no ioctl, UNAME26's bits but not more.
			call := Call{Number: int32(n), Arch: a.audit, Args: [6]uint64{1, 1}}
			if n == table["personality"] {
				call.Args[0] = 0
			}
			action, refused := want[n]
			switch {
			case n > newest:
				action = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
			case !refused:
				action = unix.SECCOMP_RET_ALLOW
			}
			if got := run(plain, call); got != action {
				t.Errorf("%s %d: %#x, want %#x", name, n, got, action)
			}
			if action != unix.SECCOMP_RET_ALLOW && n != table["clone3"] {
				action = unix.SECCOMP_RET_USER_NOTIF
			}
			if got := run(log, call); got != action {
				t.Errorf("%s %d, to be logged: %#x, want %#x", name, n, got, action)
			}
		}
	}
}

func TestArguments(t *testing.T) {
	for name, a := range arches {
		table := numbers(t, name)
		plain, log := compile(t, encode(assemble(a, false))), compile(t, encode(assemble(a, true)))
		for _, test := range byArgument {
			call := Call{Number: int32(table[test.name]), Arch: a.audit, Args: test.args}
			want := uint32(unix.SECCOMP_RET_ALLOW)
			if test.want != 0 {
				want = unix.SECCOMP_RET_ERRNO | uint32(test.want)
			}
			if got := run(plain, call); got != want {
				t.Errorf("%s %s %#x: %#x, want %#x", name, test.name, test.args[:2], got, want)
			}
			if test.want != 0 && test.name != "clone3" {
				want = unix.SECCOMP_RET_USER_NOTIF
			}
			if got := run(log, call); got != want {
				t.Errorf("%s %s %#x, to be logged: %#x, want %#x", name, test.name, test.args[:2], got, want)
			}
		}
	}
}

// TestEntryPoints: what does not come by the architecture's own entry point is refused, whatever it
// is: the same numbers are other calls there.
func TestEntryPoints(t *testing.T) {
	closed := unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	for name, a := range arches {
		vm := compile(t, encode(assemble(a, false)))
		for _, other := range []uint32{unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_X86_64,
			unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_RISCV64, 0} {
			if other == a.audit {
				continue
			}
			for n := range int32(600) {
				if got := run(vm, Call{Number: n, Arch: other}); got != closed {
					t.Fatalf("%s: call %d by %#x: %#x", name, n, other, got)
				}
			}
		}
		for n := range int32(600) {
			if got := run(vm, Call{Number: x32Bit | n, Arch: a.audit}); got != closed {
				t.Fatalf("%s: x32 call %d: %#x", name, n, got)
			}
		}
		for number, want := range map[int32]uint32{-1: unix.SECCOMP_RET_ALLOW, -2: closed, -0x80000000: closed} {
			if got := run(vm, Call{Number: number, Arch: a.audit}); got != want {
				t.Errorf("%s: call %d: %#x, want %#x", name, number, got, want)
			}
		}
	}
}

func TestNames(t *testing.T) {
	number := func(name string) int32 {
		for _, r := range rules {
			if r.name == name {
				return int32(native.number(r))
			}
		}
		t.Fatal(name)
		return 0
	}
	for _, test := range []struct {
		call  Call
		want  string
		errno syscall.Errno
	}{
		{Call{Number: number("mount"), Arch: native.audit}, "mount", unix.EPERM},
		{Call{Number: number("unshare"), Arch: native.audit, Args: [6]uint64{unix.CLONE_NEWUSER | unix.CLONE_NEWNS}},
			"unshare(CLONE_NEWUSER|CLONE_NEWNS)", unix.EPERM},
		{Call{Number: number("ioctl"), Arch: native.audit, Args: [6]uint64{0, high | unix.TIOCSTI}}, "ioctl(TIOCSTI)",
			unix.EPERM},
		{Call{Number: number("socket"), Arch: native.audit, Args: [6]uint64{unix.AF_VSOCK}}, "socket(AF_VSOCK)",
			unix.EAFNOSUPPORT},
		{Call{Number: number("socket"), Arch: native.audit, Args: [6]uint64{99}}, "socket(99)", unix.EAFNOSUPPORT},
		{Call{Number: number("personality"), Arch: native.audit, Args: [6]uint64{0x40000}}, "personality(0x40000)",
			unix.EPERM},
		{Call{Number: 21, Arch: unix.AUDIT_ARCH_I386}, "32-bit system call 21", unix.ENOSYS},
		{Call{Number: x32Bit + 21, Arch: native.audit}, "x32 system call 21", unix.ENOSYS},
		{Call{Number: newest + 1, Arch: native.audit}, "system call " + strconv.Itoa(newest+1), unix.ENOSYS},
		{Call{Number: unix.SYS_READ, Arch: native.audit}, "system call " + strconv.Itoa(unix.SYS_READ), 0},
	} {
		if got := test.call.String(); got != test.want || Judge(test.call) != test.errno {
			t.Errorf("%+v: %s, %v, want %s, %v", test.call, got, Judge(test.call), test.want, test.errno)
		}
	}
}

// TestLength holds the program to what loading it may cost.
func TestLength(t *testing.T) {
	for name, a := range arches {
		n := len(assemble(a, false))
		t.Logf("%s: %d instructions", name, n)
		if n > 100 {
			t.Errorf("%s: %d instructions, want at most 100", name, n)
		}
	}
}
