package job

import (
	"context"
	"errors"
	"maps"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/telerun/tele/initproc"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// This file runs further commands in the sandbox of a running job (initproc/beside.go). They are not kept:
// neither in the record, nor for the next server.

// ErrPaused is returned for what a paused job cannot do.
var ErrPaused = errors.New("the job is paused; let it go on first: tele resume ID")

// A Beside is a command that runs beside a job's own.
type Beside struct {
	*initproc.Beside
	job  *Job
	init *initproc.Init // of the try that it belongs to

	token  uint64
	pid    int
	forked chan initproc.Event // how the fork went, or closed by the end of all
	done   chan struct{}       // closed when it has ended
	status syscall.WaitStatus
	lost   bool // nobody saw how
}

// besides are those of a job.
type besides struct {
	mu       sync.Mutex
	starting chan struct{} // turn
	closed   bool          // there will be no more
	token    uint64
	waiting  map[uint64]*Beside // by token: not known to be forked; nil for those that nobody waits for
	byPid    map[int]*Beside
}

// Beside begins a command, of which spec has Command, Env, Cwd, Stdin and Terminal, and returns when it runs.
// The caller closes what it gets.
func (j *Job) Beside(ctx context.Context, spec *telev1.JobSpec) (*Beside, error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	s, init, err := j.besideSpec(spec)
	if err != nil {
		return nil, err
	}
	return j.runBeside(ctx, init, s)
}

func (j *Job) runBeside(ctx context.Context, init *initproc.Init, s initproc.Spec) (_ *Beside, err error) {
	plan, err := initproc.NewBesidePlan(s)
	if err != nil {
		return nil, bad("spec.command", "%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	select { // a terminal is taken before the next one is made
	case j.besides.turn() <- struct{}{}:
		defer func() { <-j.besides.turn() }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	b := &Beside{job: j, init: init, forked: make(chan initproc.Event, 1), done: make(chan struct{})}
	if !j.besides.begin(b) {
		return nil, ErrEnded
	}
	defer func() {
		if err != nil {
			j.giveUp(b)
		}
	}()
	if b.Beside, err = init.RunBeside(plan, s, b.token); err != nil {
		if errors.Is(err, unix.EPIPE) || errors.Is(err, os.ErrClosed) {
			err = ErrEnded
		}
		return nil, err
	}
	if err = b.await(ctx, plan, s.Terminal != nil); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// await returns when the command runs, and its terminal is taken.
func (b *Beside) await(ctx context.Context, plan *initproc.Plan, terminal bool) error {
	select {
	case e, ok := <-b.forked:
		if !ok {
			return ErrEnded
		}
		if err := e.Err(plan); err != nil {
			return err
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if terminal {
		if err := b.init.TakeTerminal(b.Beside); err != nil {
			return err
		}
	}
	return b.Executed(ctx, plan)
}

// besideSpec is the sandbox of the job, with what runs beside its command.
func (j *Job) besideSpec(spec *telev1.JobSpec) (s initproc.Spec, init *initproc.Init, err error) {
	j.mu.Lock()
	record := j.record
	init = j.init
	between := j.retry.waiting || j.retry.trying
	running := !j.endedLocked() && !j.ending && j.watching != nil
	j.mu.Unlock()
	switch {
	case between:
		return s, nil, ErrBetween
	case running && record.Job.Paused:
		return s, nil, ErrPaused
	case !running:
		return s, nil, ErrEnded
	}
	s, err = j.sandboxOf(record, spec)
	return s, init, err
}

// sandboxOf is what besideSpec returns, of a job with this record.
func (j *Job) sandboxOf(record *recordv1.Record, spec *telev1.JobSpec) (s initproc.Spec, err error) {
	own, t := record.Job.Spec, j.table
	where, err := t.findPlaces(&telev1.JobSpec{User: own.User})
	if err != nil {
		return s, err
	}
	name, gid := where.whom(record.Uid)
	env := maps.Clone(own.Env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, spec.Env)
	s = initproc.Spec{UID: record.Uid, GID: gid, UserNamespace: !t.root, Project: t.work == WorkQuota,
		Command: spec.Command, Env: environment(j.id, initproc.Home, name, env, record.Secrets), Cwd: spec.Cwd, Stdin: spec.Stdin,
		Terminal: sizeOf(spec.Terminal)}
	filter(&s, &telev1.JobSpec{})
	if s.Cwd == "" {
		s.Cwd = own.Cwd
	}
	if s.Cwd == "" {
		s.Cwd = initproc.Home
	}
	return s, nil
}

// Done is closed when it has ended.
func (b *Beside) Done() <-chan struct{} { return b.done }

// Exit is how it ended, once it has; false when nobody saw it.
func (b *Beside) Exit() (syscall.WaitStatus, bool) { return b.status, !b.lost }

// Signal sends a signal to its process group.
func (b *Beside) Signal(s syscall.Signal) error { return b.init.SignalBeside(b.pid, s) }

// HangUp ends it: what runs in a job beside its command is there for somebody.
func (b *Beside) HangUp() {
	_ = b.Signal(unix.SIGHUP) // an init that is gone has ended it
	kill := time.AfterFunc(stopGrace, func() { _ = b.Signal(unix.SIGKILL) })
	go func() {
		<-b.done
		kill.Stop()
	}()
}

// turn is full while one is begun. What there is here is made for the first one: most jobs have none.
func (l *besides) turn() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.starting == nil {
		l.starting, l.waiting, l.byPid = make(chan struct{}, 1), map[uint64]*Beside{}, map[int]*Beside{}
	}
	return l.starting
}

// begin enters one that is about to be begun.
func (l *besides) begin(b *Beside) (ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.token++
	b.token = l.token
	l.waiting[b.token] = b
	return true
}

// giveUp ends a command that nobody waits for any more: now, or as soon as it is forked.
func (j *Job) giveUp(b *Beside) {
	l := &j.besides
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, waits := l.waiting[b.token]; waits {
		l.waiting[b.token] = nil
	} else if b.pid != 0 {
		_ = b.Signal(unix.SIGKILL) // an init that is gone has ended it
	}
}

// hearBeside takes news of init's.
func (j *Job) hearBeside(e initproc.Event) {
	l := &j.besides
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Token == 0 {
		if b := l.byPid[e.Pid]; b != nil {
			delete(l.byPid, e.Pid)
			b.status = e.Status
			close(b.done)
		}
		return
	}
	b, known := l.waiting[e.Token]
	delete(l.waiting, e.Token)
	switch {
	case b != nil:
		if e.Forked {
			b.pid = e.Pid
			l.byPid[e.Pid] = b
		}
		b.forked <- e
	case known && e.Forked:
		_ = j.init.SignalBeside(e.Pid, unix.SIGKILL) // the same
	}
}

// reopen is for the next try of a job.
func (l *besides) reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = false
}

// over ends what init cannot tell of any more.
func (l *besides) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for token, b := range l.waiting {
		delete(l.waiting, token)
		if b != nil {
			close(b.forked)
		}
	}
	for pid, b := range l.byPid {
		delete(l.byPid, pid)
		b.lost = true
		close(b.done)
	}
}
