package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/telerun/tele/limits"
	"golang.org/x/sys/unix"
)

// A ChangeError is a limit that could not be changed; all are as they were before.
type ChangeError struct{ Status limits.Status }

func (e *ChangeError) Error() string {
	s := e.Status
	return fmt.Sprintf("%s %s cannot be set: %s (all limits are as before)", s.Name, s.Asked, s.WhyNot)
}

// Change makes the limits of a group with processes in it, which are before, those of r, and returns what
// became of those that are other ones. When one cannot be set, a *ChangeError, it sets back what it has set.
func (g *Group) Change(before limits.Limits, r Request) ([]limits.Status, error) {
	var names []limits.Name
	for _, name := range limits.Names {
		same := r.Limits.Get(name) == before.Get(name)
		if _, version := g.of("memory"); name == limits.Swap && version == 1 { // it is the sum of both
			same = same && r.Limits.Memory == before.Memory
		}
		if !same {
			names = append(names, name)
		}
	}
	changed, err := g.change(names, r)
	if err == nil {
		return changed, nil
	}
	r.Limits = before
	if _, undoErr := g.change(names, r); undoErr != nil {
		err = errors.Join(err, fmt.Errorf("and back: %w", undoErr))
	}
	return nil, err
}

func (g *Group) change(names []limits.Name, r Request) (changed []limits.Status, err error) {
	if d, version := g.of("memory"); slices.Contains(names, limits.Memory) {
		done, err := d.makeRoom(version, r.Limits.Memory)
		if err != nil {
			return nil, &ChangeError{limits.Status{Name: limits.Memory, Asked: limits.Format(limits.Memory, r.Limits.Memory),
				WhyNot: err.Error()}}
		}
		defer done()
	}
	for _, name := range names {
		s := g.apply(name, r)
		if s.WhyNot != "" && s.How == "" && !g.noSwapFile(name) { // How: it holds on some of the disks
			return changed, &ChangeError{s}
		}
		changed = append(changed, s)
	}
	return changed, nil
}

// makeRoom is called before the memory limit changes, and done afterwards.
//
// Version 1 refuses a limit below what is in use (EBUSY); and the limit with swap, which is never below the
// one without, has to be out of the way. Version 2 takes any limit, and kills processes until it holds. So
// there, memory.high makes the kernel take back what it can, and when that is not enough nothing is changed.
func (d dir) makeRoom(version int, value int64) (done func(), err error) {
	nothing := func() {}
	switch {
	case version == 1:
		if err := d.write(memsw, "-1"); err != nil && !errors.Is(err, fs.ErrNotExist) { // there may be none
			return nothing, err
		}
		return nothing, nil
	case version == 0 || value == limits.Max:
		return nothing, nil
	}
	const current = "memory.current"
	used := number(d, current, 1)
	if used == nil || *used <= uint64(value) {
		return nothing, nil
	}
	if err := d.write("memory.high", fmt.Sprint(value)); err != nil {
		return nothing, err
	}
	done = func() { _ = d.write("memory.high", "max") } // as it was; it goes with its job
	if used = number(d, current, 1); used != nil && *used > uint64(value) {
		done()
		return nothing, fmt.Errorf("%d bytes are in use, %s: %w", *used, d.path(current), unix.EBUSY)
	}
	return done, nil
}

// noSwapFile tells whether name is the limit of swap and the kernel does not account for it: it did not hold
// before either.
func (g *Group) noSwapFile(name limits.Name) bool {
	d, version := g.of("memory")
	return name == limits.Swap && (version == 0 || !exists(d.path(""), pick(version, memsw, "memory.swap.max")))
}
