package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

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
// *BadRequest, *LimitError or *initproc.StepError says what was wrong. Of several calls by one owner
// with the same key, one makes the job and all return it; an empty key is none.
func (t *Table) Start(ctx context.Context, owner, key string, spec *telev1.JobSpec) (*Job, error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	if len(key) > maxKey {
		return nil, bad("idempotency_key", "has %d bytes, the most is %d", len(key), maxKey)
	}
	values, err := parseLimits(spec.GetLimits(), t.options.Most)
	if err != nil {
		return nil, err
	}
	if _, err := t.outputLimit(spec.OutputLimit); err != nil {
		return nil, err
	}
	room, err := t.roomFor(spec, values)
	if err != nil {
		return nil, err
	}
	where, err := t.findPlaces(spec)
	if err != nil {
		return nil, err
	}
	id := newID()
	j := newJob(t, filepath.Join(t.jobsDir(), id), &recordv1.Record{Version: recordVersion, IdempotencyKey: key,
		Job: &telev1.Job{Id: id, Spec: proto.Clone(spec).(*telev1.JobSpec), User: owner, CreatedAt: now(),
			Status: telev1.JobStatus_JOB_STATUS_SUBMITTED}})
	if where.user != nil {
		j.record.Uid = where.user.UID
	}
	j.namedUser = where.user != nil
	for {
		earlier, err := t.reserve(j)
		if err != nil {
			return nil, err
		}
		if earlier == nil {
			break
		}
		if j, err := earlier.again(ctx, spec); j != nil || err != nil {
			return j, err
		}
	}
	defer close(j.made)
	if err := j.start(ctx, values, room, where); err != nil {
		return nil, errors.Join(err, j.undo())
	}
	t.add(j)
	return j, nil
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
func (t *Table) Plan(spec *telev1.JobSpec) (string, error) {
	if err := checkSpec(spec); err != nil {
		return "", err
	}
	values, err := parseLimits(spec.GetLimits(), t.options.Most)
	if err != nil {
		return "", err
	}
	room, err := t.roomFor(spec, values)
	if err != nil {
		return "", err
	}
	where, err := t.findPlaces(spec)
	if err != nil {
		return "", err
	}
	id := "dryrun"
	plan, err := initproc.NewPlan(t.sandbox(id, filepath.Join(t.jobsDir(), id), t.options.FirstUID, spec, room, where, 0))
	if err != nil {
		return "", err
	}
	return plan.String(), nil
}

func (t *Table) sandbox(id, dir string, uid uint32, spec *telev1.JobSpec, room room, where places, join int) initproc.Spec {
	name, gid := where.whom(uid)
	s := initproc.Spec{
		Hostname: id, UID: uid, GID: gid, WorkSize: room.work, TmpSize: room.tmp,
		Anchor: t.anchor(), Hide: t.hiding(), UserNamespace: !t.root, Join: join,
		Command: spec.Command, Env: environment(id, initproc.Home, name, spec.Env), Cwd: spec.Cwd,
		HostNetwork: spec.Network == telev1.Network_NETWORK_HOST,
	}
	s.Mounts = where.mounts
	if where.root != "" {
		s.Root, s.Hide = where.root, where.hide
	}
	if spec.Root == RootOverlay {
		s.Overlay, s.OverlaySize = true, room.root
	}
	filter(&s, spec)
	if s.Cwd == "" {
		s.Cwd = initproc.Home
	}
	if t.work != WorkTmpfs {
		s.Work, s.Project = workDir(dir), t.work == WorkQuota
	}
	return s
}

// start goes through everything that a running job has; undo takes back what is there. A server
// that is killed between two of these steps leaves something half-made, which the next one takes
// away, or, from where the plan is sent, brings to its end (recover.go).
func (j *Job) start(ctx context.Context, values limits.Limits, room room, where places) (err error) {
	t, job := j.table, j.record.Job
	t.at("reserved")
	workStatus, err := j.makeDirs(room, where)
	if err != nil {
		return err
	}
	t.at("directory made")
	if j.log, err = output.Create(j.dir); err != nil {
		return err
	}
	if err := j.boundOutput(); err != nil {
		return err
	}
	t.at("output made")
	request := cgroup.Request{Limits: values, Devices: t.devices, NoDevice: t.noDevice,
		ReadDevices: t.readDevices, NoReadDevice: t.noReadDevice}
	if writable := where.writable(); len(writable) > 0 {
		request.Devices, request.NoDevice = cgroup.FindDevices(append(writable, t.jobsDir())...)
	}
	if j.group, err = t.options.Cgroups.Create(j.id, request); err != nil {
		return err
	}
	defer j.group.CloseStartFiles()
	t.at("cgroup made")
	for _, s := range slices.Concat(j.group.Status(), []limits.Status{workStatus}, room.memoryStatus()) {
		if s.WhyNot != "" && job.Spec.Strict {
			return &LimitError{s}
		}
		job.Limits = append(job.Limits, &telev1.LimitStatus{Name: string(s.Name), Asked: s.Asked,
			Applied: s.Applied, How: s.How, WhyNot: s.WhyNot})
	}
	job.Limits = append(job.Limits, j.outputStatus())
	join := j.group.JoinFiles()
	plan, err := initproc.NewPlan(t.sandbox(j.id, j.dir, j.record.Uid, job.Spec, room, where, len(join)))
	if err != nil {
		return bad("spec.command", "%v", err)
	}
	if j.init, err = initproc.Start(plan, initproc.StartOptions{Cgroup: j.group.CloneFD(), Join: join}); err != nil {
		return err
	}
	t.at("init started")
	if err := j.writeStarted(); err != nil {
		return err
	}
	t.at("submitted")
	if err := j.init.Run(ctx); err != nil {
		return err
	}
	if err := j.openUpper(); err != nil {
		return err
	}
	t.at("running")
	if err := j.setRunning(); err != nil {
		return err
	}
	t.at("recorded")
	j.watch()
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
	r := j.record
	r.InitPid, r.InitStartTime, r.BootId = int32(id.Pid), id.StartTime, id.BootID
	r.Cgroups = j.group.Paths()
	return writeRecord(j.dir, r)
}

// setRunning says that the command runs. From here on a record is not changed, but replaced by a
// changed copy.
func (j *Job) setRunning() error {
	next := proto.Clone(j.record).(*recordv1.Record)
	next.Job.Status, next.Job.StartedAt = telev1.JobStatus_JOB_STATUS_RUNNING, now()
	j.mu.Lock()
	defer j.mu.Unlock()
	// A start that fails here is undone, and must not look like one that did not (again).
	if err := writeRecord(j.dir, next); err != nil {
		return err
	}
	j.record = next
	return nil
}

// makeDirs makes the job's directory, and in it its work directory where that is not in memory.
func (j *Job) makeDirs(room room, where places) (work limits.Status, err error) {
	if err := os.Mkdir(j.dir, 0o700); err != nil {
		return work, err
	}
	_, gid := where.whom(j.record.Uid)
	return j.makeWork(room, gid)
}

// undo takes back a start that failed; the record goes last.
func (j *Job) undo() error {
	var errs []error
	j.closeUpper()
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
	j.table.space.Remove(j.dir)
	j.table.forget(j)
	j.table.release(j)
	return errors.Join(errs...)
}
