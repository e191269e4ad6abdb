package cli

import (
	"context"
)

// Pause is `tele pause`.
type Pause struct {
	Connection
	IDs []string `arg:"" name:"id" help:"The jobs: ids, unique beginnings of ids, or names."`
}

// Run pauses the jobs.
func (p *Pause) Run(ctx context.Context, streams Streams) error {
	c, err := p.dial(ctx, streams)
	if err != nil {
		return err
	}
	return each(ctx, p.IDs, func(ctx context.Context, id string) error {
		_, err := c.Pause(ctx, id)
		return err
	})
}

// Resume is `tele resume`.
type Resume struct {
	Connection
	IDs []string `arg:"" name:"id" help:"The jobs: ids, unique beginnings of ids, or names."`
}

// Run resumes the jobs.
func (r *Resume) Run(ctx context.Context, streams Streams) error {
	c, err := r.dial(ctx, streams)
	if err != nil {
		return err
	}
	return each(ctx, r.IDs, func(ctx context.Context, id string) error {
		_, err := c.Resume(ctx, id)
		return err
	})
}
