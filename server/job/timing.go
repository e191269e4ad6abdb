package job

import (
	"slices"
	"sync"
	"time"
)

// A Timing is how long one start took, step by step.
type Timing struct {
	ID       string
	Began    time.Time // when the request came in
	Cold     Cold      // why there was no sandbox ready for it; empty when it got one
	Template bool      // its sandbox began with the template
	Marks    []Mark
}

// Cold is why a start did without a sandbox that was ready.
type Cold string

// The reasons.
const (
	ColdOff       Cold = "off"        // the server keeps none
	ColdUnable    Cold = "unable"     // it cannot: it is not root, or work directories are on disk
	ColdAsksMore  Cold = "asks_more"  // the job asks for what they have not
	ColdNoneReady Cold = "none_ready" // there was none
)

// A Mark says when a step was done.
type Mark struct {
	Step  string        // that was just done
	After time.Duration // since the request came in
}

// timingsKept is how many starts are remembered.
const timingsKept = 256

// timings are the last starts, in a ring.
type timings struct {
	mu   sync.Mutex
	list []Timing
	next int // where the next goes, once it is full
}

func (r *timings) add(t Timing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) < timingsKept {
		r.list = append(r.list, t)
		return
	}
	r.list[r.next] = t
	r.next = (r.next + 1) % timingsKept
}

// Timings are the last starts of this server, oldest first. A start that failed is not among them.
func (t *Table) Timings() []Timing {
	t.timings.mu.Lock()
	defer t.timings.mu.Unlock()
	return slices.Concat(t.timings.list[t.timings.next:], t.timings.list[:t.timings.next])
}

// mark says that a step of a start is done.
func (s *sandbox) mark(step string) {
	if s.timing != nil {
		s.timing.Marks = append(s.timing.Marks, Mark{step, time.Since(s.timing.Began)})
	}
	s.table.at(step)
}
