package initproc

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/telerun/tele/server/seccomp"
	"golang.org/x/sys/unix"
)

// A probed is a system call that a job tries.
type probed struct {
	name string
	nr   uintptr
	args [3]uintptr
	want syscall.Errno
}

// tried are calls with arguments that the kernel would answer in another way than the filter does:
// most with EFAULT or EBADF, or not at all.
var tried = append([]probed{
	{"mount", unix.SYS_MOUNT, [3]uintptr{}, unix.EPERM},
	{"umount2", unix.SYS_UMOUNT2, [3]uintptr{}, unix.EPERM},
	{"pivot_root", unix.SYS_PIVOT_ROOT, [3]uintptr{}, unix.EPERM},
	{"chroot", unix.SYS_CHROOT, [3]uintptr{}, unix.EPERM},
	{"open_tree", unix.SYS_OPEN_TREE, [3]uintptr{bad}, unix.EPERM},
	{"move_mount", unix.SYS_MOVE_MOUNT, [3]uintptr{bad}, unix.EPERM},
	{"fsopen", unix.SYS_FSOPEN, [3]uintptr{}, unix.EPERM},
	{"fsconfig", unix.SYS_FSCONFIG, [3]uintptr{bad}, unix.EPERM},
	{"fsmount", unix.SYS_FSMOUNT, [3]uintptr{bad}, unix.EPERM},
	{"fspick", unix.SYS_FSPICK, [3]uintptr{bad}, unix.EPERM},
	{"mount_setattr", unix.SYS_MOUNT_SETATTR, [3]uintptr{bad}, unix.EPERM},
	{"unshare(CLONE_NEWUSER)", unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWUSER}, unix.EPERM},
	{"unshare(CLONE_NEWUSER|CLONE_NEWNS)", unix.SYS_UNSHARE,
		[3]uintptr{unix.CLONE_NEWUSER | unix.CLONE_NEWNS}, unix.EPERM},
	{"unshare(CLONE_FS)", unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_FS}, 0},
	{"clone(CLONE_NEWUSER)", unix.SYS_CLONE, [3]uintptr{unix.CLONE_NEWUSER | uintptr(unix.SIGCHLD)}, unix.EPERM},
	{"clone3", unix.SYS_CLONE3, [3]uintptr{}, unix.ENOSYS},
	{"setns", unix.SYS_SETNS, [3]uintptr{bad}, unix.EPERM},
	{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [3]uintptr{bad}, unix.EPERM},
	{"bpf", unix.SYS_BPF, [3]uintptr{}, unix.EPERM},
	{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [3]uintptr{}, unix.EPERM},
	{"userfaultfd", unix.SYS_USERFAULTFD, [3]uintptr{1 /* user mode only, which needs no privilege */}, unix.EPERM},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP, [3]uintptr{}, unix.EPERM},
	{"io_uring_enter", unix.SYS_IO_URING_ENTER, [3]uintptr{bad}, unix.EPERM},
	{"io_uring_register", unix.SYS_IO_URING_REGISTER, [3]uintptr{bad}, unix.EPERM},
	{"fanotify_init", unix.SYS_FANOTIFY_INIT, [3]uintptr{0x200 /* which needs no privilege */}, unix.EPERM},
	{"add_key", unix.SYS_ADD_KEY, [3]uintptr{}, unix.EPERM},
	{"request_key", unix.SYS_REQUEST_KEY, [3]uintptr{}, unix.EPERM},
	{"keyctl", unix.SYS_KEYCTL, [3]uintptr{}, unix.EPERM},
	{"kexec_load", unix.SYS_KEXEC_LOAD, [3]uintptr{}, unix.EPERM},
	{"init_module", unix.SYS_INIT_MODULE, [3]uintptr{}, unix.EPERM},
	{"finit_module", unix.SYS_FINIT_MODULE, [3]uintptr{bad}, unix.EPERM},
	{"delete_module", unix.SYS_DELETE_MODULE, [3]uintptr{}, unix.EPERM},
	{"settimeofday", unix.SYS_SETTIMEOFDAY, [3]uintptr{0, 0}, unix.EPERM},
	{"clock_settime", unix.SYS_CLOCK_SETTIME, [3]uintptr{bad}, unix.EPERM},
	{"reboot", unix.SYS_REBOOT, [3]uintptr{}, unix.EPERM},
	{"swapon", unix.SYS_SWAPON, [3]uintptr{}, unix.EPERM},
	{"syslog", unix.SYS_SYSLOG, [3]uintptr{10 /* the size of the log */}, unix.EPERM},
	{"quotactl_fd", unix.SYS_QUOTACTL_FD, [3]uintptr{bad}, unix.EPERM},
	{"mbind", unix.SYS_MBIND, [3]uintptr{}, unix.EPERM},
	{"move_pages", unix.SYS_MOVE_PAGES, [3]uintptr{}, unix.EPERM},
	{"kcmp", unix.SYS_KCMP, [3]uintptr{}, unix.EPERM},
	{"ioctl(TIOCSTI)", unix.SYS_IOCTL, [3]uintptr{bad, unix.TIOCSTI}, unix.EPERM},
	{"ioctl(TIOCSTI)", unix.SYS_IOCTL, [3]uintptr{bad, 1<<40 | unix.TIOCSTI}, unix.EPERM},
	{"ioctl(TIOCLINUX)", unix.SYS_IOCTL, [3]uintptr{bad, 0x541c}, unix.EPERM},
	{"ioctl(TCGETS)", unix.SYS_IOCTL, [3]uintptr{bad, unix.TCGETS}, unix.EBADF},
	{"socket(AF_VSOCK)", unix.SYS_SOCKET, [3]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}, unix.EAFNOSUPPORT},
	{"socket(AF_ALG)", unix.SYS_SOCKET, [3]uintptr{unix.AF_ALG, unix.SOCK_SEQPACKET}, unix.EAFNOSUPPORT},
	{"socket(AF_PACKET)", unix.SYS_SOCKET, [3]uintptr{unix.AF_PACKET, unix.SOCK_RAW}, unix.EAFNOSUPPORT},
	{"personality(0x40000)", unix.SYS_PERSONALITY, [3]uintptr{0x40000}, unix.EPERM},
	{"personality(-1)", unix.SYS_PERSONALITY, [3]uintptr{1<<32 - 1}, 0},
	{"system call 480", 480, [3]uintptr{}, unix.ENOSYS},
	{"adjtimex", unix.SYS_ADJTIMEX, [3]uintptr{}, unix.EFAULT},
	{"ptrace", unix.SYS_PTRACE, [3]uintptr{unix.PTRACE_PEEKDATA, 1 << 22}, unix.ESRCH},
}, triedHere...)

// bad is no descriptor.
const bad = ^uintptr(0)

// probe is the job: it makes the calls, and says what came of them.
func probe() {
	for _, p := range tried {
		_, _, errno := syscall.RawSyscall(p.nr, p.args[0], p.args[1], p.args[2])
		fmt.Println(p.name, unix.ErrnoName(errno))
	}
	probeEntryPoints()
	os.Exit(0)
}

// report is what the job must say.
func report() string {
	var out strings.Builder
	for _, p := range tried {
		fmt.Fprintln(&out, p.name, unix.ErrnoName(p.want))
	}
	for _, p := range entryPoints() {
		fmt.Fprintln(&out, p.name, "ENOSYS")
	}
	return out.String()
}

// probing is a job that runs probe: a copy of this program.
func probing(t *testing.T) Spec {
	t.Helper()
	s := spec(t, Home+"/probe")
	s.Env = append(s.Env, "TELE_TEST_PROBE=1")
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Work, "probe"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRefusedCalls makes the real calls in a real job.
func TestRefusedCalls(t *testing.T) {
	needRoot(t)
	s := probing(t)
	s.Seccomp = seccomp.Filter()
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	exit, out := finish(t, i)
	compare(t, exit, out)
}

func compare(t *testing.T, exit Exit, out string) {
	t.Helper()
	if exit.Status != 0 {
		t.Errorf("status %#x", exit.Status)
	}
	got, want := strings.Split(out, "\n"), strings.Split(report(), "\n")
	for n := range max(len(got), len(want)) {
		if n >= len(got) || n >= len(want) {
			t.Fatalf("%d lines, want %d:\n%s", len(got), len(want), out)
		}
		if got[n] != want[n] {
			t.Errorf("got %s, want %s", got[n], want[n])
		}
	}
}

// answer refuses what a job asks for as seccomp says, until there is nobody left to ask, and returns
// the calls.
func answer(t *testing.T, l *Listener) (calls []string) {
	t.Helper()
	for {
		n, err := l.Next()
		switch err {
		case io.EOF:
			return calls
		case ErrNoCall:
			readable(t, l.FD())
			continue
		}
		if err != nil {
			t.Error(err)
			return calls
		}
		call := seccomp.Call{Number: n.Number, Arch: n.Arch, Args: n.Args}
		refused, err := l.Refuse(n, seccomp.Judge(call))
		if err != nil {
			t.Error(err)
		}
		if refused {
			calls = append(calls, call.String())
		}
	}
}

// TestListener: with the listener a job gets the same answers, and they are known by name. When all
// its processes are gone, Next says so.
func TestListener(t *testing.T) {
	needRoot(t)
	s := probing(t)
	s.Seccomp, s.SeccompListener = seccomp.LogFilter(), true
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	l, err := i.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	calls := answer(t, l)
	exit, out := finish(t, i)
	compare(t, exit, out)
	var want []string
	for _, p := range tried {
		if p.nr != unix.SYS_CLONE3 && slices.Contains([]syscall.Errno{unix.EPERM, unix.EAFNOSUPPORT, unix.ENOSYS}, p.want) {
			want = append(want, p.name)
		}
	}
	for _, p := range entryPoints() {
		want = append(want, p.name)
	}
	// A call that a signal interrupts while it is answered, as those of the Go runtime may, asks again.
	if calls, want = slices.Compact(calls), slices.Compact(want); !slices.Equal(calls, want) {
		t.Errorf("got  %q\nwant %q", calls, want)
	}
}

// TestListenerSurvivesTheServer: a call that is refused while no server is there waits for the next.
func TestListenerSurvivesTheServer(t *testing.T) {
	needRoot(t)
	s := probing(t)
	s.Seccomp, s.SeccompListener = seccomp.LogFilter(), true
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	first, err := i.Listen()
	if err != nil {
		t.Fatal(err)
	}
	readable(t, first.FD())
	first.Close()
	i = handOver(t, i)
	l, err := i.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answer(t, l)
	exit, out := finish(t, i)
	compare(t, exit, out)
}

// TestListenerDoesNotWait: where no call waits, Next says so at once.
func TestListenerDoesNotWait(t *testing.T) {
	needRoot(t)
	s := spec(t, "sleep", "1000")
	s.Seccomp, s.SeccompListener = seccomp.LogFilter(), true
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	l, err := i.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Next(); err != ErrNoCall {
		t.Errorf("got %v", err)
	}
	if err := i.SignalAll(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for err = ErrNoCall; err == ErrNoCall; _, err = l.Next() {
		readable(t, l.FD())
	}
	if err != io.EOF {
		t.Errorf("when it has ended: %v", err)
	}
}

// TestNoListener: without Spec.SeccompListener there is none to be had.
func TestNoListener(t *testing.T) {
	needRoot(t)
	i, err := start(t, spec(t, "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Listen(); err == nil {
		t.Error("no error")
	}
}

// TestListenerDescriptors: the command has none but its own, and init's are as they were.
func TestListenerDescriptors(t *testing.T) {
	needRoot(t)
	s := spec(t, "sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; read line")
	s.Seccomp, s.SeccompListener = seccomp.LogFilter(), true
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	exit, out := finish(t, i)
	if out != "0 1 2 3 " || exit.Status.ExitStatus() != 1 {
		t.Errorf("status %#x, descriptors %q", exit.Status, out)
	}
	s.Seccomp, s.SeccompListener = seccomp.Filter(), false
	other, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	finish(t, other)
	want := []string{"0 /dev/null", "1 pipe:", "2 pipe:", "3 socket:", "4 socket:", "5 pipe:", "6 pipe:",
		"7 anon_inode:[eventfd", "9 /PID/oom_score_adj"} // the table in fds.go
	if got := descriptors(t, other.Pid); !slices.Equal(got, want) {
		t.Errorf("init has %q, want %q", got, want)
	}
	want = slices.Insert(want, len(want)-2, "63 anon_inode:seccomp notify") // sorted as text
	if got := descriptors(t, i.Pid); !slices.Equal(got, want) {
		t.Errorf("with a listener init has %q, want %q", got, want)
	}
}

// descriptors are those of a process, and what kind each is of.
func descriptors(t *testing.T, pid int) (list []string) {
	t.Helper()
	for fd := range 256 {
		kind, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		kind = strings.Replace(kind, fmt.Sprintf("/%d/", pid), "/PID/", 1)
		if err == nil {
			list = append(list, fmt.Sprintf("%d %s", fd, strings.TrimRight(kind, "[]0123456789")))
		}
	}
	slices.Sort(list)
	return list
}

// TestProgramsRun runs ordinary programs under the filter.
func TestProgramsRun(t *testing.T) {
	needRoot(t)
	for _, test := range []struct{ name, needs, script, want string }{
		{"shell", "sh", "x=$(echo a | tr a b) && echo $x", "b\n"},
		{"python threads and processes", "python3", `python3 - <<'END'
import subprocess, threading, multiprocessing, socket, asyncio
t = [threading.Thread(target=lambda: None) for _ in range(8)]
[x.start() for x in t]; [x.join() for x in t]
socket.socketpair(); socket.socket(socket.AF_INET, socket.SOCK_STREAM).bind(("127.0.0.1", 0))
async def main():
    p = await asyncio.create_subprocess_exec("true"); return await p.wait()
with multiprocessing.Pool(2) as p:
    print(sum(p.map(abs, range(-4, 4))), asyncio.run(main()), subprocess.call(["true"]))
END`, "16 0 0\n"},
		{"git", "git", "git init -q r && cd r && git -c user.name=a -c user.email=b commit -q --allow-empty -m x && git log --format=%s", "x\n"},
		{"apt-get", "apt-get", "apt-get --version | head -c 3", "apt"},
		{"perl", "perl", "perl -e 'print fork() ? wait() > 0 : exit'", "1"},
		{"gcc", "gcc", "printf 'int main(){return 7;}' > a.c && gcc a.c && ./a.out; echo $?", "7\n"},
		{"strace", "strace", "strace -o /dev/null -f sh -c 'true; (echo traced)'", "traced\n"},
		{"ipc", "ipcmk", "ipcmk -Q | head -c 13", "Message queue"},
		{"go", "go", "mkdir m && cd m && printf 'package main\\nfunc main(){println(1)}' > a.go && GOFLAGS=-p=1 GOTOOLCHAIN=local go run a.go 2>&1", "1\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := spec(t, "sh", "-c", test.script)
			s.Env[0] = "PATH=/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin"
			s.Seccomp = seccomp.Filter()
			probe, err := start(t, func() Spec { p := s; p.Command = []string{"sh", "-c", "command -v " + test.needs}; return p }())
			if err != nil {
				t.Fatal(err)
			}
			if exit, _ := finish(t, probe); exit.Status != 0 {
				t.Skip("needs " + test.needs)
			}
			i, err := start(t, s)
			if err != nil {
				t.Fatal(err)
			}
			if exit, out := finish(t, i); out != test.want {
				t.Errorf("status %#x, output %q, want %q", exit.Status, out, test.want)
			}
		})
	}
}
