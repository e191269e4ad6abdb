package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/telerun/tele/limits"
)

// host are the hierarchies of this machine.
func host(t *testing.T) []hierarchy {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return visible(hierarchies(parseMountinfo(string(text))))
}

// sleepIn starts a process in a group, which ends with the test.
func sleepIn(t *testing.T, g *Group) *exec.Cmd {
	t.Helper()
	cmd := commandIn(g, "sh", "-c", "echo; exec sleep 1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have been ended
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil { // it has joined
		t.Fatal(err)
	}
	return cmd
}

// Where there is no version 2 tree, CPU time is from a group of version 1, and Kill ends what is in the
// job's own groups and nothing of those that all jobs are in.
func TestVersion1Alone(t *testing.T) {
	all := open1(t)
	list := slices.DeleteFunc(host(t), func(h hierarchy) bool { return h.version == 2 })
	if len(list) == 0 {
		return // no machine with version 1: there is nothing that it could be alone of
	}
	m := openIn(list, filepath.Base(all.trees[0].base)+"-v1")
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	if m.Layout() != "v1" || m.by["devices"] == nil || m.by["devices"].tasks == nil {
		t.Fatalf("layout %s, %q", m.Layout(), m.Explain())
	}
	groups := map[string]*Group{}
	sleeps := map[string]*exec.Cmd{}
	for _, id := range []string{"one", "two"} {
		g, err := m.Create(id, Request{Limits: limits.Default(), NoDevice: "not in this test"})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			g.CloseStartFiles()
			if err := g.Delete(); err != nil {
				t.Error(err)
			}
		}()
		groups[id], sleeps[id] = g, sleepIn(t, g)
		if len(g.JoinFiles()) != m.Joins() || len(g.Paths()) != m.Joins()-1 {
			t.Errorf("%d files to join, %d were told, and %d groups", len(g.JoinFiles()), m.Joins(), len(g.Paths()))
		}
	}
	shared, err := os.ReadFile(m.by["devices"].tasks.Name())
	if err != nil || len(strings.Fields(string(shared))) != 2 {
		t.Errorf("in the group for devices: %q, %v", shared, err)
	}
	if ids := m.List(); !slices.Equal(ids, []string{"one", "two"}) {
		t.Errorf("list %v", ids)
	}
	runIn(t, groups["two"], "sh", "-c", "i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done")
	u := groups["two"].Usage()
	if u.CPU == nil || *u.CPU == 0 || u.CPUUser == nil || u.CPUSystem == nil || u.StallCPU != nil {
		t.Errorf("usage %+v", u)
	}
	if err := groups["one"].Kill(); err != nil {
		t.Fatal(err)
	}
	_ = sleeps["one"].Wait() // killed
	if left, err := groups["one"].processes(); err != nil || len(left) != 0 {
		t.Errorf("left of the one: %v, %v", left, err)
	}
	if pids, err := groups["two"].processes(); err != nil || !slices.Contains(pids, sleeps["two"].Process.Pid) {
		t.Errorf("of the other: %v, %v", pids, err)
	}
	if err := groups["two"].Kill(); err != nil {
		t.Fatal(err)
	}
	_ = sleeps["two"].Wait() // killed too
}

// CPU time is that of all processes, also of those that ended, whichever tree counts it; and the trees
// that count it agree.
func TestCPUTimeOfBothVersions(t *testing.T) {
	m := open1(t)
	g := create(t, m, map[limits.Name]int64{limits.CPU: limits.Max})
	runIn(t, g, "sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	u := g.Usage()
	if u.CPU == nil || u.CPUUser == nil || u.CPUSystem == nil || *u.CPUUser == 0 || *u.CPU < *u.CPUUser {
		t.Fatalf("usage %+v", u)
	}
	list := host(t)
	i := slices.IndexFunc(list, func(h hierarchy) bool { return slices.Contains(h.controllers, "cpuacct") })
	if i < 0 || m.unified == nil {
		return // there is but one that counts
	}
	// The same again, in a group of version 1 beside.
	counter := filepath.Join(list[i].point, filepath.Base(m.trees[0].base)+"-counter")
	if err := makeDir(counter); err != nil {
		t.Fatal(err)
	}
	defer removeTree(counter)
	tasks, err := os.OpenFile(filepath.Join(counter, "tasks"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tasks.Close()
	before := *u.CPU
	runWith(t, g, tasks, nil, "sh", "-c", "echo 0 >&0; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	counted, used := number(dir{nil, counter}, "cpuacct.usage", 1000), *g.Usage().CPU-before
	t.Logf("version 1 says %v us, version 2 %v", *counted, used)
	// Version 2 has seen the first moments of the shell, too.
	if used < *counted || used > *counted*2 {
		t.Errorf("version 1 says %v us, version 2 %v", *counted, used)
	}
}

// An older server made a group in every tree: these are found, used, killed and removed.
func TestAdoptMoreGroups(t *testing.T) {
	m := open1(t)
	g, err := m.Create("job", Request{Limits: limits.Default(), NoDevice: "not in this test"})
	if err != nil {
		t.Fatal(err)
	}
	cmd := sleepIn(t, g)
	g.CloseStartFiles()
	paths := slices.Clone(g.Paths())
	slices.Reverse(paths) // their order is the older server's
	for _, tree := range m.trees {
		if tree.dir != nil {
			continue
		}
		path := filepath.Join(tree.base, "job")
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		defer removeTree(path)
		if err := writeFile(path, "tasks", strconv.Itoa(cmd.Process.Pid)); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	old := m.Adopt("job", paths)
	if u := old.Usage(); u.CPU == nil || u.MemoryPeak == nil || *u.MemoryPeak == 0 {
		t.Errorf("usage %+v", u)
	}
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if err := old.WaitEmpty(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := old.Delete(); err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if exists(path, "") {
			t.Errorf("%s is left", path)
		}
	}
	// What has no record is listed, wherever it is.
	for _, tree := range m.trees {
		path := filepath.Join(tree.base, "left")
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if ids := m.List(); !slices.Equal(ids, []string{"left"}) {
			t.Errorf("list with %s: %v", path, ids)
		}
		if err := m.Adopt("left", nil).Delete(); err != nil || exists(path, "") {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

// A group that a server made elsewhere, which had a unit of systemd's to itself or another name, is this
// one's all the same by its paths.
func TestAdoptFromElsewhere(t *testing.T) {
	m := open1(t)
	g, err := m.Create("job", Request{Limits: limits.Default(), NoDevice: "not in this test"})
	if err != nil {
		t.Fatal(err)
	}
	cmd := sleepIn(t, g)
	g.CloseStartFiles()
	next := openIn(host(t), filepath.Base(m.trees[0].base)+"-next")
	defer func() {
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	}()
	old := next.Adopt("job", g.Paths())
	if u := old.Usage(); u.CPU == nil || u.MemoryPeak == nil || *u.MemoryPeak == 0 || u.PidsLimitHits == nil {
		t.Errorf("usage %+v", u)
	}
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if err := old.WaitEmpty(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := old.Delete(); err != nil {
		t.Fatal(err)
	}
	if ids := m.List(); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
}
