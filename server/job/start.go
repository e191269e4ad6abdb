package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/cgroup"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
)

// A LimitError is a limit that cannot be enforced, asked for with strict.
type LimitError struct{ Status limits.Status }

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s %s cannot be enforced: %s (without --strict the job would run all the same)",
		e.Status.Name, e.Status.Asked, e.Status.WhyNot)
}

// A request is what a spec asks for, checked, and found where it is something of this machine.
type request struct {
	spec    *telev1.JobSpec
	secrets []*telev1.Secret
	values  limits.Limits
	room    room
	where   places
}

// check looks at all of a spec, and at what comes with it.
func (t *Table) check(spec *telev1.JobSpec, secrets ...*telev1.Secret) (r request, err error) {
	r.spec, r.secrets = spec, secrets
	if err := checkSpec(spec); err != nil {
		return r, err
	}
	if err := CheckSecrets(secrets); err != nil {
		return r, err
	}
	if r.values, err = parseLimits(spec.GetLimits(), t.options.Most); err != nil {
		return r, err
	}
	if len(spec.Upload) > 0 && r.values.Pids < uploadPids {
		return r, bad("spec.limits.pids", "%d are too few to unpack the files that the job comes with, which takes %d", r.values.Pids, uploadPids)
	}
	if _, err := t.outputLimit(spec.OutputLimit); err != nil {
		return r, err
	}
	if r.room, err = t.roomFor(spec, r.values); err != nil {
		return r, err
	}
	r.where, err = t.findPlaces(spec)
	return r, err
}

// Start makes a job and returns when its command runs. An error leaves nothing behind; a
// *BadRequest, *LimitError or *initproc.StepError says what was wrong. Of several calls by one owner
// with the same key, one makes the job and all return it; an empty key is none. The secrets are overwritten
// when the job needs them no more.
func (t *Table) Start(ctx context.Context, owner, key string, spec *telev1.JobSpec, secrets ...*telev1.Secret) (*Job, error) {
	j, keeps, err := t.startNew(ctx, owner, key, spec, secrets)
	if !keeps {
		forgetSecrets(secrets)
	}
	return j, err
}

// startNew is Start, and tells whether the job keeps the secrets.
func (t *Table) startNew(ctx context.Context, owner, key string, spec *telev1.JobSpec, secrets []*telev1.Secret) (_ *Job, keeps bool, err error) {
	began := time.Now()
	r, err := t.check(spec, secrets...)
	if err != nil {
		return nil, false, err
	}
	if len(key) > maxKey {
		return nil, false, bad("idempotency_key", "has %d bytes, the most is %d", len(key), maxKey)
	}
	t.warm.begin()
	defer t.warm.end()
	s, cold := t.takeWarm(r)
	if s == nil {
		s = t.newSandbox()
	}
	s.timing = &Timing{ID: s.id, Began: began, Cold: cold, Template: s.warm}
	s.mark("request checked")
	j := newJob(t, s.dir, &recordv1.Record{Version: recordVersion, IdempotencyKey: key, Secrets: len(secrets) > 0,
		Job: &telev1.Job{Id: s.id, Spec: proto.Clone(spec).(*telev1.JobSpec), User: owner, CreatedAt: now(),
			Status: telev1.JobStatus_JOB_STATUS_SUBMITTED}})
	if earlier, err := t.enter(ctx, j, s, r); earlier != nil || err != nil {
		if s.warm {
			t.giveBack(s)
		}
		return earlier, false, err
	}
	defer close(j.made)
	if spec.Restart != nil {
		j.secrets = secrets
	}
	if err := j.start(ctx, r, s); err != nil {
		return nil, false, errors.Join(err, j.undo())
	}
	t.add(j)
	t.timings.add(*s.timing)
	return j, spec.Restart != nil, nil
}

// enter reserves what j needs, or returns the job that was made with its key already.
func (t *Table) enter(ctx context.Context, j *Job, s *sandbox, r request) (*Job, error) {
	if j.namedUser = r.where.user != nil; j.namedUser {
		s.uid = r.where.user.UID
	}
	for {
		earlier, err := t.reserve(j, s)
		if earlier == nil || err != nil {
			return nil, err
		}
		if j, err := earlier.again(ctx, r.spec); j != nil || err != nil {
			return j, err
		}
	}
}

const maxKey = 64

// again is the answer to a second request with the key of j: j when it runs, or nothing when it
// could not be made, which the caller may now try itself.
func (j *Job) again(ctx context.Context, spec *telev1.JobSpec) (*Job, error) {
	select {
	case <-j.made:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	job := j.Snapshot()
	if !proto.Equal(job.Spec, spec) {
		return nil, bad("idempotency_key", "was used for another job, %s", j.id)
	}
	if job.StartedAt == nil {
		return nil, nil
	}
	return j, nil
}

// Plan is the plan that Start would carry out, for people.
func (t *Table) Plan(spec *telev1.JobSpec, secrets ...*telev1.Secret) (string, error) {
	r, err := t.check(spec, secrets...)
	if err != nil {
		return "", err
	}
	s := &sandbox{table: t, id: "dryrun", uid: t.options.FirstUID}
	s.dir = t.jobDir(s.id)
	template, done := t.useTemplate(r)
	defer done()
	plan, err := s.newPlan(r, template != nil)
	if err != nil || template == nil {
		return plan.String(), err
	}
	shared, err := initproc.NewTemplatePlan(t.templateSpec())
	if err != nil {
		return "", err
	}
	return "once for all jobs:\n" + shared.String() + "for this one:\n" + plan.String(), nil
}

func (t *Table) sandboxSpec(s *sandbox, r request) initproc.Spec {
	name, gid := r.where.whom(s.uid)
	hide, _ := t.hiding()
	spec := initproc.Spec{
		Hostname: cmp.Or(r.spec.Hostname, s.id), UID: s.uid, GID: gid, WorkSize: r.room.work, TmpSize: r.room.tmp,
		Usual:  initproc.Sizes{Work: t.usual.room.work, Tmp: t.usual.room.tmp},
		Anchor: t.anchor(), Hide: hide, UserNamespace: !t.root, Join: s.join,
		Command: r.spec.Command, Env: environment(s.id, initproc.Home, name, r.spec.Env, len(r.secrets) > 0), Cwd: r.spec.Cwd,
		Stdin:       hasInput(r.spec),
		Merge:       r.spec.Merge,
		HostNetwork: r.spec.Network == telev1.Network_NETWORK_HOST,
		Secrets:     secretsOf(r.secrets),
	}
	spec.Mounts = r.where.mounts
	if r.where.root != "" {
		spec.Root, spec.Hide = r.where.root, r.where.hide
	}
	if r.spec.Root == RootOverlay {
		spec.Overlay, spec.OverlaySize = true, r.room.root
	}
	spec.Terminal = sizeOf(r.spec.Terminal)
	takeUpload(&spec, r.spec)
	filter(&spec, r.spec)
	if spec.Cwd == "" {
		spec.Cwd = initproc.Home
	}
	if t.work != WorkTmpfs {
		spec.Work, spec.Project = workDir(s.dir), t.work == WorkQuota
	}
	return spec
}

// groupRequest is what r needs of its cgroup.
func (t *Table) groupRequest(r request) cgroup.Request {
	request := cgroup.Request{Limits: r.values, Devices: t.devices, NoDevice: t.noDevice,
		ReadDevices: t.readDevices, NoReadDevice: t.noReadDevice}
	if writable := r.where.writable(); len(writable) > 0 {
		request.Devices, request.NoDevice = cgroup.FindDevices(append(writable, t.jobsDir())...)
	}
	return request
}

// start goes through everything that a running job has; undo takes back what is there. A server
// that is killed between two of these steps leaves something half-made, which the next one takes
// away, or, from where the rest of the plan is sent, brings to its end (recover.go).
func (j *Job) start(ctx context.Context, r request, s *sandbox) (err error) {
	s.mark("place reserved")
	err = s.forJob(r)
	j.log, j.group, j.init = s.log, s.group, s.init
	if err != nil {
		return err
	}
	if err := j.boundOutput(); err != nil {
		return err
	}
	if err := j.sayLimits(s, r); err != nil {
		return err
	}
	s.mark("limits set")
	if err := j.writeStarted(); err != nil {
		return err
	}
	s.mark("record written")
	in, err := j.makeInput()
	if err != nil {
		return err
	}
	if err := s.run(ctx, r, in); err != nil {
		return err
	}
	if err := j.openUpper(); err != nil {
		return err
	}
	if err := j.openTerminal(); err != nil {
		return err
	}
	s.mark("command running")
	if err := j.setRunning(); err != nil {
		return err
	}
	s.mark("start recorded")
	return j.watch()
}

// sayLimits tells what became of each limit.
func (j *Job) sayLimits(s *sandbox, r request) error {
	job := j.record.Job
	for _, status := range slices.Concat(s.group.Status(), []limits.Status{s.work}, r.room.memoryStatus()) {
		if status.WhyNot != "" && r.spec.Strict {
			return &LimitError{status}
		}
		job.Limits = append(job.Limits, limitStatus(status))
	}
	job.Limits = append(job.Limits, j.outputStatus())
	return nil
}

// boundOutput says how much of the job's output is kept, and where the room for it is from.
func (j *Job) boundOutput() error {
	limit, err := j.table.outputLimit(j.record.Job.Spec.OutputLimit)
	if err != nil {
		return err
	}
	if limit != limits.Max {
		j.log.SetLimit(limit)
	}
	j.log.SetSpace(j.table.space)
	return nil
}

// writeStarted writes the first record: the job is submitted, and has this init.
func (j *Job) writeStarted() error {
	id, err := j.init.ID()
	if err != nil {
		return err
	}
	setInit(j.record, id, j.group.Paths())
	return writeRecord(j.dir, j.record)
}

func setInit(r *recordv1.Record, id initproc.ID, cgroups []string) {
	r.InitPid, r.InitStartTime, r.BootId = int32(id.Pid), id.StartTime, id.BootID
	r.Cgroups = cgroups
}

// setRunning says that the command runs. From here on a record is not changed, but replaced by a
// changed copy.
func (j *Job) setRunning() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	next := proto.Clone(j.record).(*recordv1.Record)
	j.markRunning(next)
	// A start that fails here is undone, and must not look like one that did not (again). Another try is not: it
	// runs, can be stopped, and a next server finds the same.
	if err := writeRecord(j.dir, next); err != nil && !(noSpace(err) && len(next.Job.Tries) > 1) {
		return err
	}
	j.record = next
	j.table.events.tell(next)
	return nil
}

func (j *Job) markRunning(r *recordv1.Record) {
	r.Job.Status = telev1.JobStatus_JOB_STATUS_RUNNING
	if r.Job.StartedAt == nil {
		r.Job.StartedAt = now()
	}
	if r.Job.Spec.Restart != nil {
		j.beginTry(r.Job)
	}
}

// undo takes back a start that failed; the record goes last.
func (j *Job) undo() error {
	var errs []error
	if j.record.Job.StartedAt != nil { // that was told
		j.table.events.tellRemoved(j.record.Job)
	}
	j.closeUpper()
	j.shutInput(ErrInputClosed)
	j.closeTerminal()
	if j.init != nil {
		j.init.Close()
	}
	if j.group != nil {
		errs = append(errs, j.group.Delete())
	}
	if j.log != nil {
		errs = append(errs, j.log.Close())
	}
	errs = append(errs, removeJob(j.dir))
	j.giveBackRoom()
	j.table.forget(j)
	j.table.release(j)
	j.table.running.Done()
	return errors.Join(errs...)
}
