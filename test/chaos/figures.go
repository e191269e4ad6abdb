package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// figures count what happened, and keep what must not have.
type figures struct {
	seed  uint64
	began time.Time

	mu         sync.Mutex
	counts     map[string]int64
	violations []string
}

// The figures, in the order in which they are printed. Jobs' ends follow.
var figureNames = []string{
	"server killed", "server terminated", "server stopped and continued", "server starts",
	"clients killed", "inits killed", "processes stopped and continued",
	"connections", "connections cut", "disk fills",
	"submits", "submits acknowledged", "submits refused", "submits without an answer",
	"followers", "followers resumed", "exit codes compared", "bytes compared", "jobs removed", "jobs kept to the end",
}

func (f *figures) add(name string, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[name] += n
}

func (f *figures) get(name string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[name]
}

// violation notes something that must not be, and says it at once.
func (f *figures) violation(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := fmt.Sprintf("%.1fs: ", time.Since(f.began).Seconds()) + fmt.Sprintf(format, args...)
	f.violations = append(f.violations, text)
	fmt.Println("VIOLATION", text)
}

// print prints all figures and tells whether there was no violation.
func (f *figures) print() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Printf("%10d  %s\n%10.0f  %s\n", f.seed, "seed", time.Since(f.began).Seconds(), "seconds")
	rest := maps.Clone(f.counts)
	for _, name := range figureNames {
		fmt.Printf("%10d  %s\n", f.counts[name], name)
		delete(rest, name)
	}
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		fmt.Printf("%10d  %s\n", rest[name], name)
	}
	fmt.Printf("%10d  %s\n", len(f.violations), "violations")
	for _, text := range f.violations {
		fmt.Println("VIOLATION", text)
	}
	return len(f.violations) == 0
}
