package initproc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/telerun/tele/server/seccomp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == testAgent:
		fmt.Println(os.Args[1:], os.Environ())
		os.Exit(7)
	case os.Getenv("TELE_TEST_IDLE") != "":
		idleServer()
	case os.Getenv("TELE_TEST_PROBE") != "":
		probe()
	}
	goleak.VerifyTestMain(m)
}

// needRoot skips, and where TELE_REQUIRE names root, fails.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if strings.Contains(","+os.Getenv("TELE_REQUIRE")+",", ",root,") {
		t.Fatal("TELE_REQUIRE names root, and this is not root")
	}
	t.Skip("needs root")
}

// spec is a job that runs command.
func spec(t *testing.T, command ...string) Spec {
	t.Helper()
	s := Spec{
		Hostname: "job", UID: 1879048192, GID: 1879048192,
		Work: t.TempDir(), Anchor: t.TempDir(), Hide: []string{"/root", "/run"},
		Command: command, Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + Home}, Cwd: Home,
	}
	if err := os.Chown(s.Work, int(s.UID), int(s.GID)); err != nil {
		t.Fatal(err)
	}
	for dir := s.Work; dir != "/"; dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
	return s
}

func start(t *testing.T, s Spec) (*Init, error) {
	t.Helper()
	return startWith(t, s, nil)
}

func startWith(t *testing.T, s Spec, in *Input) (*Init, error) {
	t.Helper()
	plan, err := NewPlan(s)
	if err != nil {
		t.Fatal(err)
	}
	i, err := Start(plan, StartOptions{Cgroup: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i, i.Run(t.Context(), plan, in, secretsFile(t, s)...)
}

// finish waits for the command's end and returns it with what it wrote.
func finish(t *testing.T, i *Init) (Exit, string) {
	t.Helper()
	exit, err := wait(t, i)
	if err != nil {
		t.Fatal(err)
	}
	return exit, output(t, i.Stdout) + output(t, i.Stderr)
}

// wait returns how the command ended when it has.
func wait(t *testing.T, i *Init) (Exit, error) {
	t.Helper()
	for {
		exit, err := i.Exit()
		if err != ErrRunning {
			return exit, err
		}
		readable(t, i.FD())
	}
}

// readable returns when there is something to read, or nobody any more who could write.
func readable(t *testing.T, fd int) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 300_000)
	for err == unix.EINTR {
		n, err = unix.Poll(fds, 300_000)
	}
	if n != 1 {
		t.Fatalf("nothing in five minutes: %v", err)
	}
}

// output is what is in the pipe now.
func output(t *testing.T, pipe int) string {
	t.Helper()
	var all bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(pipe, buf)
		if n <= 0 || err != nil {
			return all.String()
		}
		all.Write(buf[:n])
	}
}

func run(t *testing.T, command ...string) (Exit, string) {
	t.Helper()
	i, err := start(t, spec(t, command...))
	if err != nil {
		t.Fatal(err)
	}
	return finish(t, i)
}

func TestExitCodes(t *testing.T) {
	needRoot(t)
	step := 1
	if os.Getenv("TELE_TEST_SLOW") != "" {
		step = 51 // a start takes half a second there
	}
	for code := 0; code < 256; code += step {
		exit, out := run(t, "sh", "-c", fmt.Sprintf("exit %d", code))
		if !exit.Status.Exited() || exit.Status.ExitStatus() != code {
			t.Fatalf("exit %d: status %#x, output %q", code, exit.Status, out)
		}
	}
}

func TestSignals(t *testing.T) {
	needRoot(t)
	for _, signal := range []syscall.Signal{1, 2, 6, 9, 11, 15} {
		exit, _ := run(t, "sh", "-c", fmt.Sprintf("kill -%d $$", signal))
		if !exit.Status.Signaled() || exit.Status.Signal() != signal {
			t.Errorf("signal %d: status %#x", signal, exit.Status)
		}
	}
}

func TestSandbox(t *testing.T) {
	needRoot(t)
	for _, test := range []struct{ name, script, want string }{
		{"user", "id -u; id -g; id -G", "1879048192\n1879048192\n1879048192\n"},
		{"host name", "hostname", "job\n"},
		{"cwd", "pwd; echo $HOME", "/home/job\n/home/job\n"},
		{"own processes only", "set -- /proc/[0-9]*; echo $#", "1\n"},
		{"work is writable", "echo x > f && cat f", "x\n"},
		{"tmp is writable and empty", "ls -A /tmp; echo x > /tmp/f && cat /tmp/f", "x\n"},
		{"root is read-only", "touch /usr/x 2>&1 | grep -o 'Read-only.*'", "Read-only file system\n"},
		{"dev is read-only", "touch /dev/x 2>&1 | grep -o 'Read-only.*'", "Read-only file system\n"},
		{"devices work", "head -c 3 /dev/zero | wc -c; echo x > /dev/null; ls /dev | tr '\\n' ' '",
			"3\nfd full null ptmx pts random shm stderr stdin stdout tty urandom zero "},
		{"output can be opened", "echo x > /dev/stdout; echo y > /dev/stderr", "x\ny\n"},
		{"private places are empty", "ls -A /root /run /home", "/home:\njob\n\n/root:\n\n/run:\n"},
		{"no capabilities", "grep -c 'Cap.*:.0000000000000000' /proc/self/status", "5\n"},
		{"no new privileges", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"},
		{"loopback is up", "cat /sys/class/net/lo/operstate 2>/dev/null; grep -c lo: /proc/net/dev", "unknown\n1\n"},
		{"no descriptor but its own", "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 "},
		{"nothing of signals is blocked", "grep SigBlk /proc/self/status", "SigBlk:\t0000000000000000\n"},
		{"init is out of sight", "ls /proc/1/fd /proc/1/root 2>&1 | grep -c 'No such file'; cat /proc/1/cmdline 2>&1 | grep -c 'No such'", "2\n1\n"},
		{"init does not die of signals", "kill -9 1 2>/dev/null; kill -15 1 2>/dev/null; echo alive", "alive\n"},
		{"oom score", "cat /proc/self/oom_score_adj", "500\n"},
		{"the kernel's settings are read-only", "(echo 1 > /proc/sys/kernel/printk) 2>&1 | grep -o 'Read-only.*'", "Read-only file system\n"},
		{"masked", "cat /proc/keys /proc/interrupts /proc/kmsg | wc -c; ls /proc/bus /proc/irq | wc -w", "0\n2\n"},
		{"limits", "ulimit -c; ulimit -n; ulimit -Hn", "0\n1024\n" + fmt.Sprint(openFiles(t)) + "\n"},
		{"var tmp", "echo x > /var/tmp/f && cat /tmp/f", "x\n"},
		{"environment", "env | grep -v '^\\(PWD\\|SHLVL\\|_\\)=' | sort | tr '\\n' ' '",
			"HOME=/home/job PATH=/usr/local/bin:/usr/bin:/bin "},
	} {
		t.Run(test.name, func(t *testing.T) {
			exit, out := run(t, "sh", "-c", test.script)
			if out != test.want {
				t.Errorf("%s\n got %q\nwant %q, status %#x", test.script, out, test.want, exit.Status)
			}
		})
	}
}

// openFiles is the hard limit that a job gets.
func openFiles(t *testing.T) uint64 {
	t.Helper()
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	return min(files.Max, 1<<16)
}

// A work directory in memory is the job's own, and of limited size.
func TestWorkInMemory(t *testing.T) {
	needRoot(t)
	s := spec(t, "sh", "-c", "pwd; stat -c '%a %u %g' .; head -c 2M /dev/zero >f; stat -c %s f")
	s.Work, s.WorkSize = "", 1<<20
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	_, out := finish(t, i)
	if !strings.HasPrefix(out, "/home/job\n700 1879048192 1879048192\n1048576\n") || !strings.Contains(out, "No space left") {
		t.Errorf("got %q", out)
	}
}

// A job must not get its files out of the project whose quota limits them.
func TestProjectIsKept(t *testing.T) {
	needRoot(t)
	const script = `import ctypes, fcntl, struct
f = open("f", "w")
libc = ctypes.CDLL(None, use_errno=True)
def try_ioctl(name, *args):
    try: fcntl.ioctl(f, *args); print(name, "done")
    except OSError as e: print(name, e.errno)
try_ioctl("get", 0x801c581f, bytes(28))
try_ioctl("set", 0x401c5820, bytes(28))
try_ioctl("flags", 0x40086602, bytes(8))
libc.syscall(469, f.fileno(), b"", 0, 0, 0x1000)
print("file_setattr", ctypes.get_errno())
`
	for _, project := range []bool{true, false} {
		s := spec(t, "python3", "-c", script)
		s.Project = project
		i, err := start(t, s)
		if err != nil {
			t.Fatal(err)
		}
		_, out := finish(t, i)
		if held := strings.HasSuffix(out, "set 1\nflags 1\nfile_setattr 1\n"); held != project {
			t.Errorf("project %t: got %q", project, out)
		}
	}
}

func TestNamespaces(t *testing.T) {
	needRoot(t)
	_, out := run(t, "sh", "-c", "for n in pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done")
	inside := strings.Fields(out)
	for i, name := range []string{"pid", "mnt", "net", "ipc", "uts", "cgroup"} {
		own, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if i >= len(inside) || inside[i] == own || !strings.HasPrefix(inside[i], name+":") {
			t.Errorf("%s: outside %s, inside %v", name, own, inside)
		}
	}
}

func TestStartErrors(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		name    string
		change  func(*Spec)
		verdict func(*StepError) bool
		text    string
	}{
		{"not found in PATH", func(s *Spec) { s.Command = []string{"no-such-program"} },
			(*StepError).NotFound, "execute the command: fail(ENOENT): no such file or directory"},
		{"not found by path", func(s *Spec) { s.Command = []string{"/no/such"} }, (*StepError).NotFound, "/no/such"},
		{"not executable", func(s *Spec) { s.Command = []string{"/etc/passwd"} }, (*StepError).NotExecutable, "/etc/passwd"},
		{"no such directory", func(s *Spec) { s.Cwd = "/no/such" }, (*StepError).BadCwd, "/no/such"},
		{"no permission for it", func(s *Spec) {
			if err := os.Mkdir(s.Work+"/private", 0o700); err != nil {
				t.Fatal(err)
			}
			s.Cwd = Home + "/private"
		}, (*StepError).BadCwd, "permission denied"},
		{"no work directory", func(s *Spec) { s.Work = "/no/work" }, func(e *StepError) bool {
			return e.Name == "clone the work directory"
		}, "/no/work"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := spec(t, "true")
			test.change(&s)
			_, err := start(t, s)
			var stepErr *StepError
			if !errors.As(err, &stepErr) || !test.verdict(stepErr) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %s", err, test.text)
			}
		})
	}
}

// TestEveryStepFails makes each step of each kind of plan fail, and expects its name, and nothing left.
func TestEveryStepFails(t *testing.T) {
	needRoot(t)
	base := spec(t, "sleep", "1000")
	base.Seccomp, base.SeccompListener, base.Stdin, base.Merge = seccomp.LogFilter(), true, true, true
	memory := base
	memory.Work, memory.Project, memory.Terminal = "", true, &Size{24, 80}
	memory.Secrets = []Secret{{"token", 4}}
	overlay := memory
	overlay.Overlay = true
	agent := memory
	agent.Terminal, agent.Agent, agent.Command = nil, true, []string{testAgent}
	dir := inOtherRoot(t, "sleep 1000")
	dir.Mounts = append(dir.Mounts, Mount{folder(t), Home + "/x", true, false})
	for kind, s := range map[string]Spec{"base": base, "memory": memory, "overlay": overlay, "agent": agent, "dir": dir} {
		t.Run(kind, func(t *testing.T) { everyStepFails(t, s, kind != "base") })
	}
}

// everyStepFails breaks each step; with most, the many alike that no kind changes are left out.
func everyStepFails(t *testing.T, s Spec, most bool) {
	whole, err := NewPlan(s)
	if err != nil {
		t.Fatal(err)
	}
	mounts := hostMounts(t)
	for part := range whole.parts {
		v, err := decode(whole.parts[part])
		if err != nil {
			t.Fatal(err)
		}
		partFails(t, s, part, v, most)
	}
	if now := hostMounts(t); now != mounts {
		t.Errorf("mounts before:\n%s\nand after:\n%s", mounts, now)
	}
}

func partFails(t *testing.T, s Spec, part int, v *view, most bool) {
	for index := range v.steps {
		plan, err := NewPlan(s)
		if err != nil {
			t.Fatal(err)
		}
		name := v.string(uint64(v.steps[index].name))
		slow := os.Getenv("TELE_TEST_SLOW") != "" // a start takes seconds there: a sample
		if slow && index%10 != 0 || name == "drop capabilities" && index%16 != 0 || v.steps[index].nr == opFail || laterTry(v, index) ||
			most && strings.HasPrefix(name, "mask ") {
			continue
		}
		breakStep(plan.parts[part], index, syscall.EUCLEAN)
		i, err := Start(plan, StartOptions{Cgroup: -1})
		if err != nil {
			t.Fatal(err)
		}
		var in *Input
		if s.Stdin {
			if in = input(t, ""); s.Terminal != nil {
				in.Pipe, in.read = nil, nil
			}
		}
		err = i.Run(t.Context(), plan, in, secretsFile(t, s)...)
		if in != nil {
			in.Close()
		}
		var stepErr *StepError
		if v.steps[index].nr == opSupervise { // the command runs by then; init's end is its end
			if err != nil {
				t.Errorf("step %d: %v", index, err)
			}
		} else if !errors.As(err, &stepErr) || stepErr.Step != v.before+index || stepErr.Errno != syscall.EUCLEAN ||
			stepErr.Name != name {
			t.Errorf("step %d, %s: got %v", index, name, err)
		}
		i.Close()
		if err := unix.Kill(i.Pid, 0); err != unix.ESRCH {
			t.Errorf("step %d, %s: init is still there: %v", index, name, err)
		}
	}
}

// laterTry tells whether a step is one of execve's later tries, which are not reached.
func laterTry(v *view, index int) bool {
	return v.steps[index].nr == unix.SYS_EXECVE && v.steps[index-1].nr == unix.SYS_EXECVE
}

// breakStep replaces a step by one that fails.
func breakStep(part []byte, index int, errno syscall.Errno) {
	replaceStep(part, index, opFail, uint64(errno))
}

// replaceStep makes a step do something else, with one argument.
func replaceStep(part []byte, index int, nr uint32, number uint64) {
	var h header
	copy(raw(&h), part)
	var s step
	place := part[int(h.steps)+index*stepSize:]
	copy(raw(&s), place)
	s.nr, s.kinds[0], s.args[0] = nr, argNumber, number
	copy(place, raw(&s))
}

func hostMounts(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestOrphansAreReapedAndKilled(t *testing.T) {
	needRoot(t)
	// The background process keeps the pipe open; the job ends all the same.
	exit, out := run(t, "sh", "-c", "(sleep 1000 &) ; (sh -c 'exit 3' &) ; echo done; exit 7")
	if exit.Status.ExitStatus() != 7 || out != "done\n" {
		t.Errorf("status %#x, output %q", exit.Status, out)
	}
}

func TestSignalReachesTheCommand(t *testing.T) {
	needRoot(t)
	i, err := start(t, spec(t, "sh", "-c", "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 1; done"))
	if err != nil {
		t.Fatal(err)
	}
	readable(t, i.Stdout)
	if err := i.SignalAll(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	exit, out := finish(t, i)
	if exit.Status.ExitStatus() != 5 || !strings.HasPrefix(out, "ready\ncaught\n") {
		t.Errorf("status %#x, output %q", exit.Status, out)
	}
}

func TestRefusesTheHostsMountNamespace(t *testing.T) {
	needRoot(t)
	plan, err := NewPlan(spec(t, "true"))
	if err != nil {
		t.Fatal(err)
	}
	plan.namespaces = unix.CLONE_NEWPID
	i, err := Start(plan, StartOptions{Cgroup: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	var stepErr *StepError
	if err := i.Run(t.Context(), plan, nil); !errors.As(err, &stepErr) || stepErr.Step != -1 || stepErr.Errno != syscall.EPERM {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestKilledInitIsGone(t *testing.T) {
	needRoot(t)
	i, err := start(t, spec(t, "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"its own", "adopted"} {
		if kind == "adopted" {
			if i, err = start(t, spec(t, "sleep", "1000")); err != nil {
				t.Fatal(err)
			}
			i = handOver(t, i)
		}
		if i.Ended() {
			t.Errorf("%s: has ended already", kind)
		}
		if err := unix.Kill(i.Pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if _, err := wait(t, i); !errors.Is(err, ErrInitGone) {
			t.Errorf("%s: got %v, want ErrInitGone", kind, err)
		}
		for end := time.Now().Add(time.Minute); !i.Ended(); runtime.Gosched() { // its socket goes first
			if time.Now().After(end) {
				t.Fatalf("%s: has not ended", kind)
			}
		}
		i.Close()
		if !i.Ended() {
			t.Errorf("%s: has not ended when it is closed", kind)
		}
	}
}

// A context that ends just when Await has what it waited for leaves nothing behind: neither a later Await
// nor Exit fails for it.
func TestAwaitThatIsCancelledTooLate(t *testing.T) {
	needRoot(t)
	i, err := start(t, spec(t, "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	succeeded := 0
	for range 1000 {
		switch err := i.Await(ended); { // what init said of the start is there still
		case err == nil:
			succeeded++
		case err != context.Canceled:
			t.Fatal(err)
		}
		if err := i.Await(t.Context()); err != nil {
			t.Fatalf("the next Await: %v", err)
		}
	}
	if succeeded == 0 {
		t.Error("no Await was faster than the end of its context")
	}
	if _, err := i.Exit(); err != ErrRunning {
		t.Errorf("the exit is %v", err)
	}
	// As if the clean-up had come too late.
	if err := i.control.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Exit(); err != ErrRunning {
		t.Errorf("the exit is %v", err)
	}
	if err := i.SignalAll(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit, err := wait(t, i); err != nil || exit.Status.Signal() != unix.SIGTERM {
		t.Errorf("status %#x, %v", exit.Status, err)
	}
}

func TestAwaitIsCancelled(t *testing.T) {
	needRoot(t)
	plan, err := NewPlan(spec(t, "true"))
	if err != nil {
		t.Fatal(err)
	}
	i, err := Start(plan, StartOptions{Cgroup: -1}) // and never give it all of the plan
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := i.Await(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
}

// An init that never answers does not hold up who waits for it for ever, who learns where it is.
func TestStuckInit(t *testing.T) {
	needRoot(t)
	plan, err := NewPlan(spec(t, "true"))
	if err != nil {
		t.Fatal(err)
	}
	i, err := Start(plan, StartOptions{Cgroup: -1}) // as above
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := i.Prepared(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.answerTime = time.Millisecond
	want := fmt.Sprintf("pid %d, has said nothing for 1ms", i.Pid)
	if err := i.Await(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q in it", err, want)
	}
	if _, err := i.Exit(); err != ErrRunning {
		t.Errorf("its deadline was left behind: %v", err)
	}
}

func TestByHandIsRefused(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{InitName}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 125 || !strings.Contains(string(out), "tele run") {
		t.Errorf("got %v, %s", err, out)
	}
}

func TestBigEnvironment(t *testing.T) {
	needRoot(t)
	s := spec(t, "sh", "-c", "echo ${#BIG0} ${#BIG7}")
	for n := range 8 {
		s.Env = append(s.Env, fmt.Sprintf("BIG%d=%s", n, strings.Repeat("x", 100_000)))
	}
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, out := finish(t, i); out != "100000 100000\n" {
		t.Errorf("got %q", out)
	}
}

func TestUserNamespace(t *testing.T) {
	needRoot(t) // to become another user for it
	s := spec(t, "sh", "-c", "id -u; pwd; touch f && echo wrote; touch /usr/x 2>/dev/null || echo refused; grep CapEff /proc/self/status")
	s.UserNamespace, s.Seccomp, s.SeccompListener = true, seccomp.LogFilter(), true
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, out := finish(t, i); !strings.HasPrefix(out, "0\n/home/job\n") || !strings.Contains(out, "CapEff:\t0000000000000000") {
		t.Errorf("got %q", out)
	}
}

// Whatever number the server has the program by that inits execute: it is not lost among init's own
// descriptors, nor those that are on their way there.
func TestStartWithAnyDescriptor(t *testing.T) {
	needRoot(t)
	exe, err := sealedExe()
	if err != nil {
		t.Fatal(err)
	}
	defer func(real func() (*os.File, error)) { sealedExe = real }(sealedExe)
	step := 1
	if os.Getenv("TELE_TEST_SLOW") != "" {
		step = 8
	}
	for number := 3; number < 60; number += step {
		fd, err := unix.FcntlInt(exe.Fd(), unix.F_DUPFD_CLOEXEC, number)
		if err != nil {
			t.Fatal(err)
		}
		copied := os.NewFile(uintptr(fd), "exe")
		sealedExe = func() (*os.File, error) { return copied, nil }
		i, err := start(t, spec(t, "true"))
		if err != nil {
			t.Fatalf("from descriptor %d: %v", fd, err)
		}
		i.Close()
		_ = copied.Close()
	}
}

// The files that a plan begins with are where it looks for them, whatever the server has inherited itself.
func TestFilesOfTheFirstPart(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	left, err := os.Create(filepath.Join(dir, "left"))
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	for range mostFiles {
		fd, err := unix.FcntlInt(left.Fd(), unix.F_DUPFD, fdFiles) // not closed on exec
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	s := spec(t, "sleep", "1000")
	s.Join = mostFiles
	var tasks []*os.File
	for n := range mostFiles + 1 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint("tasks", n)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		tasks = append(tasks, f)
	}
	plan, err := NewPlan(s)
	if err != nil {
		t.Fatal(err)
	}
	begin := func(files []*os.File) (*Init, error) {
		return Start(plan, StartOptions{Cgroup: -1, Join: func() ([]*os.File, error) { return files, nil }})
	}
	if _, err := begin(tasks); err == nil {
		t.Error("init took more files than it can")
	}
	i, err := begin(tasks[:mostFiles])
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := i.Run(t.Context(), plan, nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range tasks[:mostFiles] {
		if text, err := os.ReadFile(f.Name()); string(text) != "0" {
			t.Errorf("%s: %q, %v", f.Name(), text, err)
		}
	}
	for _, fd := range descriptors(t, i.Pid) {
		if strings.Contains(fd, dir) {
			t.Errorf("init has %s", fd)
		}
	}
}
