package client

import (
	"context"
	"crypto/rand"
	"errors"
	"io"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrInputClosed is returned by Input when the job reads no more, or has ended.
var ErrInputClosed = errors.New("the job reads no more input")

// A ReadError says that input could not be read where the caller has it from.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return "read input: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ReadError) Unwrap() error { return e.Err }

// Input writes what it reads from r to the standard input of a job with JobSpec.Stdin, and ends the input
// when r has ended. It returns when the server has all of it; a server that is killed afterwards does not
// lose it. No byte gets lost or comes twice when the connection is lost and taken up again.
//
// A Read that waits is not interrupted when Input returns for another reason: it goes on, once, in a
// goroutine of its own.
func (c *Client) Input(ctx context.Context, id string, r io.Reader) error {
	return c.input(ctx, id, r, goesOn)
}

// input is Input with what a LostError says of the job.
func (c *Client) input(ctx context.Context, id string, r io.Reader, lost func(id string) string) error {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &feeding{id: id, writer: rand.Text(), pieces: make(chan piece), room: make(chan struct{}, inputPieces)}
	go f.read(ctx, r)
	return c.link.call(ctx, lost(id), func(answered func()) error { return f.over(ctx, c.jobs, answered) })
}

const (
	// inputPiece is how much is sent at once, at most.
	inputPiece = 128 << 10
	// inputPieces is how many are under way: read, and not known to be with the server.
	inputPieces = 16
)

// A feeding is the way of a job's input, over as many calls as it takes.
type feeding struct {
	id, writer string
	pieces     chan piece    // what was read
	room       chan struct{} // taken by each piece that is under way
	underWay   []piece       // sent or to be sent, in order, as far as the server is not known to have it
	last       error         // why there will be no more pieces
}

// A piece is some of the input.
type piece struct {
	offset int64
	data   []byte
	err    error // why there is none after it: io.EOF, or what went wrong
}

// read reads ahead.
func (f *feeding) read(ctx context.Context, r io.Reader) {
	for offset := int64(0); ; {
		select {
		case f.room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		data := make([]byte, inputPiece)
		n, err := r.Read(data)
		select {
		case f.pieces <- piece{offset, data[:n], err}:
		case <-ctx.Done():
			return
		}
		if offset += int64(n); err != nil {
			return
		}
	}
}

// over writes over one stream.
func (f *feeding) over(ctx context.Context, jobs telev1.JobServiceClient, answered func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := jobs.WriteInput(ctx)
	if err != nil {
		return err
	}
	answers, failed := make(chan *telev1.WriteInputResponse), make(chan error, 1)
	go func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case answers <- answer:
			case <-ctx.Done():
				return
			}
		}
	}()
	send := func(m *telev1.WriteInputRequest) (ok bool) { return stream.Send(m) == nil } // failed says why not
	// The first message asks how much the server has.
	ready, sent := false, 0
	send(&telev1.WriteInputRequest{JobId: f.id, Writer: f.writer})
	for {
		for ready && sent < len(f.underWay) {
			p := f.underWay[sent]
			ready = send(&telev1.WriteInputRequest{Offset: uint64(p.offset), Data: p.data, End: p.err != nil})
			sent++
		}
		var pieces chan piece
		if ready && f.last == nil {
			pieces = f.pieces
		}
		select {
		case p := <-pieces:
			f.underWay, f.last = append(f.underWay, p), p.err
		case answer := <-answers:
			answered()
			sent = max(sent-f.arrived(int64(answer.Accepted)), 0)
			if answer.Closed {
				return f.closed(int64(answer.Accepted))
			}
			ready = true
		case err := <-failed:
			if err == io.EOF {
				return status.Error(codes.Unavailable, "the server ended the input before the job")
			}
			return err
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// arrived forgets what the server has, all before accepted, and returns how many pieces that was. The last
// one stays until the server says that it is the last.
func (f *feeding) arrived(accepted int64) (n int) {
	for len(f.underWay) > 0 && f.underWay[0].err == nil && f.underWay[0].offset+int64(len(f.underWay[0].data)) <= accepted {
		f.underWay = f.underWay[1:]
		<-f.room
		n++
	}
	return n
}

// closed is how it ended when the server wants no more.
func (f *feeding) closed(accepted int64) error {
	if f.last == nil || len(f.underWay) != 1 || accepted < f.underWay[0].offset+int64(len(f.underWay[0].data)) {
		return ErrInputClosed
	}
	if f.last != io.EOF {
		return &ReadError{f.last}
	}
	return nil
}
