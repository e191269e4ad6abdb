package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Status is `tele status`.
type Status struct {
	Connection
	Output string   `short:"o" help:"text or json." enum:"text,json" default:"text"`
	IDs    []string `arg:"" name:"id" optional:"" help:"The jobs, or unique beginnings of their ids; none is all."`
}

// Run shows the jobs.
func (s *Status) Run(ctx context.Context, streams Streams) error {
	c, err := s.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	var jobs []*telev1.Job
	if len(s.IDs) == 0 {
		jobs, err = c.List(ctx)
	} else {
		err = each(ctx, s.IDs, func(ctx context.Context, id string) error {
			job, err := c.Get(ctx, id)
			if err == nil {
				jobs = append(jobs, job)
			}
			return err
		})
	}
	if err != nil {
		return err
	}
	if s.Output == "json" {
		return printJSON(streams, jobs)
	}
	return printTable(streams, jobs)
}

// statusNames are the words for each status, in all of tele's output.
var statusNames = map[telev1.JobStatus]string{
	telev1.JobStatus_JOB_STATUS_SUBMITTED: "submitted", telev1.JobStatus_JOB_STATUS_RUNNING: "running",
	telev1.JobStatus_JOB_STATUS_SUCCESS: "success", telev1.JobStatus_JOB_STATUS_FAILED: "failed",
	telev1.JobStatus_JOB_STATUS_KILLED: "killed",
}

func reasonName(r telev1.Reason) string {
	if r == telev1.Reason_REASON_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(r.String(), "REASON_"))
}

func printTable(streams Streams, jobs []*telev1.Job) error {
	w := tabwriter.NewWriter(streams.Out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "JOB\tSTATUS\tCODE\tREASON\tAGE\tUSER\tCOMMAND")
	for _, j := range jobs {
		code := "-"
		if j.ExitCode != nil {
			code = strconv.Itoa(int(j.GetExitCode()))
		}
		reason := reasonName(j.Reason)
		if reason == "" {
			reason = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", j.Id, statusNames[j.Status], code, reason,
			age(time.Since(j.CreatedAt.AsTime())), j.User, shorten(strings.Join(j.Spec.GetCommand(), " ")))
	}
	return w.Flush()
}

// shorten makes a command fit on a line.
func shorten(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > 40 {
		return string(runes[:39]) + "…"
	}
	return text
}

func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// A jobJSON is a job as scripts see it. Names stay as they are.
type jobJSON struct {
	JobID     string                         `json:"job_id"`
	Status    string                         `json:"status"`
	ExitCode  *int32                         `json:"exit_code"`
	Reason    string                         `json:"reason"`
	Message   string                         `json:"message"`
	Command   []string                       `json:"command"`
	User      string                         `json:"user"`
	CreatedAt *time.Time                     `json:"created_at"`
	StartedAt *time.Time                     `json:"started_at"`
	EndedAt   *time.Time                     `json:"ended_at"`
	Limits    map[string]*telev1.LimitStatus `json:"limits"`
	Usage     *telev1.Usage                  `json:"usage"`
}

func instant(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

func printJSON(streams Streams, jobs []*telev1.Job) error {
	list := []jobJSON{}
	for _, j := range jobs {
		out := jobJSON{JobID: j.Id, Status: statusNames[j.Status], ExitCode: j.ExitCode,
			Reason: reasonName(j.Reason), Message: j.Message, Command: j.Spec.GetCommand(), User: j.User,
			CreatedAt: instant(j.CreatedAt), StartedAt: instant(j.StartedAt), EndedAt: instant(j.EndedAt),
			Limits: map[string]*telev1.LimitStatus{}, Usage: j.Usage}
		for _, l := range j.Limits {
			out.Limits[l.Name] = l
		}
		list = append(list, out)
	}
	encoder := json.NewEncoder(streams.Out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(list)
}

// Links is `tele links`.
type Links struct {
	Dir string `arg:"" help:"Where to make the links." type:"existingdir"`
}

// linked are the names that tele answers to.
var linked = []string{"teleworker", "telerun", "tele-run", "tele-start", "tele-status", "tele-logs",
	"tele-stop", "tele-wait", "tele-serve"}

// Run makes the links; one that is there already and leads elsewhere stays.
func (l *Links) Run(streams Streams) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, name := range linked {
		path := l.Dir + "/" + name
		if err := os.Symlink(self, path); err != nil {
			if to, readErr := os.Readlink(path); readErr != nil || to != self {
				return err
			}
		}
		fmt.Fprintln(streams.Out, path)
	}
	return nil
}
