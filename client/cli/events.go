package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Events is `tele events`.
type Events struct {
	Connection
	Follow bool     `short:"f" help:"Show what happens from now on, or from --since or --after, until interrupted. Without it: what is kept."`
	Since  string   `help:"Only what happened since then: so long ago, like 10m, or at a time, like 14:30, 2026-05-31 or what -o json shows." placeholder:"TIME"`
	After  string   `help:"Only what happened after the event that has this cursor in -o json." placeholder:"CURSOR"`
	Kind   []string `help:"Only these: started, paused, resumed, updated, stopping, ended, restarting, output_removed, removed." enum:"started,paused,resumed,updated,stopping,ended,restarting,output_removed,removed" placeholder:"KIND"`
	Label  []string `short:"l" help:"Only of jobs with this label, K=V, or K for any value; may be repeated, then with all." placeholder:"K[=V]" sep:"none"`
	Output string   `short:"o" help:"text, or json: an object a line." enum:"text,json" default:"text"`
	Format string   `help:"A line for each event, by a template as in tele ps, over the names of -o json, like '{{.job.job_id}} {{.kind}}'." placeholder:"TEMPLATE"`
	IDs    []string `arg:"" name:"id" optional:"" help:"Only of these jobs: ids, unique beginnings of ids, or names; none is all."`
}

// Help is the long help of `tele events`.
func (*Events) Help() string {
	return `A line each: when it happened, the job, what happened, whose job it is, and more about it. Each change of a job
is told once. The server keeps the last ones, some ten thousand, also over its restarts.

With -o json each has a cursor: --after goes on behind it, where another call ended. When that is too long ago
to be kept, tele ends with 125 and says so; tele ps shows how the jobs are then.`
}

// Run shows the events.
func (e *Events) Run(ctx context.Context, streams Streams) error {
	since, err := parseSince(e.Since, time.Now())
	if err != nil {
		return err
	}
	if e.Output == "json" && e.Format != "" {
		return errors.New("-o json and --format can't be used together: each is a form of its own")
	}
	format, err := parseFormat(e.Format)
	if err != nil {
		return err
	}
	if since.IsZero() && e.After == "" && !e.Follow {
		since = time.Unix(0, 0)
	}
	c, err := e.dial(ctx, streams)
	if err != nil {
		return err
	}
	o := client.WatchOptions{Cursor: e.After, Since: since, Follow: e.Follow, Jobs: e.IDs, Labels: e.Label}
	for kind, name := range eventNames {
		for _, word := range e.Kind {
			if word == name {
				o.Kinds = append(o.Kinds, kind)
			}
		}
	}
	show := e.line(streams.Out, format)
	for message, err := range c.Watch(ctx, o) {
		if err != nil {
			return err
		}
		if message.Event == nil {
			continue
		}
		if err := show(message); err != nil {
			return err
		}
	}
	return nil
}

// line returns a function that writes a message in the form that was asked for.
func (e *Events) line(out io.Writer, format *template.Template) func(*telev1.WatchResponse) error {
	switch {
	case format != nil:
		return func(m *telev1.WatchResponse) error { return printFormat(out, []eventJSON{eventOf(m)}, format) }
	case e.Output == "json":
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		return func(m *telev1.WatchResponse) error { return encoder.Encode(eventOf(m)) }
	}
	return func(m *telev1.WatchResponse) error {
		_, err := fmt.Fprintln(out, eventText(m.Event, screenOf(out)))
		return err
	}
}

// eventNames are the words for each kind, in all of tele's output.
var eventNames = map[telev1.EventKind]string{
	telev1.EventKind_EVENT_KIND_STARTED: "started", telev1.EventKind_EVENT_KIND_PAUSED: "paused",
	telev1.EventKind_EVENT_KIND_RESUMED: "resumed", telev1.EventKind_EVENT_KIND_UPDATED: "updated",
	telev1.EventKind_EVENT_KIND_STOPPING: "stopping", telev1.EventKind_EVENT_KIND_ENDED: "ended",
	telev1.EventKind_EVENT_KIND_OUTPUT_REMOVED: "output_removed", telev1.EventKind_EVENT_KIND_REMOVED: "removed",
	telev1.EventKind_EVENT_KIND_RESTARTING: "restarting",
}

// eventName is the word for a kind, also for one that only the server knows.
func eventName(kind telev1.EventKind) string {
	return cmp.Or(eventNames[kind], strings.ToLower(strings.TrimPrefix(kind.String(), "EVENT_KIND_")))
}

// eventText is an event as a line of no more than the screen's width.
func eventText(e *telev1.Event, s screen) string {
	job := e.GetJob()
	about := e.Message
	if e.Kind == telev1.EventKind_EVENT_KIND_STARTED {
		about = strings.Join(job.GetSpec().GetCommand(), " ")
	}
	if name := job.GetSpec().GetName(); name != "" {
		about = strings.TrimSuffix(name+": "+about, ": ")
	}
	line := fmt.Sprintf("%s  %-12s  %-10s  %s  ", e.Time.AsTime().Local().Format(time.DateTime), job.GetId(), eventName(e.Kind),
		printable(job.GetUser()))
	line += shorten(printable(about), max(s.width-len([]rune(line)), leastCommand))
	return strings.TrimRight(line, " ")
}

// An eventJSON is an event as scripts see it. Names stay as they are, and all are always there.
type eventJSON struct {
	Cursor  string    `json:"cursor"`
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Message string    `json:"message"`
	Job     briefJSON `json:"job"`
}

// A briefJSON is of a jobJSON what an event has.
type briefJSON struct {
	JobID    string            `json:"job_id"`
	Status   string            `json:"status"`
	ExitCode *int32            `json:"exit_code"`
	Reason   string            `json:"reason"`
	Message  string            `json:"message"`
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels"`
	Command  []string          `json:"command"`
	User     string            `json:"user"`
	Paused   bool              `json:"paused"`

	CreatedAt *time.Time `json:"created_at"`
	StartedAt *time.Time `json:"started_at"`
	EndedAt   *time.Time `json:"ended_at"`
}

func eventOf(m *telev1.WatchResponse) eventJSON {
	e := m.Event
	j := jsonOf([]*telev1.Job{e.GetJob()})[0]
	return eventJSON{Cursor: m.Cursor, Time: e.Time.AsTime(), Kind: eventName(e.Kind), Message: e.Message,
		Job: briefJSON{j.JobID, j.Status, j.ExitCode, j.Reason, j.Message, j.Name, j.Labels, j.Command, j.User, j.Paused,
			j.CreatedAt, j.StartedAt, j.EndedAt}}
}
