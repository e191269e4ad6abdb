package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Logs is `tele logs`.
type Logs struct {
	Connection
	NoFollow   bool     `help:"Show what there is and return, also while the job runs."`
	Stdout     bool     `help:"Only standard output." xor:"stream"`
	Stderr     bool     `help:"Only standard error." xor:"stream"`
	Tail       int      `help:"Begin with the last N lines." placeholder:"N"`
	Since      string   `help:"Begin with what was written since then: so long ago, like 10m, or at a time, like 14:30, 2026-05-31 or what -t shows." placeholder:"TIME"`
	Timestamps bool     `short:"t" help:"Put the time of arrival before each line."`
	IDs        []string `arg:"" name:"id" help:"The jobs: their ids, unique beginnings of these, or names. Of several, each line is put behind its job's id."`
}

// Run shows the output.
func (l *Logs) Run(ctx context.Context, streams Streams) error {
	if l.Tail < 0 {
		return fmt.Errorf("--tail %d: give a number of lines, 1 or more", l.Tail)
	}
	since, err := parseSince(l.Since, time.Now())
	if err != nil {
		return err
	}
	o := client.OutputOptions{Follow: !l.NoFollow, Tail: l.Tail, Since: since}
	switch {
	case l.Stdout:
		o.Stream = telev1.OutputStream_OUTPUT_STREAM_STDOUT
	case l.Stderr:
		o.Stream = telev1.OutputStream_OUTPUT_STREAM_STDERR
	}
	c, err := l.dial(ctx, streams)
	if err != nil {
		return err
	}
	if len(l.IDs) > 1 {
		return l.several(ctx, c, o, streams)
	}
	return l.show(ctx, c, l.IDs[0], o, streams)
}

// show shows the output of one job.
func (l *Logs) show(ctx context.Context, c *client.Client, id string, o client.OutputOptions, streams Streams) error {
	o.Event = tell(streams, "")
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
	_, err := c.Output(ctx, id, o, streams.Out, streams.Err)
	return err
}

// prefixColors tell jobs apart.
var prefixColors = []string{"36", "33", "32", "35", "34", "31"}

// several shows the outputs of several jobs at once. It is an error when one of them is not there, before
// anything is shown; one that is lost on the way is told, and the others go on.
func (l *Logs) several(ctx context.Context, c *client.Client, o client.OutputOptions, streams Streams) error {
	var ids []string
	for _, id := range l.IDs {
		job, err := c.Get(ctx, id)
		if err != nil {
			return err
		}
		if !slices.Contains(ids, job.Id) {
			ids = append(ids, job.Id)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var jobs sync.WaitGroup
	failed := false
	for i, id := range ids {
		prefixed := func(to io.Writer) *prefixer {
			p := &prefixer{mu: &mu, to: to, prefix: id + " | "}
			if screenOf(to).color {
				p.prefix = colored(id+" |", prefixColors[i%len(prefixColors)]) + " "
			}
			return p
		}
		out, errs := prefixed(streams.Out), prefixed(streams.Err)
		jobs.Go(func() {
			err := l.show(ctx, c, id, o, Streams{Out: out, Err: errs})
			err = errors.Join(err, out.end(), errs.end())
			var write *client.WriteError
			switch {
			case err == nil || ctx.Err() != nil:
			case errors.As(err, &write):
				cancel(err) // nobody reads the others either
			default:
				_, message := Exit(err, l.Addr)
				mu.Lock()
				defer mu.Unlock()
				failed = true
				fmt.Fprintf(streams.Err, "tele: job %s: %s\n", id, message)
			}
		})
	}
	jobs.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case failed:
		return exitError(exitTele)
	}
	return nil
}

// longestLine is how much of a line is kept back until the rest of it has come.
const longestLine = 256 << 10

// A prefixer writes whole lines, each behind a prefix, so that several can write to the same place. A line
// that is longer than longestLine becomes two.
type prefixer struct {
	mu     *sync.Mutex // of the place
	to     io.Writer
	prefix string
	line   []byte // the beginning of one
}

func (p *prefixer) Write(data []byte) (int, error) {
	var out []byte
	for rest := data; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		if room := longestLine - len(p.line); len(line) > room {
			line, after, whole = rest[:room], rest[room:], true
		}
		p.line, rest = append(p.line, line...), after
		if whole {
			out = p.take(out)
		}
	}
	return len(data), p.put(out)
}

// take moves the line behind out.
func (p *prefixer) take(out []byte) []byte {
	out = append(append(append(out, p.prefix...), p.line...), '\n')
	p.line = p.line[:0]
	return out
}

func (p *prefixer) put(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.to.Write(out)
	return err
}

// end writes a last line that has no newline.
func (p *prefixer) end() error {
	if len(p.line) == 0 {
		return nil
	}
	return p.put(p.take(nil))
}

// parseSince reads a time, or how long before now it was. Without a zone it is this machine's time, and
// without a date today's.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04",
		time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if at, err := time.Parse(layout, text); err == nil {
			y, m, d := now.Date()
			return time.Date(y, m, d, at.Hour(), at.Minute(), at.Second(), at.Nanosecond(), now.Location()), nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %s: give how long ago, like 90s, 10m or 1h30m, or a time, like 14:30, "+
		"2026-05-31, \"2026-05-31 14:30:00\" or 2026-05-31T14:30:00Z", text)
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
