package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Ps is `tele ps`.
type Ps struct {
	Connection
	Status  []string      `help:"Only jobs with one of these: submitted, running, paused, success, failed, killed." enum:"submitted,running,paused,success,failed,killed" placeholder:"STATUS" group:"Filters"`
	Label   []string      `short:"l" help:"Only jobs with this label, K=V, or K for any value; may be repeated, then with all." placeholder:"K[=V]" sep:"none" group:"Filters"`
	Name    string        `help:"Only jobs of this name." placeholder:"NAME" group:"Filters"`
	User    string        `help:"Only jobs of this user." placeholder:"USER" group:"Filters"`
	Since   time.Duration `help:"Only jobs that were started in this time, like 1h." placeholder:"TIME" group:"Filters"`
	Command string        `help:"Only jobs whose command has this in it." placeholder:"TEXT" group:"Filters"`
	Sort    string        `help:"By what: newest, oldest, ended (the last one first), name, user, status or command." enum:"newest,oldest,ended,name,user,status,command" default:"newest"`
	Output  string        `short:"o" help:"text or json." enum:"text,json" default:"text"`
	Quiet   bool          `short:"q" help:"Only ids." xor:"form"`
	Watch   bool          `short:"w" help:"Go on and show what changes: on a terminal the table anew, elsewhere a line for each change."`
	Format  string        `help:"A line for each job, by a template of Go's text/template over the names of -o json, like '{{.job_id}} {{.user}}'; json and join are functions." placeholder:"TEMPLATE" xor:"form"`
}

// Run lists the jobs.
func (p *Ps) Run(ctx context.Context, streams Streams) error {
	if p.Since < 0 {
		return fmt.Errorf("--since %v: must not be negative", p.Since)
	}
	if p.Output == "json" && (p.Quiet || p.Format != "") {
		return errors.New("-o json, -q and --format can't be used together: each is a form of its own")
	}
	if p.Watch && (p.Quiet || p.Output == "json") {
		return errors.New("--watch does not go together with -q and -o json; for scripts there is tele events -f -o json")
	}
	format, err := parseFormat(p.Format)
	if err != nil {
		return err
	}
	c, err := p.dial(ctx, streams)
	if err != nil {
		return err
	}
	if p.Watch {
		return p.watch(ctx, c, format, streams.Out)
	}
	jobs, err := c.List(ctx, p.options())
	if err != nil {
		return err
	}
	jobs = p.without(jobs)
	sortJobs(jobs, p.Sort)
	switch {
	case p.Quiet:
		for _, j := range jobs {
			fmt.Fprintln(streams.Out, j.Id)
		}
		return nil
	case format != nil:
		return printFormat(streams.Out, jsonOf(jobs), format)
	case p.Output == "json":
		return printJSON(streams.Out, jobs)
	}
	return printTable(streams.Out, jobs, time.Now(), screenOf(streams.Out))
}

// without leaves out running jobs where only paused ones are wanted, which the server does not tell apart.
func (p *Ps) without(jobs []*telev1.Job) []*telev1.Job {
	if !slices.Contains(p.Status, "paused") || slices.Contains(p.Status, "running") {
		return jobs
	}
	return slices.DeleteFunc(jobs, func(j *telev1.Job) bool {
		return j.Status == telev1.JobStatus_JOB_STATUS_RUNNING && !j.Paused
	})
}

// options are the filters, which the server goes by.
func (p *Ps) options() client.ListOptions {
	o := client.ListOptions{Labels: p.Label, Name: p.Name, User: p.User, Since: p.Since, Command: p.Command,
		Brief: p.Output == "text" && p.Format == ""}
	for _, word := range p.Status {
		for status, name := range statusNames {
			// Paused jobs are running ones.
			if word == name || word == "paused" && status == telev1.JobStatus_JOB_STATUS_RUNNING {
				o.Statuses = append(o.Statuses, status)
			}
		}
	}
	return o
}

// sortJobs sorts jobs that come newest first; those that are alike stay so.
func sortJobs(jobs []*telev1.Job, by string) {
	text := func(f func(*telev1.Job) string) func(a, b *telev1.Job) int {
		return func(a, b *telev1.Job) int { return strings.Compare(f(a), f(b)) }
	}
	switch by {
	case "oldest":
		slices.Reverse(jobs)
	case "ended": // those that run first
		slices.SortStableFunc(jobs, func(a, b *telev1.Job) int {
			if a.EndedAt == nil || b.EndedAt == nil {
				return cmp.Compare(endedRank(a), endedRank(b))
			}
			return b.EndedAt.AsTime().Compare(a.EndedAt.AsTime())
		})
	case "name":
		slices.SortStableFunc(jobs, text(func(j *telev1.Job) string { return j.Spec.GetName() }))
	case "user":
		slices.SortStableFunc(jobs, text(func(j *telev1.Job) string { return j.User }))
	case "status":
		slices.SortStableFunc(jobs, func(a, b *telev1.Job) int { return cmp.Compare(a.Status, b.Status) })
	case "command":
		slices.SortStableFunc(jobs, text(func(j *telev1.Job) string { return strings.Join(j.Spec.GetCommand(), " ") }))
	}
}

func endedRank(j *telev1.Job) int {
	if j.EndedAt == nil {
		return 0
	}
	return 1
}

// parseFormat reads a template; nil for none.
func parseFormat(text string) (*template.Template, error) {
	if text == "" {
		return nil, nil
	}
	functions := template.FuncMap{
		"json": func(value any) (string, error) {
			var out bytes.Buffer
			encoder := json.NewEncoder(&out)
			encoder.SetEscapeHTML(false)
			err := encoder.Encode(value)
			return strings.TrimSuffix(out.String(), "\n"), err
		},
		"join": func(list any, between string) string {
			var words []string
			each, _ := list.([]any) // null has none
			for _, word := range each {
				words = append(words, fmt.Sprint(word))
			}
			return strings.Join(words, between)
		},
	}
	t, err := template.New("--format").Funcs(functions).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w (write it like '{{.job_id}} {{.user}}', with the names of -o json)", err)
	}
	return t, nil
}

// printFormat writes a line for each of a list. The fields are those of the JSON form, made by reading that.
func printFormat[T any](out io.Writer, what []T, format *template.Template) error {
	data, err := json.Marshal(what)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // 64 bits
	var list []map[string]any
	if err := decoder.Decode(&list); err != nil {
		return err
	}
	terminal := sizeOf(out) != nil
	for _, fields := range list {
		var line strings.Builder
		if err := format.Execute(&line, fields); err != nil {
			return fmt.Errorf("%w (the names are those of -o json)", err)
		}
		text := line.String()
		if terminal { // and it is no script that reads it
			text = printable(text)
		}
		if _, err := fmt.Fprintln(out, text); err != nil {
			return err
		}
	}
	return nil
}
