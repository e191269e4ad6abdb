package cgroup

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// This file freezes a job's processes, all but its init, by cgroup.freeze (cgroup-v2.rst, Linux 5.2). A
// group can only be frozen whole, and init is to go on: it passes signals on and reaps, also those that a
// SIGKILL ends, which reaches frozen processes. So the others move into a group of their own, which holds
// no controller and counts as a part of the job's, and stay there when they are thawed.

// ErrNoFreezer is returned by Freeze where there is no cgroup.freeze.
var ErrNoFreezer = errors.New("this machine cannot freeze a job: it takes a cgroup version 2 tree, and Linux 5.2")

// ErrNotFrozen is returned by Freeze when a process did not freeze in time.
var ErrNotFrozen = errors.New("a process of the job cannot be frozen: it waits in the kernel, mostly for a disk or " +
	"a network file system; try again later")

// freezeTime is how long Freeze waits for a process that is in a system call which nothing interrupts.
const freezeTime = 5 * time.Second

// frozen is the name of the group that is frozen, below the job's.
const frozen = "frozen"

// Freeze freezes all processes of the group but init, and returns when none of them runs. When it fails
// they go on as before.
func (g *Group) Freeze(ctx context.Context, init int) error {
	d, version := g.in(g.m.unified)
	if version == 0 {
		return ErrNoFreezer
	}
	ctx, cancel := context.WithTimeoutCause(ctx, freezeTime, ErrNotFrozen)
	defer cancel()
	err := d.freeze(ctx, init)
	switch {
	case err == nil:
		return nil
	case gone(err) && !exists(d.path(""), "cgroup.procs"):
		return nil // the job has ended, and its group is gone
	case gone(err) && !exists(d.path(""), "cgroup.freeze"):
		return ErrNoFreezer
	}
	return errors.Join(err, g.Thaw())
}

// freeze freezes the whole group first: what is frozen makes no processes, so those that are there then
// are all that have to move.
func (d dir) freeze(ctx context.Context, init int) error {
	if err := d.write("cgroup.freeze", "1"); err != nil {
		return err
	}
	if err := d.await(ctx, "frozen", 1); err != nil {
		return err
	}
	below := dir{d.at, d.name + "/" + frozen}
	if err := unix.Mkdirat(below.fd(), below.name, 0o755); err != nil && err != unix.EEXIST {
		return fmt.Errorf("mkdir %s: %w", below.path(""), err)
	}
	if err := below.write("cgroup.freeze", "1"); err != nil {
		return err
	}
	text, err := d.read("cgroup.procs")
	if err != nil {
		return err
	}
	for _, pid := range pids(text) {
		if pid == init {
			continue
		}
		if err := below.write("cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
			return err // ESRCH: it was killed just now
		}
	}
	if err := d.write("cgroup.freeze", "0"); err != nil {
		return err
	}
	return below.await(ctx, "frozen", 1)
}

// Thaw lets the processes go on that Freeze froze, if it did.
func (g *Group) Thaw() error {
	d, version := g.in(g.m.unified)
	if version == 0 {
		return nil
	}
	var errs []error
	for _, d := range []dir{d, {d.at, d.name + "/" + frozen}} {
		if err := d.write("cgroup.freeze", "0"); err != nil && !gone(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
