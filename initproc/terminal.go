package initproc

import (
	"encoding/binary"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// This file is the terminal of a job with Spec.Terminal: a pseudo-terminal of the job's own /dev/pts, which
// its command has as its controlling terminal and as standard input, output and error. Init keeps both sides:
// the master, which the server takes from there, and the slave, or reading would fail while the command has
// closed it and could open it again.
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
	master, slave := makeTerminal(b, s)
	b.keep("keep the terminal's other side", master, fdTerminal)
	b.keep("keep the terminal", slave, fdSlave)
	return number(fdSlave)
}

func makeTerminal(b *builder, s Spec) (master, slave arg) {
	const name = "make the terminal"
	master = b.stepResult(name, unix.SYS_OPENAT, cwdFD, b.string("/dev/pts/ptmx"),
		number(unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC), number(0))
	b.step(name, unix.SYS_IOCTL, master, number(unix.TIOCSPTLCK), b.words(0))
	slave = b.stepResult(name, unix.SYS_IOCTL, master, number(unix.TIOCGPTPEER),
		number(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	b.step("set the terminal's size", unix.SYS_IOCTL, master, number(unix.TIOCSWINSZ), b.bytes(s.Terminal.winsize()))
	b.step("set the terminal's modes", unix.SYS_IOCTL, slave, number(unix.TCSETS), b.bytes(usualModes()))
	if !s.UserNamespace {
		b.step("give the terminal to the user", unix.SYS_FCHOWN, slave, number(s.UID), number(s.GID))
	}
	return master, slave
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

// A Terminal is the server's side of a job's.
type Terminal struct {
	master *os.File // non-blocking
	pipe   int      // the writing end of the pipe that Init.Stdout reads
}

// Terminal takes the terminal from an init whose Spec had one and whose command runs.
func (i *Init) Terminal() (*Terminal, error) {
	master, err := i.takeOne(fdTerminal, "terminal")
	if err != nil {
		return nil, err
	}
	t := &Terminal{os.NewFile(uintptr(master), "terminal"), -1} // non-blocking, as it was made
	if t.pipe, err = i.takeOne(fdStdout, "output"); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// Close lets go of it. Init has it still.
func (t *Terminal) Close() {
	_ = t.master.Close() // what was written is the kernel's
	if t.pipe >= 0 {
		_ = unix.Close(t.pipe) // the same
	}
}

// FD is readable when Move has something to move. What holds for Init.Stdout holds for it.
func (t *Terminal) FD() int {
	fd, err := descriptor(t.master)
	if err != nil {
		return -1 // it is closed
	}
	return int(fd)
}

// Resize changes the size, of which the foreground process group is told by SIGWINCH.
func (t *Terminal) Resize(s Size) error {
	return setSize(t.master, s)
}

// Resize is the same for a command beside the main one, which has a terminal.
func (s *Beside) Resize(size Size) error { return setSize(s.Terminal, size) }

func setSize(terminal *os.File, s Size) error {
	conn, err := terminal.SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = conn.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Columns})
	})
	return errors.Join(err, os.NewSyscallError("ioctl TIOCSWINSZ", ioctlErr))
}

// Move moves some of what the command has written to the pipe, or nothing while that is full. It returns
// io.EOF when there is nothing for now.
func (t *Terminal) Move() error {
	for {
		_, err := unix.Splice(t.FD(), nil, t.pipe, nil, 64<<10, unix.SPLICE_F_NONBLOCK)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EIO: // the command has ended, and nobody has the other side open
			return io.EOF
		case err == unix.EAGAIN && !waits(t.FD()):
			return io.EOF
		case err == unix.EAGAIN: // there is no room
			return nil
		}
		return os.NewSyscallError("splice", err)
	}
}

// waits tells whether there is something to read.
func waits(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&unix.POLLIN != 0
}
