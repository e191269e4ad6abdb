package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

var theJob = &telev1.Job{Id: jobID}

// TestFirstConnection: a connection that never worked is not tried again; the error says what is wrong.
func TestFirstConnection(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	here := func(options ...grpc.ServerOption) string {
		l := listen(t, "tcp", "127.0.0.1:0")
		serve(t, l, &fake{}, options...)
		return l.Addr().String()
	}
	nobody := listen(t, "tcp", "127.0.0.1:0")
	_ = nobody.Close()
	_, noSocket := unixAddr(t)
	deaf := listen(t, "tcp", "127.0.0.1:0")
	go func() {
		for {
			conn, err := deaf.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	for name, row := range map[string]struct {
		options Options
		want    string
	}{
		"nobody there":                {ours.options(t, ours, nobody.Addr().String()), "connection refused"},
		"no socket":                   {Options{Addr: noSocket}, "no such file"},
		"closes at once":              {ours.options(t, ours, deaf.Addr().String()), "handshake"},
		"server without TLS":          {ours.options(t, ours, here()), "handshake"},
		"server of another authority": {ours.options(t, ours, here(theirs.server(t, ours))), "unknown authority"},
		// The refusal comes after the handshake, in TLS 1.3.
		"client of another authority": {ours.options(t, ours, here(ours.server(t, theirs))), "unknown certificate authority"},
	} {
		t.Run(name, func(t *testing.T) {
			told := make(notices, 100)
			row.options.Reconnect, row.options.Notice = time.Hour, told.add
			c := dial(t, row.options)
			for range 2 { // the second is no other
				_, err := c.Start(within(t), &telev1.JobSpec{})
				var lost *LostError
				if status.Code(err) != codes.Unavailable || errors.As(err, &lost) || !strings.Contains(err.Error(), row.want) {
					t.Errorf("error %v, want %q", err, row.want)
				}
			}
			if lines := told.all(); len(lines) > 0 {
				t.Errorf("notices %q", lines)
			}
		})
	}
}

// TestStartOnce: a Start whose answer is lost on the way is made again, with the same key.
func TestStartOnce(t *testing.T) {
	var p *proxy
	ca := newAuthority(t)
	var keys []string
	jobs := map[string]*telev1.Job{}
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, &fake{answer: func(ctx context.Context, request any) (any, error) {
		r := request.(*telev1.StartRequest)
		keys = append(keys, r.IdempotencyKey)
		if jobs[r.IdempotencyKey] == nil {
			jobs[r.IdempotencyKey] = &telev1.Job{Id: fmt.Sprint("job ", len(jobs))}
			p.cut()
			<-ctx.Done() // the answer goes nowhere
		}
		return &telev1.StartResponse{Job: jobs[r.IdempotencyKey]}, nil
	}}, ca.server(t, ca))
	p = startProxy(t, l.Addr().String(), func() int64 { return -1 })
	o := ca.options(t, ca, p.Addr().String())
	o.Reconnect = time.Minute
	c := dial(t, o)
	for i, start := range []func(context.Context, *telev1.JobSpec, ...*telev1.Secret) (*telev1.Job, error){c.Start, c.Run, c.Start} {
		job, err := start(within(t), &telev1.JobSpec{})
		if err != nil || job.Id != fmt.Sprint("job ", i) {
			t.Errorf("job %v, %v", job, err)
		}
	}
	if len(jobs) != 3 || len(keys) != 6 || len(keys[0]) < 26 || len(keys[0]) > 64 {
		t.Errorf("keys %q, %d jobs", keys, len(jobs))
	}
}

// TestCommandSecrets: the secrets of a command come with its start, and are no part of what is recorded. One between
// two tries has not ended for Signal.
func TestCommandSecrets(t *testing.T) {
	ca := newAuthority(t)
	var start *telev1.StartRequest
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, &fake{answer: func(_ context.Context, request any) (any, error) {
		job := &telev1.Job{Id: "aaaaaaaaaaaa", Status: telev1.JobStatus_JOB_STATUS_SUCCESS}
		switch r := request.(type) {
		case *telev1.StartRequest:
			start = r
			return &telev1.StartResponse{Job: job}, nil
		case *telev1.SignalRequest:
			s, err := status.New(codes.FailedPrecondition, "between").WithDetails(&errdetails.ErrorInfo{Reason: "BETWEEN_TRIES"})
			if err != nil {
				return nil, err
			}
			return nil, s.Err()
		}
		return &telev1.WaitResponse{Job: job}, nil
	}}, ca.server(t, ca))
	c := dial(t, ca.options(t, ca, l.Addr().String()))
	cmd := c.CommandContext(within(t), "true")
	cmd.Secrets = map[string][]byte{"token": []byte("known")}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Signal(syscall.SIGUSR1); errors.Is(err, os.ErrProcessDone) || status.Code(err) != codes.FailedPrecondition {
		t.Errorf("signal: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(start.Secrets) != 1 || start.Secrets[0].Name != "token" || string(start.Secrets[0].Data) != "known" ||
		strings.Contains(start.Spec.String(), "known") {
		t.Errorf("got %v", start)
	}
}

// TestRemoveAgain: a job that the lost request has removed already is not an error; one that was never
// there is. A prefix is looked up once: the next request might find another job by it.
func TestRemoveAgain(t *testing.T) {
	path, addr := unixAddr(t)
	removed, asked := map[string]bool{}, []string{}
	serve(t, listen(t, "unix", path), &fake{answer: func(_ context.Context, request any) (any, error) {
		switch r := request.(type) {
		case *telev1.GetRequest:
			return &telev1.GetResponse{Job: theJob}, nil
		case *telev1.RemoveRequest:
			asked = append(asked, r.JobId)
			if r.JobId != jobID || removed[jobID] {
				return nil, status.Error(codes.NotFound, "no job")
			}
			removed[r.JobId] = true
		}
		return nil, status.Error(codes.Unavailable, "shutting down")
	}})
	c := dial(t, Options{Addr: addr, Reconnect: time.Minute})
	if job, err := c.Remove(within(t), "abc"); err != nil || job.GetId() != jobID {
		t.Errorf("job %v, %v", job, err)
	}
	if want := []string{jobID, jobID}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	if _, err := c.Remove(within(t), "zzzzzzzzzzzz"); status.Code(err) != codes.NotFound {
		t.Errorf("error %v", err)
	}
}

// TestEachOutageOnce: many calls of one client go on over restarts of the server, and each outage is
// told once.
func TestEachOutageOnce(t *testing.T) {
	const calls, outages = 8, 5
	path, addr := unixAddr(t)
	arrived := make(chan struct{}, 1000)
	var ended atomic.Bool
	f := &fake{
		answer: func(ctx context.Context, _ any) (any, error) {
			arrived <- struct{}{}
			if !ended.Load() {
				<-ctx.Done()
			}
			return &telev1.WaitResponse{Job: theJob}, nil
		},
		stream: func(_ *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
			arrived <- struct{}{}
			if !ended.Load() {
				<-s.Context().Done()
			}
			return s.Send(&telev1.StreamOutputResponse{Job: theJob})
		},
	}
	stop := serve(t, listen(t, "unix", path), f)
	told := make(notices, 100)
	c := dial(t, Options{Addr: addr, Reconnect: time.Minute, Notice: told.add})
	ctx := within(t)
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			var job *telev1.Job
			var err error
			if i%2 == 0 {
				job, err = c.Wait(ctx, jobID)
			} else {
				job, err = c.Output(ctx, jobID, OutputOptions{Follow: true}, nil, nil)
			}
			if job.GetId() != jobID || err != nil {
				t.Errorf("job %v, %v", job, err)
			}
		})
	}
	for i := range outages {
		for range calls {
			<-arrived
		}
		stop()
		if line := <-told; !strings.HasPrefix(line, "lost the server at "+addr) || !strings.HasSuffix(line, "; reconnecting for up to 1m0s") {
			t.Errorf("first notice %q", line)
		}
		ended.Store(i == outages-1)
		stop = serve(t, listen(t, "unix", path), f)
		if line := <-told; !strings.HasPrefix(line, "the server at "+addr+" is back after ") {
			t.Errorf("second notice %q", line)
		}
	}
	wg.Wait()
	if lines := told.all(); len(lines) > 0 {
		t.Errorf("more notices: %q", lines)
	}
}

// TestLateCall: a call that learns of a loss when others have got over it opens no outage, and an
// answer from before a loss ends none.
func TestLateCall(t *testing.T) {
	told := make(notices, 10)
	l := &outage{reconnect: time.Minute, notice: told.add}
	before, cause := l.begun(), status.Error(codes.Unavailable, "EOF")
	l.lose(before, cause)
	l.lose(before, cause)
	l.found(before)
	if n := len(told.all()); n != 1 {
		t.Errorf("%d notices of a loss", n)
	}
	l.found(l.begun())
	if n := len(told.all()); n != 1 {
		t.Errorf("%d notices of the end", n)
	}
	l.lose(before, cause)
	if lines := told.all(); len(lines) > 0 {
		t.Errorf("a late call: %q", lines)
	}
}

// memory is a server that is reached without the kernel, so that synctest's time passes by itself.
type memory struct {
	mu sync.Mutex
	l  *bufconn.Listener // nil: connection refused
}

func (m *memory) listen() net.Listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.l = bufconn.Listen(1 << 16)
	return m.l
}

func (m *memory) gone() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.l = nil
}

func (m *memory) dial(t *testing.T, o Options) *Client {
	c, err := o.dial("127.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			m.mu.Lock()
			l := m.l
			m.mu.Unlock()
			if l == nil {
				return nil, syscall.ECONNREFUSED
			}
			return l.DialContext(ctx)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // some tests have closed it
	return c
}

// TestGiveUp: a server that stays away is given up after Reconnect, by calls that come later at once.
// The error says since when, why, and what became of the job. When it is back, calls work again.
func TestGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		waiting := make(chan struct{})
		f := &fake{answer: func(ctx context.Context, request any) (any, error) {
			if _, ok := request.(*telev1.GetRequest); ok {
				return &telev1.GetResponse{Job: theJob}, nil
			}
			close(waiting)
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		stop := serve(t, m.listen(), f)
		told := make(notices, 100)
		c := m.dial(t, Options{Reconnect: 5 * time.Minute, Notice: told.add})
		result := make(chan error, 1)
		go func() {
			_, err := c.Wait(t.Context(), jobID)
			result <- err
		}()
		<-waiting
		time.Sleep(7 * time.Hour) // an outage begins when it does
		m.gone()
		stop()
		began := time.Now()
		err := <-result
		if took := time.Since(began); took < 5*time.Minute || took > 5*time.Minute+time.Second {
			t.Errorf("gave up after %v", took)
		}
		var lost *LostError
		if !errors.As(err, &lost) || status.Code(err) != codes.Unavailable {
			t.Fatalf("error %v", err)
		}
		for _, want := range []string{"lost the server at 127.0.0.1:1: ", "connection refused",
			"; tried to reconnect for 5m0s", "the job goes on; see it again with: tele logs " + jobID} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q, want %q in it", err, want)
			}
		}
		began = time.Now()
		if _, err := c.Get(t.Context(), jobID); !errors.As(err, &lost) || time.Since(began) > 0 {
			t.Errorf("a later call: %v after %v", err, time.Since(began))
		}
		if lines := told.all(); len(lines) != 1 {
			t.Errorf("notices %q", lines)
		}
		stop = serve(t, m.listen(), f)
		time.Sleep(2 * delayMax)
		if _, err := c.Get(t.Context(), jobID); err != nil {
			t.Error(err)
		}
		if lines := told.all(); len(lines) != 1 || !strings.Contains(lines[0], "is back after 5m10s") {
			t.Errorf("notices %q", lines)
		}
		_ = c.Close()
		stop()
	})
}

// TestShuttingDown: a server that answers UNAVAILABLE is about to restart. It is asked again, with
// back-off as long as it can be reached.
func TestShuttingDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		var asked int
		back := 200
		stop := serve(t, m.listen(), &fake{answer: func(context.Context, any) (any, error) {
			if asked++; asked <= back {
				return nil, status.Error(codes.Unavailable, "shutting down")
			}
			return &telev1.GetResponse{Job: theJob}, nil
		}})
		told := make(notices, 100)
		c := m.dial(t, Options{Reconnect: 5 * time.Minute, Notice: told.add})
		_, err := c.Get(t.Context(), jobID)
		if err == nil || !strings.Contains(err.Error(), "shutting down; tried to reconnect for 5m0s") {
			t.Errorf("error %v", err)
		}
		if asked < 60 || asked > 80 {
			t.Errorf("asked %d times in 5m", asked)
		}
		_ = c.Close()

		asked, back = 0, 3
		c = m.dial(t, Options{Reconnect: 5 * time.Minute, Notice: told.add})
		if _, err := c.Get(t.Context(), jobID); err != nil || asked != 4 {
			t.Errorf("%v, asked %d times", err, asked)
		}
		if lines := told.all(); len(lines) != 3 {
			t.Errorf("notices %q", lines)
		}
		_ = c.Close()
		stop()
	})
}

// TestNever: without Reconnect the first loss is the end, and says what became of the job.
func TestNever(t *testing.T) {
	path, addr := unixAddr(t)
	stop := serve(t, listen(t, "unix", path), &fake{answer: func(context.Context, any) (any, error) {
		return nil, status.Error(codes.Unavailable, "shutting down")
	}})
	defer stop()
	told := make(notices, 100)
	c := dial(t, Options{Addr: addr, Notice: told.add})
	_, err := c.Wait(within(t), jobID)
	want := "lost the server at " + addr + ": shutting down (the job goes on; see it again with: tele logs " + jobID + ")"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if lines := told.all(); len(lines) > 0 {
		t.Errorf("notices %q", lines)
	}
}

// TestRefusedLater: when a certificate is not accepted any more, the final error says so.
func TestRefusedLater(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	arrived := make(chan struct{}, 1)
	f := &fake{answer: func(ctx context.Context, _ any) (any, error) {
		arrived <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	l := listen(t, "tcp", "127.0.0.1:0")
	stop := serve(t, l, f, ours.server(t, ours))
	o := ours.options(t, ours, l.Addr().String())
	o.Reconnect = 500 * time.Millisecond
	result := make(chan error, 1)
	c := dial(t, o)
	go func() {
		_, err := c.Wait(within(t), jobID)
		result <- err
	}()
	<-arrived
	stop()
	serve(t, listen(t, "tcp", o.Addr), f, ours.server(t, theirs))
	err := <-result
	var lost *LostError
	if !errors.As(err, &lost) || !strings.Contains(err.Error(), "unknown certificate authority") {
		t.Errorf("error %v", err)
	}
}

// TestEndedByCaller: a caller that gives up, or closes the client, ends the waiting and is told no loss.
func TestEndedByCaller(t *testing.T) {
	t.Run("cancel", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var m memory
			stop := serve(t, m.listen(), &fake{answer: func(context.Context, any) (any, error) {
				m.gone()
				return nil, status.Error(codes.Unavailable, "shutting down")
			}})
			told := make(notices, 100)
			c := m.dial(t, Options{Reconnect: time.Hour, Notice: told.add})
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() {
				_, err := c.Wait(ctx, jobID)
				result <- err
			}()
			<-told
			stop()
			time.Sleep(time.Minute)
			cancel()
			if err := <-result; status.Code(err) != codes.Canceled {
				t.Errorf("error %v", err)
			}
			_ = c.Close()
		})
	})
	t.Run("close", func(t *testing.T) {
		path, addr := unixAddr(t)
		arrived := make(chan struct{})
		serve(t, listen(t, "unix", path), &fake{answer: func(ctx context.Context, _ any) (any, error) {
			close(arrived)
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		told := make(notices, 100)
		c := dial(t, Options{Addr: addr, Reconnect: time.Hour, Notice: told.add})
		result := make(chan error, 1)
		go func() {
			_, err := c.Wait(within(t), jobID)
			result <- err
		}()
		<-arrived
		_ = c.Close()
		if err := <-result; err == nil {
			t.Error("no error")
		}
		if lines := told.all(); len(lines) > 0 {
			t.Errorf("notices %q", lines)
		}
	})
}
