package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Top is `tele top`.
type Top struct {
	Connection
	Once     bool          `help:"Print the table once, as is done where there is no terminal."`
	Interval time.Duration `short:"d" help:"How often to look." default:"1s" placeholder:"TIME"`
	Sort     string        `help:"By what: cpu, memory, io, pids, age (the newest first), user or job." enum:"cpu,memory,io,pids,age,user,job" default:"cpu"`
	User     string        `help:"Only jobs of this user." placeholder:"USER"`
	Label    []string      `short:"l" help:"Only jobs with this label, K=V, or K for any value; may be repeated, then with all." placeholder:"K[=V]" sep:"none"`
}

// Help is the long help of `tele top`.
func (*Top) Help() string {
	return `A line for each job that runs: its name or id, whose it is, the CPU time that it took since the last look (100 is
one CPU), the memory that it has and its limit, bytes read from and written to disks a second, processes and
threads, age, and command. What the machine does not count is -.

Keys: c, m, i, p, a, u and j sort by CPU, memory, disks, processes, age, user and job; r turns the order
round; q ends it.`
}

// Run shows the jobs.
func (t *Top) Run(ctx context.Context, streams Streams) error {
	if t.Interval < minInterval {
		return fmt.Errorf("--interval %v: the least is %v", t.Interval, minInterval)
	}
	c, err := t.dial(ctx, streams)
	if err != nil {
		return err
	}
	if sizeOf(streams.Out) != nil && !t.Once {
		return t.live(ctx, c, streams)
	}
	var loads topLoads
	for range 2 { // what is used in between
		if !loads.at.IsZero() {
			select {
			case <-time.After(t.Interval):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		jobs, err := t.list(ctx, c)
		if err != nil {
			return err
		}
		loads.take(jobs, time.Now())
	}
	_, err = io.WriteString(streams.Out, strings.Join(loads.table(t.Sort, false, screenOf(streams.Out).width), "\n")+"\n")
	return err
}

const minInterval = 100 * time.Millisecond

func (t *Top) list(ctx context.Context, c *client.Client) ([]*telev1.Job, error) {
	return c.List(ctx, client.ListOptions{Statuses: []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_RUNNING},
		User: t.User, Labels: t.Label, Brief: true, Live: true})
}

// topLoads are the jobs as they were looked at last, and what they used since the time before.
type topLoads struct {
	at   time.Time
	jobs []topLoad
}

// A topLoad is one job. The rates are nil when they are not known.
type topLoad struct {
	*telev1.Job
	cpu, io *float64 // CPUs, and bytes a second
}

// take takes a list that is of that time.
func (l *topLoads) take(jobs []*telev1.Job, at time.Time) {
	before := map[string]*telev1.Usage{}
	for _, j := range l.jobs {
		before[j.Id] = j.Usage
	}
	seconds := at.Sub(l.at).Seconds()
	l.at, l.jobs = at, nil
	for _, j := range jobs {
		load := topLoad{Job: j}
		if was, now := before[j.Id], j.GetUsage(); was != nil && now != nil && seconds > 0 {
			load.cpu = rate(was.CpuUsec, now.CpuUsec, seconds*1e6)
			load.io = rate(sum(was.IoReadBytes, was.IoWriteBytes), sum(now.IoReadBytes, now.IoWriteBytes), seconds)
		}
		l.jobs = append(l.jobs, load)
	}
}

func rate(was, now *uint64, in float64) *float64 {
	if was == nil || now == nil || *now < *was {
		return nil
	}
	r := float64(*now-*was) / in
	return &r
}

func sum(a, b *uint64) *uint64 {
	if a == nil || b == nil {
		return nil
	}
	n := *a + *b
	return &n
}

func (l *topLoad) usage() *telev1.Usage {
	if l.Usage == nil {
		return &telev1.Usage{}
	}
	return l.Usage
}

func (l *topLoad) called() string { return cmp.Or(l.Spec.GetName(), l.Id) }

// sorted are the jobs in that order, the newest first where they are alike.
func (l *topLoads) sorted(by string, reverse bool) []topLoad {
	number := func(j topLoad) float64 {
		switch by {
		case "cpu":
			return known(j.cpu)
		case "memory":
			return known(j.usage().MemoryBytes)
		case "io":
			return known(j.io)
		case "pids":
			return known(j.usage().Pids)
		}
		return 0
	}
	text := func(j topLoad) string {
		switch by {
		case "user":
			return j.User
		case "job":
			return j.called()
		}
		return ""
	}
	jobs := slices.Clone(l.jobs) // newest first
	slices.SortStableFunc(jobs, func(a, b topLoad) int {
		return cmp.Or(cmp.Compare(number(b), number(a)), strings.Compare(text(a), text(b)))
	})
	if reverse {
		slices.Reverse(jobs)
	}
	return jobs
}

// known is a figure to sort by; what is not known comes last.
func known[N uint64 | float64](n *N) float64 {
	if n == nil {
		return -1
	}
	return float64(*n)
}

var topColumns = []string{"JOB", "USER", "CPU%", "MEM", "LIMIT", "IO/s", "PIDS", "AGE", "COMMAND"}

// table is a line each, the first the names of the columns; of commands there is as much as fits.
func (l *topLoads) table(by string, reverse bool, screen int) []string {
	rows := [][]string{topColumns}
	for _, j := range l.sorted(by, reverse) {
		command := printable(strings.Join(j.Spec.GetCommand(), " "))
		if j.Paused {
			command = "(paused) " + command
		}
		u := j.usage()
		limit := figure(u.MemoryLimitBytes, size)
		if u.MemoryBytes != nil && u.MemoryLimitBytes == nil {
			limit = "max"
		}
		rows = append(rows, []string{j.called(), shorten(printable(j.User), 12),
			figure(j.cpu, func(cpus float64) string { return fmt.Sprintf("%.1f", 100*cpus) }),
			figure(u.MemoryBytes, size), limit,
			figure(j.io, func(bytes float64) string { return size(uint64(bytes)) }),
			figure(u.Pids, count), age(l.at.Sub(j.CreatedAt.AsTime())), command})
	}
	last := len(topColumns) - 1
	widths := make([]int, last)
	for column := range widths {
		for _, row := range rows {
			widths[column] = max(widths[column], len([]rune(row[column])))
		}
	}
	var lines []string
	for _, row := range rows {
		var line strings.Builder
		for column, width := range widths {
			space := strings.Repeat(" ", width-len([]rune(row[column])))
			if column < 2 { // words to the left, numbers to the right
				line.WriteString(row[column] + space + "  ")
			} else {
				line.WriteString(space + row[column] + "  ")
			}
		}
		text := line.String()
		text += shorten(row[last], max(screen-len([]rune(text)), leastCommand))
		lines = append(lines, strings.TrimRight(text, " "))
	}
	return lines
}

// figure writes a number that may not be known.
func figure[N uint64 | float64](n *N, write func(N) string) string {
	if n == nil {
		return "-"
	}
	return write(*n)
}
