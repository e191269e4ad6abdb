package main

import (
	"context"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pauseJobs pauses a job for a while, or changes one of its limits. Neither may show in how it ends.
func (w *world) pauseJobs(ctx context.Context, c chance) {
	for pause(ctx, c.ms(20, 400)) {
		list, err := w.witness.List(ctx, client.ListOptions{Brief: true,
			Statuses: []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_RUNNING}})
		if err != nil || len(list) == 0 { // err: the time is up
			continue
		}
		id := list[c.IntN(len(list))].Id
		if c.in(30) {
			_, err := w.witness.Update(ctx, id, &telev1.Limits{Cpu: []string{"0.5", "1", "2"}[c.IntN(3)]}, nil)
			w.controlled(ctx, "limits changed", id, err)
			continue
		}
		_, err = w.witness.Pause(ctx, id)
		w.controlled(ctx, "pauses", id, err)
		pause(ctx, c.ms(1, 500))
		w.resume(id)
	}
}

// controlled counts what was done, and notes what may not go wrong with it.
func (w *world) controlled(ctx context.Context, what, id string, err error) {
	switch status.Code(err) {
	case codes.OK:
		w.figures.add(what, 1)
	case codes.FailedPrecondition, codes.NotFound, codes.ResourceExhausted: // it has ended; the disk is full
	default:
		if ctx.Err() == nil {
			w.figures.violation("%s, job %s: %v", what, id, err)
		}
	}
}

// resume lets a job go on, whatever happens meanwhile: else it would never end.
func (w *world) resume(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		_, err := w.witness.Resume(ctx, id)
		switch {
		case status.Code(err) == codes.ResourceExhausted && pause(ctx, 10*time.Millisecond):
			continue // the disk is full
		case err != nil:
			w.controlled(context.Background(), "resumes", id, err)
		}
		return
	}
}
