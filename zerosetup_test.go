package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A machine of a test's own: a network and a /var/lib that nobody else has, so that the commands
// can run with no flag and no setting at all.
type machine struct {
	dir  string // with tele, telerun and teleworker, and the user's home
	cred *syscall.Credential
}

// newMachine moves this goroutine's thread to the machine, for good.
func newMachine(t *testing.T, uid uint32) *machine {
	t.Helper()
	runtime.LockOSThread() // the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", "/var/lib", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	loopbackUp(t)
	dir, err := os.MkdirTemp("", "tele-machine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &machine{dir: dir, cred: &syscall.Credential{Uid: uid, Gid: uid}}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tele"), self, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"telerun", "teleworker"} {
		if err := os.Symlink("tele", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, int(uid), int(uid)); err != nil {
		t.Fatal(err)
	}
	return m
}

func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(m.dir, name), args...)
	cmd.Dir = m.dir
	cmd.Env = []string{"HOME=" + m.dir, "PATH=" + os.Getenv("PATH"), "LOG_LEVEL=info"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.cred}
	return cmd
}

// run runs a command that must end with this exit code and returns its stdout.
func (m *machine) run(t *testing.T, code int, name string, args ...string) string {
	t.Helper()
	cmd := m.command(name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, _ := cmd.Output() // the code is looked at
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("%s %q: exit code %d, want %d:\n%s%s", name, args, got, code, out, &stderr)
	}
	return string(out)
}

// The first commands of a new user work as they stand, for root and for anybody else: the whole
// life of a job, with nothing set up before.
func TestZeroSetup(t *testing.T) {
	if os.Geteuid() != 0 {
		if strings.Contains(os.Getenv("TELE_REQUIRE"), "root") {
			t.Fatal("TELE_REQUIRE names root, and this is not root")
		}
		t.Skip("needs root, to become others")
	}
	for name, uid := range map[string]uint32{"root": 0, "user": 65534} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, uid)
			server := m.command("teleworker")
			stderr, err := server.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = server.Process.Kill() }() // ended already, if all is well
			lines := bufio.NewReader(stderr)
			log := ""
			for !strings.Contains(log, `"layout"`) {
				line, err := lines.ReadString('\n')
				if log += line; err != nil {
					t.Fatalf("the server ended: %v\n%s", err, log)
				}
			}
			// A build with cgo, as for the race detector, cannot give up any.
			if uid == 0 && !strings.Contains(log, "keeps all of root's capabilities") {
				checkCapabilities(t, server.Process.Pid)
			}
			m.wholeLife(t)
			if err := server.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(lines) // ends with the server
			if log += string(rest); uid != 0 && !strings.Contains(log, "not root: jobs run in a user namespace") {
				t.Errorf("the server did not say what it cannot do:\n%s", log)
			}
			if err := server.Wait(); err != nil {
				t.Errorf("%v\n%s", err, log)
			}
		})
	}
}

func (m *machine) wholeLife(t *testing.T) {
	t.Helper()
	_, id, _ := strings.Cut(strings.TrimSuffix(m.run(t, 0, "telerun", "start", "--", "ls", "-l", "/"), "\"}\n"), `:"`)
	if out := m.run(t, 0, "telerun", "logs", id); !strings.Contains(out, " usr\n") {
		t.Errorf("logs of ls -l: %q", out)
	}
	if out := m.run(t, 0, "telerun", "status", id); out != `{"job_id":"`+id+`","status":"success","exit_code":0}`+"\n" {
		t.Errorf("status: %q", out)
	}
	m.run(t, 0, "telerun", "--addr", "127.0.0.1:50051", "start", "--", "echo", "hello")
	if out := m.run(t, 5, "tele", "run", "--", "sh", "-c", "touch /tmp/x f; ls /tmp $HOME; exit 5"); out != "/home/job:\nf\n\n/tmp:\nx\n" {
		t.Errorf("run: %q", out)
	}
	m.run(t, 143, "tele", "run", "--timeout", "50ms", "--", "sleep", "1000")
	m.run(t, 127, "tele", "run", "--", "no-such-program")
	id = strings.TrimSpace(m.run(t, 0, "tele", "start", "--", "sleep", "1000"))
	m.run(t, 0, "telerun", "stop", id)
	if out := m.run(t, 143, "tele", "wait", id); out != "" {
		t.Errorf("wait: %q", out)
	}
	if out := m.run(t, 0, "tele", "status", id); !strings.Contains(out, "killed") {
		t.Errorf("status: %q", out)
	}
}

// checkCapabilities: every thread of the server has none that opens devices, loads modules, sets the
// clock or looks past every mode.
func checkCapabilities(t *testing.T, pid int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	for _, path := range threads {
		text := read(t, path)
		for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
			_, rest, _ := strings.Cut(text, set+":")
			var caps uint64
			if _, err := fmt.Sscanf(rest, "%x", &caps); err != nil {
				t.Fatal(err)
			}
			for _, c := range []uint{unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO, unix.CAP_MKNOD, unix.CAP_SYS_TIME,
				unix.CAP_SYS_BOOT, unix.CAP_DAC_READ_SEARCH, unix.CAP_NET_RAW, unix.CAP_SYSLOG} {
				if caps&(1<<c) != 0 {
					t.Errorf("%s: %s has capability %d", path, set, c)
				}
			}
		}
	}
}
