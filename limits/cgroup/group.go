package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/telerun/tele/limits"
	"golang.org/x/sys/unix"
)

// A Group holds one job.
type Group struct {
	m       *Manager
	id      string
	paths   []string // its directories, in each tree that it has one in
	request Request
	status  []limits.Status
	clone   *os.File
	join    []*os.File
}

// A Request is what Create needs.
type Request struct {
	Limits limits.Limits
	// The disks behind the places that the job may write to, and why one of these has none.
	Devices  []Device
	NoDevice string
	// The same for the places that it may only read.
	ReadDevices  []Device
	NoReadDevice string
}

// Create makes the group of the job called id and sets its limits. A limit that cannot be set is
// told by Status; an error leaves nothing behind.
func (m *Manager) Create(id string, r Request) (*Group, error) {
	g, err := m.Begin(id, r)
	if err != nil {
		return nil, err
	}
	if err := g.Complete(); err != nil {
		g.CloseStartFiles()
		return nil, errors.Join(err, g.Delete())
	}
	return g, nil
}

// Begin makes of the group what CloneFD needs, and sets the limits there. An error leaves nothing behind.
func (m *Manager) Begin(id string, r Request) (*Group, error) {
	g := &Group{m: m, id: id, request: r, status: make([]limits.Status, len(limits.Names))}
	if err := g.makeIn(2); err != nil {
		g.CloseStartFiles()
		return nil, errors.Join(err, g.Delete())
	}
	return g, nil
}

// Complete makes the rest of the group, which JoinFiles leads into, and sets the rest of the limits. The kernel
// can make a process in what there is meanwhile: where version 1 has the limits, that takes as long as this.
func (g *Group) Complete() error { return g.makeIn(1) }

// Set changes the limits of a group that Create made to those of r; its disks stay.
func (g *Group) Set(r Request) error {
	before := g.request.Limits
	g.request.Limits = r.Limits
	if d, version := g.of("memory"); version == 1 && r.Limits.Memory != before.Memory {
		// The limit with swap is never below the one without: it is out of the way until both are set.
		if err := d.write(memsw, "-1"); err != nil && !errors.Is(err, fs.ErrNotExist) { // there may be none
			return err
		}
	}
	for i, name := range limits.Names {
		same := r.Limits.Get(name) == before.Get(name)
		if name == limits.Swap { // of version 1 it is the sum of both
			same = same && r.Limits.Memory == before.Memory
		}
		if !same {
			g.status[i] = g.apply(name, g.request)
		}
	}
	return nil
}

// memsw is the limit of memory and swap together, of version 1.
const memsw = "memory.memsw.limit_in_bytes"

// makeIn makes what is in trees of this version, and sets the limits there; with version 1 also those that are
// nowhere.
func (g *Group) makeIn(version int) error {
	for _, t := range g.m.trees {
		if t.dir == nil || t.version != version {
			continue
		}
		d := dir{t.dir, g.id}
		if err := unix.Mkdirat(d.fd(), d.name, 0o755); err != nil {
			return &os.PathError{Op: "mkdir", Path: d.path(""), Err: err}
		}
		g.paths = append(g.paths, d.path(""))
		file, flags := "", unix.O_DIRECTORY
		if t.version == 1 {
			file, flags = "tasks", unix.O_WRONLY
		}
		fd, err := d.open(file, flags)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), d.path(file))
		if t.version == 1 {
			g.join = append(g.join, f)
		} else {
			g.clone = f
		}
	}
	for i, name := range limits.Names {
		t := g.m.by[controllers[name]]
		unified := t != nil && t.version == 2
		if unified == (version == 2) {
			g.status[i] = g.apply(name, g.request)
		}
	}
	return nil
}

// Status is what became of each limit, in the order of limits.Names.
func (g *Group) Status() []limits.Status { return g.status }

// CloneFD is the group for clone3(2), CLONE_INTO_CGROUP; -1 when there is none.
func (g *Group) CloneFD() int {
	if g.clone == nil {
		return -1
	}
	return int(g.clone.Fd())
}

// Joins is how many JoinFiles a group has.
func (m *Manager) Joins() (n int) {
	for _, t := range m.trees {
		if t.version == 1 && (t.dir != nil || t.tasks != nil) {
			n++
		}
	}
	return n
}

// JoinFiles are the version 1 `tasks` files: who writes "0" to each is in the group, and in those that are
// for all jobs.
func (g *Group) JoinFiles() []*os.File {
	files := slices.Clone(g.join)
	for _, t := range g.m.trees {
		if t.tasks != nil {
			files = append(files, t.tasks)
		}
	}
	return files
}

// CloseStartFiles closes what is the group's of what CloneFD and JoinFiles returned.
func (g *Group) CloseStartFiles() {
	for _, f := range append(g.join, g.clone) {
		if f != nil {
			_ = f.Close() // nothing of ours was written through it
		}
	}
	g.join, g.clone = nil, nil
}

// Paths are the group's directories, one in each tree that it is in.
func (g *Group) Paths() []string { return g.paths }

// of is the group's directory in the tree of a controller; version 0 when there is none.
func (g *Group) of(controller string) (d dir, version int) {
	return g.in(g.m.by[controller])
}

// in is the group's directory in a tree; version 0 when there is none.
func (g *Group) in(t *tree) (d dir, version int) {
	if t == nil {
		return dir{}, 0
	}
	for _, above := range []string{t.base, t.point} { // a server before this one may have had another base
		for _, path := range g.paths {
			if strings.HasPrefix(path, above+"/") {
				return t.open(path), t.version
			}
		}
	}
	return dir{}, 0
}

// Kill kills every process in the group: cgroup.kill, Linux 5.14. Where there is none it kills
// those that are there now; the caller has the PID namespace's init for the rest.
func (g *Group) Kill() error {
	if d, version := g.in(g.m.unified); version != 0 {
		if err := d.write("cgroup.kill", "1"); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	list, err := g.processes()
	for _, pid := range list {
		_ = unix.Kill(pid, unix.SIGKILL) // gone already is as good
	}
	return err
}

// processes are those that are in the group now, in whichever tree.
func (g *Group) processes() (list []int, err error) {
	for _, path := range g.paths {
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil && !gone(err) {
			return list, err
		}
		list = append(list, pids(string(text))...)
	}
	return list, nil
}

// WaitEmpty returns when no process is left. Without a version 2 tree it returns at once.
func (g *Group) WaitEmpty(ctx context.Context) error {
	d, version := g.in(g.m.unified)
	if version == 0 {
		return nil
	}
	return d.await(ctx, "populated", 0)
}

// await returns when cgroup.events says that key has the value, or the group is gone. The kernel tells:
// changes of that file wake who polls for POLLPRI.
func (d dir) await(ctx context.Context, key string, value uint64) error {
	fd, err := d.open("cgroup.events", unix.O_RDONLY)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for ctx.Err() == nil {
		text, err := readAll(fd)
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if now, _ := field(text, key); now == value {
			return nil
		}
		wait := 10 * time.Second
		if deadline, limited := ctx.Deadline(); limited {
			wait = max(time.Until(deadline), 0)
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		// Rounded up: a deadline that is less than 1 ms away is waited for, not asked for again and again.
		if _, err := unix.Poll(fds, int(wait.Milliseconds())+1); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for cgroup.events: %w", err)
		}
	}
	return context.Cause(ctx)
}

// Interrupt makes the group's processes begin those system calls anew in which they wait and that a
// signal would interrupt. They do not notice: it is what freezing does, and thawing undoes the rest of
// it, cgroup.freeze, Linux 5.2. Without a version 2 tree it does nothing.
func (g *Group) Interrupt() error {
	d, version := g.in(g.m.unified)
	if version == 0 {
		return nil
	}
	return errors.Join(d.write("cgroup.freeze", "1"), d.write("cgroup.freeze", "0"))
}

// Delete removes the group, which must have no process left.
func (g *Group) Delete() error {
	var errs []error
	for _, path := range g.paths {
		errs = append(errs, g.m.dir(path).remove())
	}
	return errors.Join(errs...)
}
