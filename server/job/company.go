package job

import (
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// This file stops jobs with stop_when_left.

// leftGrace is how long nobody may follow such a job: a client has that long to connect again.
const leftGrace = 10 * time.Second

// company are those who follow a running job.
type company struct {
	size  int
	timer *time.Timer // of a job with stop_when_left, while there are none
}

// Follow says that somebody follows the job who may stop it, until leave is called.
func (j *Job) Follow() (leave func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.company.size++
	if j.company.timer != nil {
		j.company.timer.Stop()
		j.company.timer = nil
	}
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.company.size--
		j.aloneLocked()
	}
}

// aloneLocked sees to the end of a job that nobody follows.
func (j *Job) aloneLocked() {
	c := &j.company
	if j.endedLocked() || j.ending || !j.record.Job.Spec.GetStopWhenLeft() || c.size > 0 || c.timer != nil ||
		j.table.life.Err() != nil {
		return
	}
	c.timer = time.AfterFunc(j.table.leftGrace, func() {
		err := j.stop(OwnSignal, stopGrace, telev1.Reason_REASON_STOPPED,
			"stopped because nobody has followed it for "+j.table.leftGrace.String())
		if err != nil {
			j.table.options.Log.Err(err).Str("job", j.id).Msg("stop a job that nobody follows")
		}
	})
}
