package initproc

import (
	"context"
	"errors"
	"fmt"
	"os"
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

// ErrInterrupted is returned by Wait after Interrupt.
var ErrInterrupted = errors.New("the wait for the sandbox's init was interrupted")

// errNothing is returned by peek when init has not said anything.
var errNothing = errors.New("no message")

// sendPart sends the next part of the plan.
func (i *Init) sendPart() error {
	blob := i.plan.parts[i.sent]
	i.sent++
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

// peek returns the first message that waits in the socket and leaves it there: a server that dies
// before it has written down what a message says leaves it to the next one.
func (i *Init) peek(wait bool) (m message, err error) {
	conn, err := i.Control.SyscallConn()
	if err != nil {
		return m, err
	}
	var n int
	var recvErr error
	err = conn.Read(func(fd uintptr) bool {
		n, _, recvErr = unix.Recvfrom(int(fd), raw(&m), unix.MSG_DONTWAIT|unix.MSG_PEEK)
		if recvErr == unix.ECONNRESET { // it ended before it had read all; its last words come after that
			n, _, recvErr = unix.Recvfrom(int(fd), raw(&m), unix.MSG_DONTWAIT|unix.MSG_PEEK)
		}
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

// take removes the message that peek returned.
func (i *Init) take() error {
	conn, err := i.Control.SyscallConn()
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
func (i *Init) await(ctx context.Context) (message, error) {
	stop := context.AfterFunc(ctx, func() { _ = i.Control.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	m, err := i.peek(true)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return m, context.Cause(ctx)
	case err == nil && m.kind == msgFailed:
		return m, i.plan.stepError(m.value, syscall.Errno(m.detail))
	}
	return m, err
}

// Wait returns when the command and all that came from it have ended, and how it did. The answer
// stays in init until Close. ErrInitGone means that nobody will ever know.
func (i *Init) Wait() (Exit, error) {
	for {
		m, err := i.peek(true)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if i.interrupted.Load() {
				return Exit{}, ErrInterrupted
			}
			// Left over from an Await whose context ended when it was over.
			if err := i.Control.SetReadDeadline(time.Time{}); err != nil {
				return Exit{}, err
			}
			// Interrupt may have come in between.
			if i.interrupted.Load() {
				return Exit{}, ErrInterrupted
			}
		case err != nil:
			return Exit{}, err
		case m.kind == msgParked, m.kind == msgRunning: // known
			if err := i.take(); err != nil {
				return Exit{}, err
			}
		default:
			return m.exit()
		}
	}
}

// Interrupt makes Wait return ErrInterrupted, now or later.
func (i *Init) Interrupt() {
	i.interrupted.Store(true)
	_ = i.Control.SetReadDeadline(time.Unix(1, 0)) // fails for a closed one, on which nobody waits
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
