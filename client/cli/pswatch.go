package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// This file is `tele ps --watch`: the jobs are listed once, and then changed as events say.

// A psView is what is shown.
type psView struct {
	*Ps
	began  time.Time
	out    io.Writer
	format *template.Template
	jobs   map[string]*telev1.Job
	table  jobTable // where it is no terminal
	drawn  time.Time
}

// watch shows the jobs until ctx ends. Behind events that are not kept any more it lists them again.
func (p *Ps) watch(ctx context.Context, c *client.Client, format *template.Template, out io.Writer) error {
	v := &psView{Ps: p, began: time.Now(), out: out, format: format, jobs: map[string]*telev1.Job{}}
	for {
		err := v.follow(ctx, c)
		if err == nil || reasonOf(err) != "EVENTS_GONE" {
			return err
		}
	}
}

func (v *psView) follow(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type news struct {
		message *telev1.WatchResponse
		err     error
	}
	events := make(chan news)
	go func() {
		for message, err := range c.Watch(ctx, client.WatchOptions{Follow: true}) {
			select {
			case events <- news{message, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	screen := v.format == nil && sizeOf(v.out) != nil
	listed := false
	// Ages are shown in seconds at first.
	var clock <-chan time.Time
	if screen {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		clock = ticker.C
	}
	for {
		select {
		case n := <-events:
			err := n.err
			switch {
			case err != nil:
			case !listed:
				listed = true
				err = v.list(ctx, c, screen)
			case n.message.Event != nil:
				err = v.take(n.message.Event, screen)
			}
			if err != nil {
				return err
			}
		case <-clock:
			if err := v.draw(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// list begins with the jobs that there are.
func (v *psView) list(ctx context.Context, c *client.Client, screen bool) error {
	o := v.options()
	o.Brief = v.format == nil
	jobs, err := c.List(ctx, o)
	if err != nil {
		return err
	}
	jobs = v.without(jobs)
	again := len(v.jobs) > 0
	clear(v.jobs)
	for _, j := range jobs {
		v.jobs[j.Id] = j
	}
	switch {
	case screen:
		return v.draw()
	case v.format != nil:
		sortJobs(jobs, v.Sort)
		return printFormat(v.out, jsonOf(jobs), v.format)
	}
	sortJobs(jobs, v.Sort)
	v.table.screen, v.table.names = screenOf(v.out), true // some may have names that come later
	v.table.take(jobs, time.Now())
	header := v.table.header()
	if again {
		header = "" // it is there
	}
	_, err = io.WriteString(v.out, header+v.table.lines(jobs, time.Now()))
	return err
}

// take is an event.
func (v *psView) take(e *telev1.Event, screen bool) error {
	job := e.GetJob()
	known, when := v.jobs[job.GetId()], time.Now()
	if known.GetEndedAt() != nil && job.GetEndedAt() == nil {
		return nil // it was listed after that
	}
	removed, fits := e.Kind == telev1.EventKind_EVENT_KIND_REMOVED, v.fits(job)
	if removed || !fits {
		delete(v.jobs, job.GetId())
	} else {
		v.jobs[job.GetId()] = job
	}
	switch {
	case screen && time.Since(v.drawn) < drawnAfter:
		return nil // with what else comes now
	case screen:
		return v.draw()
	// What is shown elsewhere cannot be taken back: a job that does not fit any more is shown once more, as it is.
	case removed, !fits && known == nil:
		return nil
	case v.format == nil && known != nil && slices.Equal(jobRow(known, when), jobRow(job, when)):
		return nil
	case v.format != nil:
		return printFormat(v.out, jsonOf([]*telev1.Job{job}), v.format)
	}
	v.table.take([]*telev1.Job{job}, when)
	_, err := io.WriteString(v.out, v.table.lines([]*telev1.Job{job}, when))
	return err
}

// fits is what the server goes by in a list.
func (v *psView) fits(j *telev1.Job) bool {
	spec := j.GetSpec()
	switch {
	case len(v.Status) > 0 && !slices.Contains(v.Status, statusWord(j)) &&
		!(j.Paused && slices.Contains(v.Status, "running")),
		v.Name != "" && spec.GetName() != v.Name,
		v.User != "" && j.GetUser() != v.User,
		v.Since > 0 && j.CreatedAt.AsTime().Before(v.began.Add(-v.Since)),
		!strings.Contains(strings.Join(spec.GetCommand(), " "), v.Command):
		return false
	}
	return !slices.ContainsFunc(v.Label, func(label string) bool {
		key, want, hasValue := strings.Cut(label, "=")
		value, found := spec.GetLabels()[key]
		return !found || hasValue && value != want
	})
}

// drawnAfter is how long a table stays at least; changes within that time are shown with the next second's.
const drawnAfter = 100 * time.Millisecond

// leastRows are the header, what is left out, and where the cursor stays.
const leastRows = 3

// draw writes the table over what was there. Nothing of the terminal is changed that would have to be put back.
func (v *psView) draw() error {
	v.drawn = time.Now()
	jobs := slices.SortedFunc(maps.Values(v.jobs), func(a, b *telev1.Job) int {
		return b.CreatedAt.AsTime().Compare(a.CreatedAt.AsTime())
	})
	sortJobs(jobs, v.Sort)
	rows := 24
	if size := sizeOf(v.out); size != nil && size.Row > 0 {
		rows = max(int(size.Row), leastRows)
	}
	more := ""
	if over := len(jobs) - (rows - 3); over > 1 {
		jobs, more = jobs[:rows-3], fmt.Sprintf("%d more\n", over)
	}
	t := jobTable{screen: screenOf(v.out)}
	t.take(jobs, time.Now())
	text := t.header() + t.lines(jobs, time.Now()) + more
	_, err := io.WriteString(v.out, "\x1b[H"+strings.ReplaceAll(text, "\n", "\x1b[K\n")+"\x1b[J")
	return err
}
