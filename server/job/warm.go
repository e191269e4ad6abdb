package job

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// This file keeps sandboxes ready for jobs to come. A warm sandbox is like any other: it has its id, its
// user and its cgroup with the usual limits, its init has carried out the first part of the plan and
// waits. Until it has the rest, init ends with its server; what is left on disk then has no record, and
// the next server takes it away. A job that asks for what a warm sandbox has not gets one of its own.

// maxWarm is how many sandboxes may be kept ready at most.
const maxWarm = 1000

// A pool holds the warm sandboxes.
type pool struct {
	size int
	wake chan struct{} // something has changed
	busy atomic.Int32  // jobs that start or end
	last atomic.Int64  // when the last had, in nanoseconds since 1970
	done sync.WaitGroup

	rest time.Time // none is made before; tendPool's alone

	mu     sync.Mutex
	ready  []*sandbox // oldest first
	closed bool       // the server ends
}

// begin and end go around the start and the end of a job: the second half of the pool is made ready when
// there has been neither for a while, the first also beside them.
func (p *pool) begin() { p.busy.Add(1) }
func (p *pool) end() {
	p.last.Store(time.Now().UnixNano())
	if p.busy.Add(-1) == 0 {
		p.look()
	}
}

// idle is that while: longer than it takes to run a short command, and shorter than people notice.
const idle = 10 * time.Millisecond

func (p *pool) look() {
	select {
	case p.wake <- struct{}{}:
	default: // it is about to
	}
}

// takeWarm returns a sandbox that is ready for r, or why there is none.
func (t *Table) takeWarm(r request) (*sandbox, Cold) {
	switch {
	case !t.canTemplate():
		return nil, ColdUnable
	case t.warm.size == 0:
		return nil, ColdOff
	case !t.fromTemplate(r) || r.where.user != nil || r.spec.Network == telev1.Network_NETWORK_HOST:
		return nil, ColdAsksMore
	}
	t.warm.mu.Lock()
	defer t.warm.mu.Unlock()
	if len(t.warm.ready) == 0 || !t.fresh(t.warm.ready[0]) { // tendPool takes that away
		return nil, ColdNoneReady
	}
	s := t.warm.ready[0]
	t.warm.ready = slices.Delete(t.warm.ready, 0, 1)
	if t.warm.lowLocked() {
		t.warm.look()
	}
	return s, ""
}

// Warm returns the ids of the sandboxes that are ready, the next first.
func (t *Table) Warm() (ids []string) {
	t.warm.mu.Lock()
	defer t.warm.mu.Unlock()
	for _, s := range t.warm.ready {
		if t.fresh(s) {
			ids = append(ids, s.id)
		}
	}
	return ids
}

// WarmSize is how many sandboxes are to be kept ready.
func (t *Table) WarmSize() int { return t.warm.size }

// giveBack returns a sandbox for which there is no job after all.
func (t *Table) giveBack(s *sandbox) {
	t.warm.mu.Lock()
	closed := t.warm.closed
	if !closed {
		t.warm.ready = append(t.warm.ready, s)
	}
	t.warm.mu.Unlock()
	if closed {
		t.removeSandbox(s)
	}
}

// fresh tells whether a sandbox is still good: its init is there, and was made from the mounts as they
// are.
func (t *Table) fresh(s *sandbox) bool {
	_, seen := t.hiding()
	return s.seen == seen && !s.init.Ended()
}

// tendPool keeps the template and the pool as they should be, until the server ends.
func (t *Table) tendPool() {
	defer t.setTemplate(nil, 0)
	defer t.drain()
	changed := t.mounts.changes(t.life)
	for {
		t.removeWarm(func(s *sandbox) bool { return !t.fresh(s) })
		if t.stale() { // whether or not changed has told: it may have begun too late
			// What sandboxes have of the old mounts keeps them from being gone.
			t.setTemplate(nil, 0)
			t.removeWarm(func(*sandbox) bool { return true })
			if !t.quiet(changed) {
				return
			}
			t.renewTemplate()
		}
		timer := time.NewTimer(t.fill())
		select {
		case <-t.warm.wake:
		case <-timer.C:
		case <-changed:
		case <-t.life.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// drain takes all away, and lets none in any more.
func (t *Table) drain() {
	t.warm.mu.Lock()
	t.warm.closed = true
	t.warm.mu.Unlock()
	t.removeWarm(func(*sandbox) bool { return true })
}

// settled is how long the mounts must have been the same: where containers come and go, they change often.
const settled = 100 * time.Millisecond

// quiet returns when the mounts have not changed for a while; false when the server ends.
func (t *Table) quiet(changed <-chan struct{}) bool {
	timer := time.NewTimer(settled)
	defer timer.Stop()
	for {
		select {
		case <-changed:
			timer.Reset(settled)
		case <-timer.C:
			return true
		case <-t.life.Done():
			return false
		}
	}
}

// lowLocked tells whether less than half of the pool is ready. Then jobs come faster than there is time for
// sandboxes in between, and one that is made beside them takes less of a start than it gives to the next.
func (p *pool) lowLocked() bool { return 2*len(p.ready) < p.size }

// fill makes sandboxes until there are enough, memory is short, or jobs come and half of them are ready. It
// returns when to try again if nothing happens.
func (t *Table) fill() (again time.Duration) {
	const later = time.Minute
	p := &t.warm
	for t.life.Err() == nil && time.Now().After(p.rest) {
		p.mu.Lock()
		enough, low := len(p.ready) >= p.size, p.lowLocked()
		p.mu.Unlock()
		if enough || !low && p.busy.Load() > 0 || !enoughMemory() {
			break
		}
		if since := time.Since(time.Unix(0, p.last.Load())); !low && since < idle {
			return idle - since
		}
		s, err := t.newWarm()
		if err != nil && err != ErrClosing {
			t.options.Log.Warn().Err(err).Msg("no sandbox is kept ready, starts take longer")
			p.rest = time.Now().Add(later)
		}
		if err != nil || s == nil {
			break
		}
		t.giveBack(s)
	}
	return later
}

// newWarm makes a sandbox for a job to come; none while there is no template.
func (t *Table) newWarm() (_ *sandbox, err error) {
	s := t.newSandbox()
	s.warm = true
	_, s.seen = t.hiding()
	t.common.mu.RLock()
	ready := t.common.template != nil && t.common.seen == s.seen
	t.common.mu.RUnlock()
	if !ready {
		return nil, nil
	}
	if err := t.takeUID(s); err != nil {
		return nil, err
	}
	if err := s.make(t.usual); err != nil {
		t.removeSandbox(s)
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.life, startTime)
	defer cancel()
	if err := s.init.Prepared(ctx); err != nil {
		t.removeSandbox(s)
		if t.life.Err() != nil {
			return nil, ErrClosing
		}
		return nil, err
	}
	return s, nil
}

// removeWarm takes the sandboxes away that are to go.
func (t *Table) removeWarm(goes func(*sandbox) bool) {
	t.warm.mu.Lock()
	var gone []*sandbox
	t.warm.ready = slices.DeleteFunc(t.warm.ready, func(s *sandbox) bool {
		if goes(s) {
			gone = append(gone, s)
			return true
		}
		return false
	})
	t.warm.mu.Unlock()
	for _, s := range gone {
		t.removeSandbox(s)
	}
}

// removeSandbox takes away one that no job has.
func (t *Table) removeSandbox(s *sandbox) {
	if err := s.remove(); err != nil {
		t.options.Log.Err(err).Str("sandbox", s.id).Msg("remove a sandbox that was not used")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropUIDLocked(s.uid)
}

// enoughMemory tells whether a tenth of the machine's memory is to be had: what waits for jobs must not
// take it from those that run. A machine that does not say has enough.
func enoughMemory() bool {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return true
	}
	total, available := meminfo(text, "MemTotal:"), meminfo(text, "MemAvailable:")
	return available >= total/10
}

func meminfo(text []byte, key string) (kib uint64) {
	for line := range bytes.Lines(text) {
		if fields := bytes.Fields(line); len(fields) > 1 && string(fields[0]) == key {
			kib, _ = strconv.ParseUint(string(fields[1]), 10, 64) // 0 is as if it were not there
		}
	}
	return kib
}
