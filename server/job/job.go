package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits/cgroup"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// A Job is one job, running or ended.
type Job struct {
	table *Table
	dir   string
	slot  uint32
	done  chan struct{} // closed when it has ended and its record says so

	// While it runs, and then not changed.
	init  *initproc.Init
	group *cgroup.Group

	mu      sync.Mutex
	record  *recordv1.Record
	log     *output.Log // nil for an ended job of an earlier server until somebody reads it
	stopped *stopRequest
	timers  []*time.Timer
}

// A stopRequest is why and how a job is stopped.
type stopRequest struct {
	signal   syscall.Signal
	grace    time.Duration
	timedOut bool
	message  string
}

// Owner is the name of who started the job.
func (j *Job) Owner() string { return j.record.Job.User }

// Snapshot is the job as it is now.
func (j *Job) Snapshot() *telev1.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	job := proto.Clone(j.record.Job).(*telev1.Job)
	if j.log != nil && !j.ended() {
		out, errs := j.log.Sizes()
		job.StdoutBytes, job.StderrBytes = uint64(out), uint64(errs)
	}
	return job
}

func (j *Job) ended() bool { return j.record.Job.EndedAt != nil }

// Output opens the job's output for reading. The caller closes the reader.
func (j *Job) Output(o output.ReadOptions) (*output.Reader, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.log == nil {
		log, err := output.Open(j.dir)
		if err != nil {
			return nil, err
		}
		log.Finish()
		j.log = log
		defer log.Close() // from here on the reader keeps it open
	}
	return j.log.NewReader(o)
}

// Wait returns the job when it has ended.
func (j *Job) Wait(ctx context.Context) (*telev1.Job, error) {
	select {
	case <-j.done:
		return j.Snapshot(), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Stop sends signal to all processes of the job, and kills them after grace. Wait tells when they
// are gone.
func (j *Job) Stop(signal syscall.Signal, grace time.Duration, by string) {
	j.stop(stopRequest{signal: signal, grace: grace, message: fmt.Sprintf("stopped by %s", by)})
}

func (j *Job) stop(r stopRequest) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended() || j.init == nil {
		return
	}
	if j.stopped == nil {
		j.stopped = &r
	}
	if r.grace > 0 {
		_ = j.init.SignalAll(r.signal) // an init that is gone ends the job anyway
	}
	j.timers = append(j.timers, time.AfterFunc(max(r.grace, 0), func() {
		_ = j.init.SignalAll(unix.SIGKILL) // the same
	}))
}

// watch starts what moves the output and waits for the end. The goroutines end with the job.
func (j *Job) watch() {
	if d := j.record.Job.Spec.Timeout.AsDuration(); d > 0 {
		j.timers = append(j.timers, time.AfterFunc(d, func() {
			j.stop(stopRequest{signal: unix.SIGTERM, grace: 10 * time.Second, timedOut: true,
				message: fmt.Sprintf("ran longer than its timeout of %s", d)})
		}))
	}
	var drains sync.WaitGroup
	drains.Go(func() { j.drain(output.Stdout, j.init.Stdout) })
	drains.Go(func() { j.drain(output.Stderr, j.init.Stderr) })
	go func() {
		exit, err := j.init.Wait()
		past := time.Unix(1, 0)
		_ = j.init.Stdout.SetReadDeadline(past)
		_ = j.init.Stderr.SetReadDeadline(past)
		drains.Wait()
		j.end(exit, err)
	}()
}

// drain moves output as it comes, until its deadline or the pipe's end.
func (j *Job) drain(s output.Stream, pipe *os.File) {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Read(func(fd uintptr) bool { // the deadline is the way out
		_, err := j.log.Drain(s, int(fd))
		return err != nil
	})
	// What the command wrote last, after the deadline.
	_ = conn.Control(func(fd uintptr) {
		if _, err := j.log.Drain(s, int(fd)); err != nil && !errors.Is(err, io.EOF) {
			j.table.options.Ended(j.Snapshot(), err)
		}
	})
}

// end takes the job's sandbox away and writes down how it ended.
func (j *Job) end(exit initproc.Exit, waitErr error) {
	usage := j.group.Usage()
	j.init.Close()
	err := j.group.Delete()
	j.mu.Lock()
	for _, timer := range j.timers {
		timer.Stop()
	}
	job := j.record.Job
	job.Usage = usageOf(usage, exit)
	out, errs := j.log.Sizes()
	job.StdoutBytes, job.StderrBytes = uint64(out), uint64(errs)
	j.verdict(exit, waitErr)
	job.EndedAt = now()
	err = errors.Join(err, writeRecord(j.dir, j.record))
	j.mu.Unlock()
	j.log.Finish()
	_ = j.log.Close()
	j.table.options.Ended(j.Snapshot(), err)
	j.table.release(j)
	close(j.done)
}

// finishLost ends a job whose init is gone with the server that knew it.
func (j *Job) finishLost() {
	job := j.record.Job
	job.Status, job.Reason = telev1.JobStatus_JOB_STATUS_FAILED, telev1.Reason_REASON_LOST
	job.Message = "the server ended while the job ran"
	job.EndedAt = now()
	_ = writeRecord(j.dir, j.record) // the next server will come to the same verdict
}

// verdict says how the job ended, by evidence: what was asked for, what the kernel counted, and
// the wait status.
func (j *Job) verdict(exit initproc.Exit, waitErr error) {
	job, status := j.record.Job, exit.Status
	code := int32(status.ExitStatus())
	job.Reason, job.Message = telev1.Reason_REASON_EXITED, fmt.Sprintf("exited with code %d", code)
	if status.Signaled() {
		job.Signal = int32(status.Signal())
		code = 128 + job.Signal
		job.Reason = telev1.Reason_REASON_SIGNALED
		job.Message = fmt.Sprintf("ended by signal %d (%s)", job.Signal, unix.SignalName(status.Signal()))
	}
	oom := job.Usage.GetOomKills() > 0 && code != 0
	switch {
	case waitErr != nil:
		code = 128 + int32(unix.SIGKILL)
		job.Signal = int32(unix.SIGKILL)
		job.Reason, job.Message = telev1.Reason_REASON_LOST, waitErr.Error()
	case j.stopped != nil && j.stopped.timedOut:
		job.Reason, job.Message = telev1.Reason_REASON_TIMED_OUT, j.stopped.message
	case j.stopped != nil:
		job.Reason, job.Message = telev1.Reason_REASON_STOPPED, j.stopped.message
	case oom:
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

// usageOf joins what the cgroups counted with what init did, where there are none.
func usageOf(u cgroup.Usage, exit initproc.Exit) *telev1.Usage {
	usage := &telev1.Usage{
		CpuUsec: u.CPU, CpuUserUsec: u.CPUUser, CpuSystemUsec: u.CPUSystem,
		ThrottledUsec: u.Throttled, ThrottledCount: u.ThrottledCount,
		MemoryPeakBytes: u.MemoryPeak, OomKills: u.OOMKills,
		IoReadBytes: u.IORead, IoWriteBytes: u.IOWrite, PidsPeak: u.PidsPeak,
	}
	if usage.CpuUsec == nil {
		user, system := uint64(exit.UserTime.Microseconds()), uint64(exit.SystemTime.Microseconds())
		all := user + system
		usage.CpuUsec, usage.CpuUserUsec, usage.CpuSystemUsec = &all, &user, &system
	}
	return usage
}
