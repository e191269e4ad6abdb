package job

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/telerun/tele/initproc"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
	"golang.org/x/sys/unix"
)

// keptNames are the names of what is kept of the job's files.
func keptNames(t *testing.T, j *Job) string {
	t.Helper()
	f, err := j.KeptFiles(0)
	if err != nil {
		t.Errorf("open what is kept: %v", err)
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || uint64(info.Size()) != j.Snapshot().Files.Bytes {
		t.Errorf("%v, %v, the record says %v", info, err, j.Snapshot().Files)
	}
	var names []string
	r := tar.NewReader(f)
	for h, err := r.Next(); err != io.EOF; h, err = r.Next() {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	return strings.Join(names, " ")
}

func keeping(script string, patterns ...string) *telev1.JobSpec {
	spec := sh(script)
	spec.Download = patterns
	return spec
}

// What is kept counts as output does, and goes with it; it is there for the next server.
func TestKeepFiles(t *testing.T) {
	table := open(t)
	j := begin(t, table, keeping("mkdir d; head -c 100000 /dev/zero >d/f; echo out; exit 3", "d", "none"))
	if _, err := j.KeptFiles(0); err != nil && !errors.Is(err, ErrFilesLater) {
		t.Errorf("got %v", err)
	}
	job := wait(t, j)
	if job.GetExitCode() != 3 || job.Files.Error != "none: there is no such file" || job.Files.Bytes < 100000 || len(job.Files.Warnings) != 0 {
		t.Errorf("got %v", job)
	}
	used := table.space.Used()
	if out, _ := j.log.Sizes(); used < int64(job.Files.Bytes)+out {
		t.Errorf("%d bytes are counted, of %v", used, job)
	}
	table = reopen(t, table)
	j = find(t, table, j.id)
	if again := table.space.Used(); again != used {
		t.Errorf("%d bytes are counted, it was %d", again, used)
	}
	if names := keptNames(t, j); names != "d/ d/f" {
		t.Errorf("got %q", names)
	}
	if _, err := j.KeptFiles(job.Files.Bytes + 1); !errors.Is(err, output.ErrOffset) {
		t.Errorf("got %v", err)
	}
	plain, _ := run(t, table, sh("true"))
	if _, err := find(t, table, plain.Id).KeptFiles(0); !errors.Is(err, ErrNoFiles) {
		t.Errorf("got %v", err)
	}
	var failed *FilesError
	if err := os.Truncate(filesPath(j.dir), 5000); err != nil {
		t.Fatal(err)
	}
	if _, err := j.KeptFiles(0); !errors.As(err, &failed) {
		t.Errorf("of a stream that is cut off on the disk: %v", err)
	}
	if err := j.removeOutput(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.KeptFiles(0); !errors.Is(err, ErrOutputRemoved) || table.space.Used() != 0 {
		t.Errorf("got %v, %d bytes are counted", err, table.space.Used())
	}
}

// A job whose init is killed leaves nothing, and says so.
func TestKeepFilesOfALostJob(t *testing.T) {
	table := open(t)
	j := begin(t, table, keeping("echo ready; exec sleep 1000", "x"))
	firstOutput(t, j)
	if err := unix.Kill(j.init.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	job := wait(t, j)
	var failed *FilesError
	if _, err := j.KeptFiles(0); !errors.As(err, &failed) || job.Reason != telev1.Reason_REASON_LOST || job.Files.Error != sandboxGone {
		t.Errorf("got %v, %v", err, job)
	}
}

// While there is no room they wait, also for the next server; and a stop gives them up, but not how the command
// ended.
func TestKeepFilesWaitsForRoom(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Retention.Output = 1 << 20 })
	begun := steps(table, "files begun")
	j := begin(t, table, keeping("head -c 3000000 /dev/zero >f; exit 5", "f"))
	<-begun
	for range 2 {
		table = reopen(t, table)
		j = find(t, table, j.id)
		if job := j.Snapshot(); job.Status != telev1.JobStatus_JOB_STATUS_RUNNING {
			t.Errorf("got %v", job)
		}
	}
	table = with(t, table, func(o *Options) { o.Retention.Output = 8 << 20 })
	j = find(t, table, j.id)
	job := wait(t, j)
	if names := keptNames(t, j); names != "f" || job.GetExitCode() != 5 || job.Files.Error != "" {
		t.Errorf("got %q, %v", names, job)
	}

	j = begin(t, table, keeping("head -c 9000000 /dev/zero >f; exit 5", "f"))
	eventually(t, "files are collected", func() bool {
		info, err := os.Stat(filesPath(j.dir))
		return err == nil && info.Size() > 0
	})
	if err := j.Stop(unix.SIGTERM, 0, "me"); err != nil {
		t.Fatal(err)
	}
	job = wait(t, j)
	why := "stopped by me while they were collected"
	if job.GetExitCode() != 5 || job.Reason != telev1.Reason_REASON_EXITED || !strings.HasPrefix(job.Files.Error, why) || job.Files.Bytes != 0 {
		t.Errorf("got %v", job)
	}
	if _, err := os.Stat(filesPath(j.dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half of it is there: %v", err)
	}
}

// A stop is heard from the moment when the command has ended, also before anything is collected: they may wait for
// room for long.
func TestKeepFilesStoppedBefore(t *testing.T) {
	for _, spec := range []*telev1.JobSpec{keeping("", "f"), again("", 1, time.Hour)} {
		table := with(t, open(t), func(o *Options) { o.Retention.Output = 1 << 20 })
		spec.Command[2], spec.Download = "head -c 3000000 /dev/zero >f; exec sleep 0.1", []string{"f"}
		made := make(chan *Job, 1)
		table.at = func(step string) {
			if step != "end seen" {
				return
			}
			if err := (<-made).Stop(unix.SIGTERM, 0, "me"); err != nil {
				t.Error(err)
			}
		}
		j := begin(t, table, spec)
		made <- j
		job := wait(t, j)
		if job.Reason != telev1.Reason_REASON_EXITED || job.GetExitCode() != 0 || job.Files.GetError() != "stopped by me while they were collected" {
			t.Errorf("got %v", job)
		}
	}
}

// While they are collected, a job has no more descriptors than were counted for it from its start on: however many
// wait for room at once, the server has some left for whoever makes it.
func TestKeepFilesDescriptors(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Retention.Output = 1 << 20 })
	run(t, table, keeping("echo >f", "f")) // what is there once is there then
	before, counted := openFiles(t), 0
	var jobs []*Job
	for range 4 {
		j := begin(t, table, keeping("head -c 2000000 /dev/zero >f; echo ready; exec sleep 1000", "f"))
		firstOutput(t, j)
		counted += j.files() + 3 // those of its output are counted elsewhere
		jobs = append(jobs, j)
	}
	for _, j := range jobs {
		if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "files are collected", func() bool {
			_, err := os.Stat(filesPath(j.dir))
			return err == nil
		})
	}
	few := func(n int) bool { return n <= before+counted }
	if n := await(func() int { return openFiles(t) }, few); !few(n) || table.files != counted-4*3 {
		t.Errorf("%d descriptors, it was %d, and %d are counted: %d", n, before, counted, table.files)
	}
}

// A server may be killed as it freezes a job to pause it: then init is frozen, too, which is to collect.
func TestKeepFilesOfFrozen(t *testing.T) {
	table := open(t)
	made := make(chan *Job, 1)
	table.at = func(step string) {
		if step != "end seen" {
			return
		}
		for _, dir := range (<-made).group.Paths() {
			name := filepath.Join(dir, "cgroup.freeze")
			if _, err := os.Stat(name); err != nil { // it is of version 1
				continue
			}
			if err := os.WriteFile(name, []byte("1"), 0); err != nil {
				t.Error(err)
			}
		}
	}
	j := begin(t, table, keeping("echo >f", "f"))
	made <- j
	wait(t, j)
	if names := keptNames(t, j); names != "f" {
		t.Errorf("got %q", names)
	}
}

// Where jobs do not wait for room, nor do their files.
func TestKeepFilesStopWhenFull(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Retention.Output, o.StopWhenFull = 1<<20, true })
	job, _ := run(t, table, keeping("head -c 3000000 /dev/zero >f; exit 5", "f"))
	if job.GetExitCode() != 5 || !strings.HasPrefix(job.Files.GetError(), "no room for output: ") || table.space.Used() > 1000 {
		t.Errorf("got %v, %d bytes are counted", job, table.space.Used())
	}
}

// A server that ends with its jobs leaves none that collects.
func TestKeepFilesAtShutdown(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Retention.Output = 1 << 20 })
	j := begin(t, table, keeping("head -c 3000000 /dev/zero >f; echo ready; exec sleep 1000", "f"))
	firstOutput(t, j)
	table.Stop()
	r, err := readRecord(j.dir)
	if err != nil {
		t.Fatal(err)
	}
	why := "stopped because the server was shut down while they were collected"
	if r.Job.Reason != telev1.Reason_REASON_STOPPED || !strings.HasPrefix(r.Job.Files.GetError(), why) || !initproc.Gone(initID(r)) {
		t.Errorf("got %v", r)
	}
}

// Each sandbox has its own: of a job that is tried again the last one's are kept, and none where that could not
// be asked.
func TestKeepFilesOfTries(t *testing.T) {
	table := open(t)
	waiting := steps(table, "waiting for the next try")
	spec := again("echo >$(cat /proc/sys/kernel/random/uuid); exit 1", 2, 10*time.Millisecond)
	spec.Download = []string{"*"}
	job, _ := run(t, table, spec)
	if names := keptNames(t, find(t, table, job.Id)); len(strings.Fields(names)) != 1 || len(job.Tries) != 3 {
		t.Errorf("kept %q, %v", names, job)
	}
	<-waiting
	<-waiting
	spec.Restart.Backoff = nil
	j := begin(t, table, spec)
	<-waiting
	if err := j.Stop(unix.SIGTERM, 0, "me"); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, j); job.Files.GetError() == "" || job.Files.Bytes != 0 {
		t.Errorf("got %v", job)
	}
}

func TestCheckDownload(t *testing.T) {
	for _, pattern := range []string{"", "..", "a/../b", "[", "a\x00", "\xff", strings.Repeat("a", 4096)} {
		var request *BadRequest
		if err := checkDownload(keeping("true", "fine", pattern)); !errors.As(err, &request) || request.Field != "spec.download" {
			t.Errorf("%q: %v", pattern, err)
		}
	}
	if err := checkDownload(keeping("true", slices.Repeat([]string{"a"}, 65)...)); err == nil {
		t.Error("65 patterns are accepted")
	}
	if err := checkDownload(keeping("true", ".", "/", "a..b/*", "[a-z]?")); err != nil {
		t.Error(err)
	}
}
