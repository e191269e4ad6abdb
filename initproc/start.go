package initproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize is how much a job may write while nobody reads, before it waits.
const pipeSize = 1 << 20

// StartOptions are what Start needs beside the plan.
type StartOptions struct {
	// Cgroup is the version 2 group that init begins in, an open directory; negative for none.
	Cgroup int
	// Join are the version 1 `tasks` files, as many as Spec.Join said.
	Join []*os.File
	// Template is what Spec.Template said.
	Template *Template
}

// An Init is a started sandbox as the server holds it.
type Init struct {
	// Pid is init's pid on the host, PidFD the pidfd that refers to it, readable when it has ended.
	Pid   int
	PidFD int
	// Control is the server's end of the socket, Stdout and Stderr are the reading ends of what the
	// job writes; all non-blocking.
	Control        *os.File
	Stdout, Stderr *os.File

	plan        *Plan // nil once the command runs, and for an adopted one
	sent        int   // how many of its parts init has
	interrupted atomic.Bool
	close       sync.Once
}

// Start makes an init in namespaces and a cgroup of its own, which carries out the first part of the plan
// and then waits for the rest. It is gone when this process ends before it has the plan whole. The caller
// goes on with Run, and ends with Close.
func Start(plan *Plan, o StartOptions) (*Init, error) {
	i := &Init{PidFD: -1, plan: plan}
	if err := i.start(o); err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// Prepared returns when init has done the first part of its plan, or as Await does.
func (i *Init) Prepared(ctx context.Context) error {
	m, err := i.await(ctx)
	if err != nil {
		return err
	}
	if m.kind != msgParked {
		return fmt.Errorf("the sandbox's init sent message %d while it was prepared", m.kind)
	}
	return i.take()
}

// Run sends init the rest of plan, which continues the one of Start, and returns when the command runs,
// or as Await does. in is for a plan with Spec.Stdin, and nil for others.
func (i *Init) Run(ctx context.Context, plan *Plan, in *Input) error {
	if !plan.Continues(i.plan) {
		return errors.New("the sandbox was prepared by another plan")
	}
	i.plan = plan
	// A step may fail and end init meanwhile; what it said of it is still to be read.
	if err := i.sendRest(in); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	if err := i.Await(ctx); err != nil {
		return err
	}
	i.plan = nil // a job may run for long
	return nil
}

func (i *Init) sendRest(in *Input) error {
	for i.sent < len(i.plan.parts) {
		if err := i.sendPart(); err != nil {
			return err
		}
	}
	if in == nil {
		return nil
	}
	return i.sendInput(in)
}

// self refers to this process, for inits that wait for their plan.
var self = sync.OnceValues(func() (*os.File, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
})

func (i *Init) start(o StartOptions) error {
	var kept []*os.File // init's, closed here once it has them
	defer func() {
		for _, f := range kept {
			_ = f.Close() // nothing was written through it
		}
	}()
	keep := func(f *os.File, err error) *os.File {
		if err == nil {
			kept = append(kept, f)
		}
		return f
	}
	null, err := os.Open(os.DevNull)
	if keep(null, err); err != nil {
		return err
	}
	var stdout, stderr, control *os.File
	if i.Stdout, stdout, err = outputPipe(); err != nil {
		return err
	}
	keep(stdout, nil)
	if i.Stderr, stderr, err = outputPipe(); err != nil {
		return err
	}
	keep(stderr, nil)
	if i.Control, control, err = controlSocket(); err != nil {
		return err
	}
	keep(control, nil)
	child, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	childFile := keep(os.NewFile(uintptr(child), "eventfd"), nil)
	server, err := self()
	if err != nil {
		return err
	}
	exe, err := sealedExe()
	if err != nil {
		return err
	}
	// The order is the table in fds.go.
	files := []*os.File{null, stdout, stderr, control, i.Control, i.Stdout, i.Stderr, childFile, server, exe}
	files = append(files, o.Join...)
	if len(i.plan.parts[0]) > fitsSocket {
		if err := i.clone(files, o); err != nil {
			return err
		}
		return i.sendPart()
	}
	// It is there when init looks: nobody has to be woken up.
	if err := i.sendPart(); err != nil {
		return err
	}
	return i.clone(files, o)
}

// fitsSocket is how much a socket holds in any case that nobody reads yet, less than half of the kernel's
// default (socket(7), wmem_default).
const fitsSocket = 64 << 10

func (i *Init) clone(files []*os.File, o StartOptions) error {
	attr := &syscall.ProcAttr{
		Env: []string{},
		Dir: "/",
		Sys: &syscall.SysProcAttr{
			Cloneflags:  i.plan.namespaces,
			UseCgroupFD: o.Cgroup >= 0,
			CgroupFD:    o.Cgroup,
			PidFD:       &i.PidFD,
			Setsid:      true,
		},
	}
	if i.plan.userns {
		mapID := func(id int) []syscall.SysProcIDMap {
			return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
		}
		attr.Sys.UidMappings, attr.Sys.GidMappings = mapID(os.Getuid()), mapID(os.Getgid())
	}
	for _, f := range files {
		fd, err := descriptor(f)
		if err != nil {
			return err
		}
		attr.Files = append(attr.Files, fd)
	}
	var pid int
	err := o.Template.do(func() (err error) {
		pid, err = syscall.ForkExec(exePath, []string{InitName}, attr)
		return err
	})
	if err != nil {
		return fmt.Errorf("start the sandbox's init in new namespaces: %w", os.NewSyscallError("clone3", err))
	}
	i.Pid = pid
	return nil
}

// descriptor is the number of f. Unlike f.Fd it leaves the file non-blocking.
func descriptor(f *os.File) (uintptr, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var number uintptr
	err = conn.Control(func(fd uintptr) { number = fd })
	return number, err
}

func outputPipe() (read, write *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	// The command's end blocks, as programs expect.
	_ = unix.SetNonblock(fds[0], true)
	// Refused to a user with many pipes (pipe(7), pipe-user-pages-soft): then it stays smaller.
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	return os.NewFile(uintptr(fds[0]), "output"), os.NewFile(uintptr(fds[1]), "output"), nil
}

func controlSocket() (ours, inits *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	_ = unix.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// Close ends the sandbox, whatever it is doing, and returns when nothing of it is left: with PID 1
// the kernel ends every process of the PID namespace. It is also the good-bye to an init that has
// said how its command ended: there is nothing left to kill then.
func (i *Init) Close() {
	i.close.Do(func() {
		if i.Pid > 0 {
			_ = unix.PidfdSendSignal(i.PidFD, unix.SIGKILL, nil, 0) // gone already is as good
			i.reap()
		}
		i.closeFiles()
	})
}

// reap waits until init has ended, and takes it in where it is this process's own child.
func (i *Init) reap() {
	for {
		switch unix.Waitid(unix.P_PIDFD, i.PidFD, nil, unix.WEXITED, nil) {
		case unix.EINTR:
			continue
		case unix.ECHILD: // adopted: somebody else's child
			fds := []unix.PollFd{{Fd: int32(i.PidFD), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, -1); err == unix.EINTR {
				continue
			}
		}
		return
	}
}

// Detach lets go of init, which goes on; Adopt takes it back.
func (i *Init) Detach() { i.close.Do(i.closeFiles) }

func (i *Init) closeFiles() {
	if i.PidFD >= 0 {
		_ = unix.Close(i.PidFD)
	}
	for _, f := range []*os.File{i.Control, i.Stdout, i.Stderr} {
		if f != nil {
			_ = f.Close() // nothing was written that could be lost
		}
	}
}
