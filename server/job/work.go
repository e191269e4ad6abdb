package job

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/quota"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// Work says where the work directories of jobs are, and what holds them to their size.
type Work string

// The kinds of work directories.
const (
	WorkAuto  Work = "auto"  // WorkQuota where that works, WorkTmpfs elsewhere
	WorkQuota Work = "quota" // in the job's directory, with a project quota of its own
	WorkTmpfs Work = "tmpfs" // in memory, counted in the job's memory limit, and gone with the job
	WorkDisk  Work = "disk"  // in the job's directory, without a limit
)

// defaultWork is how much fits on disk into the work directory of a job that asks for nothing.
const defaultWork = 1 << 30

func workDir(dir string) string { return filepath.Join(dir, "work") }

// chooseWork finds out what works here.
func (t *Table) chooseWork() error {
	t.work = t.options.Work
	switch t.work {
	case WorkTmpfs, WorkDisk:
		return nil
	case "", WorkAuto, WorkQuota:
	default:
		return fmt.Errorf("%q is no kind of work directory; there are auto, quota, tmpfs and disk", t.work)
	}
	err := error(nil)
	if t.root {
		err = quota.Probe(t.jobsDir())
	} else {
		err = fmt.Errorf("the server is not root, who may set quotas")
	}
	switch {
	case err == nil:
		t.work = WorkQuota
	case t.work == WorkQuota:
		return fmt.Errorf("work directories with a quota: %w (or choose --work tmpfs)", err)
	default:
		t.work, t.whyWork = WorkTmpfs, err.Error()
	}
	return nil
}

// ExplainWork says in words where the work directories of this server's jobs are.
func (t *Table) ExplainWork() string {
	switch t.work {
	case WorkQuota:
		return "on disk, each limited by a project quota"
	case WorkDisk:
		return "on disk and NOT limited: a job can fill it (tele serve --work chooses another kind)"
	}
	text := "in memory, counted in each job's memory limit and gone with the job"
	if t.whyWork != "" {
		text += "; not on disk, as " + t.whyWork
	}
	return text
}

// A room is how much fits into the writable places of a job, in bytes; work is limits.Max on a disk
// without a limit, root 0 where that is not writable.
type room struct{ work, tmp, root int64 }

// roomFor is what a job gets that asks for spec.WorkSize and has these limits.
func (t *Table) roomFor(spec *telev1.JobSpec, values limits.Limits) (r room, err error) {
	if r.tmp = values.Memory; r.tmp == limits.Max {
		// tmpfs(5) does the same; here so that it can be told.
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			return r, os.NewSyscallError("sysinfo", err)
		}
		r.tmp = int64(info.Totalram) * int64(info.Unit) / 2
	}
	if r.root, err = t.roomForChanges(spec, r.tmp); err != nil {
		return r, err
	}
	most := int64(limits.Max)
	if t.work == WorkQuota && t.options.MostWork > 0 {
		most = t.options.MostWork
	}
	if spec.WorkSize == "" {
		switch t.work {
		case WorkQuota:
			r.work = min(defaultWork, most)
		case WorkDisk:
			r.work = limits.Max
		default:
			r.work = r.tmp
		}
		return r, nil
	}
	if r.work, err = parseSize("spec.work_size", limits.Work, spec.WorkSize); err != nil {
		return r, err
	}
	if r.work > most {
		return r, bad("spec.work_size", "%v", &limits.Error{Name: limits.Work, Text: spec.WorkSize,
			Why: "above this server's maximum, " + limits.Format(limits.Work, most)})
	}
	if r.work == limits.Max && t.work == WorkTmpfs {
		r.work = r.tmp
	}
	return r, nil
}

// makeWork makes the work directory where it is on disk, and says what holds it to its size.
func (s *sandbox) makeWork(r request) (limits.Status, error) {
	asked := limits.Format(limits.Work, r.room.work)
	status := limits.Status{Name: limits.Work, Asked: asked}
	if s.table.work == WorkTmpfs {
		status.Applied, status.How = asked, fmt.Sprintf("tmpfs size=%d, counted in the memory limit", r.room.work)
		return status, nil
	}
	dir := workDir(s.dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return status, err
	}
	if s.table.root {
		_, gid := r.where.whom(s.uid)
		if err := os.Chown(dir, int(s.uid), int(gid)); err != nil {
			return status, err
		}
	}
	switch {
	case r.room.work == limits.Max:
		status.Applied, status.How = asked, "none: on the host's disk"
	case s.table.work == WorkDisk:
		status.WhyNot = "this server keeps work directories on its disk without a limit (tele serve --work disk)"
	default:
		how, err := quota.Limit(dir, r.room.work)
		if err != nil {
			status.WhyNot = err.Error()
		} else {
			status.Applied, status.How = asked, how
		}
	}
	return status, nil
}

// roomForChanges is how much a job may change in its root; memory is for who asks for nothing.
func (t *Table) roomForChanges(spec *telev1.JobSpec, memory int64) (int64, error) {
	switch {
	case spec.Root != RootOverlay && spec.RootSize != "":
		return 0, bad("spec.root_size", "goes with the root overlay alone")
	case spec.Root != RootOverlay:
		return 0, nil
	case !t.root:
		return 0, bad("spec.root", "an overlay takes a server that runs as root")
	case spec.RootSize == "" || spec.RootSize == "max":
		return memory, nil
	}
	return parseSize("spec.root_size", limits.Root, spec.RootSize)
}

func parseSize(field string, name limits.Name, text string) (int64, error) {
	if len(text) > maxLimitText {
		return 0, bad(field, "has %d bytes, the most is %d", len(text), maxLimitText)
	}
	value, err := limits.Parse(name, text)
	if err != nil {
		return 0, bad(field, "%v", err)
	}
	return value, nil
}

// memoryStatus is what holds the places in memory to their size: steps of the plan, without which
// there is no job.
func (r room) memoryStatus() []limits.Status {
	status := func(name limits.Name, size int64, what string) limits.Status {
		text := limits.Format(name, size)
		return limits.Status{Name: name, Asked: text, Applied: text,
			How: fmt.Sprintf("tmpfs size=%d %s, counted in the memory limit", size, what)}
	}
	list := []limits.Status{status(limits.Tmp, r.tmp, "on each of /tmp and /dev/shm")}
	if r.root > 0 {
		list = append(list, status(limits.Root, r.root, "for the upper layer of an overlay"))
	}
	return list
}
