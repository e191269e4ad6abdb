package job

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/telerun/tele/initproc"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
)

// A watch is what this server waits for of a running job: output on its two pipes, word from its init that
// the command has ended, and with seccomp_log refused calls. Nobody waits for them but the poller of all
// jobs; what comes is worked on in a goroutine that ends when there is nothing more for now.
//
// It is over once, in one of two ways. The command has ended (hear, finish): the pipes are drained to their
// ends, the last refused call is counted, and then end writes the record. Or the server ends before (leave).
type watch struct {
	job     *Job
	streams [2]stream
	control watched
	refused *refusing // nil without seccomp_log
	over    atomic.Bool
	begin   sync.Mutex // held until all of it is waited for: a try is in sight before
	limited sync.Once  // the job was told to stop, for it wrote too much
}

// A stream is one of the pipes that the job writes to.
type stream struct {
	name    output.Stream
	pipe    int
	screen  *initproc.Terminal // what is written comes to the pipe from there
	watched watched
	told    bool // that output cannot be kept
}

// fd is what is readable when there is something to move.
func (s *stream) fd() int {
	if s.screen != nil {
		return s.screen.FD()
	}
	return s.pipe
}

// watch begins to wait for what the job does.
func (j *Job) watch() error {
	w := &watch{job: j}
	w.begin.Lock()
	defer w.begin.Unlock()
	j.init.Heard = j.hearBeside
	w.streams[0].name, w.streams[0].pipe = output.Stdout, j.init.Stdout
	w.streams[0].screen = j.screen
	w.streams[1].name, w.streams[1].pipe = output.Stderr, j.init.Stderr
	j.mu.Lock()
	j.watching = w
	trying := j.retry.trying
	j.retry.trying = false
	j.timeOutLocked()
	j.aloneLocked()
	if stop := j.record.Stop; stop != nil {
		j.killAtLocked(stop.KillAt.AsTime())
		if trying {
			_ = j.init.SignalAll(stopSignal(j.record.Job.Spec)) // an init that is gone ends the job anyway
		}
	}
	j.mu.Unlock()
	poll := j.table.poll
	j.table.at("watch begun")
	w.refused = j.watchRefused()
	exit, err := j.init.Exit() // which takes what is known of the start, too: that shall not wake anybody
	if err != initproc.ErrRunning {
		if w.over.CompareAndSwap(false, true) {
			go w.finish(exit, err)
		}
		return nil
	}
	for i := range w.streams {
		s := &w.streams[i]
		if err = poll.add(&s.watched, s.fd(), func() bool { return w.drain(s) }); err != nil {
			break
		}
	}
	if err == nil {
		err = poll.add(&w.control, j.init.FD(), w.hear)
	}
	if err == nil || !w.over.CompareAndSwap(false, true) { // else leave sees to it
		return nil
	}
	w.stop()
	w.refused.stop()
	j.stopTimers()
	return err
}

// stop takes the job's pipes and socket from the poller, and returns when nobody is at them any more.
func (w *watch) stop() {
	poll := w.job.table.poll
	poll.remove(&w.control)
	for i := range w.streams {
		poll.remove(&w.streams[i].watched)
	}
}

// drain moves what has come, and tells whether more may.
func (w *watch) drain(s *stream) (again bool) { return w.move(s) == nil }

// move moves output until the pipe is empty. It returns io.EOF when nobody can write to it any more, and
// ErrClosing when the server ends before everything could be kept.
func (w *watch) move(s *stream) error {
	t := w.job.table
	for {
		more := io.EOF
		if s.screen != nil {
			if more = s.screen.Move(); more != nil && more != io.EOF {
				t.options.Log.Err(more).Str("job", w.job.id).Msg("read the terminal of a job, of which no more is kept")
			}
		}
		_, err := w.job.log.Drain(s.name, s.pipe)
		if errors.Is(err, output.ErrLimit) || t.options.StopWhenFull && errors.Is(err, output.ErrFull) {
			w.outputEnds(err)
			_, err = w.job.log.Discard(s.pipe)
		}
		if err == nil && more == nil {
			continue
		}
		if err == nil || err == io.EOF {
			return err
		}
		// The bytes wait in the pipe, and the job with them when it is full.
		if !s.told {
			t.options.Log.Warn().Err(err).Str("job", w.job.id).Msg("output cannot be kept, the job waits")
			s.told = true
		}
		t.tidyUp()
		select {
		case <-t.space.Freed():
		case <-t.life.Done():
			return ErrClosing
		}
	}
}

// outputEnds stops a job that wrote more than is kept; once, however much it goes on to write.
func (w *watch) outputEnds(cause error) {
	w.limited.Do(func() {
		message := fmt.Sprintf("wrote more output than is kept: %v", cause)
		if err := w.job.stop(OwnSignal, stopGrace, telev1.Reason_REASON_OUTPUT_LIMIT, message); err != nil {
			w.job.table.options.Log.Err(err).Str("job", w.job.id).Msg("stop at the output limit")
		}
	})
}

// hear looks whether init has said how the command ended. What is then to be done includes to remove what
// this is called for, so another goroutine does it.
func (w *watch) hear() (again bool) {
	exit, err := w.job.init.Exit()
	if err == initproc.ErrRunning {
		return true
	}
	if w.over.CompareAndSwap(false, true) {
		go w.finish(exit, err)
	}
	return false
}

// finish brings a job to its end whose command has ended: nobody is left who could write.
func (w *watch) finish(exit initproc.Exit, waitErr error) {
	w.stop()
	w.job.besides.over()
	kept := true
	for i := range w.streams {
		kept = w.move(&w.streams[i]) != ErrClosing && kept
	}
	w.refused.stop()
	if !kept || !w.job.end(exit, waitErr) {
		w.job.leave()
	}
}

// leave lets go of the job, which runs on: the server ends, and the next one takes it.
func (w *watch) leave() {
	w.begin.Lock() // who begins it does not go on with what is closed here
	defer w.begin.Unlock()
	w.stop()
	w.job.besides.over()
	w.refused.stop()
	w.job.leave()
}

// interrupt leaves the job, if it runs.
func (j *Job) interrupt() {
	j.mu.Lock()
	w, waited := j.watching, j.claimLocked()
	j.mu.Unlock()
	if waited {
		j.leave()
		return
	}
	if w != nil && w.over.CompareAndSwap(false, true) {
		go w.leave() // who waits for it is running.Wait
	}
}
