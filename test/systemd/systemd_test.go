// Package systemd tests the unit that is shipped, docs/tele.service, with systemd as process 1 of a
// virtual machine:
//
//	make test-systemd
//
// It installs tele there by `make install`, so what is tested is what a machine gets. Of the two
// releases that the target takes, the older one's systemd (252) cannot start a unit again whose group
// has jobs in it, and the newer one's can: jobs are then in the unit's delegated group.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const cgroups = "/sys/fs/cgroup"

// need skips where systemd is not process 1 of a machine that is thrown away afterwards.
func need(t *testing.T) {
	t.Helper()
	if os.Getenv("TELE_SYSTEMD") == "" {
		t.Skip("TELE_SYSTEMD is not set: installs and starts a system service, so it is for a virtual machine only (make test-systemd)")
	}
	install(t)
}

// run runs a command and returns its stdout, without the last newline.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSuffix(string(out), "\n")
}

// show returns a property of the unit.
func show(t *testing.T, property string) string {
	t.Helper()
	return run(t, "systemctl", "show", "--property="+property, "--value", "tele")
}

var installed sync.Once

func install(t *testing.T) {
	t.Helper()
	installed.Do(func() {
		// bin/tele is there; a compiler would take this machine minutes.
		run(t, "make", "-C", "../..", "-o", "build", "install")
		run(t, "systemctl", "daemon-reload")
	})
}

// version is systemd's.
func version(t *testing.T) int {
	t.Helper()
	match := regexp.MustCompile(`^systemd (\d+)`).FindStringSubmatch(run(t, "systemctl", "--version"))
	if match == nil {
		t.Fatal("systemctl --version names none")
	}
	n, err := strconv.Atoi(match[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// delegates tells whether this systemd starts the server in a group of its own below the unit's.
func delegates(t *testing.T) bool {
	t.Helper()
	return version(t) >= 254
}

// start starts the unit, which systemctl waits for, and stops it after the test.
func start(t *testing.T) {
	t.Helper()
	need(t)
	workOnDisk(t)
	run(t, "systemctl", "start", "tele")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("journal:\n%s", run(t, "journalctl", "--no-pager", "-o", "cat", "-n", "60", "-u", "tele"))
		}
		run(t, "systemctl", "stop", "tele")
	})
}

// workOnDisk has the work directories of jobs where this test can reach them, for the unit and for a
// server that the test starts by hand.
func workOnDisk(t *testing.T) {
	t.Helper()
	t.Setenv("TELE_WORK", "disk")
	const dir = "/run/systemd/system/tele.service.d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/work.conf", []byte("[Service]\nEnvironment=TELE_WORK=disk\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "daemon-reload")
}

// ownGroup is the group of a process, as a directory.
func ownGroup(t *testing.T, pid string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	path, found := strings.CutPrefix(strings.TrimSpace(string(text)), "0::")
	if !found {
		t.Fatalf("cgroup of %s: %q", pid, text)
	}
	return filepath.Join(cgroups, path)
}

func TestUnitIsValid(t *testing.T) {
	need(t)
	// On older versions a line about DelegateSubgroup, which they ignore, is all right.
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", "tele.service").CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze verify: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if delegates(t) || !strings.Contains(line, "DelegateSubgroup") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
}

// `systemctl start` returns when the server said that it is ready, and that is true.
func TestStart(t *testing.T) {
	start(t)
	if out := run(t, "tele", "run", "--", "echo", "hello"); out != "hello" {
		t.Errorf("tele run: %q", out)
	}
	if got, want := show(t, "StatusText"), "listening on 127.0.0.1:50051"; got != want {
		t.Errorf("status text %q, want %q", got, want)
	}
	group, want := ownGroup(t, show(t, "MainPID")), cgroups+"/system.slice/tele.service"
	if delegates(t) {
		want += "/server"
	}
	if group != want {
		t.Errorf("the server is in %s, want %s", group, want)
	}
	if info, err := os.Stat("/var/lib/tele"); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("state directory: %v, %v", info, err)
	}
	// The sum of CapabilityBoundingSet.
	status := run(t, "cat", "/proc/"+show(t, "MainPID")+"/status")
	if !strings.Contains(status, "\nNoNewPrivs:\t1\n") || !strings.Contains(status, "\nCapBnd:\t00000000812c11eb\n") {
		t.Errorf("the server's privileges: %s", status)
	}
	if server, ours := namespace(t, show(t, "MainPID")), namespace(t, "1"); server != ours {
		t.Errorf("the server has the mount namespace %s, not the machine's %s", server, ours)
	}
}

func namespace(t *testing.T, pid string) string {
	t.Helper()
	link, err := os.Readlink("/proc/" + pid + "/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// A stopped unit has no server left, and was no failure.
func TestStop(t *testing.T) {
	start(t)
	pid := show(t, "MainPID")
	run(t, "systemctl", "stop", "tele")
	if _, err := os.Stat("/proc/" + pid); err == nil {
		t.Errorf("the server, %s, is still there", pid)
	}
	if got := show(t, "Result") + " " + show(t, "ActiveState"); got != "success inactive" {
		t.Errorf("unit: %s", got)
	}
}
