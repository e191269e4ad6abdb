package cli

import (
	"context"
	"fmt"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Kill is `tele kill`.
type Kill struct {
	Connection
	Signal string   `short:"s" help:"The signal, like INT or 2." default:"TERM"`
	Whom   string   `help:"Who gets it: group (the command and what it started in its process group, as from a terminal), command (it alone) or all." enum:"group,command,all" default:"group"`
	IDs    []string `arg:"" name:"id" help:"The jobs: ids, unique beginnings of ids, or names."`
}

var signalTargets = map[string]telev1.SignalTarget{
	"group":   telev1.SignalTarget_SIGNAL_TARGET_GROUP,
	"command": telev1.SignalTarget_SIGNAL_TARGET_COMMAND,
	"all":     telev1.SignalTarget_SIGNAL_TARGET_ALL,
}

// Run sends the signal.
func (k *Kill) Run(ctx context.Context, streams Streams) error {
	c, err := k.dial(ctx, streams)
	if err != nil {
		return err
	}
	return each(ctx, k.IDs, func(ctx context.Context, id string) error {
		_, err := c.Signal(ctx, id, k.Signal, signalTargets[k.Whom])
		return err
	})
}

// Stop is `tele stop`.
type Stop struct {
	Connection
	Signal string        `help:"The first signal, like TERM or 15 (default: the one of --stop-signal, or TERM)." placeholder:"SIGNAL"`
	Grace  time.Duration `help:"How long to wait before the kill." default:"10s"`
	IDs    []string      `arg:"" name:"id" help:"The jobs: ids, unique beginnings of ids, or names."`
}

// Run stops the jobs.
func (s *Stop) Run(ctx context.Context, streams Streams) error {
	c, err := s.dial(ctx, streams)
	if err != nil {
		return err
	}
	return each(ctx, s.IDs, func(ctx context.Context, id string) error {
		job, err := c.Stop(ctx, id, s.Signal, s.Grace)
		if err == nil {
			fmt.Fprintf(streams.Out, "%s %s\n", job.Id, job.Message)
		}
		return err
	})
}

// Wait is `tele wait`.
type Wait struct {
	Connection
	IDs []string `arg:"" name:"id" help:"The jobs: ids, unique beginnings of ids, or names."`
}

// Run waits for the jobs.
func (w *Wait) Run(ctx context.Context, streams Streams) error {
	c, err := w.dial(ctx, streams)
	if err != nil {
		return err
	}
	var last *telev1.Job
	err = each(ctx, w.IDs, func(ctx context.Context, id string) error {
		job, err := c.Wait(ctx, id)
		last = job
		return err
	})
	if err != nil {
		return err
	}
	return exitOf(last)
}

// Rm is `tele rm`.
type Rm struct {
	Connection
	IDs []string `arg:"" name:"id" help:"The jobs: ids, unique beginnings of ids, or names."`
}

// Run removes the jobs.
func (r *Rm) Run(ctx context.Context, streams Streams) error {
	c, err := r.dial(ctx, streams)
	if err != nil {
		return err
	}
	return each(ctx, r.IDs, func(ctx context.Context, id string) error {
		job, err := c.Remove(ctx, id)
		if err == nil {
			fmt.Fprintln(streams.Out, job.Id, "removed")
		}
		return err
	})
}

// Prune is `tele prune`.
type Prune struct {
	Connection
	OlderThan time.Duration `help:"Only jobs that ended at least so long ago, like 24h." placeholder:"TIME"`
}

// Run removes the jobs and says what went.
func (p *Prune) Run(ctx context.Context, streams Streams) error {
	if p.OlderThan < 0 {
		return fmt.Errorf("--older-than %v: must not be negative", p.OlderThan)
	}
	c, err := p.dial(ctx, streams)
	if err != nil {
		return err
	}
	ids, bytes, err := c.Prune(ctx, p.OlderThan)
	if err != nil {
		return err
	}
	for _, id := range ids {
		fmt.Fprintln(streams.Out, id, "removed")
	}
	_, err = fmt.Fprintf(streams.Out, "%d jobs, %d bytes of output\n", len(ids), bytes)
	return err
}
