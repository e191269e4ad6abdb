package job

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/telerun/tele/initproc"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// again is a job that has further tries.
func again(script string, retries uint32, backoff time.Duration) *telev1.JobSpec {
	spec := sh(script)
	spec.Restart = &telev1.Restart{MaxRetries: retries, Backoff: durationpb.New(backoff)}
	return spec
}

// thirdTime succeeds at the third try, with a work directory on disk.
func thirdTime() *telev1.JobSpec {
	return again("echo out; echo x >>f; [ $(wc -l <f) -ge 3 ] || exit 6", 5, 10*time.Millisecond)
}

const thrice = "started restarting started restarting started ended"

// openDisk is a table whose jobs keep their work directories, and a channel that has each step called so.
func openDisk(t *testing.T, step string) (*Table, chan struct{}) {
	t.Helper()
	table := with(t, open(t), func(o *Options) { o.Work = WorkDisk })
	return table, steps(table, step)
}

func steps(table *Table, step string) chan struct{} {
	met := make(chan struct{}, 200)
	table.at = func(s string) {
		if s == step {
			met <- struct{}{}
		}
	}
	return met
}

// A job is tried until it succeeds, or as often as it may be; each try is recorded, with where its output
// begins, and the output of all is there in order.
func TestRestart(t *testing.T) {
	table, _ := openDisk(t, "")
	job, out := run(t, table, thirdTime())
	if job.Status != telev1.JobStatus_JOB_STATUS_SUCCESS || out != "out\nout\nout\n" || len(job.Tries) != 3 {
		t.Fatalf("got %v, output %q", job, out)
	}
	expectStory(t, table, job.Id, thrice)
	for i, try := range job.Tries {
		code, usage := int32(6), try.Usage
		if i == 2 {
			code = 0
		}
		if try.GetExitCode() != code || try.Reason != telev1.Reason_REASON_EXITED || try.StdoutOffset != uint64(4*i) ||
			try.StartedAt == nil || try.EndedAt == nil || usage.GetWallUsec() == 0 || usage.GetWallUsec() > job.Usage.GetWallUsec() {
			t.Errorf("try %d: %v", i, try)
		}
	}
	for script, want := range map[string]struct {
		reason telev1.Reason
		code   int32
	}{
		"echo out; exit 7":           {telev1.Reason_REASON_EXITED, 7},
		"echo out; kill -SEGV $$":    {telev1.Reason_REASON_SIGNALED, 139},
		"echo out; kill -INT $$ $$;": {telev1.Reason_REASON_SIGNALED, 130},
	} {
		job, out := run(t, table, again(script, 2, 10*time.Millisecond))
		if job.Status != telev1.JobStatus_JOB_STATUS_FAILED || job.Reason != want.reason || job.GetExitCode() != want.code ||
			len(job.Tries) != 3 || out != "out\nout\nout\n" || !strings.HasSuffix(job.Message, ", at the last of 3 tries") {
			t.Errorf("%s: got %v, output %q", script, job, out)
		}
	}
}

// What tele itself ends is not tried again, nor what succeeds.
func TestRestartIsForFailures(t *testing.T) {
	table, _ := openDisk(t, "")
	late := again("exec sleep 1000", 3, 10*time.Millisecond)
	late.Timeout = durationpb.New(50 * time.Millisecond)
	much := again("exec yes", 3, 10*time.Millisecond)
	much.OutputLimit = "10K"
	for reason, spec := range map[telev1.Reason]*telev1.JobSpec{telev1.Reason_REASON_TIMED_OUT: late,
		telev1.Reason_REASON_OUTPUT_LIMIT: much, telev1.Reason_REASON_EXITED: again("true", 3, 10*time.Millisecond)} {
		if job, _ := run(t, table, spec); job.Reason != reason || len(job.Tries) != 1 || job.Tries[0].Reason != reason {
			t.Errorf("got %v", job)
		}
	}
	for name, end := range map[string]func(*Job) error{
		"stop": func(j *Job) error { return j.Stop(unix.SIGTERM, time.Minute, "me") },
		"signal": func(j *Job) error {
			return j.Signal(unix.SIGKILL, telev1.SignalTarget_SIGNAL_TARGET_COMMAND, "me")
		},
	} {
		j := begin(t, table, again("echo ready; exec sleep 1000", 3, 10*time.Millisecond))
		firstOutput(t, j)
		if err := end(j); err != nil {
			t.Fatal(err)
		}
		if job := wait(t, j); job.Reason != telev1.Reason_REASON_STOPPED || len(job.Tries) != 1 {
			t.Errorf("%s: got %v", name, job)
		}
	}
}

// Between two tries a job says so, has nothing that could be asked of its processes, and is stopped at once.
func TestStopBetweenTries(t *testing.T) {
	table, waiting := openDisk(t, "waiting for the next try")
	j := begin(t, table, again("echo out; exit 7", 3, time.Hour))
	<-waiting
	now, cause := j.Explain()
	if now.Status != telev1.JobStatus_JOB_STATUS_SUBMITTED || now.StartedAt == nil || now.EndedAt != nil ||
		!strings.HasPrefix(now.Message, "try 2 of 4 begins at ") || now.StdoutBytes != 4 || cause.Kind != "between_tries" {
		t.Errorf("got %v, %v", now, cause)
	}
	_, err := j.Beside(t.Context(), sh("true"))
	for what, err := range map[string]error{
		"exec":   err,
		"signal": j.Signal(unix.SIGUSR1, telev1.SignalTarget_SIGNAL_TARGET_ALL, "me"),
		"pause":  j.Pause(t.Context()), "set": j.Update(&telev1.Limits{Memory: "1G"}, nil),
	} {
		if !errors.Is(err, ErrBetween) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if ids := table.options.Cgroups.List(); len(ids) != 0 {
		t.Errorf("cgroups: %v", ids)
	}
	if err := table.Remove(j); !errors.Is(err, ErrNotEnded) {
		t.Errorf("remove: %v", err)
	}
	if err := j.Stop(unix.SIGTERM, time.Hour, "me"); err != nil {
		t.Fatal(err)
	}
	job := wait(t, j)
	if job.Status != telev1.JobStatus_JOB_STATUS_KILLED || job.Reason != telev1.Reason_REASON_STOPPED || job.GetExitCode() != 7 ||
		job.Message != "stopped by me" || len(job.Tries) != 1 || read(t, j) != "out\n" {
		t.Errorf("got %v", job)
	}
	expectStory(t, table, j.id, "started restarting ended")
}

// The timeout goes on between two tries.
func TestTimeoutBetweenTries(t *testing.T) {
	table, _ := openDisk(t, "")
	spec := again("exit 7", 3, time.Hour)
	spec.Timeout = durationpb.New(100 * time.Millisecond)
	if job, _ := run(t, table, spec); job.Reason != telev1.Reason_REASON_TIMED_OUT || job.Status != telev1.JobStatus_JOB_STATUS_FAILED ||
		job.GetExitCode() != 7 || len(job.Tries) != 1 {
		t.Errorf("got %v", job)
	}
}

// A server that ends between two tries leaves the rest to the next one; with secrets, which it had alone, there
// is no other try.
func TestRestartAcrossServers(t *testing.T) {
	table, waiting := openDisk(t, "waiting for the next try")
	third := begin(t, table, thirdTime())
	long := begin(t, table, again("exit 7", 3, time.Hour))
	secret := again("cat $TELE_SECRETS/token; exit 7", 1, 300*time.Millisecond)
	known, err := table.Start(t.Context(), "me", "", secret, &telev1.Secret{Name: "token", Data: []byte("known\n")})
	if err != nil {
		t.Fatal(err)
	}
	if job := wait(t, known); len(job.Tries) != 2 || read(t, known) != "known\nknown\n" || known.secrets[0].Data[0] != 0 {
		t.Errorf("with a secret: %v", job)
	}
	secret.Restart.Backoff = durationpb.New(time.Hour)
	gone, err := table.Start(t.Context(), "me", "", secret, &telev1.Secret{Name: "token", Data: []byte("known\n")})
	if err != nil {
		t.Fatal(err)
	}
	for gone.Snapshot().Status != telev1.JobStatus_JOB_STATUS_SUBMITTED || long.Snapshot().Status != telev1.JobStatus_JOB_STATUS_SUBMITTED {
		<-waiting
	}
	for range 3 {
		table = reopen(t, table)
	}
	if job := wait(t, find(t, table, third.id)); job.Status != telev1.JobStatus_JOB_STATUS_SUCCESS || len(job.Tries) != 3 {
		t.Errorf("got %v", job)
	}
	job := wait(t, find(t, table, gone.id))
	if job.Reason != telev1.Reason_REASON_EXITED || job.GetExitCode() != 7 || len(job.Tries) != 1 || !strings.HasSuffix(job.Message, secretsGone) {
		t.Errorf("with a secret: %v", job)
	}
	j := find(t, table, long.id)
	if job := j.Snapshot(); job.Status != telev1.JobStatus_JOB_STATUS_SUBMITTED || len(job.Tries) != 1 {
		t.Errorf("got %v", job)
	}
	table.Stop() // also what waits
	if job := j.Snapshot(); job.Reason != telev1.Reason_REASON_STOPPED || !strings.Contains(job.Message, "shut down") {
		t.Errorf("got %v", job)
	}
}

// A server that ends just as a try begins lets go of the job once, and the next one goes on with it.
func TestLeaveAsATryBegins(t *testing.T) {
	table := open(t)
	begun, left := 0, make(chan struct{})
	table.at = func(step string) { // of one job, so one at a time
		if step != "watch begun" {
			return
		}
		if begun++; begun != 2 {
			return
		}
		table.mu.Lock()
		list := slices.Clone(table.order)
		table.mu.Unlock()
		go func() { table.Leave(); close(left) }()
		for !list[0].watching.over.Load() {
			runtime.Gosched()
		}
		select { // long enough for who does not wait
		case <-left:
			t.Error("the server has left a job that is being begun")
		case <-time.After(50 * time.Millisecond):
		}
	}
	j := begin(t, table, again("echo out; exit 7", 1, 10*time.Millisecond))
	<-left
	job := wait(t, find(t, reopen(t, table), j.id))
	if job.Reason != telev1.Reason_REASON_EXITED || job.GetExitCode() != 7 || len(job.Tries) != 2 {
		t.Errorf("got %v", job)
	}
}

// A try that runs is watched, and can be stopped, though there is no room for the record that says so.
func TestTryOnAFullDisk(t *testing.T) {
	table, _ := openDisk(t, "")
	begun, job := make(chan struct{}, 2), make(chan *Job, 1)
	full := "" // of one job, so one at a time
	table.at = func(step string) {
		var err error
		switch {
		case step == "try running":
			full = recordPath((<-job).dir)
			err = errors.Join(os.Rename(full, full+".room"), os.Symlink("/dev/full", full))
		case step == "watch begun":
			begun <- struct{}{}
		case step == "end seen" && full != "":
			err = os.Rename(full+".room", full)
		}
		if err != nil {
			t.Error(err)
		}
	}
	j := begin(t, table, again("[ -e f ] || { echo >f; exit 7; }; trap 'echo stopped; exit 3' TERM; echo ready; sleep 1000 & wait $!", 1, 10*time.Millisecond))
	job <- j
	<-begun
	select {
	case <-begun:
	case <-time.After(20 * time.Second):
		t.Fatal("the try is not watched")
	}
	firstOutput(t, j)
	if err := j.Stop(unix.SIGTERM, time.Minute, "me"); err != nil {
		t.Error(err)
	}
	if job := wait(t, j); job.Reason != telev1.Reason_REASON_STOPPED || job.GetExitCode() != 3 || len(job.Tries) != 2 ||
		!strings.Contains(read(t, j), "stopped\n") {
		t.Errorf("got %v", job)
	}
}

// Who stops a job, or would change it, while what an earlier server began of a try is taken away is heard.
func TestStopOfATryCutOff(t *testing.T) {
	table, waiting := openDisk(t, "waiting for the next try")
	j := begin(t, table, again("exit 7", 1, time.Hour))
	<-waiting
	j.mu.Lock()
	j.claimLocked()
	j.mu.Unlock()
	table.forget(j)
	asked := make(chan error, 2)
	table.at = func(step string) {
		if step == "try cut off" {
			asked <- j.Update(&telev1.Limits{Memory: "1G"}, nil)
			asked <- j.Stop(unix.SIGTERM, time.Minute, "me")
		}
	}
	table.addCutOff(j, initproc.ErrInitGone)
	if err := <-asked; !errors.Is(err, ErrBetween) {
		t.Errorf("update: %v", err)
	}
	if err := <-asked; err != nil {
		t.Errorf("stop: %v", err)
	}
	if job := wait(t, j); job.Reason != telev1.Reason_REASON_STOPPED || job.GetExitCode() != 7 || len(job.Tries) != 1 {
		t.Errorf("got %v", job)
	}
}

// A clock that was set back by years holds up no try.
func TestRestartWithTheClockSetBack(t *testing.T) {
	table, waiting := openDisk(t, "waiting for the next try")
	j := begin(t, table, again("exit 7", 1, 500*time.Millisecond))
	<-waiting
	table.Leave()
	record, err := readRecord(j.dir)
	if err == nil && record.AgainAt != nil {
		record.AgainAt = timestamppb.New(time.Now().AddDate(50, 0, 0))
		err = writeRecord(j.dir, record)
	}
	if err != nil {
		t.Fatal(err)
	}
	done := find(t, reopen(t, table), j.id).done
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("there is no other try")
	}
}

// A further try whose beginning can be recorded by no server is one that failed: the job stays.
func TestTryThatCannotBeRecorded(t *testing.T) {
	table, left := open(t), make(chan struct{})
	blocked := ""
	table.at = func(step string) {
		if step == "try running" && blocked == "" {
			table.mu.Lock()
			blocked = table.order[0].dir + "/record.new"
			table.mu.Unlock()
			if err := os.Mkdir(blocked, 0o700); err != nil { // where a large record is written
				t.Error(err)
			}
			go func() { table.Leave(); close(left) }()
			<-table.life.Done()
		}
	}
	spec := again("exit 7", 2, 300*time.Millisecond)
	spec.Env = map[string]string{"LARGE": strings.Repeat("x", maxAppended)}
	j := begin(t, table, spec)
	<-left
	table = reopen(t, table)
	j, err := table.Get(j.id, all)
	if err = errors.Join(err, os.Remove(blocked)); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, j); job.GetExitCode() != 7 || len(job.Tries) != 3 || job.Tries[1].Reason != telev1.Reason_REASON_START_FAILED {
		t.Errorf("got %v", job)
	}
}

// A try that cannot be started is one that failed, and the next may run.
func TestTryThatCannotStart(t *testing.T) {
	for _, comesBack := range []bool{false, true} {
		table := open(t)
		data, away := t.TempDir(), t.TempDir()+"/away"
		spec := again("echo out; exit 7", 2, 10*time.Millisecond)
		spec.Mounts = []*telev1.Mount{{Source: data, Target: "/opt"}}
		ended := 0
		table.at = func(step string) { // of one job, so one at a time
			var err error
			switch {
			case step == "try ended" && ended == 0:
				err = os.Rename(data, away)
			case step == "try not started" && ended == 1 && comesBack:
				err = os.Rename(away, data)
			default:
				return
			}
			if ended++; err != nil {
				t.Error(err)
			}
		}
		j := begin(t, table, spec)
		job, want, reason := wait(t, j), "out\n", telev1.Reason_REASON_START_FAILED
		if comesBack {
			want, reason = "out\nout\n", telev1.Reason_REASON_EXITED
		}
		if job.Reason != reason || job.GetExitCode() != 7 || len(job.Tries) != 3 || read(t, j) != want ||
			job.Tries[1].Reason != telev1.Reason_REASON_START_FAILED || job.Tries[1].StartedAt != nil ||
			!strings.Contains(job.Tries[1].Message, "could not be started: spec.mounts: open "+data) {
			t.Errorf("got %v", job)
		}
	}
}

// A server that is killed between any two steps of a further try leaves nothing undone, and nothing is done twice.
func TestCrashAtEveryStepOfATry(t *testing.T) {
	for _, step := range []string{"end seen", "end recorded", "try ended", "waiting for the next try", "try recorded", "try running", "try begun"} {
		t.Run(step, func(t *testing.T) {
			table := open(t)
			table.Leave()
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "TELE_TEST_CRASH="+step, "TELE_TEST_RESTART=1", "TELE_TEST_STATE="+table.options.StateDir,
				"TELE_TEST_CGROUP="+groupName(t))
			cmd.Stderr = os.Stderr
			_ = cmd.Run() // killed
			if status := cmd.ProcessState.Sys().(interface{ Signaled() bool }); !status.Signaled() {
				t.Fatalf("the server was not killed: %v", cmd.ProcessState)
			}
			table = with(t, table, func(o *Options) { o.Work = WorkDisk })
			jobs := list(t, table)
			if len(jobs) != 1 {
				t.Fatalf("jobs: %v", jobs)
			}
			j := find(t, table, jobs[0].Id)
			job := wait(t, j)
			if out := read(t, j); job.Status != telev1.JobStatus_JOB_STATUS_SUCCESS || len(job.Tries) != 3 || out != "out\nout\nout\n" {
				t.Errorf("got %v, output %q", job, out)
			}
			expectStory(t, table, j.id, thrice)
			table.running.Wait()
			if r, err := readRecord(j.dir); err != nil || !initproc.Gone(initID(r)) {
				t.Errorf("init is left: %v", err)
			}
			if groups := table.options.Cgroups.List(); len(groups) != 0 {
				t.Errorf("cgroups left: %v", groups)
			}
		})
	}
}

func TestCheckRestart(t *testing.T) {
	for field, change := range map[string]func(*telev1.JobSpec){
		"spec.restart.max_retries": func(s *telev1.JobSpec) { s.Restart.MaxRetries = 101 },
		"spec.restart.backoff":     func(s *telev1.JobSpec) { s.Restart.Backoff = durationpb.New(9 * time.Millisecond) },
		"spec.restart":             func(s *telev1.JobSpec) { s.Stdin = true },
	} {
		spec := again("true", 100, 10*time.Millisecond)
		if err := checkSpec(spec); err != nil {
			t.Error(err)
		}
		change(spec)
		request := new(BadRequest)
		if err := checkSpec(spec); !errors.As(err, &request) || request.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, wrong := range []*telev1.JobSpec{again("true", 0, time.Second), again("true", 1, time.Hour+1), again("true", 1, -1)} {
		if checkSpec(wrong) == nil {
			t.Errorf("no error: %v", wrong)
		}
	}
	terminal := again("true", 1, time.Second)
	terminal.Terminal = &telev1.TerminalSize{Rows: 24, Columns: 80}
	if checkSpec(terminal) == nil {
		t.Error("with a terminal: no error")
	}
}

func TestBackoff(t *testing.T) {
	for _, test := range []struct {
		first *durationpb.Duration
		tries int
		want  time.Duration
	}{{nil, 1, time.Second}, {nil, 2, 2 * time.Second}, {nil, 6, 32 * time.Second}, {nil, 7, time.Minute}, {nil, 101, time.Minute},
		{durationpb.New(10 * time.Millisecond), 3, 40 * time.Millisecond}, {durationpb.New(time.Hour), 5, time.Hour}} {
		if got := backoff(&telev1.Restart{Backoff: test.first}, test.tries); got != test.want {
			t.Errorf("%v, %d tries: %s, want %s", test.first, test.tries, got, test.want)
		}
	}
}
