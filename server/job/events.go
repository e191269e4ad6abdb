package job

import (
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/telerun/tele/limits"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Events tell what happens to jobs, in the journal. They are found by comparing: told has how each job was that
// has not ended when it was last told of, and after each change of a record tell looks what of it is not told.
// A server that is killed between the two leaves the same difference, which the next one finds the same way; so
// each change is told once, whoever tells it.
//
// A job that is removed, or its output, has no record to compare with afterwards. So that is told before it is
// done, and the next server does what was told.
type events struct {
	table *Table
	retry sync.WaitGroup // of the goroutine that writes what there was no room for

	mu       sync.Mutex
	journal  *journal
	told     map[string]told
	waiting  bool  // there is that goroutine
	earlier  *past // until recover is through
	finished bool
}

// told is how a job was when it was last told of.
type told struct {
	paused, stopping bool
	limits           uint32 // a checksum, of the timeout, too
	tries            uint32 // beginnings and ends of tries
}

// A past is what an earlier server has told.
type past struct {
	since time.Time // all that was told from then on
	last  map[string]lastTold
}

type lastTold struct {
	kind          telev1.EventKind
	outputRemoved bool
	at            cursor
}

func toldOf(job *recordv1.Told) told { return told{job.Paused, job.Stopping, job.Limits, job.Tries} }

// openEvents reads what was told.
func (t *Table) openEvents() (err error) {
	e := &events{table: t, told: map[string]told{}, earlier: &past{since: time.Now(), last: map[string]lastTold{}}}
	first := true
	most := t.options.EventFile
	if most == 0 {
		most = eventFileSize
	}
	e.journal, err = openJournal(t.eventsDir(), most, func(at cursor, entry *recordv1.Entry) {
		if head := entry.Head; head != nil {
			if first {
				e.earlier.since, first = head.MadeAt.AsTime(), false
			}
			clear(e.told)
			for _, job := range head.Told {
				e.told[job.JobId] = toldOf(job)
			}
			return
		}
		id := entry.Event.GetJob().GetId()
		if job := entry.Told; job != nil {
			e.told[id] = toldOf(job)
		} else {
			delete(e.told, id)
		}
		was := e.earlier.last[id]
		e.earlier.last[id] = lastTold{entry.Event.GetKind(), was.outputRemoved ||
			entry.Event.GetKind() == telev1.EventKind_EVENT_KIND_OUTPUT_REMOVED, at}
	})
	t.events = e
	return err
}

// close ends the events. What could not be written is found by the next server.
func (e *events) close() {
	e.mu.Lock()
	e.finished = true
	e.mu.Unlock()
	e.retry.Wait()
	e.journal.close()
}

// tell tells what of a job is not told yet.
func (e *events) tell(r *recordv1.Record) {
	job := r.Job
	e.table.at("record to be told")
	e.mu.Lock()
	defer e.mu.Unlock()
	was, known := e.told[job.Id]
	is := told{paused: job.Paused, stopping: r.Stop != nil, limits: limitsSum(job)}
	if !known {
		if job.StartedAt == nil || job.EndedAt != nil && !e.missedLocked(job) {
			return
		}
		was = told{limits: is.limits, tries: 1}
		e.tellLocked(telev1.EventKind_EVENT_KIND_STARTED, job.StartedAt, job, "", &was)
	}
	e.tellTriesLocked(job, &was)
	if job.EndedAt != nil {
		e.tellLocked(telev1.EventKind_EVENT_KIND_ENDED, job.EndedAt, job, job.Message, nil)
		return
	}
	if is.stopping && !was.stopping {
		was.stopping = true
		e.tellLocked(telev1.EventKind_EVENT_KIND_STOPPING, now(), job, r.Stop.Message, &was)
	}
	if is.limits != was.limits {
		was.limits = is.limits
		e.tellLocked(telev1.EventKind_EVENT_KIND_UPDATED, now(), job, limitsText(job), &was)
	}
	if is.paused != was.paused {
		was.paused = is.paused
		kind := telev1.EventKind_EVENT_KIND_RESUMED
		if is.paused {
			kind = telev1.EventKind_EVENT_KIND_PAUSED
		}
		e.tellLocked(kind, now(), job, "", &was)
	}
}

// tellTriesLocked tells of tries that failed and those that were begun again. The end of the last one of a job that
// has ended is the job's.
func (e *events) tellTriesLocked(job *telev1.Job, was *told) {
	for i, try := range job.Tries {
		begun, ended := uint32(2*i+1), uint32(2*i+2)
		if was.tries < begun {
			was.tries = begun
			if try.StartedAt != nil {
				e.tellLocked(telev1.EventKind_EVENT_KIND_STARTED, try.StartedAt, job, "", was)
			}
		}
		last := i == len(job.Tries)-1
		if was.tries < ended && try.EndedAt != nil && !(last && job.EndedAt != nil) {
			was.tries = ended
			message := try.Message
			if last {
				message = job.Message
			}
			e.tellLocked(telev1.EventKind_EVENT_KIND_RESTARTING, try.EndedAt, job, message, was)
		}
	}
}

// missedLocked tells whether an earlier server told nothing of a job that has ended, though it ran in the time
// of which all that was told is there.
func (e *events) missedLocked(job *telev1.Job) bool {
	if e.earlier == nil || !job.StartedAt.AsTime().After(e.earlier.since) {
		return false
	}
	_, told := e.earlier.last[job.Id]
	return !told
}

// tellRemoved tells that a job is about to go. It is out of sight already.
func (e *events) tellRemoved(job *telev1.Job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tellLocked(telev1.EventKind_EVENT_KIND_REMOVED, now(), job, "", nil)
}

// tellOutputRemoved tells that a job's output is about to go, unless the whole job does meanwhile.
func (e *events) tellOutputRemoved(job *telev1.Job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.table.has(job.Id) {
		e.tellLocked(telev1.EventKind_EVENT_KIND_OUTPUT_REMOVED, now(), job, "", nil)
	}
}

// tellLocked writes an event; state is nil for a job that has ended.
func (e *events) tellLocked(kind telev1.EventKind, at *timestamppb.Timestamp, job *telev1.Job, message string, state *told) {
	entry := &recordv1.Entry{Event: &telev1.Event{Time: at, Kind: kind, Job: eventJob(job), Message: message}}
	if state != nil {
		e.told[job.Id] = *state
		entry.Told = &recordv1.Told{Paused: state.paused, Stopping: state.stopping, Limits: state.limits, Tries: state.tries}
	} else {
		delete(e.told, job.Id)
	}
	e.writtenLocked(e.journal.write(entry, e.headLocked))
}

// writtenLocked sees to what could not be written. It fails no job: the event is in memory, and waits for room.
func (e *events) writtenLocked(err error) {
	if err == nil || e.waiting || e.finished {
		return
	}
	e.table.options.Log.Warn().Err(err).Msg("events cannot be written, and wait")
	e.waiting = true
	e.retry.Go(func() {
		for e.flush() != nil {
			select {
			case <-e.table.space.Freed():
			case <-e.table.life.Done():
				return
			}
		}
	})
}

func (e *events) flush() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.journal.flush(e.headLocked)
	e.waiting = err != nil
	return err
}

func (e *events) headLocked() *recordv1.EventsHead {
	head := &recordv1.EventsHead{MadeAt: now()}
	for id, job := range e.told {
		head.Told = append(head.Told, &recordv1.Told{JobId: id, Paused: job.paused, Stopping: job.stopping, Limits: job.limits,
			Tries: job.tries})
	}
	return head
}

// removed tells whether an earlier server was about to remove a job when it was killed.
func (e *events) removed(id string) bool {
	return e.earlier.last[id].kind == telev1.EventKind_EVENT_KIND_REMOVED
}

// outputRemoved is the same of its output.
func (e *events) outputRemoved(id string) bool { return e.earlier.last[id].outputRemoved }

// settle is called when all jobs are recovered. Those that were told of and are not there, somebody else has
// removed, or an earlier server that had no room to say so.
func (e *events) settle() {
	gone := func(id string) bool {
		if e.table.has(id) {
			return false
		}
		_, err := os.Lstat(e.table.jobDir(id))
		return os.IsNotExist(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, last := range e.earlier.last {
		if last.kind == telev1.EventKind_EVENT_KIND_REMOVED || !gone(id) {
			continue
		}
		r := journalReader{journal: e.journal, at: last.at.at}
		if entry, err := r.next(); err == nil {
			e.tellLocked(telev1.EventKind_EVENT_KIND_REMOVED, now(), entry.Event.GetJob(), "", nil)
		}
	}
	for id := range e.told {
		if gone(id) {
			delete(e.told, id)
		}
	}
	e.earlier = nil
}

// maxEventCommand is how many bytes of a command an event has.
const maxEventCommand = 256

// eventJob is a job as an event shows it.
func eventJob(job *telev1.Job) *telev1.Job {
	b := brief(job)
	left := maxEventCommand
	for i, word := range b.Spec.Command {
		if len(word) >= left {
			b.Spec.Command = append(slices.Clone(b.Spec.Command[:i]), cutText(word, max(left-1, 0))+"…")
			break
		}
		left -= len(word) + 1
	}
	return b
}

// cutText is the beginning of a text, of whole characters.
func cutText(text string, most int) string {
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// limitsSum is a checksum of what Update changes.
func limitsSum(job *telev1.Job) uint32 {
	text := make([]byte, 0, 256)
	for _, l := range job.Limits {
		text = append(append(append(append(text, l.Name...), ' '), l.Asked...), '\n')
	}
	if job.Timeout != nil {
		text = append(text, job.Timeout.AsDuration().String()...)
	}
	return checksum(text)
}

// limitsText is the same for people, like the arguments of tele set.
func limitsText(job *telev1.Job) string {
	var words []string
	for _, name := range limits.Names {
		for _, l := range job.Limits {
			if l.Name == string(name) && name != limits.Swap {
				words = append(words, l.Name+"="+l.Asked)
			}
		}
	}
	timeout := "none"
	if d := timeoutOf(job); d > 0 {
		timeout = d.String()
	}
	return strings.Join(append(words, "timeout="+timeout), " ")
}
