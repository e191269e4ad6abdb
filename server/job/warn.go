package job

import (
	"time"

	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// This file is the signal that a job gets before its timeout stops it.

func checkWarning(spec *telev1.JobSpec) error {
	if spec.WarnSignal == "" && spec.WarnBefore == nil {
		return nil
	}
	if _, err := ParseSignal("spec.warn_signal", spec.WarnSignal); err != nil {
		return err
	}
	if err := CheckDuration("spec.warn_before", spec.WarnBefore); err != nil {
		return err
	}
	switch before, timeout := spec.WarnBefore.AsDuration(), spec.Timeout.AsDuration(); {
	case before == 0:
		return bad("spec.warn_before", "is missing; say how long before the timeout, like USR1@2m")
	case before >= timeout:
		return bad("spec.warn_before", "%s is not shorter than the timeout of %s", before, timeout)
	}
	return nil
}

// warnLocked arms the warning before a timeout that is left from now, in place of one that was armed before.
func (j *Job) warnLocked(left time.Duration) {
	if before := j.record.Job.Spec.WarnBefore.AsDuration(); before > 0 && !j.record.Warned && !j.retry.waiting {
		j.warning = time.AfterFunc(left-before, j.warn)
	}
}

// warn sends the signal, unless the job got more time just now. A server that is killed at it leaves it to the
// next one, which may send it again: too often is better than not at all.
func (j *Job) warn() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.endedLocked() || j.record.Stop != nil || j.record.Warned {
		return
	}
	spec := j.record.Job.Spec
	if left, limited := j.timeLeftLocked(); !limited || left > spec.WarnBefore.AsDuration() {
		return
	}
	signal, err := ParseSignal("", spec.WarnSignal)
	if err == nil {
		err = j.signalLocked(signal, telev1.SignalTarget_SIGNAL_TARGET_GROUP, "the warning before its timeout")
	}
	if err == nil {
		err = j.amendLocked(func(r *recordv1.Record) bool { r.Warned = true; return true })
	}
	if err != nil && err != ErrEnded && err != ErrBetween && !noSpace(err) {
		j.table.options.Log.Err(err).Str("job", j.id).Msg("warn before the timeout")
	}
}
