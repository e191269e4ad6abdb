package job

import (
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
)

// Live is Snapshot, or Brief, with what the job uses now, if it runs. It is read from the cgroup, so it is for
// who asks for it alone.
func (j *Job) Live(brief bool) *telev1.Job {
	var job *telev1.Job
	if brief {
		job = j.Brief()
	} else {
		job = j.Snapshot()
	}
	j.mu.Lock()
	group := j.group
	j.mu.Unlock()
	if job.StartedAt == nil || job.EndedAt != nil || group == nil {
		return job
	}
	c := group.Current()
	usage := &telev1.Usage{CpuUsec: c.CPU, MemoryBytes: c.Memory, MemoryLimitBytes: c.MemoryLimit,
		IoReadBytes: c.IORead, IoWriteBytes: c.IOWrite, Pids: c.Pids}
	if !brief { // it may be the record's own
		job = proto.CloneOf(job)
	}
	job.Usage = usage
	return job
}
