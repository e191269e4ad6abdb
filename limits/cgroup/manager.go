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
	base    string
}

// A Manager makes the groups of jobs.
type Manager struct {
	layout  string
	trees   []*tree
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
	m := &Manager{by: map[string]*tree{}}
	for _, h := range visible(hierarchies(parseMountinfo(string(text)))) {
		if err := m.add(h, o.Name); err != nil {
			m.explain = append(m.explain, fmt.Sprintf("cgroups below %s cannot be used: %v", h.point, err))
		}
	}
	m.nameLayout()
	if err := m.closeDevices(); err != nil && m.layout != "none" {
		m.explain = append(m.explain, fmt.Sprintf("devices are closed off by the sandbox alone, not by a cgroup too: %v", err))
	}
	return m, nil
}

// add takes the server's place in a hierarchy, if it has anything that is wanted.
func (m *Manager) add(h hierarchy, name string) error {
	if h.version == 2 {
		return m.addV2(h, name)
	}
	t := &tree{version: 1, base: filepath.Join(h.point, name)}
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
	if err := makeDir(t.base); err != nil {
		return err
	}
	m.trees = append(m.trees, t)
	for _, c := range has {
		m.by[c] = t
	}
	return nil
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
	t := &tree{version: 2, base: filepath.Join(above, name)}
	if err := makeDir(t.base); err != nil {
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

// Explain says what cannot be done here and why, a line each.
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

// Adopt returns the group of a job that an earlier server made. The paths are what Paths said then;
// without any, the group is where this server would make it.
func (m *Manager) Adopt(id string, paths []string) *Group {
	if len(paths) != len(m.trees) {
		paths = nil
		for _, t := range m.trees {
			paths = append(paths, filepath.Join(t.base, id))
		}
	}
	return &Group{m: m, paths: paths}
}

// Close takes the server's own groups away, unless there are still jobs in them: those go on, in
// their groups and with their limits.
func (m *Manager) Close() error {
	var errs []error
	inUse := false
	for _, t := range m.trees {
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
