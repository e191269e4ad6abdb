package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Results are all that a run has found; the docs are made from them alone.
type Results struct {
	Date     time.Time
	Took     time.Duration
	Machine  Machine
	Versions []Version
	Missing  []string
	Sandbox  string // what tele's plan has

	Goals              []Goal
	BackToBack, Spaced Table
	Callers            []Table
	Commands           Table
	Memory             []Amount // KiB PSS a job
	Output             []Amount // MB/s
	Line               []Row    // milliseconds until a follower has a line
	Growth, Scale      []Amount
}

// Machine is where it was measured.
type Machine struct {
	CPU, Kernel, System, Cgroups, Disk string
	CPUs                               int
	MemoryMiB                          int
}

// A Version is one of a contender, with the command line that was used.
type Version struct{ Name, Version, Command string }

// A Table has a row for each contender.
type Table struct {
	Title string
	Rows  []Row
}

// An Amount is one number of one contender.
type Amount struct {
	Name  string
	Value float64
	Unit  string
}

// A Goal is a ratio or a number that tele is to reach, or one that is only shown.
type Goal struct {
	What, Must, Aim string
	Ratio
	Verdict string // ok, must (but not the aim), MISS, or "not measured"
}

func (t Table) perSecond(name string) float64 {
	for _, r := range t.Rows {
		if r.Name == name {
			return r.PerSecond
		}
	}
	return 0
}

func (r *Results) goal(what, must, aim string, measured Ratio) {
	g := Goal{What: what, Must: must, Aim: aim, Ratio: measured}
	switch {
	case measured.Value == 0:
		g.Verdict = "not measured"
	case must == "":
		g.Verdict = ""
	case !reached(must, measured.Value):
		g.Verdict = "MISS"
	case aim == "" || reached(aim, measured.Value):
		g.Verdict = "ok"
	default:
		g.Verdict = "ok, not the aim"
	}
	r.Goals = append(r.Goals, g)
}

// reached tells whether a value is what a goal like "≤ 1.6" says.
func reached(goal string, value float64) bool {
	words := strings.Fields(goal)
	limit, err := strconv.ParseFloat(words[1], 64)
	if err != nil {
		panic("goal " + goal)
	}
	switch words[0] {
	case "≤":
		return value <= limit
	case "<":
		return value < limit
	case "≥":
		return value >= limit
	}
	panic("goal " + goal)
}

func newResults(tele string, i isolation) *Results {
	r := &Results{Date: time.Now(), Machine: thisMachine()}
	r.Versions = []Version{{"tele", versionOf([]string{tele, "version"}), "tele serve"}, {"Go", runtime.Version(), ""}}
	r.Sandbox = fmt.Sprintf("%d steps, %d hidden directories, %d files and %d directories of /proc covered, a filter of %d instructions",
		i.steps, len(i.hidden), len(i.maskedFiles), len(i.maskedDirs), i.filter)
	return r
}

func thisMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Kernel: said("uname", "-r"), Disk: said("findmnt", "-n", "-o", "FSTYPE", "--target", "/var/lib")}
	for line := range strings.Lines(fileText("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
		}
	}
	for line := range strings.Lines(fileText("/proc/meminfo")) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "MemTotal:" {
			kib, _ := strconv.Atoi(words[1]) // the kernel's own number
			m.MemoryMiB = kib / 1024
		}
	}
	for line := range strings.Lines(fileText("/etc/os-release")) {
		if value, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			m.System = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	m.Cgroups = "version 1"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		m.Cgroups = "version 2"
	}
	return m
}

func said(command ...string) string {
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		return "not known"
	}
	return strings.TrimSpace(string(out))
}

func fileText(path string) string {
	text, _ := os.ReadFile(path) // what it would have said stays empty
	return string(text)
}

// print writes all tables for a terminal.
func (r *Results) print(w io.Writer) {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer out.Flush()
	for _, t := range append([]Table{r.BackToBack, r.Spaced, r.Commands}, r.Callers...) {
		if len(t.Rows) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s\tp50 ms\tp90\tp99\t/s\tn\n", t.Title)
		for _, row := range t.Rows {
			fmt.Fprintf(out, "%s\t%.2f\t%.2f\t%.2f\t%.0f\t%d\n", row.Name, row.P50, row.P90, row.P99, row.PerSecond, row.N)
		}
	}
	for _, amounts := range [][]Amount{r.Memory, r.Output, r.Growth, r.Scale} {
		if len(amounts) > 0 {
			fmt.Fprintln(out)
		}
		for _, a := range amounts {
			fmt.Fprintf(out, "%s\t%s %s\n", a.Name, number(a.Value), a.Unit)
		}
	}
	for _, row := range r.Line {
		fmt.Fprintf(out, "a line to a follower, %s\t%.3f ms\tp90 %.3f\tp99 %.3f\tn %d\n", row.Name, row.P50, row.P90, row.P99, row.N)
	}
	fmt.Fprintf(out, "\ngoal\tmust\taim\tmeasured\t\t\n")
	for _, g := range r.Goals {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", g.What, g.Must, g.Aim, g.Ratio, g.Verdict)
	}
	for _, m := range r.Missing {
		fmt.Fprintf(out, "left out: %s\n", m)
	}
}

func (r Ratio) String() string {
	switch {
	case r.Value == 0:
		return "–"
	case r.Low == 0:
		return fmt.Sprintf("%.2f", r.Value)
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", r.Value, r.Low, r.High)
}
