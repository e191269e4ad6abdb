package job

import (
	"errors"
	"strings"
	"testing"

	"github.com/telerun/tele/limits"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

func limitOf(job *telev1.Job, name limits.Name) *telev1.LimitStatus {
	for _, l := range job.Limits {
		if l.Name == string(name) {
			return l
		}
	}
	return &telev1.LimitStatus{}
}

// Each kind of work directory holds what its status says, and the writable places are all limited.
func TestWork(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.Work = WorkTmpfs })
	small := sh("for d in . /tmp /dev/shm; do head -c 3M /dev/zero >$d/f 2>/dev/null; stat -c %s $d/f; rm $d/f; done")
	small.WorkSize, small.Limits = "1M", &telev1.Limits{Memory: "20M"}
	job, out := run(t, table, small)
	if out != "1048576\n3145728\n3145728\n" {
		t.Errorf("tmpfs: got %q", out)
	}
	work, tmp := limitOf(job, limits.Work), limitOf(job, limits.Tmp)
	if work.Applied != "1M" || work.How != "tmpfs size=1048576, counted in the memory limit" || tmp.Applied != "20M" ||
		!strings.HasPrefix(tmp.How, "tmpfs size=20971520 on each of /tmp and /dev/shm") {
		t.Errorf("tmpfs: got %v, %v", work, tmp)
	}
	if job, _ := run(t, table, sh("true")); limitOf(job, limits.Work).Applied != "500M" {
		t.Errorf("by default: got %v", limitOf(job, limits.Work))
	}
	// What is written in memory is memory: it cannot go past the job's limit.
	flood := sh("head -c 100M /dev/zero >f")
	flood.WorkSize, flood.Limits = "1G", small.Limits
	if job, _ := run(t, table, flood); job.Reason != telev1.Reason_REASON_OOM_KILLED || job.GetExitCode() == 0 {
		t.Errorf("flood: got %v", job)
	}
	var request *BadRequest
	small.WorkSize = "12X"
	if _, err := table.Start(t.Context(), "me", "", small); !errors.As(err, &request) || request.Field != "spec.work_size" {
		t.Errorf("got %v", err)
	}

	table = with(t, table, func(o *Options) { o.Work = WorkDisk })
	job, _ = run(t, table, sh("true"))
	if work := limitOf(job, limits.Work); work.Asked != "max" || work.WhyNot != "" {
		t.Errorf("disk: got %v", work)
	}
	small.WorkSize = "1M"
	if job, _ := run(t, table, small); limitOf(job, limits.Work).WhyNot == "" {
		t.Errorf("disk with a limit: got %v", limitOf(job, limits.Work))
	}
	small.Strict = true
	var limit *LimitError
	// Without a disk the limits on it are refused first.
	if _, err := table.Start(t.Context(), "me", "", small); !errors.As(err, &limit) ||
		limit.Status.Name != limits.Work && table.noDevice == "" {
		t.Errorf("strict: got %v", err)
	}
}
