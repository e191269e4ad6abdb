package job

import (
	"errors"
	"slices"
	"time"

	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
)

// Retention says how long ended jobs are kept. A zero field sets no bound.
type Retention struct {
	Age    time.Duration // since its end; then the job goes
	Jobs   int           // the most ended jobs; the oldest go first
	Output int64         // bytes of output of all jobs; that of the oldest ended jobs goes first, but never the last one's; their records stay
}

// ErrNotEnded is returned by Remove for a job that runs.
var ErrNotEnded = errors.New("the job has not ended; stop it first: tele stop ID")

// A shelf holds the jobs that have ended, in the order of their ends.
type shelf struct {
	jobs   []*Job
	output int // those before have no output any more
}

// shelve puts a job that has ended on the shelf, and releases it.
func (t *Table) shelve(j *Job) {
	t.mu.Lock()
	t.shelf.jobs = append(t.shelf.jobs, j)
	t.thinLocked()
	t.mu.Unlock()
	t.tidyUp()
	t.release(j)
}

// unshelveLocked takes a job off the shelf, and tells whether it was there.
func (t *Table) unshelveLocked(j *Job) bool {
	at := slices.Index(t.shelf.jobs, j)
	if at < 0 {
		return false
	}
	t.shelf.jobs = without(t.shelf.jobs, at)
	if at < t.shelf.output {
		t.shelf.output--
	}
	return true
}

// without removes one job. Mostly it is among the oldest, so what is before it is moved when that is
// less: of a hundred thousand jobs the others would be a memmove of nearly a MiB for each.
func without(jobs []*Job, at int) []*Job {
	if at > len(jobs)/2 {
		return slices.Delete(jobs, at, at+1)
	}
	copy(jobs[1:at+1], jobs[:at])
	jobs[0] = nil // append leaves it behind with the next larger array
	return jobs[1:]
}

// Remove takes an ended job away, with its output. Who reads that goes on.
func (t *Table) Remove(j *Job) error {
	t.mu.Lock()
	ended := t.unshelveLocked(j)
	t.mu.Unlock()
	if !ended {
		if !j.ended() {
			return ErrNotEnded
		}
		return ErrNotFound // somebody was faster
	}
	return t.removeEnded(j)
}

// removeEnded removes a job that is not on the shelf any more.
func (t *Table) removeEnded(j *Job) error {
	job := j.Brief()
	t.forget(j)
	t.events.tellRemoved(job)
	err := removeJob(j.dir)
	j.giveBackRoom()
	return err
}

// Prune removes the ended jobs whose owner fits and that ended at least so long ago, and returns
// them.
func (t *Table) Prune(fits func(owner string) bool, olderThan time.Duration) (removed []*telev1.Job, err error) {
	before := time.Now().Add(-olderThan)
	t.mu.Lock()
	jobs := slices.Clone(t.shelf.jobs)
	t.mu.Unlock()
	for _, j := range jobs {
		if at, _ := j.endTime(); !fits(j.owner) || at.After(before) {
			continue
		}
		job := j.Brief()
		switch removeErr := t.Remove(j); {
		case removeErr == nil:
			removed = append(removed, job)
		case !errors.Is(removeErr, ErrNotFound):
			err = errors.Join(err, removeErr)
		}
	}
	return removed, err
}

// tidyUp makes the keeper look at what is to go.
func (t *Table) tidyUp() {
	select {
	case t.tidy <- struct{}{}:
	default: // it is about to
	}
}

// keep removes jobs and output as the retention says, until the server ends.
func (t *Table) keep() {
	for {
		j, whole, wait := t.due(time.Now())
		if j == nil {
			timer := time.NewTimer(wait)
			select {
			case <-t.tidy:
			case <-timer.C:
			case <-t.life.Done():
				timer.Stop()
				return
			}
			timer.Stop()
			continue
		}
		err := error(nil)
		if whole {
			err = t.removeEnded(j)
		} else {
			err = j.removeOutput()
		}
		if err != nil {
			t.options.Log.Err(err).Str("job", j.id).Msg("remove an old job")
		}
	}
}

// due takes the next job off the shelf that is to go, whole or its output alone. When there is none
// it says how long there will be none, if nothing happens.
func (t *Table) due(now time.Time) (j *Job, whole bool, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, s := t.options.Retention, &t.shelf
	wait = time.Hour
	if len(s.jobs) == 0 {
		return nil, false, wait
	}
	oldest := s.jobs[0]
	if r.Age > 0 {
		ended, _ := oldest.endTime()
		wait = min(wait, ended.Add(r.Age).Sub(now))
	}
	if wait <= 0 || r.Jobs > 0 && len(s.jobs) > r.Jobs {
		t.unshelveLocked(oldest)
		return oldest, true, 0
	}
	// A tenth is kept free: those that run should not have to wait for this. The output of the job
	// that ended last stays: somebody may be about to read it.
	if r.Output > 0 && t.space.Used() > r.Output-r.Output/10 && s.output < len(s.jobs)-1 {
		s.output++
		return s.jobs[s.output-1], false, 0
	}
	return nil, false, wait
}

// removeOutput removes all of an ended job but its record, which then says so. What a server that was killed
// in between has left to do, the next one does.
func (j *Job) removeOutput() error {
	j.mu.Lock()
	j.log = nil
	next, err := j.record, error(nil)
	if next == nil {
		j.thin.outputRemoved = true
		next, err = readRecord(j.dir)
	} else {
		next = proto.Clone(next).(*recordv1.Record)
		j.record = next
	}
	if err == nil {
		next.Job.OutputRemoved = true
	}
	j.mu.Unlock()
	gone := j.Brief()
	gone.OutputRemoved = true
	j.table.events.tellOutputRemoved(gone)
	if err := removeFiles(j.dir); err != nil {
		return err
	}
	j.giveBackRoom()
	if err != nil {
		return err
	}
	j.mu.Lock() // for who reads it just now, and would cut off what looks unfinished
	defer j.mu.Unlock()
	return writeRecord(j.dir, next)
}

// giveBackRoom says that what the job had kept is removed.
func (j *Job) giveBackRoom() {
	j.table.space.Remove(j.dir)
	j.table.space.Remove(filesPath(j.dir))
}

// removeOutputAgain does what a server that was killed has left to do of that. Nobody else has the job yet.
func (j *Job) removeOutputAgain() error {
	if err := removeFiles(j.dir); err != nil {
		return err
	}
	j.record.Job.OutputRemoved = true
	return writeRecord(j.dir, j.record)
}
