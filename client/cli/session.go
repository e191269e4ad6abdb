package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// Session are the flags of commands that stand for a job: it gets their input and their signals, and they
// write its output and exit with its exit code.
type Session struct {
	DetachWindow time.Duration `help:"A second Ctrl-C within this time leaves the job to itself; 0 is never." default:"2s" env:"TELE_DETACH_WINDOW" placeholder:"TIME"`
	DetachKeys   string        `help:"Keys that leave a job with a terminal to itself, where Ctrl-C is the job's; empty is none." default:"ctrl-],ctrl-]" env:"TELE_DETACH_KEYS" placeholder:"KEYS"`
}

// A session is tele in the place of one job's command.
type session struct {
	client  *client.Client
	streams Streams
	upload  *upload // nil without files that the job begins with
	window  time.Duration
	keys    []byte
	ctx     context.Context // until tele is to leave the job
	leave   context.CancelCauseFunc
	signals chan os.Signal

	mu   sync.Mutex
	id   string                  // of the job; empty before it runs
	exec *client.Exec            // of a command beside the job's own
	sent map[syscall.Signal]bool // what was passed on
}

var (
	errDetached    = errors.New("detached")
	errInterrupted = errors.New("interrupted")
)

// passedOn are the signals that are the job's.
var passedOn = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}

// open begins to take signals. The caller closes the session.
func (f *Session) open(ctx context.Context, c *client.Client, streams Streams) (*session, error) {
	keys, err := parseKeys(f.DetachKeys)
	if err != nil {
		return nil, err
	}
	s := &session{client: c, streams: streams, window: f.DetachWindow, keys: keys, signals: make(chan os.Signal, 16),
		sent: map[syscall.Signal]bool{}}
	s.ctx, s.leave = context.WithCancelCause(ctx)
	for _, sig := range passedOn {
		if !signal.Ignored(sig) { // as by nohup(1), or a shell for what runs in the background
			signal.Notify(s.signals, sig)
		}
	}
	signal.Ignore(unix.SIGPIPE) // see pipe
	go s.pass()
	return s, nil
}

func (s *session) close() {
	signal.Stop(s.signals)
	s.leave(nil)
}

// pass passes signals on.
func (s *session) pass() {
	var last time.Time // of an interrupt
	for {
		select {
		case sig := <-s.signals:
			switch again := time.Since(last) < s.window; {
			case s.job() == "":
				s.leave(fmt.Errorf("%w by %s", errInterrupted, unix.SignalName(sig.(syscall.Signal))))
				return
			case sig == unix.SIGINT && again:
				signal.Ignore(unix.SIGINT) // a third would end tele before it has said so
				s.leave(errDetached)
				return
			case sig == unix.SIGINT:
				last = time.Now()
			}
			// The server may be away, and a second Ctrl-C is heard all the same.
			go s.send(sig.(syscall.Signal))
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *session) job() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

func (s *session) send(sig syscall.Signal) {
	s.mu.Lock()
	s.sent[sig] = true
	exec := s.exec
	s.mu.Unlock()
	if exec != nil {
		exec.Signal(unix.SignalName(sig))
		return
	}
	_, err := s.client.Signal(s.ctx, s.id, unix.SignalName(sig), telev1.SignalTarget_SIGNAL_TARGET_GROUP)
	if reasonOf(err) == "BETWEEN_TRIES" && sig != unix.SIGUSR1 && sig != unix.SIGUSR2 {
		// There is no command that could end of it, which would be the end of the job.
		_, err = s.client.Stop(s.ctx, s.id, "", 0)
	}
	if err != nil && s.ctx.Err() == nil && reasonOf(err) != "ENDED" {
		fmt.Fprintf(s.streams.Err, "tele: %s was not passed on: %v\n", unix.SignalName(sig), err)
	}
}

// start starts the job.
func (s *session) start(spec *telev1.JobSpec, secrets []*telev1.Secret) (*telev1.Job, error) {
	job, err := s.client.Start(s.ctx, spec, secrets...)
	if why := context.Cause(s.ctx); why != nil {
		return nil, fmt.Errorf("%w before the server said that the job runs; it may have been started, see: tele status", why)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id = job.Id
	return job, nil
}

// follow passes input and output until the job ends, or the user leaves it.
func (s *session) follow(job *telev1.Job, o client.OutputOptions) (*telev1.Job, error) {
	o.Follow, o.Event = true, tell(s.streams, job.GetSpec().GetOutputLimit())
	ended, err := s.copy(job, o)
	var lost *client.LostError // says the same
	switch {
	case err == nil || errors.As(err, &lost):
		return ended, err
	case errors.Is(context.Cause(s.ctx), errDetached):
		fmt.Fprintf(s.streams.Err, "tele: detached; the job goes on (come back: tele attach %s; end it: tele stop %s)\n", s.id, s.id)
		return nil, exitError(exitTele)
	}
	return nil, fmt.Errorf("%w (the job goes on; see it again with: tele logs %s)", err, s.id)
}

// copy is follow but for what there is to say.
func (s *session) copy(job *telev1.Job, o client.OutputOptions) (*telev1.Job, error) {
	in := s.streams.In
	if job.Spec.GetTerminal() != nil {
		defer s.followSize()()
	}
	if job.Spec.GetTerminal() != nil && job.Spec.GetStdin() && in != nil {
		var restore func()
		in, restore = s.takeTerminal()
		defer restore()
	}
	if !job.Spec.GetStdin() {
		in = nil
	}
	if in != nil || s.upload != nil {
		go s.feed(in)
	}
	return s.client.Output(s.ctx, s.id, o, &pipe{session: s, to: s.upload.above(s.streams.Out)},
		&pipe{session: s, to: s.upload.above(s.streams.Err)})
}

// feed passes the input on, behind the files that the job begins with.
func (s *session) feed(in io.Reader) {
	var err error
	if s.upload != nil {
		err = s.supply(in)
	} else {
		err = s.client.Input(s.ctx, s.id, in)
	}
	if err != nil && s.ctx.Err() == nil && !errors.Is(err, client.ErrInputClosed) {
		fmt.Fprintln(s.streams.Err, "tele:", err)
	}
}

// tell says how the job ended where its exit code does not, and what it was refused.
func (s *session) tell(ended *telev1.Job) error {
	s.mu.Lock()
	own := ended.GetReason() == telev1.Reason_REASON_STOPPED && s.sent[syscall.Signal(ended.GetSignal())]
	s.mu.Unlock()
	if ended.GetReason() != telev1.Reason_REASON_EXITED && !own {
		fmt.Fprintf(s.streams.Err, "tele: job %s: %s\n", ended.GetId(), ended.GetMessage())
	}
	for _, r := range ended.GetRefused() {
		fmt.Fprintf(s.streams.Err, "tele: job %s: refused: %s\n", ended.GetId(), refused(r))
	}
	return exitOf(ended)
}

// A pipe writes a job's output. When nobody reads it any more, as in `tele run -- yes | head`, the job gets
// the SIGPIPE that its command would have got here, and what else it writes goes nowhere.
type pipe struct {
	*session
	to     io.Writer
	broken bool
}

func (p *pipe) Write(data []byte) (int, error) {
	if p.broken {
		return len(data), nil
	}
	n, err := p.to.Write(data)
	if errors.Is(err, unix.EPIPE) {
		p.broken = true
		p.send(unix.SIGPIPE)
		return len(data), nil
	}
	return n, err
}

// Attach is `tele attach`.
type Attach struct {
	Connection
	Session
	NoStdin bool   `help:"Pass no input on."`
	Tail    int    `help:"Begin with the last N lines that it has written." placeholder:"N"`
	ID      string `arg:"" help:"The job: its id, a unique beginning of that, or its name."`
}

// Run follows the job.
func (a *Attach) Run(ctx context.Context, streams Streams) error {
	if a.Tail < 0 {
		return fmt.Errorf("--tail %d: give a number of lines, 1 or more", a.Tail)
	}
	streams.Err = &messages{to: streams.Err}
	c, err := a.dial(ctx, streams)
	if err != nil {
		return err
	}
	s, err := a.open(ctx, c, streams)
	if err != nil {
		return err
	}
	defer s.close()
	job, err := c.Get(s.ctx, a.ID)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.id = job.Id
	s.mu.Unlock()
	if a.NoStdin {
		s.streams.In = nil
	}
	o := client.OutputOptions{Tail: a.Tail}
	if a.Tail == 0 {
		o.Offset = job.StdoutBytes + job.StderrBytes
	}
	ended, err := s.follow(job, o)
	if err != nil {
		return err
	}
	return s.tell(ended)
}
