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
	// Join are the version 1 `tasks` files, as many as Spec.Join said.
	Join []*os.File
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

	plan *Plan
	reap sync.Once
}

// Exit is how a job's command ended.
type Exit struct {
	Status syscall.WaitStatus
	// What all processes of the sandbox used together, getrusage(2).
	UserTime, SystemTime time.Duration
	MaxRSS               int64 // bytes, of the largest process
}

// Start makes an init in namespaces and a cgroup of its own and sends it the plan. The caller goes
// on with Await, and ends with Close.
func Start(plan *Plan, o StartOptions) (*Init, error) {
	i := &Init{PidFD: -1, plan: plan}
	if err := i.start(o); err != nil {
		i.Close()
		return nil, err
	}
	if err := i.sendPlan(); err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

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
	// The order is the table in fds.go.
	files := []*os.File{null, stdout, stderr, control, i.Control, i.Stdout, i.Stderr, childFile}
	return i.clone(append(files, o.Join...), o.Cgroup)
}

func (i *Init) clone(files []*os.File, cgroup int) error {
	attr := &syscall.ProcAttr{
		Env: []string{},
		Dir: "/",
		Sys: &syscall.SysProcAttr{
			Cloneflags:  i.plan.namespaces,
			UseCgroupFD: cgroup >= 0,
			CgroupFD:    cgroup,
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
	pid, err := syscall.ForkExec("/proc/self/exe", []string{InitName}, attr)
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

func (i *Init) sendPlan() error {
	blob := i.plan.blob
	if err := i.send(message{kind: msgPlan, value: uint32(len(blob))}); err != nil {
		return err
	}
	for len(blob) > 0 {
		n := min(len(blob), maxPiece)
		if _, err := i.Control.Write(blob[:n]); err != nil {
			return fmt.Errorf("send the plan to the sandbox's init: %w", err)
		}
		blob = blob[n:]
	}
	return nil
}

func (i *Init) send(m message) error {
	m.version = messageVersion
	if _, err := i.Control.Write(raw(&m)); err != nil {
		return fmt.Errorf("send to the sandbox's init: %w", err)
	}
	return nil
}

// errNothing is returned by receive when init has not said anything.
var errNothing = errors.New("no message")

// receive takes one message, or without wait only one that is there already.
func (i *Init) receive(wait bool) (m message, err error) {
	conn, err := i.Control.SyscallConn()
	if err != nil {
		return m, err
	}
	var n int
	var recvErr error
	err = conn.Read(func(fd uintptr) bool {
		n, _, recvErr = unix.Recvfrom(int(fd), raw(&m), unix.MSG_DONTWAIT)
		return !wait || recvErr != unix.EAGAIN && recvErr != unix.EINTR
	})
	switch {
	case err != nil:
		return m, err
	case recvErr == unix.EAGAIN || recvErr == unix.EINTR:
		return m, errNothing
	case recvErr == unix.ECONNRESET || recvErr == nil && n == 0:
		return m, ErrInitGone
	case recvErr != nil:
		return m, os.NewSyscallError("recvfrom", recvErr)
	case n != messageSize || m.version != messageVersion:
		return m, fmt.Errorf("the sandbox's init sent %d bytes of version %d, known is version %d",
			n, m.version, messageVersion)
	}
	return m, nil
}

// ErrInitGone is returned when init ended without a word: it was killed from outside.
var ErrInitGone = errors.New("the sandbox's init is gone")

// Await returns when the command runs, or a *StepError that says which step failed, or ErrInitGone.
func (i *Init) Await(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = i.Control.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	m, err := i.receive(true)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.Cause(ctx)
	case err != nil:
		return err
	case m.kind == msgRunning:
		return nil
	case m.kind == msgFailed:
		return i.plan.stepError(m.value, syscall.Errno(m.detail))
	}
	return fmt.Errorf("the sandbox's init sent message %d while starting", m.kind)
}

// Ended is Wait without waiting; false when it is not over.
func (i *Init) Ended() (Exit, bool, error) {
	m, err := i.receive(false)
	if errors.Is(err, errNothing) {
		return Exit{}, false, nil
	}
	if err != nil {
		return Exit{}, false, err
	}
	exit, err := m.exit()
	return exit, err == nil, err
}

func (m *message) exit() (Exit, error) {
	if m.kind != msgExit {
		return Exit{}, fmt.Errorf("the sandbox's init sent message %d while running", m.kind)
	}
	return Exit{
		Status:     syscall.WaitStatus(m.value),
		UserTime:   time.Duration(m.userUsec) * time.Microsecond,
		SystemTime: time.Duration(m.systemUsec) * time.Microsecond,
		MaxRSS:     int64(m.maxRSS) << 10,
	}, nil
}

// Signal sends a signal to the command.
func (i *Init) Signal(s syscall.Signal) error {
	return i.send(message{kind: msgSignal, value: uint32(s), detail: targetMain})
}

// SignalAll sends a signal to every process of the sandbox but init.
func (i *Init) SignalAll(s syscall.Signal) error {
	return i.send(message{kind: msgSignal, value: uint32(s), detail: targetAll})
}

// Close ends the sandbox, whatever it is doing, and returns when nothing of it is left: with PID 1
// the kernel ends every process of the PID namespace. It is also the good-bye to an init that has
// said how its command ended: there is nothing left to kill then.
func (i *Init) Close() {
	i.reap.Do(func() {
		if i.Pid > 0 {
			_ = unix.PidfdSendSignal(i.PidFD, unix.SIGKILL, nil, 0) // gone already is as good
			waitFor(i.Pid)
			_ = unix.Close(i.PidFD)
		}
		for _, f := range []*os.File{i.Control, i.Stdout, i.Stderr} {
			if f != nil {
				_ = f.Close() // nothing was written that could be lost
			}
		}
	})
}

func waitFor(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// Wait returns when the command and all that came from it have ended, and how it did. ErrInitGone
// means that nobody will ever know.
func (i *Init) Wait() (Exit, error) {
	m, err := i.receive(true)
	for errors.Is(err, os.ErrDeadlineExceeded) { // left over from a cancelled Await
		if err = i.Control.SetReadDeadline(time.Time{}); err == nil {
			m, err = i.receive(true)
		}
	}
	if err != nil {
		return Exit{}, err
	}
	return m.exit()
}
