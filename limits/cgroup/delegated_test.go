package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/telerun/tele/limits"
	"golang.org/x/sys/unix"
)

// nobody is the user that a group is delegated to.
const nobody = 65534

// A server that is not root, but has a group of its own as systemd's Delegate=yes gives it, limits
// its jobs there, and leaves the group as it was.
func TestDelegated(t *testing.T) {
	own := delegate(t)
	dir, err := os.Open(own)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	// The user need not reach the directory that this binary is in.
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd := exec.Command("/proc/self/fd/3", "-test.run=^TestDelegatedServer$", "-test.v")
	cmd.Dir, cmd.Env, cmd.ExtraFiles = "/", append(os.Environ(), delegatedEnv+"="+own), []*os.File{self}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()),
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if t.Logf("%s", out); err != nil {
		t.Fatal(err)
	}
	if left := children(own); len(left) != 0 {
		t.Errorf("left in the delegated group: %v", left)
	}
	if on, err := os.ReadFile(filepath.Join(own, "cgroup.subtree_control")); err != nil || strings.TrimSpace(string(on)) != "" {
		t.Errorf("controllers that are still handed down: %q, %v", on, err)
	}
}

const delegatedEnv = "TELE_TEST_DELEGATED"

// TestDelegatedServer is the inner half of TestDelegated: it runs as nobody in the delegated group.
func TestDelegatedServer(t *testing.T) {
	own := os.Getenv(delegatedEnv)
	if own == "" {
		return // TestDelegated runs it
	}
	m, err := Open(Options{Name: "tele-test"})
	if err != nil {
		t.Fatal(err)
	}
	// Only root may attach the program that closes devices.
	if m.Layout() != "v2" || len(m.Explain()) != 1 || !strings.HasPrefix(m.Explain()[0], "devices ") {
		t.Errorf("layout %s, %q", m.Layout(), m.Explain())
	}
	g, err := m.Create("job", Request{Limits: limits.Default(), NoDevice: "not in this test"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range g.Status() {
		if io := s.Name == limits.IORead || s.Name == limits.IOWrite; s.Applied != s.Asked && !io {
			t.Errorf("%+v", s)
		}
	}
	cmd := exec.Command("cat", "/proc/self/cgroup")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.CloneFD()}
	where, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "0::/" + filepath.Base(own) + "/tele-test/job\n"; string(where) != want {
		t.Errorf("the command ran in %q, not in %q", where, want)
	}
	g.CloseStartFiles()
	if u := g.Usage(); u.CPU == nil || u.MemoryPeak == nil {
		t.Errorf("usage %+v", u)
	}
	if ids := m.List(); !slices.Equal(ids, []string{"job"}) {
		t.Errorf("list %v", ids)
	}
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// delegate makes a group that belongs to nobody, with every controller in it.
func delegate(t *testing.T) string {
	t.Helper()
	const root = "/sys/fs/cgroup"
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		t.Fatal(err)
	}
	require := os.Getenv("TELE_REQUIRE")
	switch {
	case os.Geteuid() != 0:
		if strings.Contains(require, "root") {
			t.Fatal("TELE_REQUIRE names root, and this is not root")
		}
		t.Skip("needs root, to delegate a group")
	case fs.Type != unix.CGROUP2_SUPER_MAGIC:
		if strings.Contains(require, "cgroup2") {
			t.Fatalf("TELE_REQUIRE names cgroup2, and %s is not that", root)
		}
		t.Skipf("needs pure cgroup version 2, and %s is not that", root)
	}
	// As the service manager has it: every controller is handed down to services.
	for _, c := range []string{"cpu", "memory", "io", "pids"} {
		if err := writeFile(root, "cgroup.subtree_control", "+"+c); err != nil {
			t.Fatal(err)
		}
	}
	own := filepath.Join(root, fmt.Sprintf("tele-test-%d-delegated", os.Getpid()))
	if err := makeDir(own); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeTree(own); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		if err := os.Chown(filepath.Join(own, name), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	return own
}
