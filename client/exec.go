package client

import (
	"context"
	"fmt"
	"io"
	"sync"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ExecOptions say what Exec passes. A nil Stdin is an empty one; nil writers throw away.
type ExecOptions struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// An Exec is a command that runs in a job beside the job's own.
type Exec struct {
	stream grpc.BidiStreamingClient[telev1.ExecRequest, telev1.ExecResponse]
	cancel context.CancelFunc
	out    [2]io.Writer

	sending sync.Mutex
	ended   bool // nothing can be sent any more

	lost  string      // what a lost connection means
	taken chan uint64 // how much of the input the server has passed on; the newest
}

// Exec starts a command in a running job, and returns when it runs; the caller calls Wait. When the connection
// breaks, the command is ended: it is not taken up again.
func (c *Client) Exec(ctx context.Context, start *telev1.ExecStart, o ExecOptions) (*Exec, error) {
	id, err := c.fullID(ctx, start.GetJobId())
	if err != nil {
		return nil, err
	}
	c.link.connect(ctx)
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.jobs.Exec(ctx)
	if err == nil {
		first := &telev1.ExecStart{JobId: id, Command: start.Command, Env: start.Env, Cwd: start.Cwd, Terminal: start.Terminal,
			Stdin: o.Stdin != nil && start.Files == nil, Files: start.Files}
		_ = stream.Send(&telev1.ExecRequest{Start: first}) // Recv says why not
		_, err = stream.Recv()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	e := &Exec{stream: stream, cancel: cancel, out: [2]io.Writer{o.Stdout, o.Stderr}, taken: make(chan uint64, 1),
		lost: "the command is ended, for its output is not kept; the job goes on"}
	if start.Files != nil {
		e.lost = "the copy ended with it, and left no part of a file; try again"
	}
	if o.Stdin != nil {
		go e.feed(ctx, o.Stdin)
	}
	return e, nil
}

// feed passes the input on, and waits while the command does not read: else signals would wait behind it. A
// Read that waits when the command ends goes on, once.
func (e *Exec) feed(ctx context.Context, r io.Reader) {
	buf := make([]byte, inputPiece)
	for sent, taken := uint64(0), uint64(0); ; {
		for sent-taken > inputAhead-inputPiece {
			select {
			case taken = <-e.taken:
			case <-ctx.Done():
				return
			}
		}
		n, err := r.Read(buf)
		if !e.send(&telev1.ExecRequest{Data: buf[:n], End: err != nil}) || err != nil {
			return
		}
		sent += uint64(n)
	}
}

// inputAhead is how much input the server is sent that it has not passed on.
const inputAhead = 1 << 20

func (e *Exec) send(m *telev1.ExecRequest) bool {
	e.sending.Lock()
	defer e.sending.Unlock()
	return !e.ended && e.stream.Send(m) == nil // Wait says why not
}

// Signal sends a signal, like "INT", to the command and what it started in its process group.
func (e *Exec) Signal(signal string) { e.send(&telev1.ExecRequest{Signal: signal}) }

// Resize changes the size of its terminal.
func (e *Exec) Resize(size *telev1.TerminalSize) { e.send(&telev1.ExecRequest{Size: size}) }

// Wait copies the command's output and returns how it ended.
func (e *Exec) Wait() (*telev1.ExecExit, error) {
	defer e.cancel()
	defer func() {
		// A Send that waits for the server ends with the stream, which cancel ends; not with the lock held here.
		e.cancel()
		e.sending.Lock()
		defer e.sending.Unlock()
		e.ended = true
	}()
	for {
		r, err := e.stream.Recv()
		switch {
		case err == io.EOF:
			return nil, status.Error(codes.Unavailable, "the server ended the command's stream")
		case err != nil && status.Code(err) == codes.Unavailable:
			return nil, fmt.Errorf("%w (%s)", err, e.lost)
		case err != nil:
			return nil, err
		case r.Exit != nil:
			return r.Exit, nil
		case r.Accepted > 0:
			select {
			case <-e.taken:
			default:
			}
			e.taken <- r.Accepted
			continue
		}
		to := e.out[0]
		if r.Stream == telev1.OutputStream_OUTPUT_STREAM_STDERR {
			to = e.out[1]
		}
		if to != nil {
			if _, err := to.Write(r.Data); err != nil {
				return nil, &WriteError{err}
			}
		}
	}
}
