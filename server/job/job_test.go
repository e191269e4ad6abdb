package job

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/cgroup"
	"github.com/telerun/tele/proto/files"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestMain(m *testing.M) {
	if os.Args[0] == files.AgentName {
		os.Exit(files.Agent(os.Args[1:]))
	}
	if os.Getenv("TELE_TEST_CRASH") != "" {
		crash()
	}
	goleak.VerifyTestMain(m)
}

func all(string) bool { return true }

var noLimits = limits.Limits{CPU: limits.Max, Memory: limits.Max, Swap: limits.Max,
	IORead: limits.Max, IOWrite: limits.Max, Pids: limits.Max}

// An errorLog fails the test for what is logged.
type errorLog struct{ t *testing.T }

func (l errorLog) Write(line []byte) (int, error) {
	l.t.Errorf("logged: %s", line)
	return len(line), nil
}

// groupName is the name of the test's own cgroup.
func groupName(t *testing.T) string {
	return fmt.Sprintf("tele-jobtest-%d-%s", os.Getpid(), strings.NewReplacer("/", "-").Replace(strings.ToLower(t.Name())))
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if strings.Contains(os.Getenv("TELE_REQUIRE"), "root") {
			t.Fatal("TELE_REQUIRE names root, and this is not root")
		}
		t.Skip("needs root")
	}
}

func open(t *testing.T) *Table {
	t.Helper()
	needRoot(t)
	m, err := cgroup.Open(cgroup.Options{Name: groupName(t)})
	if err != nil {
		t.Fatal(err)
	}
	table, err := Open(Options{StateDir: t.TempDir(), Cgroups: m, Most: noLimits,
		Log: zerolog.New(errorLog{t}).Level(zerolog.ErrorLevel)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		table.Stop()
		if ids := m.List(); len(ids) != 0 {
			t.Errorf("cgroups left: %v", ids)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

func run(t *testing.T, table *Table, spec *telev1.JobSpec) (*telev1.Job, string) {
	t.Helper()
	j, err := table.Start(t.Context(), "me", "", spec)
	if err != nil {
		t.Fatal(err)
	}
	job, err := j.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return job, read(t, j)
}

func read(t *testing.T, j *Job) string {
	t.Helper()
	r, err := j.Output(output.ReadOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all strings.Builder
	for {
		c, err := r.Next(t.Context(), make([]byte, 4096))
		if err == io.EOF {
			return all.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		all.Write(c.Data)
	}
}

// list is all jobs, newest first.
func list(t *testing.T, table *Table) []*telev1.Job {
	t.Helper()
	jobs, next, err := table.List(all, Page{Size: 1000})
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	return jobs
}

func sh(script string) *telev1.JobSpec {
	return &telev1.JobSpec{Command: []string{"sh", "-c", script}}
}

func TestEnds(t *testing.T) {
	table := open(t)
	timeout := sh("sleep 1000")
	timeout.Timeout = durationpb.New(50 * time.Millisecond)
	hog := &telev1.JobSpec{Command: []string{"python3", "-c", "x = bytearray(600 << 20)"}}
	for _, test := range []struct {
		spec   *telev1.JobSpec
		status telev1.JobStatus
		reason telev1.Reason
		code   int32
		output string
	}{
		{sh("echo out; echo err >&2"), telev1.JobStatus_JOB_STATUS_SUCCESS, telev1.Reason_REASON_EXITED, 0, "out\nerr\n"},
		{sh("exit 7"), telev1.JobStatus_JOB_STATUS_FAILED, telev1.Reason_REASON_EXITED, 7, ""},
		{sh("kill -SEGV $$"), telev1.JobStatus_JOB_STATUS_FAILED, telev1.Reason_REASON_SIGNALED, 139, ""},
		{timeout, telev1.JobStatus_JOB_STATUS_FAILED, telev1.Reason_REASON_TIMED_OUT, 143, ""},
		{hog, telev1.JobStatus_JOB_STATUS_FAILED, telev1.Reason_REASON_OOM_KILLED, 137, ""},
	} {
		job, out := run(t, table, test.spec)
		if job.Status != test.status || job.Reason != test.reason || job.GetExitCode() != test.code ||
			test.output != "" && len(out) != len(test.output) {
			t.Errorf("%v: got %v %v %d %q", test.spec.Command, job.Status, job.Reason, job.GetExitCode(), out)
		}
	}
}

func TestForkBombIsHeld(t *testing.T) {
	spec := sh("i=0; while [ $i -lt 50 ]; do sleep 1000 & i=$((i+1)); done; echo never")
	spec.Limits = &telev1.Limits{Pids: "20"}
	job, out := run(t, open(t), spec)
	if job.Status != telev1.JobStatus_JOB_STATUS_FAILED || strings.Contains(out, "never") || job.Usage.GetPidsPeak() > 20 {
		t.Errorf("got %v %q", job, out)
	}
}

func TestStop(t *testing.T) {
	table := open(t)
	for script, want := range map[string]int32{
		"trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done": 3,
		"trap '' TERM; echo ready; while :; do sleep 0.01; done":       137,
	} {
		j, err := table.Start(t.Context(), "me", "", sh(script))
		if err != nil {
			t.Fatal(err)
		}
		r, err := j.Output(output.ReadOptions{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(t.Context(), make([]byte, 10)); err != nil { // the trap is set
			t.Fatal(err)
		}
		_ = r.Close()
		if err := j.Stop(unix.SIGTERM, 200*time.Millisecond, "me"); err != nil {
			t.Fatal(err)
		}
		job, err := j.Wait(t.Context())
		if err != nil || job.Status != telev1.JobStatus_JOB_STATUS_KILLED || job.GetExitCode() != want {
			t.Errorf("%s: got %v, %v", script, job, err)
		}
	}
}

func TestStartFailureLeavesNothing(t *testing.T) {
	table := open(t)
	for _, spec := range []*telev1.JobSpec{
		{}, {Command: []string{"no-such-program"}}, {Command: []string{"true"}, Cwd: "/no/such"},
		{Command: []string{"true"}, Cwd: "relative"},
		{Command: []string{"true"}, Limits: &telev1.Limits{Memory: "12X"}},
		{Command: []string{"true"}, Env: map[string]string{"a=b": "c"}},
	} {
		_, err := table.Start(t.Context(), "me", "", spec)
		var step *initproc.StepError
		var request *BadRequest
		if !errors.As(err, &step) && !errors.As(err, &request) {
			t.Errorf("%v: got %v", spec, err)
		}
	}
	entries, err := os.ReadDir(table.jobsDir())
	if err != nil || len(entries) != 0 || len(table.options.Cgroups.List()) != 0 || len(table.uids) != 0 {
		t.Errorf("left: %v %v %v %v", entries, table.options.Cgroups.List(), table.uids, err)
	}
}

func TestManyAtOnceAndReopen(t *testing.T) {
	table := open(t)
	done := make(chan string, 100)
	for range cap(done) {
		go func() {
			j, err := table.Start(t.Context(), "me", "", sh("echo hello"))
			if err != nil {
				done <- err.Error()
				return
			}
			if _, err := j.Wait(t.Context()); err != nil {
				done <- err.Error()
				return
			}
			done <- ""
		}()
	}
	for range cap(done) {
		if problem := <-done; problem != "" {
			t.Error(problem)
		}
	}
	again := reopen(t, table)
	jobs := list(t, again)
	if len(jobs) != cap(done) {
		t.Fatalf("%d jobs after reopening", len(jobs))
	}
	j, err := again.Get(jobs[0].Id[:11], all)
	if err != nil {
		t.Fatal(err)
	}
	if out := read(t, j); out != "hello\n" {
		t.Errorf("output %q", out)
	}
}
