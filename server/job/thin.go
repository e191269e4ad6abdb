package job

import (
	"errors"
	"os"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
)

// A server keeps many more jobs that have ended than are ever asked for. A record takes some 6 KiB as
// messages; so the table has those of the newest alone, and of the others only what lists show. The
// rest is read from the disk for who asks.

// keptRecords is how many of the jobs that ended last have their records in memory: those that
// somebody waits for.
const keptRecords = 256

// A thin job is what is kept in memory of an old one.
type thin struct {
	brief         string // telev1.Job, on the wire
	ended         int64  // nanoseconds since 1970
	status        telev1.JobStatus
	outputRemoved bool
}

func newThin(job *telev1.Job) thin {
	text, _ := proto.Marshal(brief(job)) // fails for texts that are no UTF-8, which came from the wire
	return thin{brief: string(text), ended: job.EndedAt.AsTime().UnixNano(), status: job.Status,
		outputRemoved: job.OutputRemoved}
}

// brief is a job as a table shows it.
func brief(j *telev1.Job) *telev1.Job {
	return &telev1.Job{Id: j.Id, Spec: briefSpec(j.Spec), User: j.User, Status: j.Status,
		Reason: j.Reason, Message: j.Message, ExitCode: j.ExitCode, Signal: j.Signal,
		CreatedAt: j.CreatedAt, StartedAt: j.StartedAt, EndedAt: j.EndedAt,
		StdoutBytes: j.StdoutBytes, StderrBytes: j.StderrBytes, DroppedBytes: j.DroppedBytes, OutputRemoved: j.OutputRemoved, Paused: j.Paused}
}

func briefSpec(s *telev1.JobSpec) *telev1.JobSpec {
	return &telev1.JobSpec{Command: s.GetCommand(), Name: s.GetName(), Labels: s.GetLabels()}
}

// thinLocked makes the job thin that is no longer among the newest on the shelf.
func (t *Table) thinLocked() {
	if old := len(t.shelf.jobs) - 1 - keptRecords; old >= 0 {
		t.shelf.jobs[old].makeThin()
	}
}

// makeThin lets go of everything that is on disk. The job has ended.
func (j *Job) makeThin() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.record != nil {
		j.thin, j.record = newThin(j.record.Job), nil
		j.init, j.group, j.log, j.watching, j.input, j.screen, j.refused = nil, nil, nil, nil, nil, nil, refusals{}
		j.timers, j.timeout, j.warning, j.retry, j.secrets = nil, nil, nil, retry{}, nil
	}
}

// snapshotThinLocked reads what is not in memory. When it cannot be read, the job is as a table shows it.
func (j *Job) snapshotThinLocked() *telev1.Job {
	r, err := readRecord(j.dir)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) { // somebody removes it just now
			j.table.options.Log.Err(err).Str("job", j.id).Msg("read the record of an old job")
		}
		return j.thin.job()
	}
	r.Job.OutputRemoved = j.thin.outputRemoved // may not be written yet
	return r.Job
}

func (t thin) job() *telev1.Job {
	job := &telev1.Job{}
	_ = proto.Unmarshal([]byte(t.brief), job) // this process has made it
	job.OutputRemoved = t.outputRemoved
	return job
}

// Brief is Snapshot without limits, usage, and of the spec all but the command, the name and labels.
func (j *Job) Brief() *telev1.Job {
	j.mu.Lock()
	if j.record == nil {
		t := j.thin
		j.mu.Unlock()
		return t.job()
	}
	defer j.mu.Unlock()
	job := brief(j.record.Job)
	if j.log != nil && !j.endedLocked() {
		out, errs := j.log.Sizes()
		job.StdoutBytes, job.StderrBytes = uint64(out), uint64(errs)
	}
	return job
}

func (j *Job) status() telev1.JobStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.record == nil {
		return j.thin.status
	}
	return j.record.Job.Status
}

// endTime is when the job ended, if it has.
func (j *Job) endTime() (at time.Time, ended bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.record == nil {
		return time.Unix(0, j.thin.ended), true
	}
	return j.record.Job.EndedAt.AsTime(), j.record.Job.EndedAt != nil
}

func (j *Job) ended() bool {
	_, ended := j.endTime()
	return ended
}

func (j *Job) outputRemoved() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.outputRemovedLocked()
}
