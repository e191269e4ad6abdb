package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Set is `tele set`.
type Set struct {
	Connection
	ID      string   `arg:"" help:"The job: its id, a unique beginning of that, or its name."`
	Changes []string `arg:"" name:"name=value" help:"What is to be different: cpu, memory, io_read, io_write, pids, or timeout, which is a time from the job's start, +TIME more than now, or none."`
}

// Run changes the job, and prints what was read back.
func (s *Set) Run(ctx context.Context, streams Streams) error {
	change, err := parseChanges(s.Changes)
	if err != nil {
		return err
	}
	c, err := s.dial(ctx, streams)
	if err != nil {
		return err
	}
	id := s.ID
	if change.more {
		if id, err = change.extend(ctx, c, id); err != nil {
			return err
		}
	}
	job, err := c.Update(ctx, id, change.limits, change.timeout)
	if err != nil {
		return err
	}
	warn(streams, job)
	for _, text := range s.Changes {
		name := limitName(text)
		if name == "timeout" {
			fmt.Fprintln(streams.Out, "timeout", timeoutText(job))
		}
		for _, l := range job.Limits {
			if l.Name == name && l.Applied != "" {
				fmt.Fprintln(streams.Out, l.Name, l.Applied)
			}
		}
	}
	return nil
}

// A change is what `tele set` is asked for.
type change struct {
	limits  *telev1.Limits
	timeout *time.Duration
	more    bool // timeout comes on top of what the job has
}

func parseChanges(texts []string) (c change, err error) {
	c.limits = &telev1.Limits{}
	fields := map[string]*string{"cpu": &c.limits.Cpu, "memory": &c.limits.Memory, "io_read": &c.limits.IoRead,
		"io_write": &c.limits.IoWrite, "pids": &c.limits.Pids}
	seen := map[string]bool{}
	for _, text := range texts {
		_, value, found := strings.Cut(text, "=")
		name := limitName(text)
		field := fields[name]
		switch {
		case !found || value == "" || field == nil && name != "timeout":
			return c, fmt.Errorf("%s: write it like memory=2G; there are cpu, memory, io_read, io_write, pids and timeout", text)
		case seen[name]:
			return c, fmt.Errorf("%s: %s is given twice", text, name)
		case field != nil:
			*field = value
		default:
			if err := c.parseTimeout(value); err != nil {
				return c, err
			}
		}
		seen[name] = true
	}
	return c, nil
}

// limitName is the name in NAME=VALUE, as in the JSON; flags of the same name are written with a hyphen.
func limitName(text string) string {
	name, _, _ := strings.Cut(text, "=")
	return strings.ReplaceAll(name, "-", "_")
}

func (c *change) parseTimeout(value string) error {
	c.timeout = new(time.Duration)
	if value == "none" {
		return nil
	}
	text, more := strings.CutPrefix(value, "+")
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return fmt.Errorf("timeout=%s: write a time from the job's start like 90s or 2h, one that comes on top like +30m, "+
			"or none", value)
	}
	*c.timeout, c.more = d, more
	return nil
}

// extend makes a timeout that comes on top one from the job's start, so that a request that has to be made
// again does not extend it twice.
func (c *change) extend(ctx context.Context, from *client.Client, id string) (fullID string, err error) {
	job, err := from.Get(ctx, id)
	if err != nil {
		return "", err
	}
	now := timeoutOf(job)
	if now == 0 {
		return "", fmt.Errorf("timeout=+%s: job %s has no timeout", *c.timeout, job.Id)
	}
	*c.timeout += now
	return job.Id, nil
}

// timeoutOf is a job's timeout as it is now; 0 is none.
func timeoutOf(job *telev1.Job) time.Duration {
	if job.Timeout != nil {
		return job.Timeout.AsDuration()
	}
	return job.Spec.GetTimeout().AsDuration()
}

func timeoutText(job *telev1.Job) string {
	if d := timeoutOf(job); d != 0 {
		return d.String()
	}
	return "none"
}
