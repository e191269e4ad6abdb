package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Status is `tele status`.
type Status struct {
	Connection
	Output string   `short:"o" help:"text or json." enum:"text,json" default:"text"`
	IDs    []string `arg:"" name:"id" optional:"" help:"The jobs: ids, unique beginnings of ids, or names; none is all."`
}

// Run shows the jobs.
func (s *Status) Run(ctx context.Context, streams Streams) error {
	c, err := s.dial(ctx, streams)
	if err != nil {
		return err
	}
	var jobs []*telev1.Job
	if len(s.IDs) == 0 {
		jobs, err = c.List(ctx, client.ListOptions{Brief: s.Output == "text"})
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
		return printJSON(streams.Out, jobs)
	}
	if err := printTable(streams.Out, jobs, time.Now(), screenOf(streams.Out)); err != nil {
		return err
	}
	for _, job := range jobs { // of a list of all, no tries are known
		printTries(streams.Out, job)
	}
	return nil
}

// statusNames are the words for each status, in all of tele's output.
var statusNames = map[telev1.JobStatus]string{
	telev1.JobStatus_JOB_STATUS_SUBMITTED: "submitted", telev1.JobStatus_JOB_STATUS_RUNNING: "running",
	telev1.JobStatus_JOB_STATUS_SUCCESS: "success", telev1.JobStatus_JOB_STATUS_FAILED: "failed",
	telev1.JobStatus_JOB_STATUS_KILLED: "killed",
}

// statusWord is the status as a table shows it: of a paused job, that it is.
func statusWord(j *telev1.Job) string {
	if j.Paused {
		return "paused"
	}
	return statusNames[j.Status]
}

func reasonName(r telev1.Reason) string {
	if r == telev1.Reason_REASON_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(r.String(), "REASON_"))
}

// statusColors are ANSI's, for those that are not as usual.
var statusColors = map[telev1.JobStatus]string{
	telev1.JobStatus_JOB_STATUS_RUNNING: "36", telev1.JobStatus_JOB_STATUS_SUCCESS: "32",
	telev1.JobStatus_JOB_STATUS_FAILED: "31", telev1.JobStatus_JOB_STATUS_KILLED: "33",
}

// A screen is what a table is written for.
type screen struct {
	width int
	color bool
}

// screenOf is the terminal that out is, or 80 columns without colours. NO_COLOR is no-color.org's.
func screenOf(out io.Writer) screen {
	size := sizeOf(out)
	if size == nil {
		return screen{width: 80}
	}
	s := screen{width: int(size.Col), color: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	if s.width == 0 { // a terminal that does not know its size
		s.width = 80
	}
	return s
}

// sizeOf is the size of the terminal that out is, nil when it is none.
func sizeOf(out io.Writer) *unix.Winsize {
	f, ok := out.(*os.File)
	if !ok {
		return nil
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return nil
	}
	return size
}

func colored(text, color string) string {
	if color == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// printable replaces what could move the cursor or change the terminal: somebody else wrote it.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

func shorten(text string, width int) string {
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width-1]) + "…"
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

// A jobJSON is a job as scripts see it. Names stay as they are, and all are always there.
type jobJSON struct {
	JobID     string               `json:"job_id"`
	Status    string               `json:"status"`
	ExitCode  *int32               `json:"exit_code"`
	Reason    string               `json:"reason"`
	Message   string               `json:"message"`
	Name      string               `json:"name"`
	Labels    map[string]string    `json:"labels"`
	Command   []string             `json:"command"`
	User      string               `json:"user"`
	CreatedAt *time.Time           `json:"created_at"`
	StartedAt *time.Time           `json:"started_at"`
	EndedAt   *time.Time           `json:"ended_at"`
	Limits    map[string]limitJSON `json:"limits"`
	Usage     usageJSON            `json:"usage"`
	Paused    bool                 `json:"paused"`
	Timeout   string               `json:"timeout"` // like 1h30m0s, or none
	Tries     []tryJSON            `json:"tries"`
	Files     *filesJSON           `json:"files"` // null without --download, and before the job's end
	outputJSON
}

// A filesJSON is what is kept of a job's files.
type filesJSON struct {
	Bytes    uint64   `json:"bytes"` // of the tar stream
	Error    string   `json:"error"`
	Warnings []string `json:"warnings"`
}

func filesOf(f *telev1.KeptFiles) *filesJSON {
	if f == nil {
		return nil
	}
	return &filesJSON{f.Bytes, f.Error, append([]string{}, f.Warnings...)}
}

type limitJSON struct {
	Asked   string `json:"asked"`
	Applied string `json:"applied"`
	How     string `json:"how"`
	WhyNot  string `json:"why_not"`
}

// A usageJSON has null for what the machine's cgroups do not count.
type usageJSON struct {
	CPUUsec         *uint64 `json:"cpu_usec"`
	CPUUserUsec     *uint64 `json:"cpu_user_usec"`
	CPUSystemUsec   *uint64 `json:"cpu_system_usec"`
	ThrottledUsec   *uint64 `json:"throttled_usec"`
	ThrottledCount  *uint64 `json:"throttled_count"`
	MemoryPeakBytes *uint64 `json:"memory_peak_bytes"`
	OOMKills        *uint64 `json:"oom_kills"`
	IOReadBytes     *uint64 `json:"io_read_bytes"`
	IOWriteBytes    *uint64 `json:"io_write_bytes"`
	PidsPeak        *uint64 `json:"pids_peak"`
	PidsLimitHits   *uint64 `json:"pids_limit_hits"`
	StallCPUUsec    *uint64 `json:"stall_cpu_usec"`
	StallMemoryUsec *uint64 `json:"stall_memory_usec"`
	StallIOUsec     *uint64 `json:"stall_io_usec"`
	LargestProcess  *uint64 `json:"largest_process_bytes"`
	WallUsec        *uint64 `json:"wall_usec"`
}

func usageOf(u *telev1.Usage) usageJSON {
	if u == nil {
		return usageJSON{}
	}
	return usageJSON{u.CpuUsec, u.CpuUserUsec, u.CpuSystemUsec, u.ThrottledUsec, u.ThrottledCount,
		u.MemoryPeakBytes, u.OomKills, u.IoReadBytes, u.IoWriteBytes, u.PidsPeak,
		u.PidsLimitHits, u.StallCpuUsec, u.StallMemoryUsec, u.StallIoUsec, u.LargestProcessBytes, u.WallUsec}
}

// An outputJSON is what became of a job's output, and how much it was given to read.
type outputJSON struct {
	StdoutBytes   uint64 `json:"stdout_bytes"`
	StderrBytes   uint64 `json:"stderr_bytes"`
	DroppedBytes  uint64 `json:"dropped_bytes"`
	OutputRemoved bool   `json:"output_removed"`
	StdinBytes    uint64 `json:"stdin_bytes"`
}

func instant(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

func printJSON(out io.Writer, jobs []*telev1.Job) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(jsonOf(jobs))
}

func jsonOf(jobs []*telev1.Job) []jobJSON {
	list := []jobJSON{}
	for _, j := range jobs {
		job := jobJSON{JobID: j.Id, Status: statusNames[j.Status], ExitCode: j.ExitCode,
			Reason: reasonName(j.Reason), Message: j.Message, Command: j.Spec.GetCommand(), User: j.User,
			Name: j.Spec.GetName(), Labels: map[string]string{},
			CreatedAt: instant(j.CreatedAt), StartedAt: instant(j.StartedAt), EndedAt: instant(j.EndedAt),
			Limits: map[string]limitJSON{}, Usage: usageOf(j.Usage), Paused: j.Paused, Timeout: timeoutText(j), Tries: triesOf(j), Files: filesOf(j.Files),
			outputJSON: outputJSON{j.StdoutBytes, j.StderrBytes, j.DroppedBytes, j.OutputRemoved, j.StdinBytes}}
		maps.Copy(job.Labels, j.Spec.GetLabels())
		for _, l := range j.Limits {
			job.Limits[l.Name] = limitJSON{Asked: l.Asked, Applied: l.Applied, How: l.How, WhyNot: l.WhyNot}
		}
		list = append(list, job)
	}
	return list
}

// Links is `tele links`.
type Links struct {
	Dir string `arg:"" help:"Where to make the links." type:"existingdir"`
}

// linked are the names that tele answers to.
var linked = []string{"teleworker", "telerun", "tele-run", "tele-start", "tele-status", "tele-ps", "tele-events", "tele-top", "tele-logs",
	"tele-why", "tele-attach", "tele-exec", "tele-cp", "tele-download", "tele-kill", "tele-pause", "tele-resume", "tele-set", "tele-stop", "tele-wait", "tele-rm", "tele-prune", "tele-diff", "tele-serve",
	"tele-doctor", "tele-certs", "tele-context",
	"tele-completion", "tele-help", "tele-version"}

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
				return fmt.Errorf("%w (and it is no link to %s: remove it, or choose another directory)", err, self)
			}
		}
		fmt.Fprintln(streams.Out, path)
	}
	return nil
}
