package job

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
)

// spinner is a job that takes CPU time as long as it can, in several processes, and says that it got USR1.
const spinner = "trap 'echo usr1' USR1; trap 'exit 5' TERM; (while :; do :; done) & echo ready; while :; do :; done"

// cpuTime is what a job has used.
func cpuTime(t *testing.T, j *Job) uint64 {
	t.Helper()
	u := j.group.Usage()
	if u.CPU == nil {
		t.Fatal("no CPU time")
	}
	return *u.CPU
}

// awaitOutput returns when a running job has written text, and nothing before it.
func awaitOutput(t *testing.T, j *Job, text string) {
	t.Helper()
	r, err := j.Output(output.ReadOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for got := ""; got != text; {
		c, err := r.Next(t.Context(), make([]byte, 100))
		if got += string(c.Data); err != nil || !strings.HasPrefix(text, got) {
			t.Fatalf("output %q, %v, want %q", got, err, text)
		}
	}
}

// expectFrozen tells whether a job rests: its group says so, and it takes no CPU time while other jobs run.
func expectFrozen(t *testing.T, table *Table, j *Job) {
	t.Helper()
	var frozen bool
	for _, path := range j.group.Paths() {
		text, _ := os.ReadFile(filepath.Join(path, "frozen", "cgroup.events")) // in one tree alone
		frozen = frozen || strings.Contains(string(text), "frozen 1")
	}
	if !frozen || !j.Snapshot().Paused {
		t.Errorf("frozen %t, status %v", frozen, j.Snapshot())
	}
	// Init alone may still do something, and is done with it.
	before := cpuTime(t, j)
	for range 10 {
		run(t, table, sh("true"))
	}
	if used := cpuTime(t, j) - before; used > 20_000 {
		t.Errorf("used %d us of CPU while it was paused", used)
	}
}

func TestPause(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh(spinner))
	firstOutput(t, j)
	for range 3 { // a second pause changes nothing
		if err := j.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	expectFrozen(t, table, j)
	if err := j.Signal(unix.SIGUSR1, telev1.SignalTarget_SIGNAL_TARGET_COMMAND, "me"); err != nil {
		t.Fatal(err)
	}
	expectFrozen(t, table, j)
	for range 2 {
		if err := j.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	if j.Snapshot().Paused {
		t.Error("is paused still")
	}
	// It goes on, takes the signal that waited, and can be paused again with what it started meanwhile.
	awaitOutput(t, j, "ready\nusr1\n")
	if err := j.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectFrozen(t, table, j)
	if err := j.Signal(unix.SIGKILL, telev1.SignalTarget_SIGNAL_TARGET_COMMAND, "me"); err != nil {
		t.Fatal(err)
	}
	job := wait(t, j) // also of the other process, which rests
	if job.Signal != int32(unix.SIGKILL) || job.Status != telev1.JobStatus_JOB_STATUS_KILLED || job.Paused {
		t.Errorf("got %v", job)
	}
	if err := j.Pause(t.Context()); !errors.Is(err, ErrEnded) {
		t.Errorf("pause of an ended job: %v", err)
	}
	if err := j.Resume(); !errors.Is(err, ErrEnded) {
		t.Errorf("resume of an ended job: %v", err)
	}
}

// Who stops a paused job lets it take the signal; so does its timeout, which goes on while it is paused.
func TestStopOfPaused(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh(spinner))
	timed := begin(t, table, sh(spinner))
	for _, j := range []*Job{j, timed} {
		firstOutput(t, j)
		if err := j.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Stop(unix.SIGTERM, time.Minute, "me"); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, j); job.GetExitCode() != 5 || job.Reason != telev1.Reason_REASON_STOPPED || job.Paused {
		t.Errorf("stopped: %v", job)
	}
	if err := timed.Update(nil, durationpb.New(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, timed); job.GetExitCode() != 5 || job.Reason != telev1.Reason_REASON_TIMED_OUT {
		t.Errorf("timed out: %v", job)
	}
	// A kill at once needs no thaw.
	j = begin(t, table, sh(spinner))
	firstOutput(t, j)
	if err := j.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := j.Stop(unix.SIGTERM, 0, "me"); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, j); job.GetExitCode() != 137 {
		t.Errorf("killed: %v", job)
	}
}

// A job that is being stopped is not paused: it could not end before it is killed.
func TestPauseOfStopping(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh("trap '' TERM; trap 'exit 5' USR1; echo ready; while :; do :; done"))
	firstOutput(t, j)
	if err := j.Stop(unix.SIGTERM, time.Minute, "me"); err != nil {
		t.Fatal(err)
	}
	if err := j.Pause(t.Context()); !errors.Is(err, ErrStopping) {
		t.Errorf("got %v", err)
	}
	// Nor by the next server, where the one before was killed between the two.
	j.mu.Lock()
	err := j.amendLocked(setPaused(true))
	j.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	j = find(t, reopen(t, table), j.id)
	if j.Snapshot().Paused {
		t.Error("it is paused")
	}
	if err := j.Signal(unix.SIGUSR1, telev1.SignalTarget_SIGNAL_TARGET_COMMAND, "me"); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, j); job.GetExitCode() != 5 {
		t.Errorf("got %v", job)
	}
}

// Pauses and resumes while a job makes processes all the time, ends, and is stopped.
func TestPauseOfBusy(t *testing.T) {
	table := open(t)
	for range 3 {
		j := begin(t, table, sh("echo ready; i=0; while [ $i -lt 100 ]; do i=$((i+1)); (:) & (:); done; wait; exit 3"))
		firstOutput(t, j)
		// Not until it ends: one that is mostly frozen may not get there.
		for range 50 {
			err := j.Pause(t.Context())
			if err == nil {
				err = j.Resume()
			}
			if errors.Is(err, ErrEnded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if job := wait(t, j); job.GetExitCode() != 3 {
			t.Errorf("got %v", job)
		}
	}
	j := begin(t, table, sh(spinner))
	firstOutput(t, j)
	stopped := make(chan error, 1)
	go func() { stopped <- j.Stop(unix.SIGTERM, time.Minute, "me") }()
	if err := j.Pause(t.Context()); err != nil && !errors.Is(err, ErrEnded) && !errors.Is(err, ErrStopping) {
		t.Fatal(err)
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if job := wait(t, j); job.GetExitCode() != 5 {
		t.Errorf("paused and stopped at once: %v", job)
	}
}

// A paused job is paused under the next server, also when the one before was killed in the middle of it.
func TestPauseSurvives(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh(spinner))
	half := begin(t, table, sh(spinner))
	for _, j := range []*Job{j, half} {
		firstOutput(t, j)
	}
	if err := j.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	half.mu.Lock()
	err := half.amendLocked(setPaused(true))
	half.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	table = reopen(t, table)
	j, half = find(t, table, j.id), find(t, table, half.id)
	expectFrozen(t, table, j)
	expectFrozen(t, table, half)
	for _, j := range []*Job{j, half} {
		if err := j.Resume(); err != nil {
			t.Fatal(err)
		}
		if err := j.Signal(unix.SIGTERM, telev1.SignalTarget_SIGNAL_TARGET_COMMAND, "me"); err != nil {
			t.Fatal(err)
		}
		if job := wait(t, j); job.GetExitCode() != 5 {
			t.Errorf("got %v", job)
		}
	}
}
