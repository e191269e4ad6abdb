package job

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// calls is a job that makes system calls with python's ctypes.
func calls(lines ...string) *telev1.JobSpec {
	return &telev1.JobSpec{SeccompLog: true, Command: []string{"python3", "-c",
		"import ctypes, os, sys, time\nlibc = ctypes.CDLL(None)\n" + strings.Join(lines, "\n")}}
}

func texts(job *telev1.Job) (list []string) {
	for _, r := range job.Refused {
		list = append(list, fmt.Sprintf("%s %s %d", r.Call, unix.ErrnoName(unix.Errno(r.Errno)), r.Count))
	}
	return list
}

// The record says what was refused, in the order of the first time, and how often.
func TestRefused(t *testing.T) {
	table := open(t)
	job, out := run(t, table, calls(
		`for i in range(3): libc.umount2(b"/", 0)`,
		`libc.socket(40, 1, 0)`,
		`libc.unshare(0x10000000)`,
		`libc.umount2(b"/", 0)`,
		`libc.ioctl(0, 0x5412, b"x")`))
	want := []string{"umount2 EPERM 4", "socket(AF_VSOCK) EAFNOSUPPORT 1", "unshare(CLONE_NEWUSER) EPERM 1",
		"ioctl(TIOCSTI) EPERM 1"}
	if !slices.Equal(texts(job), want) || job.GetExitCode() != 0 {
		t.Errorf("got %q, want %q; %v, output %q", texts(job), want, job, out)
	}
	r, err := readRecord(find(t, table, job.Id).dir)
	if err != nil || !slices.Equal(texts(r.Job), want) {
		t.Errorf("record: %v, %v", texts(r.GetJob()), err)
	}
}

// Without the flag the same calls fail in the same way, and nobody hears of it.
func TestRefusedUnlogged(t *testing.T) {
	table := open(t)
	spec := calls(`libc = ctypes.CDLL(None, use_errno=True)`, `libc.umount2(b"/", 0)`, `sys.exit(ctypes.get_errno())`)
	spec.SeccompLog = false
	if job, out := run(t, table, spec); job.GetExitCode() != int32(unix.EPERM) || job.Refused != nil {
		t.Errorf("got %v, output %q", job, out)
	}
}

// A job may choose arguments without end; what is kept of them ends.
func TestRefusedIsBounded(t *testing.T) {
	table := open(t)
	job, _ := run(t, table, calls(`for i in range(200): libc.socket(1000+i, 1, 0)`))
	if n := len(job.Refused); n != maxRefused+1 || job.Refused[maxRefused].Call != "others" ||
		job.Refused[maxRefused].Count != 200-maxRefused {
		t.Errorf("%d: %v", n, job.Refused)
	}
}

// Counts go on under the next server; a running job shows them.
func TestRefusedTakeOver(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Work = WorkDisk }) // the test writes there
	counted := steps(table, "refused call counted")
	j := begin(t, table, calls(`libc.umount2(b"/", 0)`, `libc.umount2(b"/", 0)`, `print("ready", flush=True)`,
		`while not os.path.exists("go"): time.sleep(0.01)`, `libc.umount2(b"/", 0)`))
	firstOutput(t, j)
	<-counted // after the answer, and the job goes on meanwhile
	<-counted
	if got := texts(j.Snapshot()); !slices.Equal(got, []string{"umount2 EPERM 2"}) {
		t.Errorf("running: %q", got)
	}
	for range 5 {
		table = reopen(t, table)
	}
	if err := os.WriteFile(filepath.Join(j.dir, "work", "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, find(t, table, j.id)); !slices.Equal(texts(job), []string{"umount2 EPERM 3"}) {
		t.Errorf("got %v", job)
	}
}

// A job that does nothing but ask for what it may not have ends when it is stopped.
func TestRefusedFlood(t *testing.T) {
	table := open(t)
	j := begin(t, table, calls(`print("ready", flush=True)`, `while True: libc.umount2(b"/", 0)`))
	firstOutput(t, j)
	if err := j.Stop(unix.SIGTERM, 0, "me"); err != nil {
		t.Fatal(err)
	}
	wait(t, j)
}
