package job

import (
	"context"
	"errors"
	"os"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/cgroup"
	"github.com/telerun/tele/server/output"
)

// A sandbox is what a job runs in, as far as it is made without the job: the directory with its output,
// the cgroup, and the init, which has the first part of its plan. It is for one job, which has its id.
type sandbox struct {
	table *Table
	id    string
	dir   string
	uid   uint32 // who the job runs as

	log    *output.Log
	group  *cgroup.Group
	plan   *initproc.Plan
	init   *initproc.Init
	work   limits.Status // what holds the work directory to its size
	join   int           // how many version 1 groups there are
	warm   bool          // it was made before there was a job
	timing *Timing       // of the start under way; nil for one that is made ready
	seen   int           // the state of the host's mounts that it was made from
}

// newSandbox is one of which nothing is there yet.
func (t *Table) newSandbox() *sandbox {
	id := newID()
	return &sandbox{table: t, id: id, dir: t.jobDir(id)}
}

// make makes it, for jobs that ask for what r does, and does not wait for init. When it fails, remove
// takes back what is there.
func (s *sandbox) make(r request) (err error) {
	t := s.table
	template, done := t.useTemplate(r)
	defer done()
	s.join = t.options.Cgroups.Joins()
	if s.plan, err = s.newPlan(r, template != nil); err != nil {
		return err
	}
	if s.group, err = t.options.Cgroups.Begin(s.id, t.groupRequest(r)); err != nil {
		return err
	}
	defer s.group.CloseStartFiles()
	if s.timing != nil {
		s.timing.Template = template != nil
	}
	s.mark("cgroup and plan made")
	s.init, err = initproc.Start(s.plan, initproc.StartOptions{Cgroup: s.group.CloneFD(), Template: template,
		Join: func() ([]*os.File, error) {
			if err := s.makeFiles(r); err != nil {
				return nil, err
			}
			if err := s.group.Complete(); err != nil {
				return nil, err
			}
			s.mark("cgroup complete")
			return s.group.JoinFiles(), nil
		}})
	s.mark("init started")
	return err
}

// makeFiles makes what it has on disk. It is there for another try of a job.
func (s *sandbox) makeFiles(r request) (err error) {
	if s.log != nil {
		return nil
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return err
	}
	s.log = output.New(s.dir)
	if s.work, err = s.makeWork(r); err != nil {
		return err
	}
	s.mark("directory made")
	return nil
}

// forJob makes it what r asks for, from what there is of it.
func (s *sandbox) forJob(r request) (err error) {
	if !s.warm {
		return s.make(r)
	}
	if s.plan, err = s.newPlan(r, true); err != nil {
		return err
	}
	if s.work, err = s.makeWork(r); err != nil { // in memory: it is told anew
		return err
	}
	return s.group.Set(s.table.groupRequest(r))
}

// run has init carry out the rest of its plan, and returns when the command runs.
func (s *sandbox) run(ctx context.Context, r request, in *initproc.Input) error {
	files, err := secretsFile(r.secrets)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close() // it was read, or will not be
		}
	}()
	return s.init.Run(ctx, s.plan, in, files...)
}

// newPlan is the plan for a job that asks for r.
func (s *sandbox) newPlan(r request, template bool) (*initproc.Plan, error) {
	spec := s.table.sandboxSpec(s, r)
	spec.Template = template
	plan, err := initproc.NewPlan(spec)
	if err != nil {
		return nil, bad("spec.command", "%v", err)
	}
	return plan, nil
}

// remove takes it away, as much as there is of it.
func (s *sandbox) remove() error {
	var errs []error
	if s.init != nil {
		s.init.Close()
	}
	if s.group != nil {
		errs = append(errs, s.group.Delete())
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	return errors.Join(append(errs, removeJob(s.dir))...)
}
