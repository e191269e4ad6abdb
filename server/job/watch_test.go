package job

import (
	"runtime"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// await returns get's result when it is good, or after a while: what a server does beside, and the last that
// a start needed, may come late.
func await(get func() int, good func(int) bool) int {
	for end := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		n := get()
		if good(n) || time.Now().After(end) {
			return n
		}
	}
}

// Jobs that do nothing have no goroutine, and as many descriptors as are counted for them: those that were
// started here, and those that were taken over.
func TestIdleJobsCostNoGoroutine(t *testing.T) {
	for _, kind := range []string{"plain", "seccomp_log"} {
		t.Run(kind, func(t *testing.T) {
			table := open(t)
			start := func() {
				begin(t, table, &telev1.JobSpec{Command: []string{"sleep", "1000"}, SeccompLog: kind == "seccomp_log"})
			}
			files := func() int { return openFiles(t) }
			// With one job everything is there that is there once; a few more goroutines are the server's own.
			start()
			most, before := runtime.NumGoroutine()+5, files()
			few := func(n int) bool { return n <= most }
			for range 10 {
				start()
			}
			if n := await(runtime.NumGoroutine, few); !few(n) {
				t.Errorf("with 11 jobs: %d goroutines, with one %d", n, most-5)
			}
			each := 3 // and those of its output none, before there is any
			if kind != "plain" {
				each = 4
			}
			want := before + 10*each
			if n := await(files, func(n int) bool { return n == want }); n != want {
				t.Errorf("%d descriptors, want %d", n, want)
			}
			if n := table.files; n != 11*each {
				t.Errorf("%d descriptors are counted, want %d", n, 11*each)
			}
			table = reopen(t, table)
			if n := await(runtime.NumGoroutine, few); !few(n) {
				t.Errorf("taken over: %d goroutines, with one %d", n, most-5)
			}
			if n := await(files, func(n int) bool { return n == want }); n != want {
				t.Errorf("taken over: %d descriptors, want %d", n, want)
			}
			if n := table.files; n != 11*each {
				t.Errorf("taken over: %d descriptors are counted, want %d", n, 11*each)
			}
		})
	}
}
