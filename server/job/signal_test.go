package job

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]syscall.Signal{"TERM": 15, "sigterm": 15, "15": 15, "int": 2, "64": 64} {
		if got, err := ParseSignal("signal", text); err != nil || got != want {
			t.Errorf("%s is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "65", "-1", "NOPE", "SIG", " TERM"} {
		var request *BadRequest
		if got, err := ParseSignal("signal", text); !errors.As(err, &request) || request.Field != "signal" {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	var request *BadRequest
	err := checkSignals(&telev1.JobSpec{StopSignal: "NOPE"})
	if !errors.As(err, &request) || request.Field != "spec.stop_signal" {
		t.Errorf("got %v", err)
	}
}

// Everybody who asks a job to end does it by the job's own signal, but who names another.
func TestStopSignal(t *testing.T) {
	table := open(t)
	traps := func() *telev1.JobSpec {
		spec := sh("trap 'exit 5' INT; trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done")
		spec.StopSignal = "INT"
		return spec
	}
	for name, test := range map[string]struct {
		stop func(j *Job) error
		want int32
	}{
		"stop":       {func(j *Job) error { return j.Stop(OwnSignal, time.Minute, "me") }, 5},
		"named":      {func(j *Job) error { return j.Stop(unix.SIGTERM, time.Minute, "me") }, 6},
		"timeout":    {func(j *Job) error { return j.Update(nil, durationpb.New(time.Millisecond)) }, 5},
		"limit":      {func(j *Job) error { j.watching.outputEnds(errors.New("too much")); return nil }, 5},
		"the server": {func(j *Job) error { j.shutDown(); return nil }, 5},
	} {
		j := begin(t, table, traps())
		firstOutput(t, j)
		if err := test.stop(j); err != nil {
			t.Fatal(err)
		}
		if job := wait(t, j); job.GetExitCode() != test.want {
			t.Errorf("%s: got %v", name, job)
		}
	}
	j := begin(t, table, sh("echo ready; exec sleep 1000"))
	firstOutput(t, j)
	if err := j.Stop(OwnSignal, time.Minute, "me"); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, j); job.Signal != int32(unix.SIGTERM) || !strings.Contains(job.Message, "stopped by me") {
		t.Errorf("without its own: %v", job)
	}
}
