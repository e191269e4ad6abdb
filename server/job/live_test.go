package job

import (
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
)

// What a running job uses is read for who asks, and is no part of its record.
func TestLive(t *testing.T) {
	table := open(t)
	spec := &telev1.JobSpec{Command: []string{"python3", "-c",
		"import os, time\nx = b'x' * (64 << 20)\nif os.fork(): print('ready', flush=True)\ntime.sleep(1000)"},
		Limits: &telev1.Limits{Memory: "200M"}}
	j := begin(t, table, spec)
	firstOutput(t, j)
	for _, brief := range []bool{false, true} {
		job := j.Live(brief)
		u := job.GetUsage()
		if u.GetMemoryBytes() < 64<<20 || u.GetMemoryBytes() > 200<<20 || u.GetMemoryLimitBytes() != 200<<20 ||
			u.GetPids() < 2 || // more where init has a Go runtime, with threads
			u.GetCpuUsec() == 0 || (job.Limits == nil) != brief {
			t.Errorf("brief %v: got %v", brief, job)
		}
	}
	if u := j.Snapshot().Usage; u != nil {
		t.Errorf("in the record: %v", u)
	}
	jobs, _, err := table.List(all, Page{Size: 10, Brief: true, Live: true})
	if err != nil || len(jobs) != 1 || jobs[0].GetUsage().GetPids() < 2 {
		t.Errorf("listed: %v, %v", jobs, err)
	}
	unlimited := begin(t, table, &telev1.JobSpec{Command: []string{"sleep", "1000"}, Limits: &telev1.Limits{Memory: "max"}})
	if u := unlimited.Live(true).Usage; u.MemoryBytes == nil || u.MemoryLimitBytes != nil {
		t.Errorf("without a limit: %v", u)
	}
	if err := j.Stop(OwnSignal, 0, "me"); err != nil {
		t.Fatal(err)
	}
	if ended := wait(t, j); !proto.Equal(j.Live(false), ended) || ended.Usage.Pids != nil {
		t.Errorf("ended: %v", j.Live(false))
	}
}
