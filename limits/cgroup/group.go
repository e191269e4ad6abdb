package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/telerun/tele/limits"
	"golang.org/x/sys/unix"
)

// A Group holds one job.
type Group struct {
	m       *Manager
	paths   []string // its directories, one in each of the manager's trees
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
	g := m.Adopt(id, nil)
	if err := g.create(); err != nil {
		g.CloseStartFiles()
		return nil, errors.Join(err, g.Delete())
	}
	g.request = r
	for _, name := range limits.Names {
		g.status = append(g.status, g.apply(name, r))
	}
	return g, nil
}

// Set changes the limits of a group that Create made to those of r; its disks stay.
func (g *Group) Set(r Request) error {
	before := g.request.Limits
	g.request.Limits = r.Limits
	if dir, version := g.dir("memory"); version == 1 && r.Limits.Memory != before.Memory && exists(dir, memsw) {
		// The limit with swap is never below the one without: it is out of the way until both are set.
		if err := writeFile(dir, memsw, "-1"); err != nil {
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

func (g *Group) create() error {
	for i, t := range g.m.trees {
		dir := g.paths[i]
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		file, flags := "", unix.O_DIRECTORY
		if t.version == 1 {
			file, flags = "tasks", unix.O_WRONLY
		}
		fd, err := open(dir, file, flags)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), filepath.Join(dir, file))
		if t.version == 1 {
			g.join = append(g.join, f)
		} else {
			g.clone = f
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
		if t.version == 1 {
			n++
		}
	}
	return n
}

// JoinFiles are the version 1 `tasks` files: who writes "0" to each is in the group.
func (g *Group) JoinFiles() []*os.File { return g.join }

// CloseStartFiles closes what CloneFD and JoinFiles returned.
func (g *Group) CloseStartFiles() {
	for _, f := range append(g.join, g.clone) {
		if f != nil {
			_ = f.Close() // nothing of ours was written through it
		}
	}
	g.join, g.clone = nil, nil
}

// Paths are the group's directories, one in each tree.
func (g *Group) Paths() []string { return g.paths }

// dir is the group's directory in the tree of a controller.
func (g *Group) dir(controller string) (dir string, version int) {
	return g.in(g.m.by[controller])
}

// in is the group's directory in a tree.
func (g *Group) in(t *tree) (dir string, version int) {
	if i := slices.Index(g.m.trees, t); i >= 0 {
		return g.paths[i], t.version
	}
	return "", 0
}

// Kill kills every process in the group: cgroup.kill, Linux 5.14. Where there is none it kills
// those that are there now; the caller has the PID namespace's init for the rest.
func (g *Group) Kill() error {
	if dir, version := g.in(g.m.unified); version != 0 && exists(dir, "cgroup.kill") {
		return writeFile(dir, "cgroup.kill", "1")
	}
	for _, dir := range g.Paths() {
		text, err := readFile(dir, "cgroup.procs")
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		for _, pid := range pids(text) {
			_ = unix.Kill(pid, unix.SIGKILL) // gone already is as good
		}
	}
	return nil
}

// WaitEmpty returns when no process is left, told by the kernel: cgroup.events changes wake who
// polls for POLLPRI. Without a version 2 tree it returns at once.
func (g *Group) WaitEmpty(ctx context.Context) error {
	dir, version := g.in(g.m.unified)
	if version == 0 {
		return nil
	}
	fd, err := open(dir, "cgroup.events", unix.O_RDONLY)
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
		if populated, _ := field(text, "populated"); populated == 0 {
			return nil
		}
		wait := 10 * time.Second
		if deadline, limited := ctx.Deadline(); limited {
			wait = max(time.Until(deadline), 0)
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(wait.Milliseconds())); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for cgroup.events: %w", err)
		}
	}
	return context.Cause(ctx)
}

// Interrupt makes the group's processes begin those system calls anew in which they wait and that a
// signal would interrupt. They do not notice: it is what freezing does, and thawing undoes the rest of
// it, cgroup.freeze, Linux 5.2. Without a version 2 tree it does nothing.
func (g *Group) Interrupt() error {
	dir, version := g.in(g.m.unified)
	if version == 0 {
		return nil
	}
	return errors.Join(writeFile(dir, "cgroup.freeze", "1"), writeFile(dir, "cgroup.freeze", "0"))
}

// Delete removes the group, which must have no process left.
func (g *Group) Delete() error {
	var errs []error
	for _, dir := range g.Paths() {
		errs = append(errs, removeTree(dir))
	}
	return errors.Join(errs...)
}
