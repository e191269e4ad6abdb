package job

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits/cgroup"
	"github.com/telerun/tele/limits/quota"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// A Job is one job, running or ended.
type Job struct {
	table   *Table
	dir     string
	id      string
	owner   string
	key     string // StartRequest.idempotency_key
	name    string // JobSpec.name
	created int64  // nanoseconds since 1970
	uid     uint32 // as holdLocked has counted it
	// It runs as a user that was asked for, whom others may run as too.
	namedUser bool
	overlay   bool          // its root is writable
	stdin     bool          // it has a standard input, be it for its files alone
	terminal  bool          // it has a terminal
	leaves    bool          // files that are kept beyond its end
	listens   bool          // to system calls that are refused
	made      chan struct{} // closed when its command runs, or it was found not to
	done      chan struct{} // closed when it has ended and its record says so

	// While it runs. Who works on what the job does needs no mu for them; they go when it is thin.
	init  *initproc.Init
	group *cgroup.Group

	control sync.Mutex // held by who changes the group of the running job; before mu

	mu       sync.Mutex
	record   *recordv1.Record // what is on disk; once the job runs it is replaced, not changed. nil when thin
	thin     thin             // of one that ended long ago
	ending   bool             // its end was seen: the record is end's alone
	log      *output.Log      // nil for an ended job of an earlier server until somebody reads it
	timers   []*time.Timer
	timeout  *time.Timer // nil without one
	warning  *time.Timer // before it; the same
	refused  refusals
	watching *watch // from when its command runs
	company  company
	besides  besides
	input    *input // while it runs, where it has one
	screen   *initproc.Terminal
	upper    *os.File // what it changes in its root, while it runs
	retry    retry

	secrets []*telev1.Secret // for further tries

	giveUpFiles context.CancelCauseFunc // from the command's end on, where some are to be collected
}

func newJob(t *Table, dir string, record *recordv1.Record) *Job {
	return &Job{table: t, dir: dir, id: record.Job.Id, owner: record.Job.User, key: record.IdempotencyKey, record: record,
		name:    record.Job.Spec.GetName(),
		overlay: record.Job.Spec.GetRoot() == RootOverlay, listens: record.Job.Spec.GetSeccompLog(),
		stdin:    hasInput(record.Job.Spec),
		terminal: record.Job.Spec.GetTerminal() != nil,
		leaves:   len(record.Job.Spec.GetDownload()) > 0,
		created:  record.Job.CreatedAt.AsTime().UnixNano(),
		made:     make(chan struct{}), done: make(chan struct{})}
}

// files is how many descriptors the server has open for the job while it runs, but for its output:
// init's socket and two pipes; the upper layer; the listener; the input's file twice, and its pipe; the
// terminal, and the pipe to the output; three pipes from what collects its files, and the file they go to.
func (j *Job) files() int {
	n := 3
	if j.overlay {
		n++
	}
	if j.listens {
		n++
	}
	if j.stdin {
		n += 3
	}
	if j.terminal {
		n += 2
	}
	if j.leaves {
		n += 4
	}
	return n
}

// ID is the job's id.
func (j *Job) ID() string { return j.id }

// Owner is the name of who started the job.
func (j *Job) Owner() string { return j.owner }

// Snapshot is the job as it is now; the caller does not change it.
func (j *Job) Snapshot() *telev1.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.record == nil {
		return j.snapshotThinLocked()
	}
	if j.log == nil || j.endedLocked() {
		return j.record.Job
	}
	job := proto.Clone(j.record.Job).(*telev1.Job)
	out, errs := j.log.Sizes()
	job.StdoutBytes, job.StderrBytes = uint64(out), uint64(errs)
	if j.input != nil {
		job.StdinBytes = uint64(j.input.accepted.Load())
	}
	if j.refused.calls != nil {
		job.Refused = slices.Clone(j.refused.calls)
	}
	return job
}

func (j *Job) endedLocked() bool { return j.record == nil || j.record.Job.EndedAt != nil }

func (j *Job) outputRemovedLocked() bool {
	if j.record == nil {
		return j.thin.outputRemoved
	}
	return j.record.Job.OutputRemoved
}

// keptLocked is how much output the record of a job that has ended says is kept.
func (j *Job) keptLocked() uint64 {
	if j.record != nil {
		return j.record.Job.StdoutBytes + j.record.Job.StderrBytes
	}
	job := j.thin.job()
	return job.StdoutBytes + job.StderrBytes
}

// ErrOutputRemoved is returned by Output when only the record is kept.
var ErrOutputRemoved = errors.New("the job's output was removed to make room for others'")

// Output opens the job's output for reading. The caller closes the reader.
func (j *Job) Output(o output.ReadOptions) (*output.Reader, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.outputRemovedLocked() {
		return nil, ErrOutputRemoved
	}
	if j.log == nil {
		log, err := output.Open(j.dir)
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrOutputRemoved
		}
		if err != nil {
			return nil, err
		}
		if out, errs := log.Sizes(); out+errs == 0 && j.keptLocked() > 0 { // somebody removes it just now
			_ = log.Close() // nothing is open
			return nil, ErrOutputRemoved
		}
		log.Finish()
		j.log = log
		defer log.Close() // from here on the reader keeps it open
	}
	return j.log.NewReader(o)
}

// Wait returns the job when it has ended; ErrClosing when the server ends first.
func (j *Job) Wait(ctx context.Context) (*telev1.Job, error) {
	ctx, cancel := j.table.With(ctx)
	defer cancel()
	select {
	case <-j.done:
		return j.Snapshot(), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Stop sends signal to all processes of the job, and kills them after grace. Wait tells when they
// are gone.
func (j *Job) Stop(signal syscall.Signal, grace time.Duration, by string) error {
	return j.stop(signal, grace, telev1.Reason_REASON_STOPPED, "stopped by "+by)
}

// stop ends the job, for the first reason that anybody had. The record says so before the first
// signal is sent: the next server, if there is one, knows why the job ended and kills what is left.
func (j *Job) stop(signal syscall.Signal, grace time.Duration, reason telev1.Reason, message string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stopLocked(signal, grace, reason, message)
}

func (j *Job) stopLocked(signal syscall.Signal, grace time.Duration, reason telev1.Reason, message string) error {
	switch {
	case j.endedLocked():
		return nil
	case j.retry.waiting:
		j.concludeLocked(&recordv1.Stop{Reason: reason, Message: message})
		return nil
	case j.ending:
		if j.giveUpFiles != nil {
			j.giveUpFiles(errors.New(message + " while they were collected"))
		}
		if j.retry.late == nil && j.record.Job.Spec.GetRestart() != nil {
			j.retry.late = &recordv1.Stop{Reason: reason, Message: message} // for when there is another try
		}
		return nil
	case j.init == nil && !j.retry.trying:
		return nil
	}
	killAt := time.Now().Add(max(grace, 0))
	stop := j.record.Stop
	switch {
	case stop == nil:
		stop = &recordv1.Stop{Reason: reason, Message: message, KillAt: timestamppb.New(killAt)}
	case killAt.Before(stop.KillAt.AsTime()):
		stop = proto.Clone(stop).(*recordv1.Stop)
		stop.KillAt = timestamppb.New(killAt)
	}
	if stop != j.record.Stop {
		next := proto.Clone(j.record).(*recordv1.Record)
		next.Stop = stop
		if err := writeRecord(j.dir, next); err != nil && !noSpace(err) {
			return err
		}
		j.record = next
		j.table.events.tell(next)
		if !j.retry.trying {
			j.killAtLocked(killAt)
		}
	}
	if j.retry.trying { // watch sees to it
		return nil
	}
	if signal == OwnSignal {
		signal = stopSignal(j.record.Job.Spec)
	}
	if grace > 0 {
		_ = j.init.SignalAll(signal) // an init that is gone ends the job anyway
	}
	// A paused one would not take it, and be killed without a word.
	if err := j.resumeLocked(); err != nil && !noSpace(err) {
		return err
	}
	return nil
}

// ErrEnded is returned for what only a running job can be asked.
var ErrEnded = errors.New("the job has ended")

// Signal sends a signal to those of the job's processes that target names. The record says so before: a
// command that ends of it was ended by whom.
func (j *Job) Signal(signal syscall.Signal, target telev1.SignalTarget, by string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.signalLocked(signal, target, by)
}

func (j *Job) signalLocked(signal syscall.Signal, target telev1.SignalTarget, by string) error {
	err := j.amendLocked(func(r *recordv1.Record) bool {
		changed := r.Signal != int32(signal) || r.SignalBy != by
		r.Signal, r.SignalBy = int32(signal), by
		return changed
	})
	if err != nil && !noSpace(err) {
		return err
	}
	switch target {
	case telev1.SignalTarget_SIGNAL_TARGET_COMMAND:
		err = j.init.Signal(signal)
	case telev1.SignalTarget_SIGNAL_TARGET_ALL:
		err = j.init.SignalAll(signal)
	default:
		err = j.init.SignalGroup(signal)
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, os.ErrClosed) {
		return ErrEnded
	}
	return err
}

// amendLocked changes the record of a running job, when change says that there is something to write.
func (j *Job) amendLocked(change func(*recordv1.Record) bool) error {
	switch {
	case j.retry.waiting || j.retry.trying:
		return ErrBetween
	case j.endedLocked() || j.ending || j.init == nil:
		return ErrEnded
	}
	next := proto.Clone(j.record).(*recordv1.Record)
	if !change(next) {
		return nil
	}
	if err := writeRecord(j.dir, next); err != nil {
		return err
	}
	j.record = next
	j.table.events.tell(next)
	return nil
}

func (j *Job) killAtLocked(at time.Time) {
	init, group := j.init, j.group
	j.timers = append(j.timers, time.AfterFunc(time.Until(at), func() {
		// One that is gone has ended the job. One that does not answer goes with it, and how the command ended
		// is not known then.
		if err := init.SignalAll(unix.SIGKILL); errors.Is(err, initproc.ErrBusy) {
			err = group.Kill()
			j.table.options.Log.Warn().Err(err).Str("job", j.id).Msg("the sandbox's init does not answer and is killed with the job")
		}
	}))
}

func (j *Job) stopTimers() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stopTimersLocked()
}

func (j *Job) stopTimersLocked() {
	for _, timer := range append(j.timers, j.company.timer, j.retry.timer) {
		if timer != nil {
			timer.Stop()
		}
	}
	j.stopTimeoutLocked()
}

func (j *Job) stopTimeoutLocked() {
	for _, timer := range []*time.Timer{j.timeout, j.warning} {
		if timer != nil {
			timer.Stop()
		}
	}
}

// stopGrace is how long a job has between the signal and the kill when nobody said.
const stopGrace = 10 * time.Second

// end writes down how the job ended, tells it, and takes its sandbox away. In this order: until the record
// says it, init keeps it; and nothing in the sandbox runs any more, so nobody need wait for its end. A job that
// will be tried again has not ended, and waits from here on. It returns false when the server ends before the
// record could be written.
func (j *Job) end(exit initproc.Exit, waitErr error) bool {
	j.table.warm.begin()
	defer j.table.warm.end()
	j.mu.Lock()
	j.stopTimersLocked()
	record := proto.Clone(j.record).(*recordv1.Record)
	j.ending = true // a stop that comes now would write its record over ours
	keeping := j.table.life
	if len(record.Job.Spec.GetDownload()) > 0 {
		keeping, j.giveUpFiles = context.WithCancelCause(keeping)
		defer j.giveUpFiles(nil)
	}
	init, group, log := j.init, j.group, j.log // from the shelf on they may go
	j.mu.Unlock()
	j.table.at("end seen")
	job := record.Job
	job.Usage = usageOf(group.Usage(), exit)
	out, errs := log.Sizes()
	job.StdoutBytes, job.StderrBytes = uint64(out), uint64(errs)
	job.DroppedBytes = uint64(log.Dropped())
	job.StdinBytes = j.closeInput()
	job.Paused = false
	verdict(record, exit, waitErr)
	if err := j.keepDiff(); err != nil {
		j.table.options.Log.Err(err).Str("job", j.id).Msg("keep what the job has changed")
	}
	job.EndedAt = now()
	wall := uint64(max(0, job.EndedAt.AsTime().Sub(job.StartedAt.AsTime()).Microseconds())) // the clock may have been set
	job.Usage.WallUsec = &wall
	again := j.endTry(record)
	if !again {
		if j.keepFiles(keeping, record, waitErr) == ErrClosing {
			return false
		}
		j.removeWork()
	}
	err := j.table.writeWhenRoom(j, record)
	if err == ErrClosing {
		return false
	}
	j.table.at("end recorded")
	if again {
		j.rest(record, err)
		return true
	}
	j.publish(record)

	j.closeUpper()
	j.closeTerminal()
	j.control.Lock()
	defer j.control.Unlock()
	init.Close()
	j.table.at("sandbox closed")
	err = errors.Join(err, group.Delete())
	_ = log.Close()
	j.table.logEnd(job, err)
	j.table.running.Done()
	return true
}

// publish tells how the job ended, and returns its log.
func (j *Job) publish(record *recordv1.Record) *output.Log {
	j.mu.Lock()
	j.record = record
	log := j.log
	j.mu.Unlock()
	j.table.events.tell(record)
	forgetSecrets(j.secrets)
	log.Finish()
	j.table.shelve(j)
	close(j.done)
	return log
}

// removeWork removes the work directory when there is nothing in it. It goes before the record says that
// the job has ended: nobody looks for it afterwards.
func (j *Job) removeWork() { _ = quota.Release(workDir(j.dir), os.Remove) }

// leave lets go of a job that runs on: the server ends, and the next one takes it.
func (j *Job) leave() {
	j.stopTimers()
	j.letGo()
}

// letGo gives back what this server holds of a running job.
func (j *Job) letGo() {
	j.closeUpper()
	j.shutInput(ErrClosing)
	j.closeTerminal()
	if j.init != nil { // not between two tries
		j.init.Detach()
	}
	if j.log != nil {
		_ = j.log.Close() // readers go on
	}
	j.table.release(j)
	j.table.running.Done()
}
