package job

import (
	"fmt"
	"slices"
	"strings"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// This file is what jobs are found by: ids, beginnings of ids, and names.

const (
	maxJobName  = 64
	maxLabel    = 63 // of a key, and of a value
	maxLabels   = 64
	maxHostname = 64 // the kernel's __NEW_UTS_LEN
)

// A NameError is returned by Start for a name that another running job of the same owner has.
type NameError struct{ Name, ID string }

func (e *NameError) Error() string {
	return fmt.Sprintf("the name %s is that of your running job %s; choose another, or stop that one", e.Name, e.ID)
}

// checkNames looks at what a request calls its job.
func checkNames(spec *telev1.JobSpec) error {
	if name := spec.Name; name != "" && (len(name) > maxJobName || !letter(name[0]) || !made(name, "._-")) {
		return bad("spec.name", "%s is no name of a job: it begins with a letter, and has at most %d letters, digits, "+
			"points, underscores and hyphens", Quote(name), maxJobName)
	}
	if len(spec.Labels) > maxLabels {
		return bad("spec.labels", "%d are too many, the most is %d", len(spec.Labels), maxLabels)
	}
	for key, value := range spec.Labels {
		if !isLabel(key, "._-/") || value != "" && !isLabel(value, "._-") {
			return bad("spec.labels", "%s=%s is no label: key and value have at most %d letters, digits, points, "+
				"underscores and hyphens, the key also slashes, and begin and end with a letter or digit",
				Quote(key), Quote(value), maxLabel)
		}
	}
	if name := spec.Hostname; name != "" && (len(name) > maxHostname || !isHostname(name)) {
		return bad("spec.hostname", "%s is no host name of at most %d letters, digits, hyphens and points",
			Quote(name), maxHostname)
	}
	return nil
}

func letter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func letterOrDigit(c byte) bool { return letter(c) || '0' <= c && c <= '9' }

// made tells whether text is letters, digits, and others.
func made(text, others string) bool {
	for i := range len(text) {
		if !letterOrDigit(text[i]) && strings.IndexByte(others, text[i]) < 0 {
			return false
		}
	}
	return true
}

func isLabel(text, others string) bool {
	return text != "" && len(text) <= maxLabel && made(text, others) &&
		letterOrDigit(text[0]) && letterOrDigit(text[len(text)-1])
}

// isHostname: hostname(7), labels that neither begin nor end with a hyphen.
func isHostname(text string) bool {
	return !slices.ContainsFunc(strings.Split(text, "."), func(part string) bool {
		return part == "" || !made(part, "-") || part[0] == '-' || part[len(part)-1] == '-'
	})
}

// An index finds jobs by the beginning of their ids, and by name. Table.mu guards it.
type index struct {
	starts map[string][]*Job // by the first two characters of the id, of 1,024 that there are
	names  map[string][]*Job // oldest first
	// Those that have not ended, also while they are being made: an owner has one of a name.
	running map[key]*Job
}

const startSize = 2

func newIndex() index {
	return index{starts: map[string][]*Job{}, names: map[string][]*Job{}, running: map[key]*Job{}}
}

func (x *index) add(j *Job) {
	x.append(j)
	for jobs, at := x.names[j.name], len(x.names[j.name])-1; at > 0 && comparePlace(jobs[at-1], j.place()) > 0; at-- {
		jobs[at-1], jobs[at] = jobs[at], jobs[at-1] // starts that cross
	}
}

// append is add before sort.
func (x *index) append(j *Job) {
	start := j.id[:startSize]
	x.starts[start] = append(x.starts[start], j)
	if j.name != "" {
		x.names[j.name] = append(x.names[j.name], j)
	}
}

func (x *index) sort() {
	for _, jobs := range x.names {
		slices.SortFunc(jobs, func(a, b *Job) int { return comparePlace(a, b.place()) })
	}
}

func (x *index) remove(j *Job) {
	drop := func(from map[string][]*Job, key string) {
		at := slices.Index(from[key], j)
		if at < 0 {
			return
		}
		if from[key] = without(from[key], at); len(from[key]) == 0 {
			delete(from, key)
		}
	}
	drop(x.starts, j.id[:startSize])
	drop(x.names, j.name)
}

// begins returns the one job whose id begins with text, or says that there are several.
func (x *index) begins(text string, fits func(*Job) bool) (found *Job, several bool) {
	search := func(jobs []*Job) {
		for _, j := range jobs {
			if several {
				return
			}
			if strings.HasPrefix(j.id, text) && fits(j) {
				found, several = j, found != nil
			}
		}
	}
	switch {
	case text == "":
	case len(text) >= startSize:
		search(x.starts[text[:startSize]])
	default:
		for start, jobs := range x.starts {
			if strings.HasPrefix(start, text) {
				search(jobs)
			}
		}
	}
	return found, several
}

// named returns the newest job with a name.
func (x *index) named(name string, fits func(*Job) bool) *Job {
	for _, j := range slices.Backward(x.names[name]) {
		if fits(j) {
			return j
		}
	}
	return nil
}
