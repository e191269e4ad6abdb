// Package doctor is `tele doctor`: it looks at this machine (Look), and proves each wall and limit of
// the sandbox with a short probe in a throw-away one, made by the code that makes every job's
// (Prove). What it cannot find out, it says.
//
// A probe is this program itself in the role tele-probe (Probe), which a job of the doctor's own
// table sees at probePath: no shell and no helper is needed, and nothing of the machine
// is changed. Walls are looked at from inside, by one job; limits are judged from outside, by what
// the record of a job says that ran into it.
package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// A Verdict is what became of a check.
type Verdict string

// The verdicts. CannotTell is no failure: what is asked about is not there, or not for this user.
const (
	Pass       Verdict = "pass"
	Fail       Verdict = "fail"
	CannotTell Verdict = "cannot tell"
)

// A Check is one thing that was looked at.
type Check struct {
	Area    string  `json:"area"` // machine, walls or limits
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Seen    string  `json:"seen"` // what there was
	Fix     string  `json:"fix"`  // what to do about it; empty for a pass
}

// A Report is all checks, in the order in which they are shown.
type Report []Check

// Count returns how many checks had a verdict.
func (r Report) Count(v Verdict) int {
	n := 0
	for _, c := range r {
		if c.Verdict == v {
			n++
		}
	}
	return n
}

// Summary is the outcome in a line.
func (r Report) Summary() string {
	return fmt.Sprintf("%d pass, %d fail, %d cannot tell", r.Count(Pass), r.Count(Fail), r.Count(CannotTell))
}

// Names are the checks with a verdict.
func (r Report) Names(v Verdict) string {
	var names []string
	for _, c := range r {
		if c.Verdict == v {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, ", ")
}

func (r Report) printText(out io.Writer) error {
	width := 0
	for _, c := range r {
		width = max(width, len(c.Name))
	}
	var text strings.Builder
	area := ""
	for _, c := range r {
		if c.Area != area {
			area = c.Area
			text.WriteString(area + "\n")
		}
		fmt.Fprintf(&text, "  %-11s  %-*s  %s\n", c.Verdict, width, c.Name, c.Seen)
		if c.Fix != "" {
			fmt.Fprintf(&text, "  %-11s  %-*s  fix: %s\n", "", width, "", c.Fix)
		}
	}
	text.WriteString(r.Summary() + "\n")
	_, err := io.WriteString(out, text.String())
	return err
}

func (r Report) printJSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		Pass       int    `json:"pass"`
		Fail       int    `json:"fail"`
		CannotTell int    `json:"cannot_tell"`
		Checks     Report `json:"checks"`
	}{r.Count(Pass), r.Count(Fail), r.Count(CannotTell), r})
}
