package job

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits/quota"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
	"google.golang.org/protobuf/proto"
)

// recover reads all records. A job that runs is taken over, one whose init is gone is lost, and what
// was half-made when its server was killed goes: nobody was told of it. What has no record and no
// job, a directory or a cgroup, goes as well; what a newer server wrote stays as it is.
func (t *Table) recover() error {
	entries, err := os.ReadDir(t.jobsDir())
	if err != nil {
		return err
	}
	known := map[string]bool{} // ids whose cgroups are somebody's
	t.grow(len(entries))
	for r := range t.readAll(entries) {
		if r.err == nil && r.job.ended() {
			t.enterEnded(r.job)
			continue
		}
		if known[r.id], err = t.recoverOne(r); err != nil {
			return err
		}
	}
	for _, id := range t.options.Cgroups.List() {
		if !known[id] {
			t.removeGroup(id, nil)
		}
	}
	t.sort()
	t.events.settle()
	return nil
}

// A found is what a job's directory holds.
type found struct {
	id  string
	job *Job // nil with err
	err error
}

// readAll reads the records of all jobs, some at a time, as most of a start is spent on it. Those of
// jobs that have ended are thin by then.
func (t *Table) readAll(entries []os.DirEntry) iter.Seq[found] {
	return func(yield func(found) bool) {
		all, next := make(chan found, 256), atomic.Int64{}
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			readers.Go(func() {
				for i := next.Add(1) - 1; i < int64(len(entries)); i = next.Add(1) - 1 {
					select {
					case all <- t.read(entries[i].Name()):
					case <-stop:
						return
					}
				}
			})
		}
		go func() { readers.Wait(); close(all) }()
		defer readers.Wait()
		defer close(stop)
		for r := range all {
			if !yield(r) {
				return
			}
		}
	}
}

// read reads the record of one job, and takes away what is left of a sandbox that has ended.
func (t *Table) read(id string) found {
	dir := t.jobDir(id)
	if t.events.removed(id) {
		return found{id: id, err: errHalfRemoved}
	}
	record, err := readRecord(dir)
	if err != nil {
		return found{id: id, err: err}
	}
	j := newJob(t, dir, record)
	if j.ended() {
		if !record.Job.OutputRemoved && t.events.outputRemoved(id) {
			if err := j.removeOutputAgain(); err != nil {
				t.options.Log.Err(err).Str("job", id).Msg("remove an old job's output")
			}
		}
		t.events.tell(record)
		// The server may have been killed before it had taken the sandbox away.
		if !initproc.Gone(initID(record)) {
			t.removeInit(j)
		}
		if !record.Job.OutputRemoved {
			if err := t.space.Add(dir); err != nil {
				t.options.Log.Err(err).Str("job", id).Msg("count the output")
			}
			if n := record.Job.Files.GetBytes(); n > 0 {
				t.space.Set(filesPath(dir), int64(n))
			}
		}
		j.makeThin()
	}
	return found{id: id, job: j}
}

// errHalfRemoved is for a job that an earlier server was removing when it was killed.
var errHalfRemoved = errors.New("removed")

// recoverOne does what is to be done about a job that has not ended, and tells whether its cgroup is
// somebody's.
func (t *Table) recoverOne(r found) (known bool, err error) {
	var newer *newerError
	switch {
	case errors.As(r.err, &newer):
		t.options.Log.Warn().Str("job", r.id).Msg(r.err.Error())
		return true, nil
	case r.err == errHalfRemoved:
		t.removeGroup(r.id, nil)
		return false, removeJob(t.jobDir(r.id))
	case errors.Is(r.err, os.ErrNotExist):
		t.options.Log.Info().Str("job", r.id).Msg("removing what a start left that was cut off")
		t.removeGroup(r.id, nil)
		return false, removeJob(t.jobDir(r.id))
	case r.err != nil:
		t.options.Log.Err(r.err).Str("job", r.id).Msg("this job is left alone")
		return true, nil
	}
	running, err := t.recoverJob(r.job)
	if err != nil {
		t.options.Log.Err(err).Str("job", r.id).Msg("this job is left alone")
	}
	return running || err != nil, nil
}

// recoverJob enters a job that an earlier server left running into the table, and tells whether it
// runs still.
func (t *Table) recoverJob(j *Job) (running bool, err error) {
	r := j.record
	if r.AgainAt != nil {
		return true, t.recoverWaiting(j)
	}
	j.init, err = initproc.Adopt(initID(r))
	switch {
	case errors.Is(err, initproc.ErrInitGone) && r.Job.Status == telev1.JobStatus_JOB_STATUS_SUBMITTED && len(r.Job.Tries) > 0:
		j.init = nil
		return true, t.recoverWaiting(j)
	case errors.Is(err, initproc.ErrInitGone) && r.Job.Status == telev1.JobStatus_JOB_STATUS_SUBMITTED:
		t.options.Log.Info().Str("job", j.id).Msg("removing a job that was cut off before it ran")
		t.removeGroup(j.id, r.Cgroups)
		return false, removeJob(j.dir)
	case errors.Is(err, initproc.ErrInitGone):
		return false, t.recoverLost(j)
	case err != nil:
		return false, err
	}
	return true, t.adopt(j)
}

// adopt goes on with a job whose init is there.
func (t *Table) adopt(j *Job) (err error) {
	j.group = t.options.Cgroups.Adopt(j.id, j.record.Cgroups)
	t.mu.Lock()
	t.uids[j.record.Uid]++
	t.holdLocked(j)
	t.mu.Unlock()
	defer close(j.made)
	defer func() {
		if err != nil { // it is left alone
			j.letGo()
		}
	}()
	if j.log, err = openLog(j); err != nil {
		return err
	}
	if j.record.Job.Status == telev1.JobStatus_JOB_STATUS_SUBMITTED {
		// Init has its plan, or else it would be gone.
		ctx, cancel := context.WithTimeout(context.Background(), startTime)
		defer cancel()
		if err := j.init.Await(ctx); err != nil && len(j.record.Job.Tries) > 0 {
			t.addCutOff(j, err)
			return nil
		} else if err != nil {
			t.options.Log.Info().Str("job", j.id).Err(err).Msg("removing a job whose command could not be run")
			t.undoTaken(j)
			return nil
		}
		// Who asks again for this job is told that it runs, so it must not be half-made for a later
		// server; the start was not told to anybody yet.
		if err := j.setRunning(); err != nil && len(j.record.Job.Tries) > 0 {
			t.addCutOff(j, err)
			return nil
		} else if err != nil {
			t.options.Log.Warn().Str("job", j.id).Err(err).Msg("removing a job whose start could not be recorded")
			t.undoTaken(j)
			return nil
		}
	}
	if err := j.openUpper(); err != nil {
		return err
	}
	if err := j.openTerminal(); err != nil {
		return err
	}
	if err := j.openInput(); err != nil {
		return err
	}
	t.options.Log.Info().Str("job", j.id).Str("user", j.owner).Int("pid", j.init.Pid).Msg("job taken over")
	t.events.tell(j.record)
	j.askAgain()
	if err := j.watch(); err != nil {
		return err
	}
	j.pauseAgain()
	t.add(j)
	return nil
}

// openLog opens the output of a job that an earlier server left.
func openLog(j *Job) (*output.Log, error) {
	log, err := output.Open(j.dir)
	if err != nil {
		return nil, err
	}
	j.log = log
	if err := j.boundOutput(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return log, nil
}

// undoTaken takes back a start that an earlier server made half.
func (t *Table) undoTaken(j *Job) {
	if err := j.undo(); err != nil {
		t.options.Log.Err(err).Str("job", j.id).Msg("take back a start")
	}
}

// startTime is how long an init may take for its plan before a server that took it over gives up.
const startTime = 30 * time.Second

// recoverLost ends a job whose init has gone: nobody saw how it ended.
func (t *Table) recoverLost(j *Job) error {
	group := t.options.Cgroups.Adopt(j.id, j.record.Cgroups)
	log, err := output.Open(j.dir)
	if err != nil {
		return err
	}
	out, errs := log.Written()
	_ = log.Close() // it was only looked at
	record := proto.Clone(j.record).(*recordv1.Record)
	job := record.Job
	job.StdoutBytes, job.StderrBytes = uint64(out), uint64(errs)
	job.Usage = usageOf(group.Usage(), initproc.Exit{})
	why := "the sandbox's init was killed while no server was there"
	if boot, err := initproc.BootID(); err == nil && boot != record.BootId {
		why = "the machine was restarted while the job ran"
	}
	lost(job, why)
	noFiles(job, sandboxGone)
	j.dropFiles()
	job.Paused = false
	job.EndedAt = now()
	j.endTry(record)
	t.removeGroup(j.id, record.Cgroups)
	j.removeWork()
	t.events.tell(j.record) // before what is told next
	err = writeRecord(j.dir, record)
	if noSpace(err) {
		t.loseLater(j, record)
		return nil
	}
	if err != nil {
		return err
	}
	j.record = record
	t.events.tell(record)
	t.logEnd(job, nil)
	if err := t.space.Add(j.dir); err != nil {
		t.options.Log.Err(err).Str("job", j.id).Msg("count the output")
	}
	t.enterEnded(j)
	return nil
}

// loseLater shows a job that is lost as running until there is room for the record that says so:
// nobody is told of an end that the next server would not know.
func (t *Table) loseLater(j *Job, record *recordv1.Record) {
	j.ending = true
	close(j.made)
	if err := t.space.Add(j.dir); err != nil {
		t.options.Log.Err(err).Str("job", j.id).Msg("count the output")
	}
	t.mu.Lock()
	t.uids[j.record.Uid]++
	t.holdLocked(j)
	t.enterLocked(j)
	t.mu.Unlock()
	go func() {
		if err := t.writeWhenRoom(j, record); err != nil {
			t.release(j) // the next server comes to the same verdict
			t.running.Done()
			return
		}
		j.mu.Lock()
		j.record = record
		j.mu.Unlock()
		t.events.tell(record)
		t.logEnd(record.Job, nil)
		t.shelve(j)
		close(j.done)
		t.running.Done()
	}()
}

// writeWhenRoom writes a record as soon as there is room for it. It fails when the server ends before.
func (t *Table) writeWhenRoom(j *Job, record *recordv1.Record) error {
	for {
		if err := writeRecord(j.dir, record); !noSpace(err) {
			return err
		}
		select {
		case <-t.space.Freed():
		case <-t.life.Done():
			return ErrClosing
		}
	}
}

// over is closed; it is that of all jobs that ended before this server began.
var over = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// enterEnded shows a job that has ended, whose output is counted already.
func (t *Table) enterEnded(j *Job) {
	j.made, j.done = over, over
	t.mu.Lock()
	defer t.mu.Unlock()
	// In no order: sort comes when all are there.
	t.jobs[j.id] = j
	t.order = append(t.order, j)
	t.index.append(j)
	t.shelf.jobs = append(t.shelf.jobs, j)
	t.enterKeyLocked(j)
}

// grow makes room for that many jobs. Nobody else has the table yet.
func (t *Table) grow(n int) {
	t.jobs, t.keys = make(map[string]*Job, n), make(map[key]*Job, n)
	t.order, t.shelf.jobs = make([]*Job, 0, n), make([]*Job, 0, n)
}

// sort puts the jobs that were recovered in the order of their starts and of their ends.
func (t *Table) sort() {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortFunc(t.order, func(a, b *Job) int { return comparePlace(a, b.place()) })
	t.index.sort()
	slices.SortStableFunc(t.shelf.jobs, func(a, b *Job) int {
		first, _ := a.endTime()
		second, _ := b.endTime()
		return first.Compare(second)
	})
	for t.shelf.output < len(t.shelf.jobs) && t.shelf.jobs[t.shelf.output].outputRemoved() {
		t.shelf.output++
	}
}

// removeInit ends what an ended job has left of its sandbox.
func (t *Table) removeInit(j *Job) {
	if i, err := initproc.Adopt(initID(j.record)); err == nil {
		i.Close()
	}
	t.removeGroup(j.id, j.record.Cgroups)
}

// removeGroup ends what an earlier server left running, and takes its cgroup away.
func (t *Table) removeGroup(id string, paths []string) {
	group := t.options.Cgroups.Adopt(id, paths)
	err := group.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = errors.Join(err, group.WaitEmpty(ctx), group.Delete())
	if err != nil {
		t.options.Log.Err(err).Str("job", id).Msg("remove a cgroup that was left")
	}
}

// removeJob removes a job's directory, the record last: until then the next server would know what
// it is.
func removeJob(dir string) error {
	if err := removeFiles(dir); err != nil {
		return err
	}
	return removeAll(dir)
}

// removeFiles removes everything of a job but its record. What is in the work directory belongs to
// the job and may be anything.
func removeFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() == "record" {
			continue
		}
		err := error(nil)
		if path := filepath.Join(dir, e.Name()); path == workDir(dir) {
			err = quota.Release(path, removeAll)
		} else {
			err = removeAll(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
