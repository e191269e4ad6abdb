package job

import (
	"strings"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// A job with stop_when_left ends when nobody has followed it for a while, also under the next server, and
// no sooner.
func TestStopWhenLeft(t *testing.T) {
	table := open(t)
	table.leftGrace = 100 * time.Millisecond
	spec := sh("exec sleep 1000")
	other := begin(t, table, spec)
	spec.StopWhenLeft = true
	left, kept := begin(t, table, spec), begin(t, table, spec)
	leave := kept.Follow()
	kept.Follow()()
	if job := wait(t, left); job.Reason != telev1.Reason_REASON_STOPPED || !strings.Contains(job.Message, "nobody has followed it") {
		t.Errorf("got %v", job)
	}
	for _, j := range []*Job{kept, other} {
		if job := j.Snapshot(); job.Status != telev1.JobStatus_JOB_STATUS_RUNNING {
			t.Errorf("got %v", job)
		}
	}
	leave()
	if job := wait(t, kept); job.Reason != telev1.Reason_REASON_STOPPED {
		t.Errorf("got %v", job)
	}
	again := begin(t, table, spec)
	defer again.Follow()()
	table = reopen(t, table)
	if timer := find(t, table, again.id).company.timer; timer == nil {
		t.Error("the next server does not stop it")
	}
}
