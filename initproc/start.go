package initproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pipeSize is how much a job may write while nobody reads, before it waits.
const pipeSize = 1 << 20

// StartOptions are what Start needs beside the plan.
type StartOptions struct {
	// Cgroup is the version 2 group that init begins in, an open directory; negative for none.
	Cgroup int
	// Join returns the version 1 `tasks` files, as many as Spec.Join said, and at most mostFiles. It is called while the
	// kernel makes init: whatever init needs when it begins its plan, and no sooner, can be made meanwhile.
	Join func() ([]*os.File, error)
	// Template is what Spec.Template said.
	Template *Template
}

// An Init is a started sandbox as the server holds it.
type Init struct {
	// Pid is init's pid on the host. That of an init that this process has started stays its own until Close:
	// nobody else waits for it, and Go's runtime catches SIGCHLD, so that the kernel does not reap by itself.
	Pid int
	// Stdout and Stderr are the reading ends of what the job writes, non-blocking. Who has them in an epoll
	// set takes them out before Close or Detach: init has the same open file, so closing does not.
	Stdout, Stderr int

	// Heard is told, by Exit, what comes of commands beside the main one; set before the first of them.
	Heard func(Event)

	sending sync.Mutex // held while something is sent that nothing may come between

	answerTime time.Duration // 0 but in tests

	control *os.File // the server's end of the socket, non-blocking
	adopted *ID      // of an init that an earlier server started; nil for one of this process's own

	plan *Plan // nil once the command runs, and for an adopted one
	sent int   // how many of its parts init has

	mu     sync.Mutex
	closed bool // or detached
}

// Start makes an init in namespaces and a cgroup of its own, which carries out the first part of the plan
// and then waits for the rest. It is gone when this process ends before it has the plan whole. The caller
// goes on with Run, and ends with Close.
func Start(plan *Plan, o StartOptions) (*Init, error) {
	i := &Init{Stdout: -1, Stderr: -1, plan: plan}
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
// or as Await does. in is for a plan with Spec.Stdin, and nil for others. secrets is what SecretsFile made for
// one with Spec.Secrets, and not there for others. With Spec.Agent the program goes along.
func (i *Init) Run(ctx context.Context, plan *Plan, in *Input, secrets ...*os.File) error {
	if !plan.Continues(i.plan) {
		return errors.New("the sandbox was prepared by another plan")
	}
	i.plan = plan
	files := append(in.files(), secrets...)
	if plan.agent {
		exe, err := sealedExe()
		if err != nil {
			return err
		}
		files = append(files, exe)
	}
	for i.sent < len(plan.parts) {
		if err := i.sendPart(files...); err != nil {
			return err
		}
	}
	if err := in.sent(); err != nil {
		return err
	}
	if err := i.Await(ctx); err != nil {
		return err
	}
	i.plan = nil // a job may run for long
	return nil
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
	var kept []int // init's, closed here once it has them
	closeKept := func() {
		for _, fd := range kept {
			_ = unix.Close(fd) // nothing was written through it
		}
		kept = nil
	}
	defer closeKept()
	keep := func(fd int, err error) (int, error) {
		if err == nil {
			kept = append(kept, fd)
		}
		return fd, err
	}
	null, err := keep(unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0))
	if err != nil {
		return &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	var stdout, stderr, control int
	if i.Stdout, stdout, err = outputPipe(); err != nil {
		return err
	}
	kept = append(kept, stdout)
	if i.Stderr, stderr, err = outputPipe(); err != nil {
		return err
	}
	kept = append(kept, stderr)
	if i.control, control, err = controlSocket(); err != nil {
		return err
	}
	kept = append(kept, control)
	child, err := keep(unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK))
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	server, err := self()
	if err != nil {
		return err
	}
	exe, err := sealedExe()
	if err != nil {
		return err
	}
	// The order is the table in fds.go.
	fds := []uintptr{uintptr(null), uintptr(stdout), uintptr(stderr), uintptr(control), uintptr(i.FD()),
		uintptr(i.Stdout), uintptr(i.Stderr), uintptr(child)}
	for _, f := range []*os.File{server, exe} {
		fd, err := descriptor(f)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	sent := make(chan error, 1)
	go func() { sent <- i.sendFirst(o.Join) }() // best is there when init looks: nobody has to be woken up
	err = i.clone(fds, o)
	closeKept() // without an init, nobody takes what is sent
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	return err
}

// sendFirst sends the first part of the plan.
func (i *Init) sendFirst(join func() ([]*os.File, error)) (err error) {
	var files []*os.File
	if join != nil {
		if files, err = join(); err != nil {
			return err
		}
	}
	return i.sendPart(files...)
}

func (i *Init) clone(fds []uintptr, o StartOptions) error {
	attr := &syscall.ProcAttr{
		Env:   []string{},
		Dir:   "/",
		Files: fds,
		Sys: &syscall.SysProcAttr{
			Cloneflags:  i.plan.namespaces,
			UseCgroupFD: o.Cgroup >= 0,
			CgroupFD:    o.Cgroup,
			Setsid:      true,
		},
	}
	if i.plan.userns {
		mapID := func(id int) []syscall.SysProcIDMap {
			return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
		}
		attr.Sys.UidMappings, attr.Sys.GidMappings = mapID(os.Getuid()), mapID(os.Getgid())
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

func outputPipe() (read, write int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, os.NewSyscallError("pipe2", err)
	}
	// The command's end blocks, as programs expect.
	_ = unix.SetNonblock(fds[0], true)
	// Refused to a user with many pipes (pipe(7), pipe-user-pages-soft): then it stays smaller.
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	return fds[0], fds[1], nil
}

func controlSocket() (ours *os.File, inits int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, os.NewSyscallError("socketpair", err)
	}
	_ = unix.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), "control"), fds[1], nil
}

// Close ends the sandbox, whatever it is doing, and returns when nothing of it is left: with PID 1
// the kernel ends every process of the PID namespace. It is also the good-bye to an init that has
// said how its command ended: there is nothing left to kill then.
func (i *Init) Close() {
	if !i.closes() {
		return
	}
	i.closeFiles()
	switch {
	case i.adopted != nil:
		i.closeAdopted()
	case i.Pid > 0:
		_ = unix.Kill(i.Pid, unix.SIGKILL) // gone already is as good
		for unix.Waitid(unix.P_PID, i.Pid, nil, unix.WEXITED, nil) == unix.EINTR {
		}
	}
}

// closeAdopted ends an init whose pid may be another process's when it is gone. That takes a descriptor; the
// files are closed, so there is one.
func (i *Init) closeAdopted() {
	fd, err := i.open()
	if err != nil {
		return // gone, or else the removal of its cgroup tells that it is not
	}
	defer unix.Close(fd)
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // gone already is as good
	for {
		switch unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED, nil) {
		case unix.EINTR:
			continue
		case unix.ECHILD: // somebody else's child; not in a test, where one process is both servers
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, -1); err == unix.EINTR {
				continue
			}
		}
		return
	}
}

// Detach lets go of init, which goes on; Adopt takes it back.
func (i *Init) Detach() {
	if i.closes() {
		i.closeFiles()
	}
}

// closes tells the first who closes that it is for him to do.
func (i *Init) closes() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	first := !i.closed
	i.closed = true
	return first
}

func (i *Init) closeFiles() {
	for _, fd := range []int{i.Stdout, i.Stderr} {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing was written that could be lost
		}
	}
	if i.control != nil {
		_ = i.control.Close() // the same
	}
}
