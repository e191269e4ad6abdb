package client

import (
	"context"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Pause freezes a running job, and returns when none of its processes runs any more.
func (c *Client) Pause(ctx context.Context, id string) (*telev1.Job, error) {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := unary(ctx, c.link, "the job may be paused; see: tele status "+id, c.jobs.Pause,
		&telev1.PauseRequest{JobId: id})
	return r.GetJob(), err
}

// Resume lets a paused job go on.
func (c *Client) Resume(ctx context.Context, id string) (*telev1.Job, error) {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := unary(ctx, c.link, "the job may be paused still; see: tele status "+id, c.jobs.Resume,
		&telev1.ResumeRequest{JobId: id})
	return r.GetJob(), err
}

// Update changes limits and the timeout of a running job: those fields of limits that are not empty, and
// timeout, counted from the job's start, when it is not nil; 0 is none. When it fails nothing has changed.
func (c *Client) Update(ctx context.Context, id string, limits *telev1.Limits,
	timeout *time.Duration) (*telev1.Job, error) {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return nil, err
	}
	request := &telev1.UpdateRequest{JobId: id, Limits: limits}
	if timeout != nil {
		request.Timeout = durationpb.New(*timeout)
	}
	r, err := unary(ctx, c.link, "the job may have been changed; see: tele status -o json "+id, c.jobs.Update, request)
	return r.GetJob(), err
}
