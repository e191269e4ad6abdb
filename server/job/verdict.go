package job

import (
	"errors"
	"fmt"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits/cgroup"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// verdict says how a job ended, by evidence: what was asked for, what the kernel counted, and the
// wait status.
func verdict(record *recordv1.Record, exit initproc.Exit, waitErr error) {
	if kills := record.Job.Usage.GetOomKills(); kills > 0 && errors.Is(waitErr, initproc.ErrInitGone) {
		// What fills the memory may be files in it, which no kill frees but that of init.
		job, code := record.Job, int32(128+unix.SIGKILL)
		job.Status, job.Reason, job.ExitCode = telev1.JobStatus_JOB_STATUS_FAILED, telev1.Reason_REASON_OOM_KILLED, &code
		job.Message = fmt.Sprintf("the kernel killed %d of its processes at the memory limit, the sandbox's init among them", kills)
		return
	}
	if waitErr != nil {
		lost(record.Job, waitErr.Error()+": it was killed from outside, and all processes of the job with it")
		return
	}
	job, status := record.Job, exit.Status
	code := int32(status.ExitStatus())
	job.Reason, job.Message = telev1.Reason_REASON_EXITED, fmt.Sprintf("exited with code %d", code)
	if status.Signaled() {
		job.Signal = int32(status.Signal())
		code = 128 + job.Signal
		job.Reason = telev1.Reason_REASON_SIGNALED
		job.Message = fmt.Sprintf("ended by signal %d (%s)", job.Signal, unix.SignalName(status.Signal()))
	}
	switch stop := record.Stop; {
	case stop != nil:
		job.Reason, job.Message = stop.Reason, stop.Message
	case job.Signal != 0 && job.Signal == record.Signal:
		job.Reason, job.Message = telev1.Reason_REASON_STOPPED, job.Message+", which "+record.SignalBy+" sent"
	case job.Usage.GetOomKills() > 0 && code != 0:
		job.Reason = telev1.Reason_REASON_OOM_KILLED
		job.Message = fmt.Sprintf("the kernel killed %d of its processes at the memory limit", job.Usage.GetOomKills())
	}
	job.ExitCode = &code
	switch {
	case job.Reason == telev1.Reason_REASON_STOPPED:
		job.Status = telev1.JobStatus_JOB_STATUS_KILLED
	case code == 0 && job.Reason == telev1.Reason_REASON_EXITED:
		job.Status = telev1.JobStatus_JOB_STATUS_SUCCESS
	default:
		job.Status = telev1.JobStatus_JOB_STATUS_FAILED
	}
}

// lost is the verdict on a job whose end nobody saw: there is no exit code.
func lost(job *telev1.Job, why string) {
	job.Status, job.Reason, job.Message = telev1.JobStatus_JOB_STATUS_FAILED, telev1.Reason_REASON_LOST, why
}

// usageOf joins what the cgroups counted with what init did, where there are none.
func usageOf(u cgroup.Usage, exit initproc.Exit) *telev1.Usage {
	usage := &telev1.Usage{
		CpuUsec: u.CPU, CpuUserUsec: u.CPUUser, CpuSystemUsec: u.CPUSystem,
		ThrottledUsec: u.Throttled, ThrottledCount: u.ThrottledCount,
		MemoryPeakBytes: u.MemoryPeak, OomKills: u.OOMKills,
		IoReadBytes: u.IORead, IoWriteBytes: u.IOWrite, PidsPeak: u.PidsPeak, PidsLimitHits: u.PidsLimitHits,
		StallCpuUsec: u.StallCPU, StallMemoryUsec: u.StallMemory, StallIoUsec: u.StallIO,
	}
	if exit.MaxRSS > 0 {
		largest := uint64(exit.MaxRSS)
		usage.LargestProcessBytes = &largest
	}
	if usage.CpuUsec == nil && exit.UserTime+exit.SystemTime > 0 {
		user, system := uint64(exit.UserTime.Microseconds()), uint64(exit.SystemTime.Microseconds())
		all := user + system
		usage.CpuUsec, usage.CpuUserUsec, usage.CpuSystemUsec = &all, &user, &system
	}
	return usage
}
