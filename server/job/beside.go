package job

import (
	"context"
	"errors"
	"maps"
	"sync"
	"syscall"
	"time"

	"github.com/telerun/tele/initproc"
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
	job *Job

	pid     int
	started chan error    // nil once it runs, or why not
	done    chan struct{} // closed when it has ended
	status  syscall.WaitStatus
	lost    bool // nobody saw how
}

// besides are those of a job.
type besides struct {
	starting sync.Mutex // held while one is begun

	mu      sync.Mutex
	closed  bool // there will be no more
	token   uint64
	waiting *Beside // it was begun, and is not known to run
	left    uint64  // the token of one that nobody waited for any more
	byPid   map[int]*Beside
}

// Beside begins a command, of which spec has Command, Env, Cwd, Stdin and Terminal, and returns when it runs.
// The caller closes what it gets.
func (j *Job) Beside(ctx context.Context, spec *telev1.JobSpec) (_ *Beside, err error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	s, err := j.besideSpec(spec)
	if err != nil {
		return nil, err
	}
	plan, err := initproc.NewBesidePlan(s)
	if err != nil {
		return nil, bad("spec.command", "%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	j.besides.starting.Lock()
	defer j.besides.starting.Unlock()
	b := &Beside{job: j, started: make(chan error, 1), done: make(chan struct{})}
	token, ok := j.besides.begin(b)
	if !ok {
		return nil, ErrEnded
	}
	defer func() {
		if err != nil {
			j.giveUp(b)
		}
	}()
	if b.Beside, err = j.init.RunBeside(plan, s, token); err != nil {
		if errors.Is(err, unix.EPIPE) || errors.Is(err, syscall.EBADF) {
			err = ErrEnded
		}
		return nil, err
	}
	select {
	case err = <-b.started:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	var e failed
	if errors.As(err, &e) {
		err = e.event.Err(plan)
	}
	if err == nil && s.Terminal != nil {
		err = j.init.TakeTerminal(b.Beside)
	}
	if err != nil {
		b.Close()
	}
	return b, err
}

// besideSpec is the sandbox of the job, with what runs beside its command.
func (j *Job) besideSpec(spec *telev1.JobSpec) (s initproc.Spec, err error) {
	j.mu.Lock()
	record := j.record
	running := !j.endedLocked() && !j.ending && j.watching != nil
	j.mu.Unlock()
	if running && record.Job.Paused {
		return s, ErrPaused
	}
	if !running {
		return s, ErrEnded
	}
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
		Command: spec.Command, Env: environment(j.id, initproc.Home, name, env), Cwd: spec.Cwd, Stdin: spec.Stdin,
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
func (b *Beside) Signal(s syscall.Signal) error { return b.job.init.SignalBeside(b.pid, s) }

// HangUp ends it: what runs in a job beside its command is there for somebody.
func (b *Beside) HangUp() {
	_ = b.Signal(unix.SIGHUP) // an init that is gone has ended it
	kill := time.AfterFunc(stopGrace, func() { _ = b.Signal(unix.SIGKILL) })
	go func() {
		<-b.done
		kill.Stop()
	}()
}

// begin makes b the one that is begun.
func (l *besides) begin(b *Beside) (token uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, false
	}
	l.token++
	l.waiting = b
	return l.token, true
}

// giveUp ends a command that nobody waits for any more: now, or as soon as it runs.
func (j *Job) giveUp(b *Beside) {
	l := &j.besides
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.waiting == b:
		l.left, l.waiting = l.token, nil
	case b.pid != 0:
		_ = b.Signal(unix.SIGKILL) // an init that is gone has ended it
	}
}

// A failed is a command that could not be begun.
type failed struct{ event initproc.Event }

func (failed) Error() string { return "the command could not be begun" }

// hearBeside takes news of init's.
func (j *Job) hearBeside(e initproc.Event) {
	l := &j.besides
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Token != 0 {
		if e.Running && e.Token == l.left {
			_ = j.init.SignalBeside(e.Pid, unix.SIGKILL) // an init that is gone has ended it
			return
		}
		if l.waiting == nil || e.Token != l.token {
			return // it was said to have failed before
		}
		if !e.Running {
			l.waiting.started <- failed{e}
		} else {
			l.waiting.pid = e.Pid
			if l.byPid == nil {
				l.byPid = map[int]*Beside{}
			}
			l.byPid[e.Pid] = l.waiting
			l.waiting.started <- nil
		}
		l.waiting = nil
		return
	}
	if b := l.byPid[e.Pid]; b != nil {
		delete(l.byPid, e.Pid)
		b.status = e.Status
		close(b.done)
	}
}

// over ends what init cannot tell of any more.
func (l *besides) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.waiting != nil {
		l.waiting.started <- ErrEnded
		l.waiting = nil
	}
	for pid, b := range l.byPid {
		delete(l.byPid, pid)
		b.lost = true
		close(b.done)
	}
}
