package job

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// kept are the events that there are, behind a cursor or all.
func kept(t *testing.T, table *Table, behind string) (events []*telev1.Event, last string) {
	t.Helper()
	o := WatchOptions{Cursor: behind, Visible: all}
	if behind == "" {
		o.Since = time.Unix(0, 0)
	}
	w, err := table.Watch(o)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := w.Next(t.Context())
		if err == io.EOF {
			return events, last
		}
		if err != nil {
			t.Fatal(err)
		}
		if last = m.Cursor; m.Event != nil {
			events = append(events, m.Event)
		}
	}
}

func kindOf(e *telev1.Event) string {
	return strings.ToLower(strings.TrimPrefix(e.Kind.String(), "EVENT_KIND_"))
}

// story is what happened to a job, in words.
func story(events []*telev1.Event, id string) string {
	var words []string
	for _, e := range events {
		if e.Job.Id == id {
			words = append(words, kindOf(e))
		}
	}
	return strings.Join(words, " ")
}

func expectStory(t *testing.T, table *Table, id, want string) {
	t.Helper()
	events, _ := kept(t, table, "")
	if got := story(events, id); got != want {
		t.Errorf("job %s: %s, want %s", id, got, want)
	}
}

// expectEvents is for the one job of a server that was killed.
func expectEvents(t *testing.T, table *Table, there bool) {
	t.Helper()
	events, _ := kept(t, table, "")
	if !there {
		if len(events) != 0 {
			t.Errorf("events of a job that never was: %v", events)
		}
		return
	}
	if got := story(events, list(t, table)[0].Id); got != "started ended" {
		t.Errorf("got %s", got)
	}
}

// Each change is told once, whatever servers come and go, and says how the job then is.
func TestEvents(t *testing.T) {
	table := open(t)
	spec := sh("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done")
	spec.Name, spec.Labels = "web", map[string]string{"team": "red"}
	spec.Command = append(spec.Command, strings.Repeat("ä", 300))
	spec.Env = map[string]string{"PASSWORD": "secret"}
	j := begin(t, table, spec)
	firstOutput(t, j)
	next := func() {
		table = reopen(t, table)
		j = find(t, table, j.id)
	}
	next()
	if err := j.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	next()
	if err := errors.Join(j.Pause(t.Context()), j.Resume(), j.Resume()); err != nil {
		t.Fatal(err)
	}
	next()
	for range 2 { // the second changes nothing
		if err := j.Update(&telev1.Limits{Memory: "300M"}, durationpb.New(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	next()
	if err := j.Stop(unix.SIGTERM, time.Hour, "me"); err != nil {
		t.Fatal(err)
	}
	job := wait(t, j)
	next()
	const want = "started paused resumed updated stopping ended"
	events, _ := kept(t, table, "")
	if got := story(events, j.id); got != want || len(events) != len(strings.Fields(want)) {
		t.Fatalf("got %s in %v, want %s", got, events, want)
	}
	for _, e := range events {
		if e.Job.User != "me" || e.Job.Spec.Name != "web" || e.Job.Spec.Labels["team"] != "red" || e.Job.Spec.Env != nil ||
			e.Job.Paused != (kindOf(e) == "paused") || e.Time == nil {
			t.Errorf("got %v", e)
		}
	}
	if e := events[0]; !proto.Equal(e.Time, job.StartedAt) || e.Job.Status != telev1.JobStatus_JOB_STATUS_RUNNING {
		t.Errorf("started: %v", e)
	}
	if e := events[3]; !strings.Contains(e.Message, "memory=300M") || !strings.HasSuffix(e.Message, " timeout=1h0m0s") {
		t.Errorf("updated: %v", e)
	}
	if e := events[4]; e.Message != "stopped by me" || e.Job.Status != telev1.JobStatus_JOB_STATUS_RUNNING {
		t.Errorf("stopping: %v", e)
	}
	if e := events[5]; !proto.Equal(e.Time, job.EndedAt) || e.Message != job.Message || e.Job.GetExitCode() != 3 {
		t.Errorf("ended: %v", e)
	}
}

// A server killed between a change of a record and its event leaves it to the next one.
func TestEventsOfARecord(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh("exec sleep 1000"))
	_, cursor := kept(t, table, "")
	table.Leave()
	record, err := readRecord(j.dir)
	if err != nil {
		t.Fatal(err)
	}
	record.Job.Paused = true
	record.Job.Timeout = durationpb.New(time.Hour)
	if err := writeRecord(j.dir, record); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		table = reopen(t, table)
		events, _ := kept(t, table, cursor)
		if got := story(events, j.id); got != "updated paused" {
			t.Errorf("got %s", got)
		}
	}
	events, _ := kept(t, table, cursor)
	if m := events[0].Message; !strings.Contains(m, "memory=500M") || !strings.HasSuffix(m, " timeout=1h0m0s") {
		t.Errorf("updated: %q", m)
	}
	if !events[1].Job.Paused {
		t.Errorf("paused: %v", events[1])
	}
}

// What was told of running jobs is known also when the events are not kept any more.
func TestEventsLongAgo(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.EventFile = 500 })
	long := begin(t, table, sh("exec sleep 1000"))
	if err := long.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, cursor := kept(t, table, "")
	for range 12 {
		job, _ := run(t, table, sh("true"))
		find(t, table, job.Id)
	}
	if _, err := table.Watch(WatchOptions{Cursor: cursor}); !errors.Is(err, ErrEventsGone) {
		t.Errorf("an old cursor: %v", err)
	}
	_, cursor = kept(t, table, "")
	table = reopen(t, table)
	expectStory(t, table, long.id, "")
	if events, _ := kept(t, table, cursor); len(events) != 0 {
		t.Errorf("told again: %v", events)
	}
	if err := find(t, table, long.id).Stop(OwnSignal, 0, "me"); err != nil {
		t.Fatal(err)
	}
	wait(t, find(t, table, long.id))
	expectStory(t, table, long.id, "stopping resumed ended")
}

// What was told to be removed is removed by the next server.
func TestHalfRemoved(t *testing.T) {
	table := open(t)
	whole, _ := run(t, table, sh("echo x"))
	output, _ := run(t, table, sh("echo x"))
	table.events.tellRemoved(whole)
	table.events.tellOutputRemoved(output)
	for range 2 {
		table = reopen(t, table)
		if jobs := list(t, table); len(jobs) != 1 || jobs[0].Id != output.Id || !jobs[0].OutputRemoved {
			t.Errorf("jobs: %v", jobs)
		}
		if _, err := os.Stat(table.jobDir(whole.Id)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("what is left: %v", err)
		}
		expectStory(t, table, whole.Id, "started ended removed")
		expectStory(t, table, output.Id, "started ended output_removed")
	}
	if err := table.Remove(find(t, table, output.Id)); err != nil {
		t.Fatal(err)
	}
	expectStory(t, table, output.Id, "started ended output_removed removed")
	gone, _ := run(t, table, sh("true"))
	table.Leave()
	if err := os.RemoveAll(table.jobDir(gone.Id)); err != nil { // by somebody else
		t.Fatal(err)
	}
	table = reopen(t, table)
	expectStory(t, table, gone.Id, "started ended removed")
}

// Followers are woken, see their own jobs' events alone, and know how far they have come even so.
func TestFollowEvents(t *testing.T) {
	table := open(t)
	mine := func(owner string) bool { return owner == "me" }
	w, err := table.Watch(WatchOptions{Follow: true, Visible: mine, Kinds: []telev1.EventKind{telev1.EventKind_EVENT_KIND_ENDED}})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := w.Next(t.Context()); err != nil || m.Event != nil || m.Cursor == "" {
		t.Fatalf("the beginning: %v, %v", m, err)
	}
	others, err := table.Watch(WatchOptions{Follow: true, Visible: func(owner string) bool { return owner == "you" }})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan *telev1.WatchResponse, 1)
	go func() {
		m, err := w.Next(t.Context())
		if err != nil {
			t.Error(err)
		}
		ended <- m // the only one of its kind
	}()
	job, _ := run(t, table, sh("exit 4"))
	if m := <-ended; m == nil || m.Event.Job.Id != job.Id || m.Event.Job.GetExitCode() != 4 || m.Event.Message != "exited with code 4" {
		t.Errorf("got %v", m)
	}
	for range bookmark {
		table.events.tellRemoved(job)
	}
	for range 2 {
		if m, err := others.Next(t.Context()); err != nil || m.Event != nil {
			t.Fatalf("others: %v, %v", m, err)
		}
	}
	last := make(chan error, 1)
	go func() {
		for {
			if _, err := others.Next(t.Context()); err != nil {
				last <- err
				return
			}
		}
	}()
	table.Leave()
	if err := <-last; !errors.Is(err, ErrClosing) {
		t.Errorf("at the server's end: %v", err)
	}
}

// A full disk fails no job: what happened is told when there is room.
func TestEventsWait(t *testing.T) {
	table := open(t)
	table.events.mu.Lock()
	journal := table.events.journal
	real := journal.files[0].file
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	journal.mu.Lock()
	journal.files[0].file = full
	journal.mu.Unlock()
	table.events.mu.Unlock()
	var ids []string
	for range 3 {
		job, _ := run(t, table, sh("true"))
		ids = append(ids, job.Id)
	}
	w, err := table.Watch(WatchOptions{Follow: true, Visible: all})
	if err != nil {
		t.Fatal(err)
	}
	journal.mu.Lock()
	journal.files[0].file = real
	journal.mu.Unlock()
	_ = full.Close()
	var got []*telev1.Event
	for len(got) < 6 {
		m, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.Event != nil {
			got = append(got, m.Event)
		}
	}
	for _, id := range ids {
		if s := story(got, id); s != "started ended" {
			t.Errorf("job %s: %s", id, s)
		}
	}
}

// Many jobs at once, and a follower that was there from the beginning.
func TestEventsOfMany(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.EventFile = 20000 })
	w, err := table.Watch(WatchOptions{Follow: true, Visible: all})
	if err != nil {
		t.Fatal(err)
	}
	const many = 50
	done := make(chan string, many)
	for i := range many {
		go func() {
			j, err := table.Start(t.Context(), "me", "", sh(fmt.Sprintf("exit %d", i)))
			if err != nil {
				t.Error(err)
				done <- ""
				return
			}
			_, _ = j.Wait(t.Context()) // the event says it
			done <- j.id
		}()
	}
	var events []*telev1.Event
	for ended := 0; ended < many && !t.Failed(); {
		m, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.Event != nil {
			events = append(events, m.Event)
		}
		if m.Event.GetKind() == telev1.EventKind_EVENT_KIND_ENDED {
			ended++
		}
	}
	for range many {
		if id := <-done; story(events, id) != "started ended" {
			t.Errorf("job %s: %s", id, story(events, id))
		}
	}
}

func TestEventJob(t *testing.T) {
	for _, test := range []struct {
		command []string
		want    []string
	}{
		{[]string{"echo", "a"}, []string{"echo", "a"}},
		{[]string{strings.Repeat("x", 255)}, []string{strings.Repeat("x", 255)}},
		{[]string{strings.Repeat("x", 256)}, []string{strings.Repeat("x", 255) + "…"}},
		{[]string{strings.Repeat("ä", 200)}, []string{strings.Repeat("ä", 127) + "…"}},
		{[]string{strings.Repeat("x", 250), "yyyyyyyyy"}, []string{strings.Repeat("x", 250), "yyyy…"}},
	} {
		spec := &telev1.JobSpec{Command: test.command, Env: map[string]string{"A": "secret"}}
		if got := eventJob(&telev1.Job{Spec: spec}); !slices.Equal(got.Spec.Command, test.want) || got.Spec.Env != nil {
			t.Errorf("%.20q: got %v", test.command, got.Spec)
		}
	}
	empty := eventJob(&telev1.Job{Spec: &telev1.JobSpec{Command: make([]string, 1000)}})
	if n := len(empty.Spec.Command); n != maxEventCommand+1 {
		t.Errorf("%d empty words", n)
	}
}
