package client

import (
	"context"
	"io"
	"time"

	"github.com/telerun/tele/proto/codec"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// OutputOptions say what to read of a job's output. The zero value is all there is now.
type OutputOptions struct {
	Stream telev1.OutputStream // one alone; unspecified is both
	Offset uint64
	Tail   int       // begin this many lines before the end, when positive
	Since  time.Time // leave out what reached the server before, by its clock, when it is set
	Follow bool
	// Chunk, when it is set, is called for each piece as it arrived, instead of writing it.
	Chunk func(*telev1.StreamOutputResponse) error
	// Event, when it is set, is told what happened to the output, between the bytes where it did.
	Event func(telev1.OutputEvent)
}

// A WriteError says that output could not be written where the caller wanted it.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return "write output: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *WriteError) Unwrap() error { return e.Err }

// Output copies a job's output to stdout and stderr. With Follow it returns the job when it has
// ended and everything was copied; without, the job is nil when it still runs.
func (c *Client) Output(ctx context.Context, id string, o OutputOptions, stdout, stderr io.Writer) (*telev1.Job, error) {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	copying := copying{OutputOptions: o, stdout: stdout, stderr: stderr,
		next: &telev1.StreamOutputRequest{JobId: id, Stream: o.Stream, Offset: o.Offset, Follow: o.Follow,
			KeepChunks: o.Chunk != nil}}
	if o.Tail > 0 {
		lines := uint32(o.Tail)
		copying.next.TailLines = &lines
	}
	if !o.Since.IsZero() {
		copying.next.Since = timestamppb.New(o.Since)
	}
	lane := c.lanes.take(ctx)
	defer c.lanes.leave(lane)
	job, err := copying.on(ctx, lane)
	if first := c.lanes.first; lane != first && status.Code(err) == codes.ResourceExhausted {
		job, err = copying.on(ctx, first) // the server may take no more connections of this client
	}
	return job, err
}

// copying is the way of a job's output, over as many calls as it takes.
type copying struct {
	OutputOptions
	stdout, stderr io.Writer
	next           *telev1.StreamOutputRequest  // asks for what was not delivered yet
	told           *telev1.StreamOutputResponse // the last event
}

// on copies over one connection.
func (c *copying) on(ctx context.Context, lane *lane) (job *telev1.Job, err error) {
	err = lane.call(ctx, goesOn(c.next.JobId), func(answered func()) (err error) {
		job, err = c.from(ctx, lane.jobs, answered)
		return err
	})
	return job, err
}

// from makes one call.
func (c *copying) from(ctx context.Context, jobs telev1.JobServiceClient, answered func()) (*telev1.Job, error) {
	stream, err := jobs.StreamOutput(ctx, c.next, grpc.ForceCodecV2(codec.Codec{}))
	if err != nil {
		return nil, err
	}
	for {
		var chunk codec.Chunk
		err := stream.RecvMsg(&chunk)
		switch {
		case err == io.EOF && c.Follow:
			return nil, status.Error(codes.Unavailable, "the output ended before the job")
		case err == io.EOF:
			return nil, nil
		case err != nil:
			return nil, err
		}
		answered()
		job, err := c.take(&chunk)
		chunk.Free()
		if err != nil || job != nil {
			return job, err
		}
	}
}

// take takes one message, and returns the job when it is the last one.
func (c *copying) take(chunk *codec.Chunk) (*telev1.Job, error) {
	r := chunk.Message
	switch {
	case r.Job != nil:
		return r.Job, nil
	case r.Event != telev1.OutputEvent_OUTPUT_EVENT_UNSPECIFIED:
		c.tell(r)
	default:
		if err := c.deliver(chunk); err != nil {
			return nil, &WriteError{err}
		}
		c.next.Offset, c.next.TailLines, c.next.Since = r.Offset+uint64(chunk.Data.Len()), nil, nil
	}
	return nil, nil
}

// tell tells the caller of an event, but not again when it was at the place where a call took up the
// output of the one before.
func (c *copying) tell(r *telev1.StreamOutputResponse) {
	again := c.told != nil && c.told.Event == r.Event && c.told.Offset == r.Offset && c.told.Stream == r.Stream
	if c.told = r; c.Event != nil && !again {
		c.Event(r.Event)
	}
}

func (c *copying) deliver(chunk *codec.Chunk) error {
	if c.Chunk != nil {
		return c.Chunk(chunk.Whole())
	}
	to := c.stdout
	if chunk.Message.Stream == telev1.OutputStream_OUTPUT_STREAM_STDERR {
		to = c.stderr
	}
	for _, b := range chunk.Data {
		if _, err := to.Write(b.ReadOnlyData()); err != nil {
			return err
		}
	}
	return nil
}
