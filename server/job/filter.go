package job

import (
	"slices"
	"strings"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// A Filter says which jobs are wanted; its zero value is all.
type Filter struct {
	Statuses []telev1.JobStatus // one of these
	Labels   []string           // all of these, KEY=VALUE, or KEY for any value
	Name     string
	Owner    string
	Since    time.Duration // made at most so long ago
	Command  string        // a part of the command, its words joined by blanks
}

// Check finds what is wrong with a filter.
func (f *Filter) Check() error {
	switch {
	case len(f.Statuses) > len(telev1.JobStatus_name):
		return bad("statuses", "are more than there are")
	case f.Since < 0:
		return bad("since", "%s is negative", f.Since)
	}
	return checkLabels(f.Labels)
}

func checkLabels(wanted []string) error {
	if len(wanted) > maxLabels {
		return bad("labels", "%d are too many, the most is %d", len(wanted), maxLabels)
	}
	return nil
}

// A prepared filter is one for one list.
type prepared struct {
	Filter
	oldest int64 // nanoseconds since 1970
}

func (f *Filter) prepare(now time.Time) prepared {
	p := prepared{Filter: *f}
	if f.Since > 0 {
		p.oldest = now.Add(-f.Since).UnixNano()
	}
	return p
}

// tooOld tells whether a job is, and all that were made before it.
func (p *prepared) tooOld(j *Job) bool { return j.created < p.oldest }

// fits looks at what is at hand first, and at that of which an old job keeps a packed copy last.
func (p *prepared) fits(j *Job) bool {
	if p.Owner != "" && j.owner != p.Owner || p.Name != "" && j.name != p.Name {
		return false
	}
	if len(p.Statuses) > 0 && !slices.Contains(p.Statuses, j.status()) {
		return false
	}
	if len(p.Labels) == 0 && p.Command == "" {
		return true
	}
	job := j.Brief()
	if !strings.Contains(strings.Join(job.Spec.GetCommand(), " "), p.Command) {
		return false
	}
	return hasLabels(job.Spec.GetLabels(), p.Labels)
}

// hasLabels tells whether a job with these labels has all that are wanted, KEY=VALUE, or KEY for any value.
func hasLabels(labels map[string]string, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(label string) bool {
		key, want, hasValue := strings.Cut(label, "=")
		value, found := labels[key]
		return !found || hasValue && value != want
	})
}
