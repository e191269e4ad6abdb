package client

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/telerun/tele/proto/files"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type inputServer = grpc.BidiStreamingServer[telev1.WriteInputRequest, telev1.WriteInputResponse]

// An eater is a job that reads: what it has, over all streams of one writer.
type eater struct {
	t      *testing.T
	mu     sync.Mutex
	writer string
	data   []byte
	ended  bool
}

// eat takes messages until the end, or as many as it may: then the stream breaks, before or after the
// answer to the last.
func (e *eater) eat(s inputServer, most int, answerLast bool) error {
	for first := true; ; first = false {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		e.mu.Lock()
		if first {
			if m.JobId != jobID || m.Writer == "" || e.writer != "" && e.writer != m.Writer {
				e.t.Errorf("the first message is %v, the writer %q", m, e.writer)
			}
			e.writer = m.Writer
		}
		if m.Offset > uint64(len(e.data)) {
			e.t.Errorf("%d bytes are missing before %d", m.Offset-uint64(len(e.data)), m.Offset)
		}
		e.data = append(e.data, m.Data[min(uint64(len(m.Data)), uint64(len(e.data))-m.Offset):]...)
		e.ended = e.ended || m.End
		answer := &telev1.WriteInputResponse{Accepted: uint64(len(e.data)), Closed: m.End}
		e.mu.Unlock()
		most--
		if most == 0 && !answerLast {
			return status.Error(codes.Unavailable, "cut")
		}
		if err := s.Send(answer); err != nil {
			return err
		}
		if m.End {
			return nil
		}
		if most == 0 {
			return status.Error(codes.Unavailable, "cut")
		}
	}
}

// Whatever breaks on the way, the job gets each byte once, and in order.
func TestInputIsTakenUpAgain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	path, addr := unixAddr(t)
	e := &eater{t: t}
	var mu sync.Mutex
	cuts := 0
	serve(t, listen(t, "unix", path), &fake{input: func(s inputServer) error {
		mu.Lock()
		most, answerLast := 0, random.IntN(2) == 0
		if cuts < 20 {
			cuts++
			most = 1 + random.IntN(6)
		}
		mu.Unlock()
		return e.eat(s, most, answerLast)
	}})
	c := dial(t, Options{Addr: addr, Reconnect: time.Minute})
	if err := c.Input(within(t), jobID, iotest.HalfReader(bytes.NewReader(data))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(e.data, data) || !e.ended || cuts < 10 {
		t.Errorf("%d bytes, want %d; ended %t; %d cuts", len(e.data), len(data), e.ended, cuts)
	}
}

// A job that reads no more ends it, whatever there is left to read here.
func TestInputIsClosed(t *testing.T) {
	path, addr := unixAddr(t)
	serve(t, listen(t, "unix", path), &fake{input: func(s inputServer) error {
		for range 3 {
			if _, err := s.Recv(); err != nil {
				return err
			}
			if err := s.Send(&telev1.WriteInputResponse{}); err != nil {
				return err
			}
		}
		return s.Send(&telev1.WriteInputResponse{Closed: true})
	}})
	c := dial(t, Options{Addr: addr})
	if err := c.Input(within(t), jobID, endless{}); err != ErrInputClosed {
		t.Errorf("got %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// An input that cannot be read ends where it could, and the caller is told.
func TestInputCannotBeRead(t *testing.T) {
	path, addr := unixAddr(t)
	e := &eater{t: t}
	serve(t, listen(t, "unix", path), &fake{input: func(s inputServer) error { return e.eat(s, 0, true) }})
	c := dial(t, Options{Addr: addr})
	trouble := errors.New("trouble")
	err := c.Input(within(t), jobID, io.MultiReader(strings.NewReader("text"), iotest.ErrReader(trouble)))
	var read *ReadError
	if !errors.As(err, &read) || read.Err != trouble || string(e.data) != "text" || !e.ended {
		t.Errorf("got %v, %q, %t", err, e.data, e.ended)
	}
}

// What the server says against it is the error.
func TestInputIsRefused(t *testing.T) {
	path, addr := unixAddr(t)
	serve(t, listen(t, "unix", path), &fake{})
	c := dial(t, Options{Addr: addr, Reconnect: time.Minute})
	if err := c.Input(within(t), jobID, endless{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v", err)
	}
}

// What is uploaded comes as the server's side takes it, also over a connection that breaks.
func TestUpload(t *testing.T) {
	first, second := bytes.Repeat([]byte("first"), 200_000), []byte("second")
	path, addr := unixAddr(t)
	e := &eater{t: t}
	cuts := 0 // the streams come one after the other
	serve(t, listen(t, "unix", path), &fake{input: func(s inputServer) error {
		if cuts++; cuts > 5 {
			return e.eat(s, 0, true)
		}
		return e.eat(s, cuts, cuts%2 == 0)
	}})
	c := dial(t, Options{Addr: addr, Reconnect: time.Minute})
	archives := []io.Reader{bytes.NewReader(first), bytes.NewReader(second)}
	if err := c.Upload(within(t), jobID, archives, strings.NewReader("behind")); err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(e.data)
	for _, want := range [][]byte{first, second} {
		if got, err := io.ReadAll(files.Join(r)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, want %d; %v", len(got), len(want), err)
		}
	}
	if behind, err := io.ReadAll(r); string(behind) != "behind" || err != nil || !e.ended || cuts < 6 {
		t.Errorf("behind it is %q, %v; ended %t, %d streams", behind, err, e.ended, cuts)
	}
}

// Who loses the server on the way hears what the job does then.
func TestUploadIsLost(t *testing.T) {
	path, addr := unixAddr(t)
	serve(t, listen(t, "unix", path), &fake{input: func(inputServer) error { return status.Error(codes.Unavailable, "gone") }})
	c := dial(t, Options{Addr: addr})
	err := c.Upload(within(t), jobID, []io.Reader{strings.NewReader("some")}, nil)
	var lost *LostError
	if !errors.As(err, &lost) || lost.Do != "the job may wait for its files; end it: tele stop "+jobID {
		t.Errorf("got %v", err)
	}
}

// An archive that cannot be read is given up, and what is behind it does not come.
func TestUploadIsGivenUp(t *testing.T) {
	path, addr := unixAddr(t)
	e := &eater{t: t}
	serve(t, listen(t, "unix", path), &fake{input: func(s inputServer) error { return e.eat(s, 0, true) }})
	c := dial(t, Options{Addr: addr})
	broken := errors.New("broken")
	archives := []io.Reader{io.MultiReader(strings.NewReader("some"), iotest.ErrReader(broken)), strings.NewReader("more")}
	err := c.Upload(within(t), jobID, archives, nil)
	var read *ReadError
	if !errors.As(err, &read) || read.Err != broken {
		t.Errorf("got %v", err)
	}
	if want := "\x00\x00\x00\x04some\xff\xff\xff\xff"; string(e.data) != want || !e.ended {
		t.Errorf("got %q, ended %t", e.data, e.ended)
	}
}
