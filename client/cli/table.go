package cli

import (
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// leastCommand is what is shown of a command, however narrow the screen.
const leastCommand = 20

// printTable writes a line a job. The command, in the last column, takes what the others leave. Names have a
// column where there are any.
func printTable(out io.Writer, jobs []*telev1.Job, now time.Time, s screen) error {
	t := jobTable{screen: s}
	t.take(jobs, now)
	_, err := io.WriteString(out, t.header()+t.lines(jobs, now))
	return err
}

// A jobTable is a table of jobs. Its columns are as wide as what it was given.
type jobTable struct {
	screen
	names  bool
	widths []int // of all columns but the last
}

var jobColumns = []string{"JOB", "STATUS", "CODE", "REASON", "AGE", "USER", "NAME", "COMMAND"}

func jobRow(j *telev1.Job, now time.Time) []string {
	code := "-"
	if j.ExitCode != nil {
		code = strconv.Itoa(int(j.GetExitCode()))
	}
	reason := cmp.Or(reasonName(j.Reason), "-")
	if betweenTries(j) {
		reason = "try_failed"
	}
	return []string{j.Id, statusWord(j), code, reason,
		age(now.Sub(j.CreatedAt.AsTime())), j.User, cmp.Or(j.Spec.GetName(), "-"),
		printable(strings.Join(j.Spec.GetCommand(), " "))}
}

// take makes room for jobs.
func (t *jobTable) take(jobs []*telev1.Job, now time.Time) {
	t.names = t.names || slices.ContainsFunc(jobs, func(j *telev1.Job) bool { return j.Spec.GetName() != "" })
	if t.widths == nil {
		t.widths = make([]int, len(jobColumns)-1)
		t.fit(jobColumns)
	}
	for _, j := range jobs {
		t.fit(jobRow(j, now))
	}
}

func (t *jobTable) fit(row []string) {
	for column := range t.widths {
		t.widths[column] = max(t.widths[column], len(row[column])+2)
	}
}

// nameColumn is left out where no job has a name.
const nameColumn = 6

func (t *jobTable) header() string { return t.line(jobColumns, "1", "1") }

func (t *jobTable) lines(jobs []*telev1.Job, now time.Time) string {
	var text strings.Builder
	for _, j := range jobs {
		text.WriteString(t.line(jobRow(j, now), "", statusColors[j.Status]))
	}
	return text.String()
}

// line is a row, in a color of its own or with that of the status.
func (t *jobTable) line(row []string, all, status string) string {
	if !t.color {
		all, status = "", ""
	}
	left := t.width
	var text strings.Builder
	for column, width := range t.widths {
		if column == nameColumn && !t.names {
			continue
		}
		color := all
		if column == 1 {
			color = status
		}
		text.WriteString(colored(row[column], color))
		text.WriteString(strings.Repeat(" ", width-len(row[column])))
		left -= width
	}
	text.WriteString(colored(shorten(row[len(row)-1], max(left, leastCommand)), all))
	return text.String() + "\n"
}
