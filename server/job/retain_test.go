package job

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// eventually returns when something holds, and fails when it does not within a minute.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestKeepJobs(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Retention.Jobs = 3 })
	long := begin(t, table, sh("exec sleep 1000")) // a running job counts for nothing
	var ids []string
	for range 5 {
		job, _ := run(t, table, sh("echo x > f"))
		ids = append(ids, job.Id)
	}
	eventually(t, "3 ended jobs are left", func() bool { return len(list(t, table)) == 4 })
	for _, id := range append(ids[2:], long.id) {
		find(t, table, id)
	}
	if _, err := os.Stat(filepath.Join(table.jobsDir(), ids[0])); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of a removed job: %v", err)
	}
}

func TestKeepAge(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Retention.Age = 200 * time.Millisecond })
	run(t, table, sh("true"))
	eventually(t, "no job is left", func() bool { return len(list(t, table)) == 0 })
}

// The output of the oldest goes, and its record stays, also for the next server.
func TestKeepOutput(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Retention.Output = 1 << 20 })
	var ids []string
	for range 3 {
		job, _ := run(t, table, sh("head -c 400000 /dev/zero"))
		ids = append(ids, job.Id)
	}
	gone := func() bool { return find(t, table, ids[0]).Snapshot().OutputRemoved }
	eventually(t, "the first output is removed", gone)
	for range 2 {
		if _, err := find(t, table, ids[0]).Output(output.ReadOptions{}); !errors.Is(err, ErrOutputRemoved) {
			t.Errorf("got %v", err)
		}
		if got := len(read(t, find(t, table, ids[2]))); got != 400000 {
			t.Errorf("the last has %d bytes of output", got)
		}
		eventually(t, "the record says so", func() bool {
			r, err := readRecord(filepath.Join(table.jobsDir(), ids[0]))
			return err == nil && r.Job.OutputRemoved
		})
		table = reopen(t, table)
	}
}

// Who reads a job's output reads all of it, also when the job is removed meanwhile.
func TestRemoveUnderAReader(t *testing.T) {
	table := open(t)
	job, _ := run(t, table, sh("echo x > f; head -c 3000000 /dev/zero"))
	j := find(t, table, job.Id)
	r, err := j.Output(output.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := table.Remove(j); err != nil {
		t.Fatal(err)
	}
	var n int
	buf := make([]byte, 100_000)
	for {
		c, err := r.Next(t.Context(), buf)
		n += len(c.Data)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n != 3000000 {
		t.Errorf("read %d bytes", n)
	}
	if _, err := table.Get(job.Id, all); !errors.Is(err, ErrNotFound) {
		t.Errorf("a removed job: %v", err)
	}
	if err := table.Remove(j); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	long := begin(t, table, sh("exec sleep 1000"))
	if err := table.Remove(long); !errors.Is(err, ErrNotEnded) {
		t.Errorf("a running job: %v", err)
	}
}

func TestPrune(t *testing.T) {
	table := open(t)
	mine, _ := run(t, table, sh("true"))
	if _, err := table.Start(t.Context(), "you", "", sh("true")); err != nil {
		t.Fatal(err)
	}
	long := begin(t, table, sh("exec sleep 1000"))
	me := func(owner string) bool { return owner == "me" }
	if gone, err := table.Prune(me, time.Hour); len(gone) != 0 || err != nil {
		t.Errorf("an hour old: %v, %v", gone, err)
	}
	gone, err := table.Prune(me, 0)
	if err != nil || len(gone) != 1 || gone[0].Id != mine.Id || len(list(t, table)) != 2 {
		t.Errorf("got %v, %v", gone, err)
	}
	find(t, table, long.id)
}

// Exactly the limit is kept, the job is stopped, and it can end although it writes on.
func TestOutputLimit(t *testing.T) {
	table := open(t)
	spec := sh("trap 'exit 3' TERM; while :; do head -c 100000 /dev/zero; done")
	spec.OutputLimit = "1M"
	job, out := run(t, table, spec)
	if job.Reason != telev1.Reason_REASON_OUTPUT_LIMIT || job.Status != telev1.JobStatus_JOB_STATUS_FAILED ||
		job.GetExitCode() != 3 || len(out) != 1<<20 || job.StdoutBytes != 1<<20 || job.DroppedBytes == 0 {
		t.Errorf("got %v, %d bytes of output", job, len(out))
	}
	for text, want := range map[string]string{"12X": "not a size", "2G": "maximum, 1G"} {
		table.options.MostOutput = 1 << 30
		spec.OutputLimit = text
		var request *BadRequest
		if _, err := table.Start(t.Context(), "me", "", spec); !errors.As(err, &request) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// When all room is taken by jobs that run, they wait, and new ones are refused; a job that goes
// makes room, and no byte is lost.
func TestOutputOfAllIsFull(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Retention.Output = 2 << 20; o.Log = o.Log.Level(5) })
	full := begin(t, table, sh("head -c 4000000 /dev/zero; exec sleep 1000"))
	eventually(t, "a new job is refused", func() bool {
		j, err := table.Start(t.Context(), "me", "", sh("true"))
		if err == nil {
			wait(t, j)
		}
		return errors.Is(err, output.ErrFull)
	})
	if err := full.Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	// What is in the pipe still has no room: the end waits for it, also in the next server.
	table = with(t, table, func(o *Options) { o.Retention.Output = 8 << 20 })
	job := wait(t, find(t, table, full.id))
	if job.Reason != telev1.Reason_REASON_STOPPED || job.StdoutBytes < 2<<20 {
		t.Errorf("got %v", job)
	}
	if out := read(t, find(t, table, full.id)); int64(len(out)) != int64(job.StdoutBytes) {
		t.Errorf("%d bytes of output, the record says %d", len(out), job.StdoutBytes)
	}
}

// With StopWhenFull a job that finds no room is stopped.
func TestStopWhenFull(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Retention.Output = 2 << 20; o.StopWhenFull = true })
	job, _ := run(t, table, sh("head -c 40000000 /dev/zero; exec sleep 1000"))
	if job.Reason != telev1.Reason_REASON_OUTPUT_LIMIT || job.DroppedBytes == 0 || !strings.Contains(job.Message, "all jobs") {
		t.Errorf("got %v", job)
	}
}

// makeEnded makes n jobs that have ended, as an earlier server left them.
func makeEnded(t testing.TB, stateDir string, n int) {
	t.Helper()
	for i := range n {
		id := fmt.Sprintf("job%09d", i)
		dir := filepath.Join(stateDir, "jobs", id)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		at := timestamppb.New(time.Unix(1_700_000_000+int64(i), 0))
		code := int32(i % 3)
		job := &telev1.Job{Id: id, User: "me", Spec: sh("make test TARGET=all VERBOSE=1"), Status: telev1.JobStatus_JOB_STATUS_SUCCESS,
			Reason: telev1.Reason_REASON_EXITED, Message: "exited with code 0", ExitCode: &code, CreatedAt: at, StartedAt: at,
			EndedAt: at, Usage: &telev1.Usage{}}
		for _, name := range []string{"cpu", "memory", "swap", "io_read", "io_write", "pids"} {
			job.Limits = append(job.Limits, &telev1.LimitStatus{Name: name, Asked: "500M", Applied: "500M", How: "memory.limit_in_bytes 524288000"})
		}
		if err := writeRecord(dir, &recordv1.Record{Version: recordVersion, Job: job, InitPid: int32(i + 10), BootId: "earlier"}); err != nil {
			t.Fatal(err)
		}
	}
}

// Ten thousand ended jobs are all there, in order; how long it took is told, not judged.
func TestManyEnded(t *testing.T) {
	table := open(t)
	table.Leave()
	n := 10_000
	if os.Getenv("TELE_TEST_SLOW") != "" {
		n = 500
	}
	makeEnded(t, table.options.StateDir, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	table = reopen(t, table)
	opened := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	start = time.Now()
	var seen int
	for next := ""; ; {
		jobs, after, err := table.List(all, Page{Size: 1000, After: next})
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range jobs {
			if seen++; job.Id != fmt.Sprintf("job%09d", n-seen) {
				t.Fatalf("job %d is %s", seen, job.Id)
			}
		}
		if next = after; next == "" {
			break
		}
	}
	t.Logf("%d ended jobs: opened in %s, listed in %s, %d KiB of memory each", n, opened, time.Since(start),
		(after.HeapAlloc-before.HeapAlloc)/uint64(n)>>10)
	if seen != n {
		t.Errorf("%d jobs", seen)
	}
}
