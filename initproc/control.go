package initproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Exit is how a job's command ended.
type Exit struct {
	Status syscall.WaitStatus
	// What all processes of the sandbox used together, getrusage(2).
	UserTime, SystemTime time.Duration
	MaxRSS               int64 // bytes, of the largest process
}

// ErrInitGone is returned when init ended without a word: it was killed from outside.
var ErrInitGone = errors.New("the sandbox's init is gone")

// ErrRunning is returned by Exit while the command runs.
var ErrRunning = errors.New("the command is running")

// answerTime is how long an init may say nothing while its plan is carried out. It takes milliseconds, and
// seconds on a machine that has no time; one that takes longer is stuck.
const answerTime = time.Minute

// errNothing is returned by peek when init has not said anything.
var errNothing = errors.New("no message")

// sendPart sends the next part of the plan, and files for it. An init that is gone by then is no error: a step
// has failed, and what it said of that is still to be read.
func (i *Init) sendPart(files ...*os.File) error {
	blob := i.plan.parts[i.sent]
	i.sent++
	i.sending.Lock()
	defer i.sending.Unlock()
	err := i.sendLocked(message{kind: msgPlan, value: uint32(len(blob))}, files...)
	for err == nil && len(blob) > 0 {
		n := min(len(blob), maxPiece)
		if _, err = i.control.Write(blob[:n]); err != nil {
			err = fmt.Errorf("send the plan to the sandbox's init: %w", err)
		}
		blob = blob[n:]
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

// ErrBusy says that init has not taken what was sent before.
var ErrBusy = errors.New("the sandbox's init does not answer")

// send sends a message to an init that has its plan. It does not wait: who sends may have locks, and init
// always answers soon, or never.
func (i *Init) send(m message, files ...*os.File) error {
	i.sending.Lock()
	defer i.sending.Unlock()
	return i.sendLocked(m, files...)
}

// sendLocked sends a message, and at most mostFiles with it, unix(7), SCM_RIGHTS. It does not wait.
func (i *Init) sendLocked(m message, files ...*os.File) error {
	m.version = messageVersion
	if len(files) > mostFiles {
		return fmt.Errorf("%d files for the sandbox's init, which takes %d at a time", len(files), mostFiles)
	}
	var rights []byte
	if len(files) > 0 {
		var fds []int
		for _, f := range files {
			fd, err := descriptor(f)
			if err != nil {
				return err
			}
			fds = append(fds, int(fd))
		}
		rights = unix.UnixRights(fds...)
	}
	conn, err := i.control.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = conn.Control(func(fd uintptr) {
		for sendErr = unix.EINTR; sendErr == unix.EINTR; {
			sendErr = unix.Sendmsg(int(fd), raw(&m), rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		}
	})
	switch {
	case err != nil:
		return err
	case sendErr == unix.EAGAIN:
		return ErrBusy
	case sendErr != nil:
		return fmt.Errorf("send to the sandbox's init: %w", os.NewSyscallError("sendmsg", sendErr))
	}
	return nil
}

// peek returns the first message that waits in the socket, or errNothing, and leaves it there: a server
// that dies before it has written down what a message says leaves it to the next one.
func peek(fd int) (m message, err error) {
	n, reset := 0, false
	for {
		n, _, err = unix.Recvfrom(fd, raw(&m), unix.MSG_DONTWAIT|unix.MSG_PEEK)
		if err == unix.ECONNRESET && !reset { // it ended before it had read all; its last words come after that
			reset = true
			continue
		}
		if err != unix.EINTR {
			break
		}
	}
	switch {
	case err == unix.EAGAIN:
		return m, errNothing
	case err == unix.ECONNRESET || err == nil && n == 0:
		return m, ErrInitGone
	case err != nil:
		return m, os.NewSyscallError("recvfrom", err)
	case n != messageSize || m.version != messageVersion:
		return m, fmt.Errorf("the sandbox's init sent %d bytes of version %d, known is version %d",
			n, m.version, messageVersion)
	}
	return m, nil
}

// take removes the message that peek returned.
func (i *Init) take() error {
	conn, err := i.control.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Control(func(fd uintptr) {
		var m message
		_, _, _ = unix.Recvfrom(int(fd), raw(&m), unix.MSG_DONTWAIT) // it is there
	})
}

// Await returns when the command runs, or a *StepError that says which step failed, or ErrInitGone.
func (i *Init) Await(ctx context.Context) error {
	m, err := i.await(ctx)
	for err == nil && m.kind == msgParked {
		if err = i.take(); err == nil {
			m, err = i.await(ctx)
		}
	}
	if err != nil || m.kind == msgRunning || m.kind == msgExit { // EXIT comes first when an earlier server took RUNNING
		return err
	}
	return fmt.Errorf("the sandbox's init sent message %d while starting", m.kind)
}

// await is the first message from init, or why there is none, or which step failed.
func (i *Init) await(ctx context.Context) (m message, err error) {
	conn, err := i.control.SyscallConn()
	if err != nil {
		return m, err
	}
	_ = i.control.SetReadDeadline(time.Now().Add(i.patience())) // fails for a closed one, on which nobody waits
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = i.control.SetReadDeadline(time.Unix(1, 0)) // the same
		close(interrupted)
	})
	var peekErr error
	err = conn.Read(func(fd uintptr) bool {
		m, peekErr = peek(int(fd))
		return peekErr != errNothing
	})
	if !stop() { // it may be about to
		<-interrupted
	}
	_ = i.control.SetReadDeadline(time.Time{}) // the next who waits must not find it
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil:
		return m, i.stuck()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return m, context.Cause(ctx)
	case err != nil:
		return m, err
	case peekErr == nil && m.kind == msgFailed:
		return m, i.plan.stepError(m.value, syscall.Errno(m.detail))
	}
	return m, peekErr
}

// patience is answerTime, but for tests.
func (i *Init) patience() time.Duration {
	if i.answerTime != 0 {
		return i.answerTime
	}
	return answerTime
}

// stuck says where an init is that does not answer, as far as the kernel tells (proc(5)).
func (i *Init) stuck() error {
	at := func(file string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", i.Pid, file))
		if err != nil || len(text) == 0 {
			return "unknown"
		}
		return strings.Join(strings.Fields(string(text)), " ")
	}
	return fmt.Errorf("the sandbox's init, pid %d, has said nothing for %v while it carried out its plan: it waits in %s of the kernel, system call %s, stack: %s (the kernel's log, dmesg, may say why)",
		i.Pid, i.patience(), at("wchan"), at("syscall"), at("stack"))
}

// FD is the control socket: readable when Exit has something new to say. What holds for Stdout holds for it.
func (i *Init) FD() int {
	fd, err := descriptor(i.control)
	if err != nil {
		return -1 // it is closed
	}
	return int(fd)
}

// Exit tells how the command ended, with all that came from it; ErrRunning while it has not. It does not
// wait, nor does it heed an Await that was cut off. The answer stays in init until Close. ErrInitGone means
// that nobody will ever know.
func (i *Init) Exit() (Exit, error) {
	conn, err := i.control.SyscallConn()
	if err != nil {
		return Exit{}, err
	}
	for {
		var m message
		var peekErr error
		if err := conn.Control(func(fd uintptr) { m, peekErr = peek(int(fd)) }); err != nil {
			return Exit{}, err
		}
		switch {
		case peekErr == errNothing:
			return Exit{}, ErrRunning
		case peekErr != nil:
			return Exit{}, peekErr
		}
		event, isEvent := m.event()
		if !isEvent && m.kind != msgParked && m.kind != msgRunning { // those are known
			return m.exit()
		}
		if err := i.take(); err != nil {
			return Exit{}, err
		}
		if isEvent && i.Heard != nil {
			i.Heard(event)
		}
	}
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

// SignalGroup sends a signal to the command's process group: to what a terminal would send it.
func (i *Init) SignalGroup(s syscall.Signal) error {
	return i.send(message{kind: msgSignal, value: uint32(s), detail: targetGroup})
}

// SignalAll sends a signal to every process of the sandbox but init.
func (i *Init) SignalAll(s syscall.Signal) error {
	return i.send(message{kind: msgSignal, value: uint32(s), detail: targetAll})
}
