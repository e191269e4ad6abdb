package initproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file is commands beside the main one: a job's init carries out a further plan, and so the command is
// in the same sandbox, behind the same walls and within the same limits. Nobody enters a namespace from
// outside, setns(2).
//
//	server                                         init                    command
//	  | PLAN, with a file that is it, and pipes ----> |
//	  |                                               | fork -------------> | steps …
//	  | <------------ BESIDERUNNING pid --------------|                     |
//	  | <------------ end of the status pipe, or BESIDEFAILED in it --------| exec'ed, or not
//	  | <------------ BESIDEEXIT pid, status ---------| <-- exits --------- |
//
// A step of init's own that fails is BESIDEFAILED on the socket, and ends that plan alone. The command's
// process says so itself, through a pipe that execve(2) closes; nobody but the server waits for it, since
// others of the job can stop it. Its pipes and its terminal are the server's own: unlike the main
// command, one beside it is not there for the next server.
//
// It may be this program itself (Spec.Agent), in the copy that nobody can write to (exe.go). One may also come
// after the main command (RunAfter), and then is alone.

// maxBeside is how many commands may run beside the main one.
const maxBeside = 16

// ErrBesides says that as many commands run beside the main one as can.
var ErrBesides = fmt.Errorf("%d commands run in the job beside its own, and no more can", maxBeside)

// Beside is the server's side of such a command's input and output.
type Beside struct {
	Stdin          *os.File // nil without
	Stdout, Stderr *os.File // non-blocking
	// Terminal is there instead with Spec.Terminal, once the command runs.
	Terminal *os.File

	status *os.File
	files  []*os.File // for init
}

// Close lets go of it: the command reads the end of its input, and cannot write any more.
func (s *Beside) Close() {
	s.closeFiles()
	for _, f := range []*os.File{s.Stdin, s.Stdout, s.Stderr, s.Terminal, s.status} {
		if f != nil {
			_ = f.Close() // what was written is the command's
		}
	}
}

func (s *Beside) closeFiles() {
	for _, f := range s.files {
		_ = f.Close() // init's
	}
	s.files = nil
}

// newBeside makes the pipes of a command.
func newBeside(stdin, terminal bool) (*Beside, error) {
	s := &Beside{}
	pipe := func(ours **os.File, our, inits int) error {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return os.NewSyscallError("pipe2", err)
		}
		_ = unix.SetNonblock(fds[our], true) // init's end blocks, as programs expect
		*ours = os.NewFile(uintptr(fds[our]), "pipe")
		s.files = append(s.files, os.NewFile(uintptr(fds[inits]), "pipe"))
		return nil
	}
	err := pipe(&s.status, 0, 1)
	if stdin && !terminal {
		err = errors.Join(err, pipe(&s.Stdin, 1, 0))
	}
	if !terminal {
		err = errors.Join(err, pipe(&s.Stdout, 0, 1), pipe(&s.Stderr, 0, 1))
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Executed waits until the command runs, or returns why it does not, a *StepError, or how ctx ended. It may
// have been killed before: then it has run, for all that is known, and its end follows.
func (s *Beside) Executed(ctx context.Context, plan *Plan) error {
	stop := context.AfterFunc(ctx, func() { _ = s.status.SetReadDeadline(time.Unix(1, 0)) }) // fails for a closed one
	defer stop()
	var m message
	n, err := s.status.Read(raw(&m))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.Cause(ctx)
	case err == io.EOF:
		return nil
	case err != nil:
		return err
	case n != messageSize || m.kind != msgBesideFailed:
		return fmt.Errorf("a command in the sandbox said %d bytes before it began", n)
	}
	return plan.stepError(m.value, syscall.Errno(m.detail))
}

// NewBesidePlan is the plan for a command in the sandbox that was made for s, with s's Command, Env, Cwd,
// Stdin and Terminal.
func NewBesidePlan(s Spec) (*Plan, error) {
	h, err := thisHost()
	if err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return besidePlan(s, h)
}

func besidePlan(s Spec, h host) (*Plan, error) {
	s.SeccompListener = false // there is one listener, and it is the main command's
	var b builder
	fds, exe := besideFiles(&b, s)
	bornToGo(&b)
	fork := forkCommand(&b, s)
	newSession(&b)
	controlTerminal(&b, s, fds[0])
	setRlimits(&b, h)
	dropCapabilities(&b)
	if !s.UserNamespace && s.Terminal == nil {
		for _, fd := range fds {
			if fd != (arg{}) {
				b.step("give the pipes to the user", unix.SYS_FCHOWN, fd, number(s.UID), number(s.GID))
			}
		}
	}
	setUser(&b, s)
	newKeyring(&b)
	forbidNewPrivileges(&b)
	keepProject(&b, s)
	filterCalls(&b, s)
	changeDir(&b, s)
	closeOnExec(&b)
	for to, fd := range fds {
		if fd != (arg{}) {
			b.step("take input and output", unix.SYS_DUP3, fd, number(to), number(0))
		}
	}
	if s.Agent {
		executeFile(&b, s, exe)
	} else {
		execute(&b, s)
	}
	endCommand(&b, fork)
	toStay(&b, s)
	b.step("report that the command runs", opReport)
	b.step("supervise", opSupervise)
	blob := b.encode(h.mnt)
	if len(blob) > maxPlan {
		return nil, fmt.Errorf("command and environment take %d bytes, the most is about %d", len(blob), maxPlan)
	}
	return &Plan{parts: [][]byte{blob}}, nil
}

// besideFiles are what becomes 0, 1 and 2; none for init's own 0, /dev/null; and with Agent the program. They
// came with the plan, behind the plan itself.
func besideFiles(b *builder, s Spec) (fds [3]arg, exe arg) {
	if s.Terminal != nil {
		master, slave := makeTerminal(b, s)
		b.keep("keep the terminal's other side for the server", master, fdBesideMaster)
		return [3]arg{slave, slave, slave}, number(fdStatus + 1)
	}
	next := fdStatus + 1
	for i := range fds {
		if i > 0 || s.Stdin {
			fds[i] = number(next)
			next++
		}
	}
	return fds, number(next)
}

// RunBeside begins a command beside the main one. What becomes of it, the init's Heard is told, with token.
// The caller closes what it gets.
func (i *Init) RunBeside(plan *Plan, s Spec, token uint64) (*Beside, error) {
	return i.runBeside(plan, s, message{userUsec: token})
}

// RunAfter begins a command when the main one has ended, as Exit has said: nothing else runs in the sandbox
// then. What init says of it comes behind that end, which stays where it is, and so is not heard: only the
// command's pipes tell. The caller closes what it gets.
func (i *Init) RunAfter(plan *Plan, s Spec) (*Beside, error) {
	return i.runBeside(plan, s, message{detail: planAfter})
}

func (i *Init) runBeside(plan *Plan, s Spec, m message) (*Beside, error) {
	beside, err := newBeside(s.Stdin, s.Terminal != nil)
	if err != nil {
		return nil, err
	}
	defer beside.closeFiles()
	blob, err := memory("plan", plan.parts[0])
	if err != nil {
		beside.Close()
		return nil, err
	}
	defer blob.Close()
	files := append([]*os.File{blob}, beside.files...)
	if s.Agent {
		exe, err := sealedExe()
		if err != nil {
			beside.Close()
			return nil, err
		}
		files = append(files, exe)
	}
	m.kind, m.value = msgPlan, uint32(len(plan.parts[0]))
	if err := i.send(m, files...); err != nil {
		beside.Close()
		return nil, err
	}
	return beside, nil
}

// memory is a file in memory that holds text.
func memory(name string, text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(text); err != nil {
		_ = f.Close() // it is of no use
		return nil, err
	}
	return f, nil
}

// TakeTerminal takes the terminal of a command beside the main one that has one and was forked, before the
// next plan is sent.
func (i *Init) TakeTerminal(s *Beside) error {
	fd, err := i.takeOne(fdBesideMaster, "terminal")
	if err != nil {
		return err
	}
	s.Terminal = os.NewFile(uintptr(fd), "terminal") // non-blocking, as it was made
	return i.send(message{kind: msgClose, value: fdBesideMaster})
}

// SignalBeside sends a signal to the process group of a command beside the main one, to none once it has ended.
func (i *Init) SignalBeside(pid int, s syscall.Signal) error {
	return i.send(message{kind: msgSignal, value: uint32(s), detail: int32(-pid)})
}

// An Event is news of a command beside the main one: it was forked, it could not be, or it has ended.
type Event struct {
	Forked bool
	Token  uint64 // of RunBeside; none for one that has ended
	Pid    int    // in the sandbox; 0 for one that could not be begun
	Status syscall.WaitStatus

	failed bool
	step   uint32
	errno  syscall.Errno
}

// Err is why a command with this plan could not be forked, a *StepError or ErrBesides; nil for one that was.
func (e *Event) Err(plan *Plan) error {
	switch {
	case !e.failed:
		return nil
	case e.errno == unix.EUSERS:
		return ErrBesides
	}
	return plan.stepError(e.step, e.errno)
}

func (m *message) event() (e Event, is bool) {
	switch m.kind {
	case msgBesideRunning:
		return Event{Forked: true, Token: m.userUsec, Pid: int(m.value)}, true
	case msgBesideFailed:
		return Event{Token: m.userUsec, failed: true, step: m.value, errno: syscall.Errno(m.detail)}, true
	case msgBesideExit:
		return Event{Pid: int(m.detail), Status: syscall.WaitStatus(m.value)}, true
	}
	return Event{}, false
}
