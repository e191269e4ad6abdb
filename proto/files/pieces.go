package files

import (
	"encoding/binary"
	"errors"
	"io"
)

// This file is a stream within another: what comes behind it is somebody else's. It goes in pieces, each of them
//
//	length   4 bytes, the highest first
//	bytes    so many
//
// The length 0 ends it, and so does givenUp, with which whoever sends says that he cannot go on.

const (
	lengthSize = 4
	givenUp    = 1<<32 - 1
)

// ErrGivenUp is what is read of a stream that its sender gave up.
var ErrGivenUp = errors.New("who sends the files has given up")

// Split is what is in r, in pieces, and their end. When r fails the sender gives up, and the error comes behind
// that.
func Split(r io.Reader) io.Reader {
	return &splitter{from: r, buf: make([]byte, pieceSize)}
}

type splitter struct {
	from io.Reader
	buf  []byte
	rest []byte // of buf, to be read
	err  error  // that comes behind it
}

func (s *splitter) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.fill()
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// fill makes the next piece, as large as it can be, and the end behind the last one.
func (s *splitter) fill() {
	room := s.buf[lengthSize : len(s.buf)-lengthSize]
	n := 0
	for n < len(room) && s.err == nil {
		var more int
		more, s.err = s.from.Read(room[n:])
		n += more
	}
	s.rest = s.buf[:0]
	if n > 0 {
		binary.BigEndian.PutUint32(s.buf, uint32(n))
		s.rest = s.buf[:lengthSize+n]
	}
	switch s.err {
	case nil:
	case io.EOF:
		s.rest = binary.BigEndian.AppendUint32(s.rest, 0)
	default:
		s.rest = binary.BigEndian.AppendUint32(s.rest, givenUp)
	}
}

// Join is what Split was given. It reads the pieces and their end from r, and no byte behind that.
func Join(r io.Reader) io.Reader { return &joiner{from: r} }

type joiner struct {
	from io.Reader
	left uint32 // of a piece
	err  error  // why there are no more
}

func (j *joiner) Read(p []byte) (int, error) {
	for j.left == 0 && j.err == nil {
		j.next()
	}
	if j.err != nil {
		return 0, j.err
	}
	n, err := j.from.Read(p[:min(uint32(min(len(p), pieceSize)), j.left)])
	if j.left -= uint32(n); err == io.EOF {
		err = io.ErrUnexpectedEOF // there is at least an end to come
	}
	if err != nil {
		j.err = err
	}
	return n, err
}

// next begins the next piece.
func (j *joiner) next() {
	var length [lengthSize]byte
	if _, err := io.ReadFull(j.from, length[:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		j.err = err
		return
	}
	switch j.left = binary.BigEndian.Uint32(length[:]); j.left {
	case 0:
		j.err = io.EOF
	case givenUp:
		j.left, j.err = 0, ErrGivenUp
	}
}
