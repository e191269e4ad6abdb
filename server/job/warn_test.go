package job

import (
	"errors"
	"testing"
	"time"

	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestCheckWarning(t *testing.T) {
	spec := func(signal string, before, timeout time.Duration) *telev1.JobSpec {
		return &telev1.JobSpec{WarnSignal: signal, WarnBefore: durationpb.New(before), Timeout: durationpb.New(timeout)}
	}
	if err := checkWarning(spec("USR1", time.Minute, time.Hour)); err != nil {
		t.Error(err)
	}
	for _, s := range []*telev1.JobSpec{spec("NOPE", time.Minute, time.Hour), spec("", time.Minute, time.Hour),
		spec("USR1", 0, time.Hour), spec("USR1", -1, time.Hour), spec("USR1", time.Minute, 0),
		spec("USR1", time.Hour, time.Hour), {WarnSignal: "USR1"}, {WarnSignal: "USR1", Timeout: durationpb.New(time.Hour)}} {
		var request *BadRequest
		if err := checkWarning(s); !errors.As(err, &request) {
			t.Errorf("%v: %v", s, err)
		}
	}
}

// A job is warned before its timeout, once for each that it has.
func TestWarn(t *testing.T) {
	table := open(t)
	spec := sh("trap 'echo usr1' USR1; trap 'exit 5' TERM; echo ready; while :; do :; done")
	spec.Timeout, spec.WarnSignal, spec.WarnBefore = durationpb.New(2*time.Hour), "USR1", durationpb.New(time.Hour)
	j := begin(t, table, spec)
	firstOutput(t, j)
	warned := func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.record.Warned
	}
	j.warn() // it is not time yet
	if warned() {
		t.Error("warned too early")
	}
	if err := j.Update(nil, durationpb.New(30*time.Minute)); err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, j, "ready\nusr1\n")
	table = reopen(t, table)
	j = find(t, table, j.id)
	if !warned() {
		t.Error("the next server does not know of the warning")
	}
	j.warn() // once is enough
	if err := j.Update(nil, durationpb.New(40*time.Minute)); err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, j, "ready\nusr1\nusr1\n")
	if err := j.Update(nil, durationpb.New(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, j); job.Reason != telev1.Reason_REASON_TIMED_OUT || job.GetExitCode() != 5 {
		t.Errorf("got %v", job)
	}
}

// One that a server was about to send comes from the next; and a command that ends of it was ended by it.
func TestWarnGoesOn(t *testing.T) {
	table := open(t)
	spec := sh("echo ready; exec sleep 1000")
	spec.Timeout, spec.WarnSignal, spec.WarnBefore = durationpb.New(2*time.Hour), "USR1", durationpb.New(time.Hour)
	j := begin(t, table, spec)
	firstOutput(t, j)
	j.mu.Lock()
	err := j.amendLocked(func(r *recordv1.Record) bool {
		r.Job.Timeout = durationpb.New(30 * time.Minute)
		return true
	})
	j.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	table = reopen(t, table)
	job := wait(t, find(t, table, j.id))
	const message = "ended by signal 10 (SIGUSR1), which the warning before its timeout sent"
	if job.Signal != int32(unix.SIGUSR1) || job.Message != message {
		t.Errorf("got %v", job)
	}
}
