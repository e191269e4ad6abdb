package cgroup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/telerun/tele/limits"
	"golang.org/x/sys/unix"
)

// A server started by a service manager is played by this test binary, run again in the group that
// it would be started in.
const (
	childVar  = "TELE_TEST_CGROUP_CHILD" // what the child does: start or end
	childName = "tele-test-delegated"
)

// What the child tells.
type childReport struct {
	Base    string
	Layout  string
	Explain []string
	List    []string
	Pid     int // of the job
	Memory  string
}

// TestServerChild is no test, but the child.
func TestServerChild(t *testing.T) {
	what := os.Getenv(childVar)
	if what == "" {
		return // only the tests below start it
	}
	m, err := Open(Options{Name: childName})
	if err != nil {
		t.Fatal(err)
	}
	r := childReport{Base: m.unified.base, Layout: m.Layout(), Explain: append(m.Explain(), m.Notes()...)}
	if what == "start" {
		r.Pid, r.Memory = startJob(t, m)
	} else {
		r.List = m.List()
		g := m.Adopt("job", nil)
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := g.WaitEmpty(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := g.Delete(); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.NewFile(3, "report").Write(text); err != nil {
		t.Fatal(err)
	}
}

// startJob starts a process in a group of its own, which this one does not wait for.
func startJob(t *testing.T, m *Manager) (pid int, memory string) {
	g, err := m.Create("job", Request{Limits: limits.Default()})
	if err != nil {
		t.Fatal(err)
	}
	defer g.CloseStartFiles()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.CloneFD(), Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	memory, _ = readFile(filepath.Join(m.unified.base, "job"), "memory.max") // not there in hybrid
	return cmd.Process.Pid, memory
}

// runServer runs the child in a group.
func runServer(t *testing.T, group, what string) childReport {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	dir, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestServerChild$")
	cmd.Env = append(os.Environ(), childVar+"="+what)
	cmd.ExtraFiles = []*os.File{out}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	var said bytes.Buffer
	cmd.Stdout = &said
	err = cmd.Run()
	_ = out.Close() // the child has its own
	if err != nil {
		t.Fatalf("server: %v\n%s", err, &said)
	}
	var r childReport
	if err := json.NewDecoder(in).Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

// startIn runs a process in a group.
func startIn(group string) error {
	dir, err := os.Open(group)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return cmd.Run()
}

// unit makes a group as systemd makes that of a unit with Delegate=yes, and one for the server in it.
func unit(t *testing.T) (dir, leaf string) {
	t.Helper()
	m := open1(t)
	if m.unified == nil {
		t.Skip("needs a cgroup version 2 mount")
	}
	// Two levels, as units are: what is directly below the mount's root is never taken for a unit.
	slice := filepath.Join(filepath.Dir(m.unified.base), fmt.Sprintf("tele-test-%d.slice", os.Getpid()))
	dir = filepath.Join(slice, "tele.service")
	leaf = filepath.Join(dir, "main")
	if err := os.MkdirAll(leaf, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeTree(slice); err != nil {
			t.Error(err)
		}
	})
	for _, c := range wanted {
		_ = writeFile(slice, "cgroup.subtree_control", "+"+c) // those that there are
	}
	if err := unix.Setxattr(dir, "trusted.delegate", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	return dir, leaf
}

// What systemd 254 does for Delegate=yes and DelegateSubgroup=: the server ends and the job goes on
// with its limits, a second server starts at the same place and finds the job.
func TestDelegatedSubgroup(t *testing.T) {
	dir, leaf := unit(t)
	first := runServer(t, leaf, "start")
	base := filepath.Join(dir, childName)
	if first.Base != base || strings.Contains(fmt.Sprint(first.Explain), "delegated") {
		t.Errorf("first server: %+v, want base %s", first, base)
	}
	if err := unix.Kill(first.Pid, 0); err != nil {
		t.Errorf("the job after the server: %v", err)
	}
	want := fmt.Sprint(limits.Default().Get(limits.Memory))
	if got, _ := readFile(filepath.Join(base, "job"), "memory.max"); first.Layout == "v2" && (got != want || got != first.Memory) {
		t.Errorf("memory.max %q when started, %q after the server, want %s", first.Memory, got, want)
	}
	if err := startIn(dir); first.Layout == "v2" && !errors.Is(err, unix.EBUSY) {
		t.Errorf("start in the unit's own group: %v, want EBUSY, the reason for all of this", err)
	}
	second := runServer(t, leaf, "end")
	if second.Base != base || len(second.List) != 1 || second.List[0] != "job" {
		t.Errorf("second server: %+v", second)
	}
	if exists(base, "") {
		t.Errorf("%s is still there", base)
	}
}

// What an older systemd does: it starts the server in the unit's own group, and could not do so again
// with jobs in there. So they are elsewhere, and the server says it.
func TestDelegatedWithoutSubgroup(t *testing.T) {
	dir, leaf := unit(t)
	if err := unix.Rmdir(leaf); err != nil {
		t.Fatal(err)
	}
	mount := filepath.Dir(filepath.Dir(dir))
	for _, what := range []string{"start", "end"} {
		r := runServer(t, dir, what)
		if r.Base != filepath.Join(mount, childName) {
			t.Errorf("%s: base %s", what, r.Base)
		}
		if !strings.Contains(fmt.Sprint(r.Explain), "DelegateSubgroup=") {
			t.Errorf("%s: explain %q", what, r.Explain)
		}
	}
	if exists(mount, childName) {
		t.Errorf("%s is still there", childName)
	}
}
