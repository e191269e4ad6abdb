package job

import (
	"errors"
	"io"
	"slices"
	"time"

	"github.com/telerun/tele/initproc"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/seccomp"
	"google.golang.org/protobuf/proto"
)

// This file answers the system calls that a job with seccomp_log is refused, and keeps which they
// were. Each waits until it is answered, so that comes first, and is counted afterwards. An entry of
// the list is replaced, not changed: records and snapshots share it.

// maxRefused is how many different calls are kept by name: their arguments are the job's to choose.
const maxRefused = 64

// filter adds to a sandbox what its job's system calls go through.
func filter(s *initproc.Spec, spec *telev1.JobSpec) {
	s.Seccomp = seccomp.Filter()
	if spec.SeccompLog {
		s.Seccomp, s.SeccompListener = seccomp.LogFilter(), true
	}
}

// perSecond is how many refused calls of a job are answered in a second. The work is the server's, not
// in the job's CPU limit; a job that asks for more waits.
const perSecond = 1000

// refusals are a running job's refused calls.
type refusals struct {
	calls   []*telev1.RefusedCall
	written bool // the record has them as they are
}

// A refusing answers the refused calls of one job.
type refusing struct {
	job      *Job
	listener *initproc.Listener
	watched  watched
	stopping chan struct{}

	answered int       // in this server's time
	second   time.Time // when the last perSecond of them began
}

// watchRefused begins to answer refused calls. Only a job with seccomp_log has them; nil is for others.
func (j *Job) watchRefused() *refusing {
	if !j.logsRefused() {
		return nil
	}
	l, err := j.init.Listen()
	if err != nil {
		if !errors.Is(err, initproc.ErrInitGone) {
			j.deaf(err)
		}
		return nil
	}
	j.mu.Lock()
	j.refused = refusals{calls: slices.Clone(j.record.Job.Refused), written: true}
	j.mu.Unlock()
	r := &refusing{job: j, listener: l, stopping: make(chan struct{}), second: time.Now()}
	if err := j.table.poll.add(&r.watched, l.FD(), r.answer); err != nil {
		l.Close()
		j.deaf(err)
		return nil
	}
	return r
}

func (j *Job) deaf(err error) {
	j.table.options.Log.Err(err).Str("job", j.id).Msg("listen for refused system calls, which now wait for ever")
}

// stop returns when the last call that was taken is counted, and leaves the record complete.
func (r *refusing) stop() {
	if r == nil {
		return
	}
	close(r.stopping)
	r.job.table.poll.remove(&r.watched)
	r.listener.Close()
	r.job.mu.Lock()
	defer r.job.mu.Unlock()
	if !r.job.refused.written {
		r.job.writeRefusedLocked()
	}
}

func (j *Job) logsRefused() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.record.Job.Spec.SeccompLog
}

// askAgain makes the refused calls that wait of an adopted job ask anew: the earlier server may have
// taken one and been killed before it answered, and the kernel gives a call to one taker alone.
func (j *Job) askAgain() {
	if !j.logsRefused() {
		return
	}
	if err := j.group.Interrupt(); err != nil {
		j.table.options.Log.Err(err).Str("job", j.id).Msg("make waiting system calls begin anew")
	}
}

// answer refuses what waits, and tells whether more may come.
func (r *refusing) answer() (again bool) {
	for {
		select {
		case <-r.stopping:
			return false
		default:
		}
		switch err := r.next(); {
		case err == initproc.ErrNoCall:
			return true
		case err == io.EOF:
			return false
		case err != nil:
			r.job.table.options.Log.Err(err).Str("job", r.job.id).Msg("answer refused system calls")
			return false
		}
		if r.answered++; r.answered%perSecond == 0 {
			select {
			case <-time.After(time.Until(r.second.Add(time.Second))):
			case <-r.stopping:
			}
			r.second = time.Now()
		}
	}
}

// next refuses the next call.
func (r *refusing) next() error {
	n, err := r.listener.Next()
	if err != nil {
		return err
	}
	call := seccomp.Call{Number: n.Number, Arch: n.Arch, Args: n.Args}
	errno := seccomp.Judge(call)
	r.job.table.at("refused call taken")
	refused, err := r.listener.Refuse(n, errno)
	if refused {
		r.job.countRefused(call.String(), int32(errno))
		r.job.table.at("refused call counted")
	}
	return err
}

// countRefused counts a refused call. A new one is written down at once.
func (j *Job) countRefused(name string, errno int32) {
	j.mu.Lock()
	defer j.mu.Unlock()
	calls := j.refused.calls
	at := slices.IndexFunc(calls, func(r *telev1.RefusedCall) bool { return r.Call == name && r.Errno == errno })
	if at < 0 && len(calls) >= maxRefused {
		name, errno = "others", 0
		if len(calls) > maxRefused {
			at = maxRefused
		}
	}
	if at >= 0 {
		calls[at] = &telev1.RefusedCall{Call: calls[at].Call, Count: calls[at].Count + 1, Errno: calls[at].Errno}
		j.refused.written = false
		return
	}
	j.refused.calls = append(calls, &telev1.RefusedCall{Call: name, Count: 1, Errno: errno})
	j.writeRefusedLocked()
}

// writeRefusedLocked puts the refused calls into the record.
func (j *Job) writeRefusedLocked() {
	next := proto.Clone(j.record).(*recordv1.Record)
	next.Job.Refused = slices.Clone(j.refused.calls)
	j.record, j.refused.written = next, true
	if err := writeRecord(j.dir, next); err != nil && !noSpace(err) {
		j.table.options.Log.Err(err).Str("job", j.id).Msg("record refused system calls")
	}
}
