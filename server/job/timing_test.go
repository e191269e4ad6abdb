package job

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// The ring keeps the last starts, and gives them oldest first, however often it was full.
func TestTimingsRing(t *testing.T) {
	for _, n := range []int{0, 1, timingsKept - 1, timingsKept, timingsKept + 1, 2 * timingsKept, 3*timingsKept + 7} {
		var table Table
		for i := range n {
			table.timings.add(Timing{ID: fmt.Sprint(i)})
		}
		got := table.Timings()
		if want := min(n, timingsKept); len(got) != want {
			t.Fatalf("%d starts: %d are kept, want %d", n, len(got), want)
		}
		for i, timing := range got {
			if want := fmt.Sprint(n - len(got) + i); timing.ID != want {
				t.Errorf("%d starts: number %d is that of %s, want %s", n, i, timing.ID, want)
			}
		}
	}
}

var (
	warmSteps = []string{"request checked", "place reserved", "limits set", "record written", "command running", "start recorded"}
	coldSteps = []string{"request checked", "place reserved", "cgroup and plan made", "directory made",
		"cgroup complete", "init started", "limits set", "record written", "command running", "start recorded"}
)

// Each start is remembered with the steps of its way, and says which way that was; a failed one is not.
func TestTimings(t *testing.T) {
	table := open(t)
	run(t, table, sh("true"))
	expectTimings(t, table, Timing{Cold: ColdOff, Template: true})

	table = with(t, table, func(o *Options) { o.Warm, o.Work = 1, WorkDisk })
	run(t, table, sh("true"))
	expectTimings(t, table, Timing{Cold: ColdUnable})
	table.running.Wait() // the next has the same cgroup, and would take away what this one's jobs leave

	table = openWarm(t, 1)
	ready := awaitWarm(t, table, 1)
	run(t, table, sh("true"))
	expectTimings(t, table, Timing{ID: ready[0], Template: true})
	if _, err := table.Start(t.Context(), "me", "", &telev1.JobSpec{Command: []string{"no-such-program"}}); err == nil {
		t.Error("no error")
	}
	awaitWarm(t, table, 1)
	spec := sh("true")
	spec.Root = RootOverlay
	run(t, table, spec)
	expectTimings(t, table, Timing{Template: true}, Timing{Cold: ColdAsksMore})
	noneReady := func(timing Timing) bool { return timing.Cold == ColdNoneReady }
	for end := time.Now().Add(time.Minute); !slices.ContainsFunc(table.Timings(), noneReady); {
		if time.Now().After(end) {
			t.Fatal("no start of several at once found that none was ready")
		}
		var starts sync.WaitGroup
		for range 4 {
			starts.Go(func() {
				j, err := table.Start(t.Context(), "me", "", sh("true"))
				if err == nil {
					_, err = j.Wait(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		starts.Wait()
	}
	all := table.Timings()
	expectTiming(t, all[slices.IndexFunc(all, noneReady)], Timing{Cold: ColdNoneReady, Template: true})
}

// expectTimings looks at the last starts: their way and steps, and the id where want has one.
func expectTimings(t *testing.T, table *Table, want ...Timing) {
	t.Helper()
	all := table.Timings()
	if len(all) < len(want) {
		t.Fatalf("%d starts, want %d", len(all), len(want))
	}
	for i, got := range all[len(all)-len(want):] {
		expectTiming(t, got, want[i])
	}
}

func expectTiming(t *testing.T, got, want Timing) {
	t.Helper()
	wantSteps := coldSteps
	if want.Cold == "" {
		wantSteps = warmSteps
	}
	var steps []string
	for _, m := range got.Marks {
		steps = append(steps, m.Step)
	}
	inOrder := slices.IsSortedFunc(got.Marks, func(a, b Mark) int { return int(a.After - b.After) })
	if got.Cold != want.Cold || got.Template != want.Template || want.ID != "" && got.ID != want.ID ||
		!slices.Equal(steps, wantSteps) || !inOrder || got.Marks[0].After < 0 || got.Began.IsZero() {
		t.Errorf("got %+v, want %+v with %v", got, want, wantSteps)
	}
}
