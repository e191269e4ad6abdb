package access

import (
	"sync"
	"time"
)

// Rate limits how many calls one identity makes in a second.
//
// It keeps one time for each identity, up to which the calls that it made have been paid for at the
// steady rate (the generic cell rate algorithm, which is a token bucket without the bucket). One
// that lies in the past says nothing and is forgotten.
type Rate struct {
	each  time.Duration // what one call costs
	ahead time.Duration // how far into the future an identity may go

	mu      sync.Mutex
	paid    map[string]time.Time
	sweepAt int
}

// NewRate returns a Rate that grants each name so many calls a second, and twice as many at once;
// 0 or less is no limit.
func NewRate(perSecond int) *Rate {
	if perSecond <= 0 {
		return &Rate{}
	}
	return &Rate{each: time.Second / time.Duration(perSecond), ahead: 2 * time.Second, paid: make(map[string]time.Time)}
}

// Take is a call of name at a time. It returns 0, or how long to wait before the next try.
func (r *Rate) Take(name string, now time.Time) (wait time.Duration) {
	if r == nil || r.each == 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	paid := r.paid[name]
	if paid.Before(now) {
		paid = now
	}
	paid = paid.Add(r.each)
	if over := paid.Sub(now) - r.ahead; over > 0 {
		return over
	}
	r.paid[name] = paid
	r.sweepLocked(now)
	return 0
}

// sweepLocked forgets what lies in the past, once for as many calls as there are names.
func (r *Rate) sweepLocked(now time.Time) {
	if len(r.paid) < r.sweepAt {
		return
	}
	for name, paid := range r.paid {
		if paid.Before(now) {
			delete(r.paid, name)
		}
	}
	r.sweepAt = max(64, 2*len(r.paid))
}
