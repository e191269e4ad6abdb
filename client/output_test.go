package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	stdoutStream = telev1.OutputStream_OUTPUT_STREAM_STDOUT
	stderrStream = telev1.OutputStream_OUTPUT_STREAM_STDERR
	limitReached = telev1.OutputEvent_OUTPUT_EVENT_LIMIT_REACHED
)

// An output is what a fake job wrote, in chunks; it reached its limit at one offset of the two streams.
type output struct {
	chunks []*telev1.StreamOutputResponse
	limit  uint64
	length uint64
}

func randomOutput(random *rand.Rand, size int) *output {
	o := &output{}
	for int(o.length) < size {
		data := make([]byte, 1+random.IntN(40000))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		o.chunks = append(o.chunks, &telev1.StreamOutputResponse{Data: data,
			Stream: []telev1.OutputStream{stdoutStream, stderrStream}[random.IntN(2)], Offset: o.length})
		o.length += uint64(len(data))
	}
	o.limit = o.chunks[len(o.chunks)/2].Offset
	return o
}

// of is what was written to a stream.
func (o *output) of(stream telev1.OutputStream) (data []byte) {
	for _, chunk := range o.chunks {
		if chunk.Stream == stream {
			data = append(data, chunk.Data...)
		}
	}
	return data
}

// send sends the output as a server does: from an offset, for both streams or one.
func (o *output) send(r *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
	at := uint64(0)
	for _, chunk := range o.chunks {
		if chunk.Offset == o.limit && at >= r.Offset {
			if err := s.Send(&telev1.StreamOutputResponse{Offset: at, Event: limitReached}); err != nil {
				return err
			}
		}
		if r.Stream != 0 && r.Stream != chunk.Stream {
			continue
		}
		end := at + uint64(len(chunk.Data))
		if end > r.Offset {
			from := max(at, r.Offset)
			err := s.Send(&telev1.StreamOutputResponse{Stream: chunk.Stream, Offset: from, Data: chunk.Data[from-at:]})
			if err != nil {
				return err
			}
		}
		at = end
	}
	return s.Send(&telev1.StreamOutputResponse{Job: &telev1.Job{Id: jobID}})
}

// TestFollowThroughCuts follows a job through a proxy that cuts each connection after a random number
// of bytes: no byte may be lost or doubled, nor an event.
func TestFollowThroughCuts(t *testing.T) {
	ca := newAuthority(t)
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			written := randomOutput(random, 1<<20)
			l := listen(t, "tcp", "127.0.0.1:0")
			serve(t, l, &fake{stream: written.send}, ca.server(t, ca))
			first := true
			p := startProxy(t, l.Addr().String(), func() int64 {
				n := 500 + random.Int64N(50000) // some end within the handshake
				if first {                      // that one must work
					n, first = n+5000, false
				}
				return n
			})
			told := make(notices, 1000)
			o := ca.options(t, ca, p.Addr().String())
			o.Reconnect, o.Notice = time.Minute, told.add
			c := dial(t, o)

			var stdout, stderr bytes.Buffer
			var events int
			options := OutputOptions{Follow: true, Event: func(telev1.OutputEvent) { events++ }}
			want := written.of(stdoutStream)
			switch seed % 3 {
			case 1:
				options.Stream, want = stderrStream, nil
			case 2:
				options.Chunk = func(r *telev1.StreamOutputResponse) (err error) {
					if r.Stream == stdoutStream {
						_, err = stdout.Write(r.Data)
					} else {
						_, err = stderr.Write(r.Data)
					}
					return err
				}
			}
			job, err := c.Output(within(t), jobID, options, &stdout, &stderr)
			if err != nil || job.GetId() != jobID {
				t.Fatalf("job %v, %v", job, err)
			}
			if !bytes.Equal(stdout.Bytes(), want) || !bytes.Equal(stderr.Bytes(), written.of(stderrStream)) {
				t.Errorf("got %d and %d bytes, want %d and %d, or they differ", stdout.Len(), stderr.Len(),
					len(want), len(written.of(stderrStream)))
			}
			if events != 1 {
				t.Errorf("told of the limit %d times", events)
			}
			lines := told.all()
			if len(lines) < 20 || len(lines)%2 != 0 {
				t.Errorf("%d notices, the last: %q", len(lines), lines[len(lines)-1])
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			t.Logf("%d connections cut, %d outages, %d bytes", p.cuts, len(lines)/2, stdout.Len()+stderr.Len())
		})
	}
}

// TestTailThenOffset: the tail is asked for until something of it has come.
func TestTailThenOffset(t *testing.T) {
	path, addr := unixAddr(t)
	var asked []string
	serve(t, listen(t, "unix", path), &fake{stream: func(r *telev1.StreamOutputRequest,
		s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
		asked = append(asked, fmt.Sprintf("tail %v offset %d", r.TailLines != nil, r.Offset))
		switch len(asked) {
		case 1:
			return status.Error(codes.Unavailable, "shutting down")
		case 2:
			if err := s.Send(&telev1.StreamOutputResponse{Stream: stdoutStream, Offset: 70, Data: []byte("abc")}); err != nil {
				return err
			}
			return nil // without the job: cut
		}
		return s.Send(&telev1.StreamOutputResponse{Job: &telev1.Job{Id: jobID}})
	}})
	told := make(notices, 10)
	c := dial(t, Options{Addr: addr, Reconnect: time.Minute, Notice: told.add})
	var stdout bytes.Buffer
	job, err := c.Output(within(t), jobID, OutputOptions{Follow: true, Tail: 5}, &stdout, io.Discard)
	if err != nil || job == nil || stdout.String() != "abc" {
		t.Errorf("job %v, %v, output %q", job, err, stdout.String())
	}
	if want := []string{"tail true offset 0", "tail true offset 0", "tail false offset 73"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	if n := len(told.all()); n != 4 {
		t.Errorf("%d notices for two outages", n)
	}
}

// TestNoFollow: output that is not followed ends where it ends now.
func TestNoFollow(t *testing.T) {
	path, addr := unixAddr(t)
	serve(t, listen(t, "unix", path), &fake{stream: func(r *telev1.StreamOutputRequest,
		s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
		return s.Send(&telev1.StreamOutputResponse{Stream: stderrStream, Data: []byte("abc")})
	}})
	var stderr bytes.Buffer
	job, err := dial(t, Options{Addr: addr, Reconnect: time.Minute}).Output(within(t), jobID, OutputOptions{}, io.Discard, &stderr)
	if job != nil || err != nil || stderr.String() != "abc" {
		t.Errorf("job %v, %v, output %q", job, err, stderr.String())
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// TestWriteError: what the caller's writer says is no loss of the link, whatever it says.
func TestWriteError(t *testing.T) {
	path, addr := unixAddr(t)
	serve(t, listen(t, "unix", path), &fake{stream: func(r *telev1.StreamOutputRequest,
		s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
		for {
			if err := s.Send(&telev1.StreamOutputResponse{Stream: stdoutStream, Data: []byte("abc")}); err != nil {
				return err
			}
		}
	}})
	told := make(notices, 10)
	c := dial(t, Options{Addr: addr, Reconnect: time.Minute, Notice: told.add})
	full := status.Error(codes.Unavailable, "the disk")
	_, err := c.Output(within(t), jobID, OutputOptions{Follow: true}, failingWriter{full}, io.Discard)
	var write *WriteError
	if !errors.As(err, &write) || !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
	if lines := told.all(); len(lines) > 0 {
		t.Errorf("notices %q", lines)
	}
}

// A tail and a time are asked for until there is a byte: from then on it is its place that counts.
func TestBeginningIsAskedForOnce(t *testing.T) {
	since := time.Unix(1e9, 5)
	var asked []*telev1.StreamOutputRequest
	path, addr := unixAddr(t)
	stop := serve(t, listen(t, "unix", path), &fake{
		stream: func(r *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
			asked = append(asked, r)
			switch len(asked) {
			case 1:
				return status.Error(codes.Unavailable, "cut")
			case 2:
				if err := s.Send(&telev1.StreamOutputResponse{Stream: stdoutStream, Offset: 7, Data: []byte("abc")}); err != nil {
					return err
				}
				return status.Error(codes.Unavailable, "cut")
			}
			return s.Send(&telev1.StreamOutputResponse{Job: &telev1.Job{Id: jobID}})
		}})
	c := dial(t, Options{Addr: addr, Reconnect: time.Minute})
	var out bytes.Buffer
	_, err := c.Output(within(t), jobID, OutputOptions{Follow: true, Tail: 3, Since: since}, &out, nil)
	if err != nil || out.String() != "abc" {
		t.Fatalf("got %q, %v", out.String(), err)
	}
	stop() // asked is complete
	if len(asked) != 3 {
		t.Fatalf("asked %d times", len(asked))
	}
	for _, r := range asked[:2] {
		if r.Offset != 0 || r.GetTailLines() != 3 || !r.Since.AsTime().Equal(since) {
			t.Errorf("asked first for %v", r)
		}
	}
	if r := asked[2]; r.Offset != 10 || r.TailLines != nil || r.Since != nil {
		t.Errorf("asked then for %v", r)
	}
}
