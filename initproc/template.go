package initproc

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// A Template is a mount namespace with all that sandboxes have in common: the root, read-only, with /dev
// and /home, and private places covered. An init that begins in a copy of it has that from clone(2), and
// nothing of the host's tree of mounts beside it. It is as old as the host's mounts were when it was
// made: the caller makes another when they change.
//
// It is made by an init, which carries out a plan like any other's and is gone when that is done. A
// child gets a copy of the namespace of the thread that clones it; so a template has threads of its own,
// which do nothing else.
type Template struct {
	clone   chan func()
	threads sync.WaitGroup
}

// NewTemplate makes the template for sandboxes of s, of which it looks at Anchor and Hide.
func NewTemplate(ctx context.Context, s Spec) (*Template, error) {
	plan, err := NewTemplatePlan(s)
	if err != nil {
		return nil, err
	}
	ns, err := makeTemplate(ctx, plan)
	if err != nil {
		return nil, fmt.Errorf("make what sandboxes have in common: %w", err)
	}
	defer ns.Close()
	t := &Template{clone: make(chan func())}
	// More at once would wait for each other in the kernel.
	for range min(runtime.GOMAXPROCS(0), 16) {
		entered := make(chan error)
		t.threads.Go(func() { t.thread(int(ns.Fd()), entered) })
		if err := <-entered; err != nil {
			t.Close()
			return nil, err
		}
	}
	return t, nil
}

// NewTemplatePlan is the plan by which NewTemplate makes it.
func NewTemplatePlan(s Spec) (*Plan, error) {
	h, err := thisHost()
	if err != nil {
		return nil, err
	}
	if h.mounts, err = mountsBelowRoot(); err != nil {
		return nil, err
	}
	return templatePlan(s, h), nil
}

func templatePlan(s Spec, h host) *Plan {
	var b builder
	template(&b, s, h)
	return &Plan{parts: [][]byte{b.encode(h.mnt)}, namespaces: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
}

// makeTemplate has an init carry out the plan, and returns its mount namespace.
func makeTemplate(ctx context.Context, plan *Plan) (*os.File, error) {
	i, err := Start(plan, StartOptions{Cgroup: -1})
	if err != nil {
		return nil, err
	}
	defer i.Close()
	if err := i.Prepared(ctx); err != nil {
		return nil, err
	}
	return os.Open(fmt.Sprintf("/proc/%d/ns/mnt", i.Pid))
}

// thread enters the namespace and stays: a thread that has left its process's cannot go back to work for
// others. It ends with the goroutine, which never lets go of it.
func (t *Template) thread(ns int, entered chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// Not this one: what /proc/self shows is the main thread's. Nobody else gets it as long as it is held.
		defer runtime.UnlockOSThread()
		inside := make(chan error)
		t.threads.Go(func() { t.thread(ns, inside) })
		entered <- <-inside
		return
	}
	// A thread that shares root and working directory with others may not enter, setns(2).
	err := unix.Unshare(unix.CLONE_FS)
	if err == nil {
		err = unix.Setns(ns, unix.CLONE_NEWNS)
	}
	if err != nil {
		entered <- fmt.Errorf("enter what sandboxes have in common: %w", os.NewSyscallError("setns", err))
		return
	}
	entered <- nil
	for f := range t.clone {
		f()
	}
}

// do calls f on a thread of the template's; without a template on the caller's.
func (t *Template) do(f func() error) error {
	if t == nil {
		return f()
	}
	done := make(chan error)
	t.clone <- func() { done <- f() }
	return <-done
}

// Close ends the template; the sandboxes that began with it go on. Nobody may use it any more.
func (t *Template) Close() {
	close(t.clone)
	t.threads.Wait()
}
