package job

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/telerun/tele/limits/cgroup"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Each job does a known amount of one thing, and what the record says of it is in sensible bounds.
// Those above are wide: they are for what an interpreter needs to begin, on a slow machine too.
func TestUsageOfKnownLoads(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Work = WorkDisk })
	python := func(program string) *telev1.JobSpec {
		return &telev1.JobSpec{Command: []string{"python3", "-c", program}, Limits: &telev1.Limits{IoWrite: "max"}}
	}
	between := func(t *testing.T, name string, got *uint64, least, most uint64) {
		t.Helper()
		if got == nil {
			t.Errorf("%s is not known", name)
		} else if *got < least || *got > most {
			t.Errorf("%s is %d, want %d to %d", name, *got, least, most)
		}
	}
	slow := uint64(1)
	if os.Getenv("TELE_TEST_SLOW") != "" {
		slow = 20
	}

	t.Run("cpu", func(t *testing.T) {
		job, _ := run(t, table, python("import os\nwhile os.times().user < 0.3:\n for i in range(100000): pass"))
		// Version 1 counts what is user and what system by ticks; the sum is exact.
		between(t, "cpu_user_usec", job.Usage.CpuUserUsec, 200_000, 600_000*slow)
		between(t, "cpu_usec", job.Usage.CpuUsec, 300_000, 700_000*slow)
		between(t, "wall_usec", job.Usage.WallUsec, 300_000, 30_000_000*slow)
	})
	t.Run("memory", func(t *testing.T) {
		job, _ := run(t, table, python("x = b'x' * (64 << 20)"))
		between(t, "memory_peak_bytes", job.Usage.MemoryPeakBytes, 64<<20, 128<<20)
		between(t, "largest_process_bytes", job.Usage.LargestProcessBytes, 64<<20, 128<<20)
		between(t, "oom_kills", job.Usage.OomKills, 0, 0)
	})
	t.Run("processes", func(t *testing.T) {
		job, _ := run(t, table, python("import os, signal\nfor i in range(10):\n if os.fork() == 0: signal.pause()"))
		if job.Usage.PidsPeak == nil { // Linux 6.1
			t.Skip("needs pids.peak")
		}
		// The one that makes them is counted too; and on version 2, the threads of init beyond its first.
		between(t, "pids_peak", job.Usage.PidsPeak, 11, 16)
		between(t, "pids_limit_hits", job.Usage.PidsLimitHits, 0, 0)
	})
	t.Run("refused forks", func(t *testing.T) {
		spec := python("import os, signal\nhits = 0\nfor i in range(10):\n try:\n  if os.fork() == 0: signal.pause()\n except OSError: hits += 1\nprint(hits)")
		spec.Limits.Pids = "6"
		job, out := run(t, table, spec)
		refused, err := strconv.ParseUint(strings.TrimSpace(out), 10, 64)
		if err != nil || refused < 5 { // on version 2 more: init's threads take some places
			t.Errorf("output %q", out)
		}
		between(t, "pids_limit_hits", job.Usage.PidsLimitHits, refused, refused)
	})
	t.Run("held back", func(t *testing.T) {
		spec := sh("timeout 1 sh -c 'while :; do :; done'; true")
		spec.Limits = &telev1.Limits{Cpu: "0.05"}
		job, _ := run(t, table, spec)
		between(t, "throttled_count", job.Usage.ThrottledCount, 1, 1000*slow)
		between(t, "throttled_usec", job.Usage.ThrottledUsec, 200_000, 30_000_000*slow)
		if _, err := os.Stat("/proc/pressure"); err != nil {
			t.Skipf("needs pressure stall information: %v", err)
		}
		between(t, "stall_cpu_usec", job.Usage.StallCpuUsec, 200_000, 30_000_000*slow)
	})
	t.Run("disk", func(t *testing.T) {
		if devices, why := cgroup.FindDevices(table.jobsDir()); len(devices) == 0 {
			// On version 2 limits/cgroup looks at the same figure, on a device of its own.
			t.Skipf("needs a state directory on a disk: %s", why)
		}
		job, out := run(t, table, sh("dd if=/dev/zero of=file bs=1M count=8 oflag=direct conv=fsync 2>&1; rm file"))
		if !strings.Contains(out, "8388608 bytes") {
			t.Errorf("dd: %s", out)
		}
		between(t, "io_write_bytes", job.Usage.IoWriteBytes, 8<<20, 10<<20)
	})
}
