package spec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The result travels as frames of a 4-byte big-endian length and that many bytes of output. A
// frame of length zero is the last one; the byte after it is the exit code. A length of alive has
// nothing after it: the guest sends one when the command starts and then every Beat, so that the
// runner can tell a machine that hangs from a command that takes its time.
//
// So the runner knows by itself when it has all, and ends the machine. A guest that powered off
// could take the last of its output with it: writing to a port returns before the host has read.

const (
	headerSize = 4
	maxFrame   = 32 << 10
	alive      = 1<<32 - 1
)

// Beat is how often a guest says that it is alive.
const Beat = 10 * time.Second

// ErrNoExit is that a stream ended before the exit code.
var ErrNoExit = errors.New("the machine ended before the command did")

// SendOutput sends all that it can read, as soon as it can be read.
func SendOutput(port io.Writer, output io.Reader) error {
	frame := make([]byte, headerSize+maxFrame)
	for {
		n, err := output.Read(frame[headerSize:])
		if n > 0 {
			binary.BigEndian.PutUint32(frame, uint32(n))
			if _, err := port.Write(frame[:headerSize+n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// SendAlive says that the guest is alive.
func SendAlive(port io.Writer) error {
	_, err := port.Write(binary.BigEndian.AppendUint32(nil, alive))
	return err
}

// SendExit sends the closing frame.
func SendExit(port io.Writer, code byte) error {
	_, err := port.Write([]byte{0, 0, 0, 0, code})
	return err
}

// Receive copies the output to stdout as it arrives, and returns the exit code.
func Receive(port io.Reader, stdout io.Writer) (code int, err error) {
	for {
		var header [headerSize]byte
		if _, err := io.ReadFull(port, header[:]); err != nil {
			return 0, noExit(err)
		}
		size := binary.BigEndian.Uint32(header[:])
		if size == alive {
			continue
		}
		if size == 0 {
			var last [1]byte
			_, err := io.ReadFull(port, last[:])
			return int(last[0]), noExit(err)
		}
		if size > maxFrame {
			return 0, fmt.Errorf("frame of %d bytes, more than %d", size, maxFrame)
		}
		if _, err := io.CopyN(stdout, port, int64(size)); err != nil {
			return 0, noExit(err)
		}
	}
}

func noExit(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return ErrNoExit
	}
	return err
}
