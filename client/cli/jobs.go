package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Logs is `tele logs`.
type Logs struct {
	Connection
	NoFollow   bool   `help:"Show what there is and return, also while the job runs."`
	Stdout     bool   `help:"Only standard output." xor:"stream"`
	Stderr     bool   `help:"Only standard error." xor:"stream"`
	Tail       int    `help:"Begin with the last N lines." placeholder:"N"`
	Timestamps bool   `short:"t" help:"Put the time of arrival before each line."`
	ID         string `arg:"" help:"The job: its id, a unique beginning of that, or its name."`
}

// Run shows the output.
func (l *Logs) Run(ctx context.Context, streams Streams) error {
	if l.Tail < 0 {
		return fmt.Errorf("--tail %d: give a number of lines, 1 or more", l.Tail)
	}
	c, err := l.dial(streams)
	if err != nil {
		return err
	}
	defer c.Close()
	o := client.OutputOptions{Follow: !l.NoFollow, Tail: l.Tail, Event: tell(streams, "")}
	switch {
	case l.Stdout:
		o.Stream = telev1.OutputStream_OUTPUT_STREAM_STDOUT
	case l.Stderr:
		o.Stream = telev1.OutputStream_OUTPUT_STREAM_STDERR
	}
	if l.Timestamps {
		stamps := map[telev1.OutputStream]*stamper{}
		for stream, out := range map[telev1.OutputStream]io.Writer{
			telev1.OutputStream_OUTPUT_STREAM_STDOUT: streams.Out,
			telev1.OutputStream_OUTPUT_STREAM_STDERR: streams.Err,
		} {
			stamps[stream] = &stamper{out: out, fresh: true}
		}
		o.Chunk = func(r *telev1.StreamOutputResponse) error {
			return stamps[r.Stream].write(r.Data, r.Time.AsTime())
		}
	}
	_, err = c.Output(ctx, l.ID, o, streams.Out, streams.Err)
	return err
}

// tell returns a function that prints a line for each event of a job's output. Not every command knows
// the limit.
func tell(streams Streams, limit string) func(telev1.OutputEvent) {
	if limit != "" {
		limit = " of " + limit
	}
	return func(e telev1.OutputEvent) {
		if e == telev1.OutputEvent_OUTPUT_EVENT_LIMIT_REACHED {
			fmt.Fprintf(streams.Err, "tele: output limit%s reached; what the job writes after it is not kept\n", limit)
		}
	}
}

// A stamper writes the time before each line.
type stamper struct {
	out   io.Writer
	fresh bool // at the beginning of a line
}

func (s *stamper) write(data []byte, at time.Time) error {
	var out []byte
	for _, b := range data {
		if s.fresh {
			out = append(at.UTC().AppendFormat(out, "2006-01-02T15:04:05.000000Z"), ' ')
		}
		out = append(out, b)
		s.fresh = b == '\n'
	}
	_, err := s.out.Write(out)
	return err
}

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
	c, err := k.dial(streams)
	if err != nil {
		return err
	}
	defer c.Close()
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
	c, err := s.dial(streams)
	if err != nil {
		return err
	}
	defer c.Close()
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
	c, err := w.dial(streams)
	if err != nil {
		return err
	}
	defer c.Close()
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
	c, err := r.dial(streams)
	if err != nil {
		return err
	}
	defer c.Close()
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
	c, err := p.dial(streams)
	if err != nil {
		return err
	}
	defer c.Close()
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
