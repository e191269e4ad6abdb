package initproc

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// This file is the standard input of a job with Spec.Stdin.
//
//	server ---- write ----> file ---- splice ----> pipe ----> command
//	                         |                      |
//	                         position: init has it  writing end: init has it
//
// Both are made by the server and come to init with the rest of the plan. What the server moves from the
// file to the pipe it moves with splice(2) at the file's own position, which is that of the open file and
// not of a process. So a server that is killed at any moment leaves behind how far it came, and the next
// one goes on there; and since init has a writing end as well, the command does not take the death of a
// server for the end of its input.

// An Input is the server's end of a job's standard input.
type Input struct {
	// Spool is the file, open for reading: its position is how much of it the command was given.
	Spool *os.File
	// Pipe is the writing end, non-blocking; nil for a terminal.
	Pipe     *os.File
	read     *os.File // for init
	terminal *Terminal
}

// NewInput makes the input of a job, with a pipe or for a job with a terminal. The file at spool is what it
// will read, and is there already.
func NewInput(spool string, pipe bool) (*Input, error) {
	file, err := os.Open(spool)
	if err != nil || !pipe {
		return &Input{Spool: file}, err
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		_ = file.Close() // nothing was read
		return nil, os.NewSyscallError("pipe2", err)
	}
	_ = unix.SetNonblock(fds[1], true) // the command's end blocks, as programs expect
	return &Input{Spool: file, Pipe: os.NewFile(uintptr(fds[1]), "input"), read: os.NewFile(uintptr(fds[0]), "input")}, nil
}

// TypeAt makes t the terminal that the input is typed at. It comes before the first Move.
func (in *Input) TypeAt(t *Terminal) { in.terminal = t }

// End makes the command read the end of its input, where it is a terminal: as often as that is called.
func (in *Input) End() error {
	if in.terminal == nil {
		return nil
	}
	_, err := in.terminal.master.Write([]byte{endOfFile})
	return err
}

// Move moves up to n bytes of the file to the pipe or the terminal, and waits while that is full. It fails
// with EPIPE when nobody reads any more, and with os.ErrClosed after Close.
func (in *Input) Move(n int64) (moved int64, err error) {
	if in.terminal != nil {
		return in.write(n)
	}
	conn, err := in.Pipe.SyscallConn()
	if err != nil {
		return 0, err
	}
	spool, err := descriptor(in.Spool)
	if err != nil {
		return 0, err
	}
	var spliceErr error
	err = conn.Write(func(pipe uintptr) bool {
		for {
			moved, spliceErr = unix.Splice(int(spool), nil, int(pipe), nil, int(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			if spliceErr != unix.EINTR {
				return spliceErr != unix.EAGAIN
			}
		}
	})
	if err != nil {
		return 0, err
	}
	if spliceErr != nil {
		return 0, os.NewSyscallError("splice", spliceErr)
	}
	return moved, nil
}

// write types. What is typed twice can do more harm than what is lost, so the position goes first.
func (in *Input) write(n int64) (int64, error) {
	text := make([]byte, min(n, typed))
	read, err := in.Spool.Read(text)
	if err != nil {
		return 0, err
	}
	wrote, err := in.terminal.master.Write(text[:read])
	if wrote < read {
		_, seekErr := in.Spool.Seek(int64(wrote-read), io.SeekCurrent)
		err = errors.Join(err, seekErr)
	}
	return int64(wrote), err
}

// Read is how many bytes of the file the command has read.
func (in *Input) Read() (int64, error) {
	moved, err := in.Spool.Seek(0, io.SeekCurrent)
	if err != nil || in.Pipe == nil {
		return moved, err
	}
	pipe, err := descriptor(in.Pipe)
	if err != nil {
		return 0, err
	}
	waiting, err := unix.IoctlGetInt(int(pipe), unix.TIOCINQ)
	return moved - int64(waiting), err
}

// Close lets go of it. Init has it still.
func (in *Input) Close() {
	for _, f := range []*os.File{in.Pipe, in.read, in.Spool} { // Move, which uses both, has ended when Pipe is closed
		if f != nil {
			_ = f.Close() // what was written is in the pipe
		}
	}
}

// files are what init is sent of it.
func (in *Input) files() []*os.File {
	switch {
	case in == nil:
		return nil
	case in.read == nil:
		return []*os.File{in.Spool}
	}
	return []*os.File{in.read, in.Pipe, in.Spool}
}

// sent leaves the reading end to init: or the command would not be the only one that could read.
func (in *Input) sent() error {
	if in == nil || in.read == nil {
		return nil
	}
	err := in.read.Close()
	in.read = nil
	return err
}

// Input takes the input back from an adopted init, which has a pipe or a terminal; nil when it has been
// closed.
func (i *Init) Input(pipe bool) (*Input, error) {
	in := &Input{}
	take := func(file **os.File, number int, name string) error {
		fd, err := i.takeOne(number, name)
		if err == nil {
			*file = os.NewFile(uintptr(fd), name)
		}
		return err
	}
	err := take(&in.Spool, fdSpool, "spool")
	if err == nil && pipe {
		err = take(&in.Pipe, fdInput, "input")
	}
	if err != nil {
		in.Close()
	}
	if errors.Is(err, unix.EBADF) {
		return nil, nil
	}
	return in, err
}

// CloseInput closes init's writing end: when the server's is closed, too, the command's input ends.
func (i *Init) CloseInput() error { return i.send(message{kind: msgClose, value: fdInput}) }

// inputFiles is how many files init is sent of the input; what else is sent comes after them.
func inputFiles(s Spec) int {
	switch {
	case !s.Stdin:
		return 0
	case s.Terminal != nil:
		return 1
	}
	return 3
}

// filesBehind are what else came with the plan: what SecretsFile made, and the program of an Agent.
func filesBehind(s Spec) (secrets, program arg) {
	next := fdFiles + inputFiles(s)
	secrets, program = number(next), number(next)
	if len(s.Secrets) > 0 {
		program = number(next + 1)
	}
	return secrets, program
}

// receiveInput keeps what came with the plan, but for the reading end, which it returns.
func receiveInput(b *builder, s Spec) arg {
	if !s.Stdin {
		return arg{}
	}
	if s.Terminal != nil {
		b.keep("keep the input's file", number(fdFiles), fdSpool)
		return arg{}
	}
	b.keep("keep the input's writing end", number(fdFiles+1), fdInput)
	b.keep("keep the input's file", number(fdFiles+2), fdSpool)
	return number(fdFiles)
}

// giveInput lets the job's user open /dev/stdin, as setUser does for the output.
func giveInput(b *builder, s Spec, read arg) {
	if s.Stdin && s.Terminal == nil && !s.UserNamespace {
		b.step("give the input to the user", unix.SYS_FCHOWN, read, number(s.UID), number(s.GID))
	}
}

// readInput makes the reading end the command's standard input. It comes after closeOnExec, from which on
// the command has a table of descriptors of its own.
func readInput(b *builder, s Spec, read arg) {
	if s.Stdin && s.Terminal == nil {
		b.step("take the input", unix.SYS_DUP3, read, number(0), number(0))
	}
}

// leaveInput leaves the reading end to the command: writing fails when it reads no more.
func leaveInput(b *builder, s Spec, read arg) {
	if s.Stdin && s.Terminal == nil {
		b.step("leave the input to the command", unix.SYS_CLOSE, read)
	}
}
