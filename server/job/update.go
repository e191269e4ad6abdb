package job

import (
	"errors"
	"time"

	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/cgroup"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// ErrStopping is returned for a timeout, or a pause, that comes too late.
var ErrStopping = errors.New("the job is being stopped; that cannot be taken back")

// Update changes limits and the timeout of a running job: all that is asked for, or nothing. A nil timeout
// stays as it is, 0 is none.
func (j *Job) Update(asked *telev1.Limits, timeout *durationpb.Duration) error {
	if err := checkTimeout("timeout", timeout); err != nil {
		return err
	}
	j.control.Lock()
	defer j.control.Unlock()
	j.mu.Lock()
	record, over := j.record, j.endedLocked() || j.ending
	between := j.retry.waiting || j.retry.trying
	j.mu.Unlock()
	switch {
	case between:
		return ErrBetween
	case over:
		return ErrEnded
	case record.Stop != nil && timeout != nil:
		return ErrStopping
	}
	before, err := limitsOf(record.Job)
	if err != nil {
		return err
	}
	after, err := askedLimits(before, asked, j.table.options.Most, "limits.")
	if err != nil {
		return err
	}
	request, err := j.changeRequest(record.Job.Spec, after, asked)
	if err != nil {
		return err
	}
	// Reclaiming memory takes its time, and nobody else need wait for it.
	changed, err := j.group.Change(before, request)
	if err != nil {
		return err
	}
	if err := j.keepUpdate(changed, timeout); err != nil {
		request.Limits = before
		_, undoErr := j.group.Change(after, request)
		return errors.Join(err, undoErr)
	}
	return nil
}

// keepUpdate records what was changed, and goes by a new timeout.
func (j *Job) keepUpdate(changed []limits.Status, timeout *durationpb.Duration) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if timeout != nil && j.record != nil && j.record.Stop != nil {
		return ErrStopping
	}
	err := j.amendLocked(func(r *recordv1.Record) bool {
		for _, s := range changed {
			for _, l := range r.Job.Limits {
				if l.Name == string(s.Name) {
					proto.Reset(l)
					proto.Merge(l, limitStatus(s))
				}
			}
		}
		if timeout != nil {
			r.Job.Timeout, r.Warned = timeout, false
		}
		return timeout != nil || len(changed) > 0
	})
	if err == nil && timeout != nil {
		j.timeOutLocked()
	}
	return err
}

// limitsOf are the limits that a job has, as its record says.
func limitsOf(job *telev1.Job) (values limits.Limits, err error) {
	values = limits.Default()
	for _, name := range limits.Names {
		for _, l := range job.Limits {
			if l.Name != string(name) {
				continue
			}
			value, err := limits.Parse(name, l.Asked)
			if err != nil {
				return values, err
			}
			values.Set(name, value)
		}
	}
	return values, nil
}

// changeRequest is what j's cgroup is to be told. Its disks are looked for when they matter alone.
func (j *Job) changeRequest(spec *telev1.JobSpec, after limits.Limits, asked *telev1.Limits) (cgroup.Request, error) {
	r := request{spec: spec, values: after}
	if asked.GetIoRead() != "" || asked.GetIoWrite() != "" {
		var err error
		if r.where, err = j.table.findPlaces(r.spec); err != nil {
			return cgroup.Request{}, err
		}
	}
	return j.table.groupRequest(r), nil
}

func limitStatus(s limits.Status) *telev1.LimitStatus {
	return &telev1.LimitStatus{Name: string(s.Name), Asked: s.Asked, Applied: s.Applied, How: s.How, WhyNot: s.WhyNot}
}

// timeoutOf is a job's timeout; 0 is none.
func timeoutOf(job *telev1.Job) time.Duration {
	if job.GetTimeout() != nil {
		return job.Timeout.AsDuration()
	}
	return job.GetSpec().GetTimeout().AsDuration()
}

// timeOutLocked arms the job's timeout, or what is left of it, in place of one that was armed before.
func (j *Job) timeOutLocked() {
	j.stopTimeoutLocked()
	if left, limited := j.timeLeftLocked(); limited {
		j.timeout = time.AfterFunc(left, j.timeOut)
		j.warnLocked(left)
	}
}

func (j *Job) timeLeftLocked() (left time.Duration, limited bool) {
	d := timeoutOf(j.record.Job)
	return time.Until(j.record.Job.StartedAt.AsTime().Add(d)), d > 0
}

// timeOut stops the job, unless it was given more time just now.
func (j *Job) timeOut() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.endedLocked() {
		return
	}
	if left, limited := j.timeLeftLocked(); !limited || left > 0 {
		return
	}
	err := j.stopLocked(OwnSignal, stopGrace, telev1.Reason_REASON_TIMED_OUT,
		"ran longer than its timeout of "+timeoutOf(j.record.Job).String())
	if err != nil {
		j.table.options.Log.Err(err).Str("job", j.id).Msg("stop after the timeout")
	}
}
