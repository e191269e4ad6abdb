package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Options are what Open needs.
type Options struct {
	// Name is the name of the server's own group; two servers on a machine need two.
	Name string
}

// A tree is the server's place in one hierarchy: the groups of jobs, and nothing else, are directly
// below base.
type tree struct {
	version int
	point   string // where it is mounted
	base    string
	dir     *os.File // base, when each job has a group of its own there
	tasks   *os.File // base/tasks, when jobs are in base itself, all together
}

// open is the directory at a path in the tree.
func (t *tree) open(path string) dir {
	if name, below := strings.CutPrefix(path, t.base+"/"); below && t.dir != nil {
		return dir{t.dir, name}
	}
	return dir{nil, path}
}

// A Manager makes the groups of jobs.
type Manager struct {
	layout  string
	trees   []*tree          // also those in which this server makes no groups, but one before it may have
	by      map[string]*tree // by controller: cpu, cpuacct, memory, io, pids
	unified *tree            // the version 2 tree; nil when there is none
	own     string           // the delegated group whose leaf "server" this process moved into
	explain []string
	notes   []string
}

// wanted are the controllers that limits and usage need, by their version 2 names, and devices.
var wanted = []string{"cpu", "cpuacct", "memory", "io", "pids", "devices"}

// Open looks at the host and makes the server's own groups. A host that gives none is no error.
func Open(o Options) (*Manager, error) {
	if o.Name == "" || strings.ContainsRune(o.Name, '/') {
		return nil, fmt.Errorf("cgroup name %q", o.Name)
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return openIn(visible(hierarchies(parseMountinfo(string(text)))), o.Name), nil
}

// openIn is Open for the hierarchies that are given.
func openIn(list []hierarchy, name string) *Manager {
	m := &Manager{by: map[string]*tree{}}
	// Version 2 first: what it has without a controller need not be had of version 1. And what keeps us from
	// using it is the first that Explain says.
	slices.SortStableFunc(list, func(a, b hierarchy) int { return b.version - a.version })
	for _, h := range list {
		if err := m.add(h, name); err != nil {
			m.explain = append(m.explain, fmt.Sprintf("cgroups below %s cannot be used: %v", h.point, err))
		}
	}
	m.nameLayout()
	if err := m.closeDevices(); err != nil && m.layout != "none" {
		m.explain = append(m.explain, fmt.Sprintf("devices are closed off by the sandbox alone, not by a cgroup too: %v", err))
	}
	return m
}

// add takes the server's place in a hierarchy, if it has anything that is wanted.
func (m *Manager) add(h hierarchy, name string) error {
	if h.version == 2 {
		return m.addV2(h, name)
	}
	t := &tree{version: 1, point: h.point, base: filepath.Join(h.point, name)}
	var has []string
	for _, c := range h.controllers {
		if c == "blkio" {
			c = "io"
		}
		if slices.Contains(wanted, c) && m.by[c] == nil {
			has = append(has, c)
		}
	}
	if len(has) == 0 {
		return nil
	}
	if err := t.enter(has, m.unified); err != nil {
		return err
	}
	m.trees = append(m.trees, t)
	for _, c := range has {
		m.by[c] = t
	}
	return nil
}

// enter makes base where it is needed: a group that no job needs is one less to make at each start.
func (t *tree) enter(controllers []string, unified *tree) (err error) {
	alone := ""
	if len(controllers) == 1 {
		alone = controllers[0]
	}
	if alone == "cpuacct" && unified != nil && exists(unified.base, cpuStat) { // Linux 4.15
		return nil
	}
	if err := makeDir(t.base); err != nil {
		return err
	}
	if alone == "devices" { // what is closed is closed for all jobs alike (nodes.go)
		fd, err := dir{nil, t.base}.open("tasks", unix.O_WRONLY)
		if err != nil {
			return err
		}
		t.tasks = os.NewFile(uintptr(fd), filepath.Join(t.base, "tasks"))
		return nil
	}
	t.dir, err = hold(t.base)
	return err
}

func (m *Manager) addV2(h hierarchy, name string) error {
	if m.unified != nil {
		return nil
	}
	above, err := m.place(h)
	if err != nil {
		return err
	}
	if above != h.point {
		// What a server that was not in this unit has left, unless jobs are still in it.
		_ = unix.Rmdir(filepath.Join(h.point, name))
	}
	t := &tree{version: 2, point: h.point, base: filepath.Join(above, name)}
	if err := makeDir(t.base); err != nil {
		return err
	}
	if t.dir, err = hold(t.base); err != nil {
		return err
	}
	m.unified = t
	m.trees = append(m.trees, t)
	for _, c := range wanted[:] {
		if c != "cpuacct" && c != "devices" && m.by[c] == nil && t.enable(above, c) {
			m.by[c] = t
		}
	}
	return nil
}

// enable hands a controller down to the groups of jobs, and tells whether they have it.
func (t *tree) enable(above, controller string) bool {
	for _, dir := range []string{above, t.base} {
		if writeFile(dir, "cgroup.subtree_control", "+"+controller) != nil {
			return false
		}
	}
	return true
}

func (m *Manager) nameLayout() {
	v1 := slices.ContainsFunc(m.trees, func(t *tree) bool { return t.version == 1 })
	switch {
	case v1 && m.unified != nil:
		m.layout = "hybrid"
	case v1:
		m.layout = "v1"
	case m.unified != nil:
		m.layout = "v2"
	default:
		m.layout = "none"
	}
	for _, c := range []string{"cpu", "memory", "io", "pids"} {
		if m.by[c] == nil && m.layout != "none" {
			m.explain = append(m.explain, fmt.Sprintf("%s is not limited: the host has no %s controller for us", c, c))
		}
	}
}

// Layout is v2, hybrid, v1 or none.
func (m *Manager) Layout() string { return m.layout }

// Notes say what is done here otherwise than one may expect, a line each; limits hold all the same.
func (m *Manager) Notes() []string { return slices.Clone(m.notes) }

// Explain says what cannot be done here and why, a line each; that of version 2 is the first.
func (m *Manager) Explain() []string { return slices.Clone(m.explain) }

// List returns the ids of the groups that are there, in whichever tree.
func (m *Manager) List() []string {
	var ids []string
	for _, t := range m.trees {
		ids = append(ids, children(t.base)...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Adopt returns the group of a job that an earlier server made. The paths are what Paths said then, and
// may be in other trees than those that this server would use; without any, the group is wherever a server
// would have made it.
func (m *Manager) Adopt(id string, paths []string) *Group {
	if len(paths) == 0 {
		for _, t := range m.trees {
			paths = append(paths, filepath.Join(t.base, id))
		}
	}
	return &Group{m: m, paths: paths}
}

// dir is the directory at a path in any tree.
func (m *Manager) dir(path string) dir {
	for _, t := range m.trees {
		if d := t.open(path); d.at != nil {
			return d
		}
	}
	return dir{nil, path}
}

// Close takes the server's own groups away, unless there are still jobs in them: those go on, in
// their groups and with their limits.
func (m *Manager) Close() error {
	var errs []error
	inUse := false
	for _, t := range m.trees {
		for _, f := range []*os.File{t.dir, t.tasks} {
			if f != nil {
				_ = f.Close() // nothing was written that could be lost
			}
		}
		switch err := unix.Rmdir(t.base); err {
		case nil, unix.ENOENT:
		case unix.EBUSY:
			inUse = true
		default:
			errs = append(errs, &os.PathError{Op: "rmdir", Path: t.base, Err: err})
		}
	}
	if m.own != "" && !inUse {
		// Out of the leaf again, which works when no controller is handed down any more.
		for _, c := range wanted {
			_ = writeFile(m.own, "cgroup.subtree_control", "-"+c) // those that were on
		}
		if writeFile(m.own, "cgroup.procs", "0") == nil {
			errs = append(errs, removeTree(filepath.Join(m.own, "server")))
		}
	}
	return errors.Join(errs...)
}
