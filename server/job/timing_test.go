package job

import (
	"fmt"
	"slices"
	"testing"

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
	coldSteps = []string{"request checked", "place reserved", "directory made", "output made",
		"cgroup and plan made", "init started", "limits set", "record written", "command running", "start recorded"}
)

// Each start is remembered with the steps of its way, and says which way that was; a failed one is not.
func TestTimings(t *testing.T) {
	table := open(t)
	run(t, table, sh("true"))
	expectTimings(t, table, Timing{Cold: ColdOff, Template: true})

	table = with(t, table, func(o *Options) { o.Warm, o.Work = 1, WorkDisk })
	run(t, table, sh("true"))
	expectTimings(t, table, Timing{Cold: ColdUnable})

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
	table.warm.begin() // none is made ready
	defer table.warm.end()
	for len(table.Warm()) > 0 {
		run(t, table, sh("true"))
	}
	run(t, table, sh("true"))
	expectTimings(t, table, Timing{Template: true}, Timing{Cold: ColdAsksMore}, Timing{Template: true},
		Timing{Cold: ColdNoneReady, Template: true})
}

// expectTimings looks at the last starts: their way and steps, and the id where want has one.
func expectTimings(t *testing.T, table *Table, want ...Timing) {
	t.Helper()
	all := table.Timings()
	if len(all) < len(want) {
		t.Fatalf("%d starts, want %d", len(all), len(want))
	}
	for i, got := range all[len(all)-len(want):] {
		w := want[i]
		wantSteps := coldSteps
		if w.Cold == "" {
			wantSteps = warmSteps
		}
		var steps []string
		for _, m := range got.Marks {
			steps = append(steps, m.Step)
		}
		inOrder := slices.IsSortedFunc(got.Marks, func(a, b Mark) int { return int(a.After - b.After) })
		if got.Cold != w.Cold || got.Template != w.Template || w.ID != "" && got.ID != w.ID ||
			!slices.Equal(steps, wantSteps) || !inOrder || got.Marks[0].After < 0 || got.Began.IsZero() {
			t.Errorf("start %d: got %+v, want %+v with %v", i, got, w, wantSteps)
		}
	}
}
