package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/telerun/tele/initproc"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/job"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

type execStream = grpc.BidiStreamingServer[telev1.ExecRequest, telev1.ExecResponse]

func (s *service) Exec(stream execStream) error {
	ctx, cancel := s.table.With(stream.Context())
	defer cancel()
	first, err := stream.Recv()
	if err != nil && err != io.EOF {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return toStatus(&job.BadRequest{Field: "start", Why: "is missing: the first message says what to run"})
	}
	what := "run commands in it"
	if start.Files != nil {
		what = "copy its files"
	}
	j, err := s.controlled(ctx, start.JobId, what)
	if err != nil {
		return err
	}
	leave, err := s.takeStream(ctx)
	if err != nil {
		return err
	}
	defer leave()
	b, err := begin(ctx, j, start)
	if err != nil {
		return err
	}
	e := &execution{Beside: b, stream: stream, output: make(chan *telev1.ExecResponse),
		input: inbox{news: make(chan struct{}, 1)}}
	if start.Files != nil {
		e.said = &said{}
	}
	err = e.run(ctx)
	select {
	case <-b.Done():
	default:
		b.HangUp()
	}
	b.Close() // ends who reads and writes
	cancel()
	e.workers.Wait()
	return err
}

// begin begins what start says.
func begin(ctx context.Context, j *job.Job, start *telev1.ExecStart) (*job.Beside, error) {
	spec := &telev1.JobSpec{Command: start.Command, Env: start.Env, Cwd: start.Cwd, Stdin: start.Stdin, Terminal: start.Terminal}
	if start.Files == nil {
		b, err := j.Beside(ctx, spec)
		if err != nil {
			return nil, toStatusOfStart(err, spec)
		}
		return b, nil
	}
	if !proto.Equal(spec, &telev1.JobSpec{}) {
		return nil, toStatus(&job.BadRequest{Field: "start.files", Why: "does not go together with a command or what is for one"})
	}
	b, err := j.Files(ctx, start.Files)
	return b, toStatus(err)
}

// An execution is a command beside a job's own, and who it is for.
type execution struct {
	*job.Beside
	stream  execStream
	output  chan *telev1.ExecResponse
	input   inbox
	said    *said // with files, what is on standard error; nil for a command
	workers sync.WaitGroup
}

// said keeps the beginning and the end of what is written: warnings, and then why it ended.
type said struct{ text, end []byte }

// So much of either; a name may be 4 KiB, and four times that in quotes.
const (
	maxSaid    = 64 << 10
	maxSaidEnd = 32 << 10
)

func (s *said) take(data []byte) {
	n := min(len(data), maxSaid-len(s.text))
	s.text, s.end = append(s.text, data[:n]...), append(s.end, data[n:]...)
	if over := len(s.end) - maxSaidEnd; over > 0 {
		s.end = append(s.end[:0], s.end[over:]...)
	}
}

// all is what was kept, in whole lines.
func (s *said) all() string {
	if len(s.end) == 0 {
		return string(s.text)
	}
	first := string(s.text[:bytes.LastIndexByte(s.text, '\n')+1])
	return first + "(more was said than is kept)\n" + string(s.end[bytes.IndexByte(s.end, '\n')+1:])
}

// An inbox is input that waits while the command does not read. What else the client says is not behind it.
type inbox struct {
	mu   sync.Mutex
	data []byte
	end  bool
	news chan struct{} // has one when there is something
}

// maxAhead is how much that may be.
const maxAhead = 1<<20 + maxInput

func (i *inbox) put(data []byte, end bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.data)+len(data) > maxAhead {
		return status.Error(codes.ResourceExhausted, "more input than 1 MiB waits for the command to read; send more when accepted says so")
	}
	i.data, i.end = append(i.data, data...), i.end || end
	select {
	case i.news <- struct{}{}:
	default:
	}
	return nil
}

func (i *inbox) take() (data []byte, end bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	data, i.data = i.data, nil
	return data, i.end
}

// run passes input and output until the command has ended.
func (e *execution) run(ctx context.Context) error {
	if err := e.stream.Send(&telev1.ExecResponse{}); err != nil {
		return err
	}
	heard := make(chan error, 1)
	go func() { heard <- e.hear() }() // ends with the stream, which ends with its handler
	e.workers.Go(func() { e.write(ctx) })
	var readers sync.WaitGroup
	read := make(chan struct{})
	if e.Terminal != nil {
		readers.Go(func() { e.read(ctx, telev1.OutputStream_OUTPUT_STREAM_STDOUT, e.Terminal) })
	} else {
		readers.Go(func() { e.read(ctx, telev1.OutputStream_OUTPUT_STREAM_STDOUT, e.Stdout) })
		readers.Go(func() { e.read(ctx, telev1.OutputStream_OUTPUT_STREAM_STDERR, e.Stderr) })
	}
	e.workers.Go(func() { readers.Wait(); close(read) })
	for {
		select {
		case response := <-e.output:
			if err := e.stream.Send(response); err != nil {
				return err
			}
		case <-read:
			select {
			case <-e.Done(): // who closed its output may run on
			case <-ctx.Done():
				return toStatus(context.Cause(ctx))
			}
			return e.exit()
		case err := <-heard:
			if err != nil {
				return err
			}
			heard = nil // there will be no more input, and the command goes on
		case <-ctx.Done():
			return toStatus(context.Cause(ctx))
		}
	}
}

// exit says how it ended.
func (e *execution) exit() error {
	if e.said != nil {
		return e.filesEnd()
	}
	s, seen := e.Exit()
	switch {
	case !seen:
		return status.Error(codes.Aborted, "the job ended, and how this command did was not seen")
	case s.Signaled():
		return e.stream.Send(&telev1.ExecResponse{Exit: &telev1.ExecExit{ExitCode: 128 + int32(s.Signal()), Signal: int32(s.Signal())}})
	}
	return e.stream.Send(&telev1.ExecResponse{Exit: &telev1.ExecExit{ExitCode: int32(s.ExitStatus())}})
}

// filesEnd says how a copy ended: an error, or warnings.
func (e *execution) filesEnd() error {
	text := job.Printable(e.said.all())
	if err := e.FilesEnd(text); err != nil {
		return toStatus(err)
	}
	if text != "" {
		err := e.stream.Send(&telev1.ExecResponse{Stream: telev1.OutputStream_OUTPUT_STREAM_STDERR, Data: []byte(text)})
		if err != nil {
			return err
		}
	}
	return e.stream.Send(&telev1.ExecResponse{Exit: &telev1.ExecExit{}})
}

// read passes output on until nobody can write any more, or the command has ended and all that it wrote was
// read: what it left behind may hold the pipe open.
func (e *execution) read(ctx context.Context, name telev1.OutputStream, f *os.File) {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-e.Done():
			_ = f.SetReadDeadline(time.Unix(1, 0)) // fails for a closed one, on which nobody waits
		case <-stop:
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			n, err = now(f, buf)
		}
		switch {
		case n > 0 && e.said != nil && name == telev1.OutputStream_OUTPUT_STREAM_STDERR:
			e.said.take(buf[:n])
		case n > 0:
			select {
			case e.output <- &telev1.ExecResponse{Stream: name, Data: slices.Clone(buf[:n])}:
			case <-ctx.Done():
				return
			}
		}
		if err != nil { // also EIO, of a terminal that nobody has open
			return
		}
	}
}

// now reads what is there, or fails.
func now(f *os.File, buf []byte) (n int, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var readErr error
	err = conn.Control(func(fd uintptr) { n, readErr = unix.Read(int(fd), buf) })
	if err == nil && readErr == nil && n <= 0 {
		readErr = io.EOF
	}
	return max(n, 0), errors.Join(err, readErr)
}

// hear does what the client says. It returns nil when that will say no more, and the command goes on.
func (e *execution) hear() error {
	for {
		m, err := e.stream.Recv()
		last := err == io.EOF
		switch {
		case last:
			m = &telev1.ExecRequest{End: true}
		case err != nil:
			return err
		case len(m.Data) > maxInput:
			return toStatus(&job.BadRequest{Field: "data", Why: "is longer than 128 KiB"})
		}
		if len(m.Data) > 0 || m.End {
			if err := e.input.put(m.Data, m.End); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		if err := e.do(m); err != nil {
			return toStatus(err)
		}
	}
}

// write writes input, and says how much of it the command's pipe or terminal has.
func (e *execution) write(ctx context.Context) {
	in, written := e.Stdin, uint64(0)
	if e.Terminal != nil {
		in = e.Terminal
	}
	for {
		select {
		case <-e.input.news:
		case <-ctx.Done():
			return
		}
		data, end := e.input.take()
		if in != nil && len(data) > 0 {
			_, _ = in.Write(data) // who reads no more needs no more
		}
		if end && in != nil {
			endInput(in, e.Terminal != nil)
			in = nil
		}
		written += uint64(len(data))
		select {
		case e.output <- &telev1.ExecResponse{Accepted: written}:
		case <-ctx.Done():
			return
		}
	}
}

// endInput lets the command read the end of its input.
func endInput(in *os.File, terminal bool) {
	if terminal {
		_, _ = in.Write([]byte{4}) // VEOF, termios(3)
		return
	}
	_ = in.Close() // what was written is in the pipe
}

// do does what is not input.
func (e *execution) do(m *telev1.ExecRequest) error {
	if m.Size != nil && e.Terminal != nil {
		if err := job.CheckSize("size", m.Size); err != nil {
			return err
		}
		size := initproc.Size{Rows: uint16(m.Size.Rows), Columns: uint16(m.Size.Columns)}
		_ = e.Resize(size) // it may have ended
	}
	if m.Signal != "" {
		signal, err := job.ParseSignal("signal", m.Signal)
		if err != nil {
			return err
		}
		_ = e.Signal(signal) // the same
	}
	return nil
}
