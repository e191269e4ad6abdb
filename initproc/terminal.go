package initproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// This file is the terminal of a job with Spec.Terminal: a pseudo-terminal of the job's own /dev/pts, which
// its command has as its controlling terminal and as standard input, output and error. Init keeps the other
// side, and the server takes it from there.
//
//	command <--> slave | master ---- splice ----> stdout pipe ---- splice ----> output
//	                        ^------- write ------ file that stdin comes from
//
// What the command writes goes through the pipe that other jobs write into themselves: so each byte is in
// the terminal, in the pipe or in the output when a server is killed, and none is lost. What was typed may
// be, up to typed bytes: a file can only be spliced to a pipe.

// A Size is a terminal's, in characters.
type Size struct{ Rows, Columns uint16 }

// typed is how much input a terminal is given at once.
const typed = 1024

// endOfFile is what ends the input of a terminal as long as its program has not changed that, termios(3), VEOF.
const endOfFile = 4

// winsize is struct winsize.
func (s Size) winsize() []byte {
	var w [8]byte
	binary.NativeEndian.PutUint16(w[:], s.Rows)
	binary.NativeEndian.PutUint16(w[2:], s.Columns)
	return w[:]
}

// openTerminal makes the terminal, and returns the command's side of it.
func openTerminal(b *builder, s Spec) arg {
	if s.Terminal == nil {
		return arg{}
	}
	const name = "make the terminal"
	master := b.stepResult(name, unix.SYS_OPENAT, cwdFD, b.string("/dev/pts/ptmx"),
		number(unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC), number(0))
	b.step(name, unix.SYS_IOCTL, master, number(unix.TIOCSPTLCK), b.words(0))
	slave := b.stepResult(name, unix.SYS_IOCTL, master, number(unix.TIOCGPTPEER),
		number(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	b.step("set the terminal's size", unix.SYS_IOCTL, master, number(unix.TIOCSWINSZ), b.bytes(s.Terminal.winsize()))
	b.step("set the terminal's modes", unix.SYS_IOCTL, slave, number(unix.TCSETS), b.bytes(usualModes()))
	if !s.UserNamespace {
		b.step("give the terminal to the user", unix.SYS_FCHOWN, slave, number(s.UID), number(s.GID))
	}
	b.keep("keep the terminal's other side", master, fdTerminal)
	return slave
}

// usualModes are those that the kernel gives a new terminal, struct ktermios, and that its text is UTF-8:
// else Backspace would take a part of a character.
func usualModes() []byte {
	var modes []byte
	for _, flags := range []uint32{
		unix.ICRNL | unix.IXON | unix.IUTF8,
		unix.OPOST | unix.ONLCR,
		unix.B38400 | unix.CS8 | unix.CREAD | unix.HUPCL,
		unix.ISIG | unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHOCTL | unix.ECHOKE | unix.IEXTEN,
	} {
		modes = binary.NativeEndian.AppendUint32(modes, flags)
	}
	characters := [20]byte{1 + unix.VINTR: 'C' - '@', 1 + unix.VQUIT: '\\' - '@', 1 + unix.VERASE: 127, 1 + unix.VKILL: 'U' - '@',
		1 + unix.VEOF: endOfFile, 1 + unix.VMIN: 1, 1 + unix.VSTART: 'Q' - '@', 1 + unix.VSTOP: 'S' - '@', 1 + unix.VSUSP: 'Z' - '@',
		1 + unix.VREPRINT: 'R' - '@', 1 + unix.VDISCARD: 'O' - '@', 1 + unix.VWERASE: 'W' - '@', 1 + unix.VLNEXT: 'V' - '@'}
	return append(modes, characters[:]...) // the first is the line discipline, N_TTY
}

// controlTerminal makes the terminal that of the session. It comes after newSession.
func controlTerminal(b *builder, s Spec, slave arg) {
	if s.Terminal != nil {
		b.step("control the terminal", unix.SYS_IOCTL, slave, number(unix.TIOCSCTTY), number(0))
	}
}

// takeTerminal makes it the command's input and output. As readInput it comes after closeOnExec.
func takeTerminal(b *builder, s Spec, slave arg) {
	if s.Terminal != nil {
		for fd := range 3 {
			b.step("take the terminal", unix.SYS_DUP3, slave, number(fd), number(0))
		}
	}
}

// leaveTerminal leaves the slave to the command: reading the master fails once nobody has it any more.
func leaveTerminal(b *builder, s Spec, slave arg) {
	if s.Terminal != nil {
		b.step("leave the terminal to the command", unix.SYS_CLOSE, slave)
	}
}

// A Terminal is the server's side of a job's.
type Terminal struct {
	// Master is it, non-blocking. Pipe is the writing end of the pipe that Init.Stdout reads.
	Master, Pipe *os.File
}

// Terminal takes the terminal from an init whose Spec had one and whose command runs.
func (i *Init) Terminal() (*Terminal, error) {
	t := &Terminal{}
	for _, end := range []struct {
		file   **os.File
		number int
		name   string
	}{{&t.Master, fdTerminal, "terminal"}, {&t.Pipe, fdStdout, "output"}} {
		fd, err := unix.PidfdGetfd(i.PidFD, end.number, 0)
		if err != nil {
			t.Close()
			if err == unix.ESRCH {
				return nil, ErrInitGone
			}
			return nil, fmt.Errorf("take descriptor %d (%s) of the sandbox's init, pid %d: %w", end.number, end.name,
				i.Pid, os.NewSyscallError("pidfd_getfd", err))
		}
		_ = unix.SetNonblock(fd, true) // of the pipe, too: the command does not have it
		*end.file = os.NewFile(uintptr(fd), end.name)
	}
	return t, nil
}

// Close lets go of it. Init has it still.
func (t *Terminal) Close() {
	for _, f := range []*os.File{t.Master, t.Pipe} {
		if f != nil {
			_ = f.Close() // what was written is the kernel's
		}
	}
}

// Resize changes the size, of which the foreground process group is told by SIGWINCH.
func (t *Terminal) Resize(s Size) error {
	fd, err := descriptor(t.Master)
	if err != nil {
		return err
	}
	err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Columns})
	return os.NewSyscallError("ioctl TIOCSWINSZ", err)
}

// Move moves what the command writes to the pipe, once, and waits for it, or for room in the pipe. It
// returns io.EOF when nobody has the terminal open, and os.ErrDeadlineExceeded when there was nothing by a
// deadline of Master's.
func (t *Terminal) Move() error {
	master, err := t.Master.SyscallConn()
	if err != nil {
		return err
	}
	pipe, err := t.Pipe.SyscallConn()
	if err != nil {
		return err
	}
	to, err := descriptor(t.Pipe)
	if err != nil {
		return err
	}
	var moveErr error
	err = master.Read(func(from uintptr) bool {
		moveErr = move(int(from), int(to))
		return moveErr != unix.EAGAIN
	})
	switch {
	case err != nil:
		return err
	case moveErr == errFull:
		return pipe.Write(func(to uintptr) bool { return has(int(to), unix.POLLOUT) })
	}
	return moveErr
}

// Rest moves what is there, without waiting for more; it returns io.EOF when that was all, and nil when
// the pipe is full.
func (t *Terminal) Rest() error {
	master, err := descriptor(t.Master)
	if err != nil {
		return err
	}
	pipe, err := descriptor(t.Pipe)
	if err != nil {
		return err
	}
	for {
		switch err := move(int(master), int(pipe)); err {
		case nil:
		case unix.EAGAIN, io.EOF:
			return io.EOF
		case errFull:
			return nil
		default:
			return err
		}
	}
}

// errFull says that there is something to move, and no room for it.
var errFull = errors.New("the pipe is full")

// move moves some of what is in a terminal to a pipe: EAGAIN when there is nothing, io.EOF when nobody has
// the terminal open.
func move(terminal, pipe int) error {
	for {
		_, err := unix.Splice(terminal, nil, pipe, nil, 64<<10, unix.SPLICE_F_NONBLOCK)
		switch {
		case err == unix.EINTR:
		case err == unix.EIO:
			return io.EOF
		case err != unix.EAGAIN:
			return os.NewSyscallError("splice", err)
		case !has(terminal, unix.POLLIN):
			return err
		case !has(pipe, unix.POLLOUT):
			return errFull
		}
	}
}

// has tells whether a descriptor is ready.
func has(fd int, event int16) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: event}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&event != 0
}
