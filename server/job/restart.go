package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/telerun/tele/initproc"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// This file is what happens to a job with JobSpec.restart between the end of a try that failed and the start
// of the next. A try is all that other jobs are: a sandbox, and the command in it. In between there is nothing
// but the job's directory, its record, which says when the next try begins, and a timer.
//
//	running --- end: failed ---> waiting --- try ---> trying ---> running
//	   |                            |                    |
//	   v                            v stop, timeout      v stop, or it was the last
//	 ended                        ended                ended
//
// Who stops a job that is trying is heard when the command runs, or cannot be run.

const (
	mostRetries = 100
	// The first wait before another try, and the longest that doubling makes of a shorter one.
	defaultBackoff = time.Second
	longestBackoff = time.Minute
	leastBackoff   = 10 * time.Millisecond
	mostBackoff    = time.Hour
)

// ErrBetween is returned for what a job cannot be asked that has no processes just now.
var ErrBetween = errors.New("the job is between two tries, and nothing of it runs; tele status says when the next begins, and tele stop ends it now")

// A retry is where a job is between two tries.
type retry struct {
	waiting bool           // for the next; whoever ends that goes on alone (claimLocked)
	trying  bool           // the next is being started
	timer   *time.Timer    // while it waits
	late    *recordv1.Stop // of who stopped it as a try had just ended
}

func checkRestart(spec *telev1.JobSpec) error {
	r := spec.Restart
	switch {
	case r == nil:
		return nil
	case r.MaxRetries < 1 || r.MaxRetries > mostRetries:
		return bad("spec.restart.max_retries", "is %d, at least 1 and at most %d are possible", r.MaxRetries, mostRetries)
	case spec.Stdin:
		return bad("spec.restart", "does not go together with a standard input: what one try has read is not there for the next")
	case len(spec.Upload) > 0:
		return bad("spec.restart", "does not go together with upload: the files that came for one try are not there for the next")
	case spec.Terminal != nil:
		return bad("spec.restart", "does not go together with a terminal: who sits at it can start the command again")
	case r.Backoff == nil:
		return nil
	}
	if err := CheckDuration("spec.restart.backoff", r.Backoff); err != nil {
		return err
	}
	if d := r.Backoff.AsDuration(); d < leastBackoff || d > mostBackoff {
		return bad("spec.restart.backoff", "%s is not from %s to %s", d, leastBackoff, mostBackoff)
	}
	return nil
}

// backoff is how long the wait is after so many tries.
func backoff(r *telev1.Restart, tries int) time.Duration {
	wait := defaultBackoff
	if r.Backoff != nil {
		wait = r.Backoff.AsDuration()
	}
	for range tries - 1 {
		wait = max(wait, min(2*wait, longestBackoff))
	}
	return wait
}

// failed tells whether a try that ended so is one to repeat: what tele itself ended is not, nor what nobody saw.
func failed(job *telev1.Job) bool {
	switch job.Reason {
	case telev1.Reason_REASON_EXITED:
		return job.GetExitCode() != 0
	case telev1.Reason_REASON_SIGNALED, telev1.Reason_REASON_OOM_KILLED, telev1.Reason_REASON_START_FAILED:
		return true
	}
	return false
}

// beginTry notes that a try runs.
func (j *Job) beginTry(job *telev1.Job) {
	out, errs := j.log.Sizes()
	job.Message = ""
	job.Tries = append(job.Tries, &telev1.Try{StartedAt: now(), StdoutOffset: uint64(out), StderrOffset: uint64(errs)})
}

// endTry notes how a try has ended, which is how the record says that the job has, and tells whether there
// will be another: then the record is that of a job that waits.
func (j *Job) endTry(record *recordv1.Record) (again bool) {
	job, restart := record.Job, record.Job.Spec.GetRestart()
	if restart == nil {
		return false
	}
	try := &telev1.Try{} // one that never ran
	if n := len(job.Tries); n > 0 && job.Tries[n-1].EndedAt == nil {
		try = job.Tries[n-1]
	} else {
		try.StdoutOffset, try.StderrOffset = job.StdoutBytes, job.StderrBytes
		job.Tries = append(job.Tries, try)
	}
	try.EndedAt, try.Reason, try.Message = job.EndedAt, job.Reason, job.Message
	try.ExitCode, try.Signal = job.ExitCode, job.Signal
	if try.Usage = proto.CloneOf(job.Usage); try.Usage != nil && try.StartedAt != nil {
		wall := uint64(max(0, try.EndedAt.AsTime().Sub(try.StartedAt.AsTime()).Microseconds()))
		try.Usage.WallUsec = &wall
	}
	n, most := len(job.Tries), int(restart.MaxRetries)+1
	switch {
	case record.Stop != nil || !failed(job):
		return false
	case n >= most:
		job.Message += fmt.Sprintf(", at the last of %d tries", most)
		return false
	case record.Secrets && j.secrets == nil:
		job.Message += secretsGone
		return false
	}
	at := time.Now().Add(backoff(restart, n))
	record.AgainAt, record.Signal, record.SignalBy = timestamppb.New(at), 0, ""
	job.Message = fmt.Sprintf("try %d of %d begins at %s; the last one: %s", n+1, most, at.UTC().Format("2006-01-02T15:04:05.000Z"), try.Message)
	job.Status, job.Reason = telev1.JobStatus_JOB_STATUS_SUBMITTED, telev1.Reason_REASON_UNSPECIFIED
	job.ExitCode, job.Signal, job.EndedAt, job.Usage = nil, 0, nil, nil
	return true
}

const secretsGone = "; it is not tried again, for its secrets went with the server that had them"

// rest takes the sandbox of a try that has ended away, and waits for the next.
func (j *Job) rest(record *recordv1.Record, err error) {
	err = errors.Join(err, j.unmake())
	j.logTry(record.Job, err)
	j.table.at("try ended")
	j.await(record)
}

// unmake takes the sandbox away, as far as there is one.
func (j *Job) unmake() (err error) {
	j.closeUpper()
	j.control.Lock()
	defer j.control.Unlock()
	if j.init != nil {
		j.init.Close()
	}
	if j.group != nil {
		err = j.group.Delete()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.init, j.group, j.watching = nil, nil, nil
	return err
}

func (j *Job) logTry(job *telev1.Job, err error) {
	event := j.table.options.Log.Info()
	if err != nil {
		event = j.table.options.Log.Error().Err(err)
	}
	event.Str("job", j.id).Str("user", j.owner).Str("reason", job.Message).Msg("a try of a job ended")
}

// await waits for the next try; record says when that begins.
func (j *Job) await(record *recordv1.Record) {
	j.table.events.tell(record)
	j.mu.Lock()
	j.record, j.ending = record, false
	j.retry.waiting, j.retry.trying = true, false
	j.timers, j.company.timer = nil, nil // they were stopped
	// A machine may have started with its clock years back: the next try is never further away than it was at first.
	wait := min(time.Until(record.AgainAt.AsTime()), backoff(record.Job.Spec.Restart, len(record.Job.Tries)))
	j.retry.timer = time.AfterFunc(wait, j.try)
	j.timeOutLocked()
	j.aloneLocked()
	switch {
	case record.Stop != nil:
		j.concludeLocked(record.Stop)
	case j.retry.late != nil:
		j.concludeLocked(j.retry.late)
	}
	j.mu.Unlock()
	j.table.heed(j)
	j.table.at("waiting for the next try")
}

// claimLocked ends the wait, for one caller alone.
func (j *Job) claimLocked() bool {
	if !j.retry.waiting {
		return false
	}
	j.retry.waiting = false
	j.retry.timer.Stop()
	return true
}

// try is the next try.
func (j *Job) try() {
	t := j.table
	t.warm.begin()
	defer t.warm.end()
	j.mu.Lock()
	mine := j.claimLocked()
	j.retry.trying = mine
	j.mu.Unlock()
	if !mine {
		return
	}
	sent, err := j.startTry()
	switch {
	case err == nil:
		t.heed(j)
	case t.life.Err() != nil:
		if !sent { // else init has its plan, and the next server takes it over
			_ = j.unmake() // the next server looks for what is left
		}
		j.leave()
	default:
		j.tryFailed(err)
	}
}

// startTry makes a sandbox as it was for the first try, but for limits that were changed since, and returns
// when the command runs. It tells whether init has got the whole plan.
func (j *Job) startTry() (sent bool, err error) {
	t := j.table
	j.mu.Lock()
	job := j.record.Job
	j.mu.Unlock()
	r, err := t.check(job.Spec, j.secrets...)
	if err == nil {
		r.values, err = limitsOf(job)
	}
	if err != nil {
		return false, err
	}
	s := &sandbox{table: t, id: j.id, dir: j.dir, uid: j.uid, log: j.log}
	err = s.make(r)
	j.control.Lock()
	j.mu.Lock()
	j.init, j.group = s.init, s.group
	j.mu.Unlock()
	j.control.Unlock()
	if err != nil {
		return false, err
	}
	for _, status := range s.group.Status() {
		if status.WhyNot != "" && r.spec.Strict {
			return false, &LimitError{status}
		}
	}
	if err := j.recordTry(); err != nil {
		return false, err
	}
	t.at("try recorded")
	ctx, cancel := context.WithTimeout(t.life, startTime)
	defer cancel()
	if err := s.run(ctx, r, nil); err != nil {
		return true, err
	}
	t.at("try running")
	if err := j.openUpper(); err != nil {
		return true, err
	}
	if err := j.setRunning(); err != nil {
		return true, err
	}
	t.at("try begun")
	j.besides.reopen()
	return true, j.watch()
}

// recordTry says that the job has another init.
func (j *Job) recordTry() error {
	id, err := j.init.ID()
	if err != nil {
		return err
	}
	return j.amendWhenRoom(func(r *recordv1.Record) {
		setInit(r, id, j.group.Paths())
		r.AgainAt = nil
		r.Job.Message = fmt.Sprintf("try %d of %d is being started", len(r.Job.Tries)+1, r.Job.Spec.Restart.MaxRetries+1)
		for _, status := range j.group.Status() {
			at := slices.IndexFunc(r.Job.Limits, func(l *telev1.LimitStatus) bool { return l.Name == string(status.Name) })
			if at >= 0 {
				r.Job.Limits[at] = limitStatus(status)
			}
		}
	})
}

// amendWhenRoom changes the record of a job that is being tried, and of which nothing runs yet, as soon as there
// is room for it.
func (j *Job) amendWhenRoom(change func(*recordv1.Record)) error {
	for {
		j.mu.Lock()
		next := proto.Clone(j.record).(*recordv1.Record)
		change(next)
		err := writeRecord(j.dir, next)
		if err == nil {
			j.record = next
			j.table.events.tell(next)
		}
		j.mu.Unlock()
		if !noSpace(err) {
			return err
		}
		select {
		case <-j.table.space.Freed():
		case <-j.table.life.Done():
			return ErrClosing
		}
	}
}

// tryFailed is the end of a try that could not be started.
func (j *Job) tryFailed(cause error) {
	err := j.unmake()
	j.mu.Lock()
	j.stopTimersLocked()
	j.ending = true
	record := proto.Clone(j.record).(*recordv1.Record)
	j.mu.Unlock()
	job := record.Job
	out, errs := j.log.Sizes()
	job.StdoutBytes, job.StderrBytes = uint64(out), uint64(errs)
	job.Status, job.Reason = telev1.JobStatus_JOB_STATUS_FAILED, telev1.Reason_REASON_START_FAILED
	job.Message = fmt.Sprintf("could not be started: %v", cause)
	job.EndedAt = now()
	again := j.endTry(record)
	j.logTry(job, err)
	j.table.at("try not started")
	if stop := record.Stop; stop != nil {
		stopped(job, stop)
	}
	j.settle(record, again)
}

// addCutOff shows a job with a try of an earlier server's whose command does not run.
func (t *Table) addCutOff(j *Job, cause error) {
	j.retry.trying = true
	t.add(j)
	go j.tryCutOff(cause)
}

// tryCutOff goes on with such a try. One whose init never had the whole plan is begun anew.
func (j *Job) tryCutOff(cause error) {
	if !errors.Is(cause, initproc.ErrInitGone) {
		j.tryFailed(cause)
		return
	}
	if err := j.unmake(); err != nil {
		j.table.options.Log.Err(err).Str("job", j.id).Msg("take away what there was of a try")
	}
	j.table.at("try cut off")
	j.mu.Lock()
	j.ending = true // a stop that comes now is heard when it waits
	record := proto.Clone(j.record).(*recordv1.Record)
	j.mu.Unlock()
	record.AgainAt = now()
	j.await(record)
}

// concludeLocked ends a job that waits for its next try.
func (j *Job) concludeLocked(stop *recordv1.Stop) {
	if !j.claimLocked() {
		return
	}
	j.stopTimersLocked()
	j.ending = true
	record := proto.Clone(j.record).(*recordv1.Record)
	stopped(record.Job, stop)
	record.Job.EndedAt = now()
	go j.settle(record, false)
}

// stopped is the verdict on a job that was stopped when nothing of it ran.
func stopped(job *telev1.Job, stop *recordv1.Stop) {
	job.Status, job.Reason, job.Message = telev1.JobStatus_JOB_STATUS_FAILED, stop.Reason, stop.Message
	if stop.Reason == telev1.Reason_REASON_STOPPED {
		job.Status = telev1.JobStatus_JOB_STATUS_KILLED
	}
}

// settle records what becomes of a job of which nothing runs. One that has ended has the exit code and the
// usage of the last try that ran.
func (j *Job) settle(record *recordv1.Record, again bool) {
	job := record.Job
	if !again {
		record.AgainAt = nil
		for _, try := range slices.Backward(job.Tries) {
			if try.ExitCode != nil {
				job.ExitCode, job.Signal, job.Usage = try.ExitCode, try.Signal, proto.CloneOf(try.Usage)
				break
			}
		}
		if job.Usage != nil {
			wall := uint64(max(0, job.EndedAt.AsTime().Sub(job.StartedAt.AsTime()).Microseconds()))
			job.Usage.WallUsec = &wall
		}
		noFiles(job, "the job ended when none of its tries ran, and their sandboxes were gone")
		j.removeWork()
	}
	err := j.table.writeWhenRoom(j, record)
	if err == ErrClosing {
		j.leave()
		return
	}
	if again {
		j.await(record)
		return
	}
	log := j.publish(record)
	_ = log.Close()
	j.table.logEnd(job, err)
	j.table.running.Done()
}

// recoverWaiting goes on with a job of an earlier server that had no try running.
func (t *Table) recoverWaiting(j *Job) (err error) {
	record := j.record
	t.removeInit(j)
	if j.log, err = openLog(j); err != nil {
		return err
	}
	if record.AgainAt == nil { // cut off before its command ran
		record.AgainAt = now()
	}
	t.mu.Lock()
	t.uids[record.Uid]++
	t.holdLocked(j)
	t.enterLocked(j)
	t.mu.Unlock()
	close(j.made)
	t.options.Log.Info().Str("job", j.id).Str("user", j.owner).Msg("job taken over, between two tries")
	if !record.Secrets {
		j.await(record)
		return nil
	}
	j.ending = true
	record = proto.Clone(record).(*recordv1.Record)
	last := record.Job.Tries[len(record.Job.Tries)-1]
	record.Job.Status, record.Job.Reason = telev1.JobStatus_JOB_STATUS_FAILED, last.Reason
	record.Job.Message, record.Job.EndedAt = last.Message+secretsGone, now()
	if record.Stop != nil {
		stopped(record.Job, record.Stop)
	}
	go j.settle(record, false)
	return nil
}
