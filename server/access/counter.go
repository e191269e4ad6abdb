package access

import "sync"

// Counter limits how many of something (jobs, open streams) one identity has at a time.
type Counter struct {
	max int

	mu   sync.Mutex
	used map[string]int // only names that hold at least one
}

// NewCounter returns a Counter that grants each name max at a time; 0 or less is no limit.
func NewCounter(max int) *Counter {
	return &Counter{max: max, used: make(map[string]int)}
}

// Acquire takes one for name, or says that name has as many as it may. The release gives it back;
// calling it again does nothing, and it is never nil.
func (c *Counter) Acquire(name string) (release func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.max > 0 && c.used[name] >= c.max {
		return func() {}, false
	}
	c.used[name]++
	return sync.OnceFunc(func() { c.release(name) }), true
}

func (c *Counter) release(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used[name]--; c.used[name] == 0 {
		delete(c.used, name)
	}
}
