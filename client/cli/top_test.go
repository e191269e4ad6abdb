package cli

import (
	"strings"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func topJob(id string, created int64, cpu, memory, read uint64) *telev1.Job {
	pids, written := uint64(1), uint64(0)
	return &telev1.Job{Id: id, User: "alice", Spec: &telev1.JobSpec{Command: []string{"sleep", "1"}},
		CreatedAt: &timestamppb.Timestamp{Seconds: created},
		Usage:     &telev1.Usage{CpuUsec: &cpu, MemoryBytes: &memory, IoReadBytes: &read, IoWriteBytes: &written, Pids: &pids}}
}

// Rates are what was used between two looks; what is not known is said to be so.
func TestTopLoads(t *testing.T) {
	var loads topLoads
	at := time.Unix(1000, 0)
	loads.take([]*telev1.Job{topJob("a", 900, 5e6, 1<<20, 0), topJob("b", 800, 0, 3<<20, 0)}, at)
	if first := loads.table("cpu", false, 80)[1]; !strings.HasPrefix(first, "a    alice     -  1.0M    max     -") {
		t.Errorf("at first: %q", first)
	}
	unknown := &telev1.Job{Id: "d", User: "bob", Spec: &telev1.JobSpec{Name: "web", Command: []string{"x\x1b[31m"}},
		CreatedAt: &timestamppb.Timestamp{Seconds: 1001}, Paused: true}
	loads.take([]*telev1.Job{unknown, topJob("c", 950, 1e6, 2<<20, 0), topJob("a", 900, 6e6, 1<<20, 4096), topJob("b", 800, 3e6, 3<<20, 0)},
		at.Add(2*time.Second))
	got := strings.Join(loads.table("cpu", false, 80), "\n")
	want := strings.TrimPrefix(`
JOB  USER    CPU%   MEM  LIMIT  IO/s  PIDS  AGE  COMMAND
b    alice  150.0  3.0M    max     0     1   3m  sleep 1
a    alice   50.0  1.0M    max  2.0K     1   1m  sleep 1
web  bob        -     -      -     -     -   1s  (paused) x [31m
c    alice      -  2.0M    max     -     1  52s  sleep 1`, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for by, want := range map[string]string{"memory": "bcad", "io": "abdc", "pids": "cabd", "age": "dcab", "user": "cabd",
		"job": "abcd"} {
		order := ""
		for _, j := range loads.sorted(by, false) {
			order += j.Id
		}
		if order != want {
			t.Errorf("by %s: %s, want %s", by, order, want)
		}
	}
}

func TestEventText(t *testing.T) {
	e := &telev1.Event{Time: timestamppb.New(time.Date(2026, 5, 31, 14, 30, 0, 0, time.Local)), Kind: telev1.EventKind_EVENT_KIND_STARTED,
		Job: &telev1.Job{Id: "abcdefghijkl", User: "alice", Spec: &telev1.JobSpec{Command: []string{"sh", "-c", strings.Repeat("x\n", 60)}}}}
	line := eventText(e, screen{width: 80})
	if len([]rune(line)) != 80 || !strings.HasPrefix(line, "2026-05-31 14:30:00  abcdefghijkl  started     alice  sh -c x x x") {
		t.Errorf("got %q", line)
	}
	e.Kind, e.Job.Spec.Name = telev1.EventKind_EVENT_KIND_REMOVED, "web"
	if line := eventText(e, screen{width: 80}); line != "2026-05-31 14:30:00  abcdefghijkl  removed     alice  web" {
		t.Errorf("got %q", line)
	}
	e.Kind, e.Message = 99, "exploded"
	if line := eventText(e, screen{width: 80}); line != "2026-05-31 14:30:00  abcdefghijkl  99          alice  web: exploded" {
		t.Errorf("got %q", line)
	}
}
