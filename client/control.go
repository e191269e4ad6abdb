package client

import (
	"context"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Pause freezes a running job, and returns when none of its processes runs any more.
func (c *Client) Pause(ctx context.Context, id string) (*telev1.Job, error) {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := unary(ctx, c.link, "the job may be paused; see: tele status "+id, c.jobs.Pause, &telev1.PauseRequest{JobId: id})
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
