package job

import (
	"context"
	"errors"

	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
)

// Pause freezes the job's processes, and returns when none of them runs. The record says so first: a job
// that the record does not call paused is never frozen, and of one that it does, the next server makes sure.
// Who stops the job meanwhile has the last word, and who did before, too: a job that is to end has to run.
func (j *Job) Pause(ctx context.Context) error {
	ctx, cancel := j.table.With(ctx)
	defer cancel()
	j.control.Lock()
	defer j.control.Unlock()
	if err := j.recordPaused(); err != nil {
		return err
	}
	err := j.group.Freeze(ctx, j.init.Pid)
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.endedLocked() || j.ending:
		return ErrEnded
	case err != nil:
		return errors.Join(err, j.amendLocked(setPaused(false)))
	case !j.record.Job.Paused: // it was stopped
		return j.group.Thaw()
	}
	return nil
}

func (j *Job) recordPaused() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.endedLocked() && !j.ending && j.record.Stop != nil {
		return ErrStopping
	}
	return j.amendLocked(setPaused(true))
}

// Resume lets a paused job go on.
func (j *Job) Resume() error {
	j.control.Lock()
	defer j.control.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.endedLocked() || j.ending {
		return ErrEnded
	}
	return j.resumeLocked()
}

func (j *Job) resumeLocked() error {
	if !j.record.Job.Paused {
		return nil
	}
	if err := j.group.Thaw(); err != nil {
		return err
	}
	return j.amendLocked(setPaused(false))
}

func setPaused(paused bool) func(*recordv1.Record) bool {
	return func(r *recordv1.Record) bool {
		changed := r.Job.Paused != paused
		r.Job.Paused = paused
		return changed
	}
}

// pauseAgain makes sure that a job is frozen which an earlier server has paused, and may have been killed
// at that. One that was stopped goes on instead.
func (j *Job) pauseAgain() {
	j.mu.Lock()
	paused, stopping := j.record.Job.Paused, j.record.Stop != nil
	j.mu.Unlock()
	if !paused {
		return
	}
	again := func() error { return j.Pause(context.Background()) }
	if stopping {
		again = j.Resume
	}
	if err := again(); err != nil && !errors.Is(err, ErrEnded) {
		j.table.options.Log.Err(err).Str("job", j.id).Msg("pause a job again, or let it go on")
	}
}
