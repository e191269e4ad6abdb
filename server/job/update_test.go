package job

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/cgroup"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
)

// heldLimit is what became of a job's limit, and that its file says the same.
func heldLimit(t *testing.T, j *Job, name string) string {
	t.Helper()
	for _, l := range j.Snapshot().Limits {
		if l.Name != name {
			continue
		}
		how, _, _ := strings.Cut(l.How, ";")
		path, value, _ := strings.Cut(how, " ")
		if text, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(text)) != value {
			t.Errorf("%s: the file has %q, %v, the job %v", name, text, err, l)
		}
		return l.Applied
	}
	t.Fatalf("no limit %s", name)
	return ""
}

func TestUpdateLimits(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Most.Pids, o.Most.Memory = 1000, 1<<30 })
	j := begin(t, table, &telev1.JobSpec{Command: []string{"python3", "-c",
		"import sys, time\nx = bytearray(100 << 20)\nprint('ready', flush=True)\ntime.sleep(1000)"}})
	firstOutput(t, j)
	expect := func(memory, pids, cpu string) {
		t.Helper()
		got := [3]string{heldLimit(t, j, "memory"), heldLimit(t, j, "pids"), heldLimit(t, j, "cpu")}
		if got != [3]string{memory, pids, cpu} {
			t.Errorf("limits %v, want %s, %s, %s", got, memory, pids, cpu)
		}
	}
	if err := j.Update(&telev1.Limits{Memory: "300M", Pids: "20"}, nil); err != nil {
		t.Fatal(err)
	}
	expect("300M", "20", "1")
	// One that cannot be, of several, and all stay as they are.
	for _, asked := range []*telev1.Limits{{Cpu: "2", Memory: "20M"}, {Cpu: "2", Pids: "1001"}, {Cpu: "2", Memory: "max"},
		{Cpu: "2", Pids: "many"}} {
		err := j.Update(asked, durationpb.New(time.Hour))
		var change *cgroup.ChangeError
		var request *BadRequest
		if !errors.As(err, &change) && !errors.As(err, &request) {
			t.Errorf("%v: got %v", asked, err)
		}
		if request != nil && !strings.HasPrefix(request.Field, "limits.") {
			t.Errorf("%v: field %s", asked, request.Field)
		}
		expect("300M", "20", "1")
		if j.Snapshot().Timeout != nil {
			t.Errorf("%v: timeout %v", asked, j.Snapshot().Timeout)
		}
	}
	table = reopen(t, table)
	j = find(t, table, j.id)
	expect("300M", "20", "1")
	if err := j.Update(&telev1.Limits{Cpu: "0.5", Memory: "400M"}, nil); err != nil {
		t.Fatal(err)
	}
	expect("400M", "20", "0.5")
	if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	job := wait(t, j)
	if l := job.Limits[0]; l.Name != string(limits.CPU) || l.Applied != "0.5" || job.Spec.GetLimits() != nil {
		t.Errorf("ended: %v", job)
	}
	if err := j.Update(&telev1.Limits{Cpu: "1"}, nil); !errors.Is(err, ErrEnded) {
		t.Errorf("update of an ended job: %v", err)
	}
}

func TestUpdateTimeout(t *testing.T) {
	table := open(t)
	short := sh("exec 2>/dev/null; trap 'echo term' TERM; echo ready; while :; do sleep 1000; done")
	short.Timeout = durationpb.New(time.Hour)
	j := begin(t, table, short)
	firstOutput(t, j)
	for _, d := range []time.Duration{-1, time.Microsecond, 200 * 365 * 24 * time.Hour} {
		var request *BadRequest
		if err := j.Update(nil, durationpb.New(d)); !errors.As(err, &request) {
			t.Errorf("timeout %s: %v", d, err)
		}
	}
	left := func() time.Duration {
		j.mu.Lock()
		defer j.mu.Unlock()
		left, limited := j.timeLeftLocked()
		if !limited {
			return 0
		}
		return left
	}
	for _, d := range []time.Duration{2 * time.Hour, 0, 30 * time.Minute} {
		if err := j.Update(nil, durationpb.New(d)); err != nil {
			t.Fatal(err)
		}
		if got := left(); got > d || d > 0 && got < d-time.Minute {
			t.Errorf("timeout %s: %s are left", d, got)
		}
	}
	table = reopen(t, table)
	j = find(t, table, j.id)
	if got := left(); got > 30*time.Minute || got < 29*time.Minute {
		t.Errorf("under the next server %s are left", got)
	}
	// One that has passed stops the job, which does not obey, and then it is too late for more time.
	if err := j.Update(nil, durationpb.New(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, j, "ready\nterm\n")
	if err := j.Update(nil, durationpb.New(time.Hour)); !errors.Is(err, ErrStopping) {
		t.Errorf("got %v", err)
	}
	if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	job := wait(t, j)
	if job.Reason != telev1.Reason_REASON_TIMED_OUT || job.Message != "ran longer than its timeout of 1ms" {
		t.Errorf("got %v", job)
	}
}

// A timeout that was about to stop a job when it got more time does not.
func TestTimeoutComesTooEarly(t *testing.T) {
	spec := sh("echo ready; sleep 1000")
	spec.Timeout = durationpb.New(time.Hour)
	j := begin(t, open(t), spec)
	j.timeOut()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.record.Stop != nil {
		t.Errorf("stopped: %v", j.record.Stop)
	}
}
