package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/cgroup"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
	"google.golang.org/protobuf/proto"
)

// A LimitError is a limit that cannot be enforced, asked for with strict.
type LimitError struct{ Status limits.Status }

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s %s cannot be enforced: %s (without --strict the job would run all the same)",
		e.Status.Name, e.Status.Asked, e.Status.WhyNot)
}

// Start makes a job and returns when its command runs. An error leaves nothing behind; a
// *BadRequest, *LimitError or *initproc.StepError says what was wrong.
func (t *Table) Start(ctx context.Context, owner string, spec *telev1.JobSpec) (*Job, error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	values, err := parseLimits(spec.GetLimits(), t.options.Most)
	if err != nil {
		return nil, err
	}
	j := &Job{table: t, done: make(chan struct{})}
	j.record = &recordv1.Record{Version: recordVersion, Job: &telev1.Job{
		Id: newID(), Spec: proto.Clone(spec).(*telev1.JobSpec), User: owner, CreatedAt: now(),
		Status: telev1.JobStatus_JOB_STATUS_SUBMITTED,
	}}
	j.dir = filepath.Join(t.jobsDir(), j.record.Job.Id)
	if err := t.reserve(j); err != nil {
		return nil, err
	}
	if err := j.start(ctx, values); err != nil {
		return nil, errors.Join(err, j.undo())
	}
	t.add(j)
	return j, nil
}

// Plan is the plan that Start would carry out, for people.
func (t *Table) Plan(spec *telev1.JobSpec) (string, error) {
	if err := checkSpec(spec); err != nil {
		return "", err
	}
	values, err := parseLimits(spec.GetLimits(), t.options.Most)
	if err != nil {
		return "", err
	}
	id := "dryrun"
	plan, err := initproc.NewPlan(t.sandbox(id, filepath.Join(t.jobsDir(), id), firstUID, spec, values, 0))
	if err != nil {
		return "", err
	}
	return plan.String(), nil
}

func (t *Table) sandbox(id, dir string, uid uint32, spec *telev1.JobSpec, values limits.Limits,
	join int) initproc.Spec {
	s := initproc.Spec{
		Hostname: id, UID: uid, GID: uid, Work: filepath.Join(dir, "work"),
		Anchor: t.anchor(), Hide: t.hide, UserNamespace: !t.root, Join: join,
		Command: spec.Command, Env: environment(id, initproc.Home, spec.Env), Cwd: spec.Cwd,
		HostNetwork: spec.Network == telev1.Network_NETWORK_HOST,
	}
	if s.Cwd == "" {
		s.Cwd = initproc.Home
	}
	if values.Memory != limits.Max {
		s.TmpSize = values.Memory
	}
	return s
}

// start goes through everything that a running job has; undo takes back what is there.
func (j *Job) start(ctx context.Context, values limits.Limits) (err error) {
	if err := j.makeDirs(); err != nil {
		return err
	}
	if j.log, err = output.Create(j.dir); err != nil {
		return err
	}
	t, job := j.table, j.record.Job
	request := cgroup.Request{Limits: values, Devices: t.devices, NoDevice: t.noDevice}
	if j.group, err = t.options.Cgroups.Create(job.Id, request); err != nil {
		return err
	}
	defer j.group.CloseStartFiles()
	for _, s := range j.group.Status() {
		if s.WhyNot != "" && job.Spec.Strict {
			return &LimitError{s}
		}
		job.Limits = append(job.Limits, &telev1.LimitStatus{Name: string(s.Name), Asked: s.Asked,
			Applied: s.Applied, How: s.How, WhyNot: s.WhyNot})
	}
	join := j.group.JoinFiles()
	plan, err := initproc.NewPlan(t.sandbox(job.Id, j.dir, j.record.Uid, job.Spec, values, len(join)))
	if err != nil {
		return bad("spec.command", "%v", err)
	}
	if j.init, err = initproc.Start(plan, initproc.StartOptions{Cgroup: j.group.CloneFD(), Join: join}); err != nil {
		return err
	}
	if err := j.init.Await(ctx); err != nil {
		return err
	}
	job.Status, job.StartedAt = telev1.JobStatus_JOB_STATUS_RUNNING, now()
	j.record.InitPid, j.record.Cgroups = int32(j.init.Pid), j.group.Paths()
	if err := writeRecord(j.dir, j.record); err != nil {
		return err
	}
	j.watch()
	return nil
}

func (j *Job) makeDirs() error {
	work := filepath.Join(j.dir, "work")
	for _, dir := range []string{j.dir, work} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if !j.table.root {
		return nil
	}
	return os.Chown(work, int(j.record.Uid), int(j.record.Uid))
}

// undo takes back a start that failed.
func (j *Job) undo() error {
	var errs []error
	if j.init != nil {
		j.init.Close()
	}
	if j.group != nil {
		errs = append(errs, j.group.Delete())
	}
	if j.log != nil {
		errs = append(errs, j.log.Close())
	}
	errs = append(errs, os.RemoveAll(j.dir))
	j.table.release(j)
	return errors.Join(errs...)
}

func contextFor(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
