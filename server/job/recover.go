package job

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
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
	for _, e := range entries {
		id, dir := e.Name(), filepath.Join(t.jobsDir(), e.Name())
		record, err := readRecord(dir)
		var newer *newerError
		switch {
		case errors.As(err, &newer):
			t.options.Log.Warn().Str("job", id).Msg(err.Error())
			known[id] = true
		case errors.Is(err, os.ErrNotExist):
			t.options.Log.Info().Str("job", id).Msg("removing what a start left that was cut off")
			t.removeGroup(id, nil)
			if err := removeJob(dir); err != nil {
				return err
			}
		case err != nil:
			t.options.Log.Err(err).Str("job", id).Msg("this job is left alone")
			known[id] = true
		default:
			running, err := t.recoverJob(newJob(t, dir, record))
			if err != nil {
				t.options.Log.Err(err).Str("job", id).Msg("this job is left alone")
			}
			known[id] = running || err != nil
		}
	}
	for _, id := range t.options.Cgroups.List() {
		if !known[id] {
			t.removeGroup(id, nil)
		}
	}
	t.sortShelf()
	return nil
}

// recoverJob enters a job of an earlier server into the table, and tells whether it runs.
func (t *Table) recoverJob(j *Job) (running bool, err error) {
	r := j.record
	if j.endedLocked() {
		// The server may have been killed before it had taken the sandbox away.
		if !initproc.Gone(initID(r)) {
			t.removeInit(j)
		}
		t.enterEnded(j)
		return false, nil
	}
	j.init, err = initproc.Adopt(initID(r))
	switch {
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
	if j.log, err = output.Open(j.dir); err != nil {
		return err
	}
	if err := j.boundOutput(); err != nil {
		return err
	}
	if j.record.Job.Status == telev1.JobStatus_JOB_STATUS_SUBMITTED {
		// Init has its plan, or else it would be gone.
		ctx, cancel := context.WithTimeout(context.Background(), startTime)
		defer cancel()
		if err := j.init.Await(ctx); err != nil {
			t.options.Log.Info().Str("job", j.id).Err(err).Msg("removing a job whose command could not be run")
			t.undoTaken(j)
			return nil
		}
		// Who asks again for this job is told that it runs, so it must not be half-made for a later
		// server; the start was not told to anybody yet.
		if err := j.setRunning(); err != nil {
			t.options.Log.Warn().Str("job", j.id).Err(err).Msg("removing a job whose start could not be recorded")
			t.undoTaken(j)
			return nil
		}
	}
	if err := j.openUpper(); err != nil {
		return err
	}
	t.options.Log.Info().Str("job", j.id).Str("user", j.owner).Int("pid", j.init.Pid).Msg("job taken over")
	j.askAgain()
	j.watch()
	t.add(j)
	return nil
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
	job.EndedAt = now()
	t.removeGroup(j.id, record.Cgroups)
	j.removeWork()
	err = writeRecord(j.dir, record)
	if noSpace(err) {
		t.loseLater(j, record)
		return nil
	}
	if err != nil {
		return err
	}
	j.record = record
	t.logEnd(job, nil)
	t.enterEnded(j)
	return nil
}

// loseLater shows a job that is lost as running until there is room for the record that says so:
// nobody is told of an end that the next server would not know.
func (t *Table) loseLater(j *Job, record *recordv1.Record) {
	j.ending = true
	j.init = &initproc.Init{PidFD: -1} // for those who would interrupt it
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

// enterEnded shows a job that has ended.
func (t *Table) enterEnded(j *Job) {
	if !j.record.Job.OutputRemoved {
		if err := t.space.Add(j.dir); err != nil {
			t.options.Log.Err(err).Str("job", j.id).Msg("count the output")
		}
	}
	close(j.made)
	close(j.done)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.enterLocked(j)
	t.enterKeyLocked(j)
	t.shelf.jobs = append(t.shelf.jobs, j) // sorted when all are there
}

// sortShelf puts the jobs that were recovered in the order of their ends.
func (t *Table) sortShelf() {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortStableFunc(t.shelf.jobs, func(a, b *Job) int {
		return a.record.Job.EndedAt.AsTime().Compare(b.record.Job.EndedAt.AsTime())
	})
	for t.shelf.output < len(t.shelf.jobs) && t.shelf.jobs[t.shelf.output].record.Job.OutputRemoved {
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
