package job

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits/cgroup"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// reopen is the next server on the same state directory.
func reopen(t *testing.T, table *Table) *Table {
	t.Helper()
	return with(t, table, func(*Options) {})
}

// with is the next server, with other options.
func with(t *testing.T, table *Table, change func(*Options)) *Table {
	t.Helper()
	table.Leave()
	o := table.options
	change(&o)
	next, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Stop)
	return next
}

func find(t *testing.T, table *Table, id string) *Job {
	t.Helper()
	j, err := table.Get(id, all)
	if err != nil {
		t.Fatalf("job %s: %v", id, err)
	}
	return j
}

func wait(t *testing.T, j *Job) *telev1.Job {
	t.Helper()
	job, err := j.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// firstOutput returns when the job has written something.
func firstOutput(t *testing.T, j *Job) {
	t.Helper()
	r, err := j.Output(output.ReadOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(t.Context(), make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, table *Table, spec *telev1.JobSpec) *Job {
	t.Helper()
	j, err := table.Start(t.Context(), "me", "", spec)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// Jobs of all kinds go on under one server after another; output, exit codes and reasons are true.
func TestTakeOver(t *testing.T) {
	table := open(t)
	writer := begin(t, table, sh("i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; echo e$i >&2; done; exit 4"))
	short := begin(t, table, sh("echo done; exit 5"))
	long := begin(t, table, sh("echo ready; exec sleep 1000"))
	limited := sh("echo ready; exec sleep 1000")
	limited.Timeout = durationpb.New(time.Second)
	timed := begin(t, table, limited)
	for range 20 {
		table = reopen(t, table)
	}
	job := wait(t, find(t, table, writer.id))
	var stdout, stderr strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&stdout, "%d\n", i+1)
		fmt.Fprintf(&stderr, "e%d\n", i+1)
	}
	if job.GetExitCode() != 4 || job.Reason != telev1.Reason_REASON_EXITED {
		t.Errorf("writer: got %v", job)
	}
	for stream, want := range map[output.Stream]string{output.Stdout: stdout.String(), output.Stderr: stderr.String()} {
		if got := readStream(t, find(t, table, writer.id), stream); got != want {
			t.Errorf("writer, stream %d: %d bytes of output, want %d", stream, len(got), len(want))
		}
	}
	if job := wait(t, find(t, table, short.id)); job.GetExitCode() != 5 || job.StdoutBytes != 5 {
		t.Errorf("short: got %v", job)
	}
	if job := wait(t, find(t, table, timed.id)); job.Reason != telev1.Reason_REASON_TIMED_OUT {
		t.Errorf("timed: got %v", job)
	}
	j := find(t, table, long.id)
	if job := j.Snapshot(); job.Status != telev1.JobStatus_JOB_STATUS_RUNNING || job.StartedAt == nil {
		t.Errorf("long: got %v", job)
	}
	if err := j.Stop(unix.SIGTERM, time.Minute, "me"); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, j); job.Reason != telev1.Reason_REASON_STOPPED || job.GetExitCode() != 143 {
		t.Errorf("long: got %v", job)
	}
}

// A job of an older server, which made a group in every hierarchy, is taken over with all of its groups,
// and ends with them. The next server's own jobs share none of these.
func TestTakeOverOfMoreGroups(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh("echo ready; exec sleep 1000"))
	firstOutput(t, j)
	table.Leave()
	record := j.record
	var more []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		path := filepath.Join(strings.Fields(before)[4], groupName(t), j.id)
		if !strings.HasPrefix(after, "cgroup ") || slices.Contains(record.Cgroups, path) {
			continue
		}
		controllers := strings.Fields(after)[2]
		if !strings.HasSuffix(controllers, ",devices") && !strings.HasSuffix(controllers, ",cpuacct") {
			continue // no server made any there
		}
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "tasks"), []byte(strconv.Itoa(j.init.Pid)), 0); err != nil {
			t.Fatal(err)
		}
		more = append(more, path)
	}
	record.Cgroups = slices.Concat(more, record.Cgroups) // their order is the older server's
	record.Cgroups = append(record.Cgroups, filepath.Join("/sys/fs/cgroup", groupName(t), "not-here-any-more", j.id))
	if err := writeRecord(j.dir, record); err != nil {
		t.Fatal(err)
	}
	table = reopen(t, table)
	j = find(t, table, j.id)
	other := begin(t, table, sh("echo ready; exec sleep 1000"))
	firstOutput(t, other)
	if err := j.Stop(unix.SIGTERM, 0, "me"); err != nil {
		t.Fatal(err)
	}
	job := wait(t, j)
	u := job.Usage
	if job.Reason != telev1.Reason_REASON_STOPPED || u.CpuUsec == nil || u.GetMemoryPeakBytes() == 0 {
		t.Errorf("got %v", job)
	}
	if other.Snapshot().Status != telev1.JobStatus_JOB_STATUS_RUNNING {
		t.Errorf("the other job: %v", other.Snapshot())
	}
	table.Stop() // then all sandboxes are gone
	for _, path := range record.Cgroups {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

func readStream(t *testing.T, j *Job, s output.Stream) string {
	t.Helper()
	r, err := j.Output(output.ReadOptions{Stream: s})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var text strings.Builder
	buf := make([]byte, 64<<10)
	for {
		c, err := r.Next(t.Context(), buf)
		if err == io.EOF {
			return text.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		text.Write(c.Data)
	}
}

// A stop that the server did not live to carry out is carried out by the next.
func TestStopGoesOn(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh("trap '' TERM; echo ready; while :; do sleep 0.01; done"))
	firstOutput(t, j)
	if err := j.Stop(unix.SIGTERM, 300*time.Millisecond, "somebody"); err != nil {
		t.Fatal(err)
	}
	table = reopen(t, table)
	job := wait(t, find(t, table, j.id))
	if job.Reason != telev1.Reason_REASON_STOPPED || job.Message != "stopped by somebody" || job.GetExitCode() != 137 ||
		job.Status != telev1.JobStatus_JOB_STATUS_KILLED {
		t.Errorf("got %v", job)
	}
}

// A job whose init was killed is lost, whether the server that started it was there, none, or the next
// one; its output is kept.
func TestInitKilled(t *testing.T) {
	table := open(t)
	for _, test := range []struct {
		name        string
		left, taken bool // before the kill
	}{{"with its server", false, false}, {"without", true, false}, {"with the next", true, true}} {
		outer := t // what opens a table closes it at its end
		t.Run(test.name, func(t *testing.T) {
			j := begin(t, table, sh("echo ready; exec sleep 1000"))
			firstOutput(t, j)
			pid := j.init.Pid
			if test.left {
				table.Leave()
			}
			if test.taken {
				table = reopen(outer, table)
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if test.left && !test.taken {
				if _, err := unix.Wait4(pid, nil, 0, nil); err != nil { // this process is the earlier server too
					t.Fatal(err)
				}
				table = reopen(outer, table)
			}
			j = find(t, table, j.id)
			job := wait(t, j)
			if job.Reason != telev1.Reason_REASON_LOST || job.Status != telev1.JobStatus_JOB_STATUS_FAILED ||
				job.ExitCode != nil || !strings.Contains(job.Message, "killed") {
				t.Errorf("got %v", job)
			}
			if out := read(t, j); out != "ready\n" {
				t.Errorf("output %q", out)
			}
		})
	}
}

// After a reboot no init is the one that the record names.
func TestReboot(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh("echo ready; exec sleep 1000"))
	firstOutput(t, j)
	id := initID(j.record)
	table.Leave()
	record := j.record
	record.BootId = "the boot before"
	if err := writeRecord(j.dir, record); err != nil {
		t.Fatal(err)
	}
	table = reopen(t, table)
	job := wait(t, find(t, table, j.id))
	if job.Reason != telev1.Reason_REASON_LOST || !strings.Contains(job.Message, "restarted") || job.StdoutBytes != 6 {
		t.Errorf("got %v", job)
	}
	if len(table.options.Cgroups.List()) == 0 && initproc.Gone(id) {
		return
	}
	if i, err := initproc.Adopt(id); err == nil { // without a cgroup nobody could know of it
		i.Close()
	}
}

// What a newer server wrote is left alone, job and all.
func TestNewerRecord(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh("exec sleep 1000"))
	id := initID(j.record)
	table.Leave()
	j.record.Version = recordVersion + 1
	if err := writeRecord(j.dir, j.record); err != nil {
		t.Fatal(err)
	}
	table = reopen(t, table)
	if _, err := table.Get(j.id, all); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if initproc.Gone(id) {
		t.Error("its init is gone")
	}
	j.record.Version = recordVersion // the newer server again
	if err := writeRecord(j.dir, j.record); err != nil {
		t.Fatal(err)
	}
	table = reopen(t, table)
	if job := find(t, table, j.id).Snapshot(); job.Status != telev1.JobStatus_JOB_STATUS_RUNNING {
		t.Errorf("got %v", job)
	}
}

// One key makes one job: at the same time, later, after a restart, and after its end.
func TestIdempotencyKey(t *testing.T) {
	table := open(t)
	spec := sh("echo x; exec sleep 1000")
	ids := make(chan string, 10)
	for range cap(ids) {
		go func() {
			j, err := table.Start(t.Context(), "me", "k", spec)
			if err != nil {
				t.Error(err)
				ids <- ""
				return
			}
			ids <- j.id
		}()
	}
	id := <-ids
	for range cap(ids) - 1 {
		if other := <-ids; other != id {
			t.Errorf("jobs %s and %s", id, other)
		}
	}
	again := func(owner string) string {
		j, err := table.Start(t.Context(), owner, "k", spec)
		if err != nil {
			t.Fatal(err)
		}
		return j.id
	}
	table = reopen(t, table)
	if other := again("me"); other != id {
		t.Errorf("after a restart: %s and %s", id, other)
	}
	if other := again("you"); other == id {
		t.Error("another's key gives my job")
	}
	var request *BadRequest
	if _, err := table.Start(t.Context(), "me", "k", sh("true")); !errors.As(err, &request) || request.Field != "idempotency_key" {
		t.Errorf("another spec: %v", err)
	}
	if err := find(t, table, id).Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	wait(t, find(t, table, id))
	table = reopen(t, table)
	if other := again("me"); other != id {
		t.Errorf("after its end: %s and %s", id, other)
	}
	// A start that failed leaves the key free.
	if _, err := table.Start(t.Context(), "me", "f", &telev1.JobSpec{Command: []string{"no-such-program"}}); err == nil {
		t.Error("no error")
	}
	if _, err := table.Start(t.Context(), "me", "f", &telev1.JobSpec{Command: []string{"true"}}); err != nil {
		t.Error(err)
	}
}

// crash is a server that kills itself at a step of its first job: TELE_TEST_CRASH is the step,
// TELE_TEST_STATE the state directory, TELE_TEST_CGROUP the name of the cgroup.
func crash() {
	groups, err := cgroup.Open(cgroup.Options{Name: os.Getenv("TELE_TEST_CGROUP")})
	if err != nil {
		panic(err)
	}
	table, err := Open(Options{StateDir: os.Getenv("TELE_TEST_STATE"), Cgroups: groups, Most: noLimits, Work: WorkDisk})
	if err != nil {
		panic(err)
	}
	table.at = func(step string) {
		if step == os.Getenv("TELE_TEST_CRASH") {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			_ = unix.Pause()
		}
	}
	if os.Getenv("TELE_TEST_RESTART") != "" {
		if _, err := table.Start(context.Background(), "me", "k", thirdTime()); err != nil {
			panic(err)
		}
		select {} // a signal of a child's end would end unix.Pause
	}
	spec := sh(`echo out; unshare -U true 2>/dev/null; while [ ! -s f ]; do sleep 0.01; done; cat f; exit 6`)
	spec.SeccompLog, spec.Download = true, []string{"f"}
	j, err := table.Start(context.Background(), "me", "k", spec)
	if err != nil {
		panic(err)
	}
	fmt.Println("started")
	if err := letGo(j); err != nil {
		panic(err)
	}
	_ = unix.Pause()
}

// letGo gives the job what it waits for, whole at any moment: it may have it already, and be reading it.
func letGo(j *Job) error {
	file := filepath.Join(j.dir, "work", "f")
	if err := os.WriteFile(file+".new", []byte("go\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// A server killed between any two steps of a start or an end leaves a job that is fully there or
// fully gone, and nothing else.
func TestCrashAtEveryStep(t *testing.T) {
	for _, test := range []struct {
		step  string
		there bool
	}{
		{"request checked", false}, {"place reserved", false}, {"cgroup and plan made", false}, {"directory made", false},
		{"cgroup complete", false}, {"init started", false}, {"limits set", false},
		{"record written", false}, {"command running", true}, {"record to be told", true}, {"start recorded", true},
		{"refused call taken", true}, {"end seen", true}, {"files begun", true}, {"files collected", true}, {"end recorded", true}, {"sandbox closed", true},
	} {
		t.Run(test.step, func(t *testing.T) {
			table := open(t)
			table.Leave()
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "TELE_TEST_CRASH="+test.step, "TELE_TEST_STATE="+table.options.StateDir,
				"TELE_TEST_CGROUP="+groupName(t))
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, _ := bufio.NewReader(out).ReadString('\n') // the end may come first
			_ = cmd.Wait()                                   // killed
			if status := cmd.ProcessState.Sys().(interface{ Signaled() bool }); !status.Signaled() {
				t.Fatalf("the server was not killed: %v", cmd.ProcessState)
			}
			table = reopen(t, table)
			jobs := list(t, table)
			defer func() { expectEvents(t, table, test.there) }()
			if !test.there {
				entries, err := os.ReadDir(table.jobsDir())
				if len(jobs) != 0 || len(entries) != 0 || err != nil || len(table.options.Cgroups.List()) != 0 {
					t.Errorf("left: %v, %v, %v, %v", jobs, entries, table.options.Cgroups.List(), err)
				}
				return
			}
			if len(jobs) != 1 {
				t.Fatalf("jobs: %v (%q)", jobs, line)
			}
			j := find(t, table, jobs[0].Id)
			again, err := table.Start(t.Context(), "me", "k", jobs[0].Spec)
			if err != nil || again != j {
				t.Errorf("the same key: %v, %v", again, err)
			}
			if err := letGo(j); err != nil {
				t.Fatal(err)
			}
			job := wait(t, j)
			if out := read(t, j); job.GetExitCode() != 6 || out != "out\ngo\n" || job.Reason != telev1.Reason_REASON_EXITED {
				t.Errorf("got %v, output %q", job, out)
			}
			if r := job.Refused; len(r) != 1 || r[0].Call != "unshare(CLONE_NEWUSER)" || r[0].Count != 1 {
				t.Errorf("refused: %v", r)
			}
			if names := keptNames(t, j); names != "f" {
				t.Errorf("kept: %q", names)
			}
			table.running.Wait() // the sandbox goes when the end was told
			if r, err := readRecord(j.dir); err != nil || !initproc.Gone(initID(r)) {
				t.Errorf("init is left: %v", err)
			}
			if groups := table.options.Cgroups.List(); len(groups) != 0 {
				t.Errorf("cgroups left: %v", groups)
			}
		})
	}
}

// A state directory has one server, of its own version.
func TestStateDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	lock, err := OpenStateDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStateDir(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by another server, pid %d", os.Getpid())) {
		t.Errorf("a second server: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "version"), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStateDir(dir); err == nil || !strings.Contains(err.Error(), `version "99"`) {
		t.Errorf("another version: %v", err)
	}
}

// A record survives writing and reading; one that is torn is the one before.
func TestRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "abc")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put := func(message string) {
		t.Helper()
		r := &recordv1.Record{Version: recordVersion, Job: &telev1.Job{Id: "abc", Message: message}}
		if err := writeRecord(dir, r); err != nil {
			t.Fatal(err)
		}
	}
	size := func() int64 {
		info, err := os.Stat(recordPath(dir))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	put("first")
	first := size()
	put("second")
	whole, err := os.ReadFile(recordPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	for cut := int64(0); cut <= int64(len(whole)); cut++ {
		for _, tail := range []string{"", "garbage that is no frame", strings.Repeat("\x00", 100)} {
			if err := os.WriteFile(recordPath(dir), append(slices.Clone(whole[:cut]), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			want := "second"
			if cut < int64(len(whole)) {
				want = "first"
			}
			r, err := readRecord(dir)
			if cut < first {
				if err == nil {
					t.Errorf("%d bytes and %q: read %v", cut, tail, r)
				}
				continue
			}
			if err != nil || r.Job.Message != want {
				t.Errorf("%d bytes and %q: read %v, %v, want %s", cut, tail, r, err, want)
			}
			put("third")
			if r, err := readRecord(dir); err != nil || r.Job.Message != "third" {
				t.Errorf("%d bytes and %q, and another: read %v, %v", cut, tail, r, err)
			}
		}
	}
	old, err := proto.Marshal(&recordv1.Record{Version: 1, Job: &telev1.Job{Id: "abc", Message: "unframed"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordPath(dir), old, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r, err := readRecord(dir); err != nil || r.Job.Message != "unframed" {
			t.Errorf("without a frame: %v, %v", r, err)
		}
	}
	put("after it")
	if r, err := readRecord(dir); err != nil || r.Job.Message != "after it" {
		t.Errorf("after one without a frame: %v, %v", r, err)
	}
	large := strings.Repeat("x", 2*maxAppended)
	put(large)
	put("last")
	if r, err := readRecord(dir); err != nil || r.Job.Message != "last" || size() > 2*maxAppended+1000 {
		t.Errorf("after a large one: %v, %d bytes", err, size())
	}
	if err := os.Remove(recordPath(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", recordPath(dir)); err != nil {
		t.Fatal(err)
	}
	if err := writeRecord(dir, &recordv1.Record{Version: recordVersion}); !noSpace(err) {
		t.Errorf("a full disk: %v", err)
	}
}

// large makes a job's record one that is replaced, not appended to, which a test can make fail.
func large(spec *telev1.JobSpec) *telev1.JobSpec {
	spec.Env = map[string]string{"LARGE": strings.Repeat("x", maxAppended)}
	return spec
}

// A job that was cut off before its start was recorded, and cannot be recorded now, is not taken over: a
// later server would take it for half-made, after somebody was told that it runs.
func TestTakeOverWhileTheDiskIsFull(t *testing.T) {
	table := open(t)
	var j *Job
	cut := make(chan struct{})
	table.at = func(step string) {
		if step != "command running" {
			return
		}
		defer close(cut)
		j = table.keys[key{"me", "k"}]
		j.init.Detach()
		_ = j.log.Close()
		table.release(j)
		table.running.Done()
		if err := os.Symlink("/dev/full", filepath.Join(j.dir, "record.new")); err != nil {
			t.Error(err)
		}
		runtime.Goexit() // as far as the job can tell, that was the server
	}
	go func() { _, _ = table.Start(t.Context(), "me", "k", large(sh("sleep 1000"))) }()
	<-cut
	table = reopen(t, table)
	if _, err := table.Get(j.id, all); !errors.Is(err, ErrNotFound) {
		t.Errorf("the job is there: %v", err)
	}
	if _, err := os.Stat(j.dir); !errors.Is(err, os.ErrNotExist) || !initproc.Gone(initID(j.record)) {
		t.Errorf("something of it is there: %v", err)
	}
}

// A job whose init is gone is not told to be lost before that is on the disk.
func TestLostWhileTheDiskIsFull(t *testing.T) {
	table := open(t)
	j := begin(t, table, large(sh("sleep 1000")))
	pid := j.init.Pid
	full := filepath.Join(j.dir, "record.new")
	table = with(t, table, func(*Options) {
		if err := os.Symlink("/dev/full", full); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for !initproc.Gone(initID(j.record)) {
			runtime.Gosched()
		}
	})
	for range 2 {
		if job := find(t, table, j.id).Snapshot(); job.EndedAt != nil {
			t.Errorf("told already: %v", job)
		}
		if err := find(t, table, j.id).Stop(unix.SIGTERM, 0, "me"); err != nil {
			t.Error(err)
		}
		table = reopen(t, table)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	job := wait(t, find(t, table, j.id))
	if job.Reason != telev1.Reason_REASON_LOST {
		t.Errorf("got %v", job)
	}
	if next := find(t, reopen(t, table), j.id).Snapshot(); !proto.Equal(next, job) {
		t.Errorf("the next server has %v; it was %v", next, job)
	}
}

// A stop that comes when the end was seen does not write over the record that says so.
func TestStopAtTheEnd(t *testing.T) {
	table := open(t)
	var id string
	table.at = func(step string) {
		if step != "end recorded" {
			return
		}
		for _, j := range table.close() {
			id = j.id
			if err := j.Stop(unix.SIGTERM, time.Second, "me"); err != nil {
				t.Error(err)
			}
		}
	}
	if job, _ := run(t, table, sh("sleep 0.1; exit 3")); job.GetExitCode() != 3 {
		t.Errorf("got %v", job)
	}
	job := wait(t, find(t, reopen(t, table), id))
	if job.Reason != telev1.Reason_REASON_EXITED || job.GetExitCode() != 3 {
		t.Errorf("the next server has %v", job)
	}
}

// A start that failed when its command ran already is not the answer to a second request.
func TestFailedStartIsNoAnswer(t *testing.T) {
	table := open(t)
	spec := large(sh("sleep 1000"))
	var failed *Job
	table.at = func(step string) {
		if step == "command running" {
			failed = table.keys[key{"me", "k"}]
			if err := os.Mkdir(filepath.Join(failed.dir, "record.new"), 0o700); err != nil { // no record can be written
				t.Error(err)
			}
		}
	}
	if _, err := table.Start(t.Context(), "me", "k", spec); err == nil {
		t.Error("started without a record")
	}
	if j, err := failed.again(t.Context(), spec); j != nil || err != nil {
		t.Errorf("answered with a job that is gone: %v, %v", j, err)
	}
}

// A lock that is held for a server that was killed, by an init that it was about to start, is waited
// for.
func TestLockOfAKilledServer(t *testing.T) {
	dir := t.TempDir()
	lock, err := OpenStateDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	killed := exec.Command("true")
	if err := killed.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := lock.WriteAt(fmt.Appendln(nil, killed.Process.Pid), 0); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = lock.Close() }) // later than the first try
	next, err := OpenStateDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = next.Close()
}

// A job that cannot be taken over is left alone, and holds up neither the server nor its end.
func TestLeftAlone(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh("echo; exec sleep 1000"))
	firstOutput(t, j)
	table.Leave()
	index := filepath.Join(j.dir, "index")
	if err := os.Rename(index, index+".away"); err != nil {
		t.Fatal(err)
	}
	quiet := with(t, table, func(o *Options) { o.Log = o.Log.Level(zerolog.FatalLevel) })
	if _, err := quiet.Get(j.id, all); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	quiet.Leave() // would wait for the job for ever
	if err := os.Rename(index+".away", index); err != nil {
		t.Fatal(err)
	}
	table = reopen(t, table)
	if job := find(t, table, j.id).Snapshot(); job.Status != telev1.JobStatus_JOB_STATUS_RUNNING {
		t.Errorf("got %v", job)
	}
}

// A server that cannot open its state directory lets go of the jobs that it has taken over already.
func TestOpenFails(t *testing.T) {
	table := open(t)
	var ids []string
	for range 8 {
		ids = append(ids, begin(t, table, sh("exec sleep 1000")).id)
	}
	table.Leave()
	if n := table.files; n != 0 {
		t.Errorf("%d descriptors are counted when all have been left", n)
	}
	// A directory without a record, which is to be removed, and of which nothing can be.
	stuck := table.jobDir("stuck")
	if err := os.Symlink("/proc/self/task/"+fmt.Sprint(os.Getpid()), stuck); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	if next, err := Open(table.options); err == nil {
		next.Leave()
		t.Fatal("no error")
	}
	if after := openFiles(t); after != before { // goroutines that are left TestMain finds
		t.Errorf("%d descriptors, afterwards %d", before, after)
	}
	if err := os.Remove(stuck); err != nil {
		t.Fatal(err)
	}
	table = reopen(t, table)
	for _, id := range ids {
		if job := find(t, table, id).Snapshot(); job.Status != telev1.JobStatus_JOB_STATUS_RUNNING {
			t.Errorf("got %v", job)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
