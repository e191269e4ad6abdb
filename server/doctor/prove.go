package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/cgroup"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/job"
	"github.com/telerun/tele/server/output"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
)

// What the probes of limits do, and their limits.
const (
	eatAtMost  = 256 << 20
	eatLimit   = "64M"
	spinFor    = time.Second
	spinLimit  = "0.2"
	forkLimit  = 32
	writeBytes = 3 << 20
	writeLimit = "2M"
	writeTakes = time.Second // at least; without a first portion that the kernel lets through, it is half as much again
)

// fixBug is for what can only be a fault.
const fixBug = "do not run foreign jobs here; report it with the output of tele doctor -o json"

// A lab is the table that the probes' jobs are in.
type lab struct {
	table  *job.Table
	layout string // of cgroups
	exe    string // this program, which jobs see at probePath
}

// prove runs the probes in sandboxes of their own, below the state directory if that is there: the
// probes of the disk are to meet its disk.
func prove(ctx context.Context, state string, hide []string, groups *cgroup.Manager) (report Report, err error) {
	above := state
	if unix.Access(state, unix.W_OK|unix.X_OK) != nil {
		above = os.TempDir()
	}
	dir, err := os.MkdirTemp(above, "doctor-")
	if err != nil {
		return cannotProve(err, "give a --state-dir, or a TMPDIR, in which directories can be made"), nil
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil { // no link may be on the way to what a job sees
		return nil, err
	}
	most := limits.Limits{CPU: limits.Max, Memory: limits.Max, Swap: limits.Max, IORead: limits.Max, IOWrite: limits.Max, Pids: limits.Max}
	table, err := job.Open(job.Options{StateDir: dir, Cgroups: groups, Most: most, Hide: hide,
		Work: job.WorkDisk, Log: zerolog.Nop()})
	if err != nil {
		return cannotProve(err, "see the checks of the machine, above"), nil
	}
	defer table.Stop()
	l := lab{table, groups.Layout(), exe}
	report, enforced := l.walls(ctx, append([]string{dir, state}, hide...))
	if enforced == nil {
		return report, nil
	}
	return append(report, l.limits(ctx, enforced)...), nil
}

func cannotProve(err error, fix string) Report {
	return Report{{"walls", "sandbox", CannotTell, "there can be none: " + err.Error(), fix}}
}

// run runs a probe to its end.
func (l lab) run(ctx context.Context, asked *telev1.JobSpec, args ...string) (*telev1.Job, string, error) {
	asked.Command = append([]string{probePath}, args...)
	asked.Mounts = []*telev1.Mount{{Source: l.exe, Target: probePath}}
	if asked.Timeout == nil {
		asked.Timeout = durationpb.New(10 * time.Second) // of a probe that hangs, the record says so
	}
	j, err := l.table.Start(ctx, "doctor", "", asked)
	if err != nil {
		return nil, "", err
	}
	ended, err := j.Wait(ctx)
	if err != nil {
		return nil, "", err
	}
	if ended.GetExitCode() == notAProbe {
		return ended, "", errors.New("the probe did not run")
	}
	r, err := j.Output(output.ReadOptions{Stream: output.Stdout, Follow: true})
	if err != nil {
		return ended, "", err
	}
	defer r.Close()
	var text strings.Builder
	for buf := make([]byte, 4096); ; {
		c, err := r.Next(ctx, buf)
		if err == io.EOF {
			return ended, text.String(), nil
		}
		if err != nil {
			return ended, "", err
		}
		text.Write(c.Data)
	}
}

// walls runs the probe that looks at them. The second result is what became of the limits of its
// job; nil when there could be none.
func (l lab) walls(ctx context.Context, hide []string) (report Report, enforced map[string]*telev1.LimitStatus) {
	add := func(name string, v Verdict, seen, fix string) {
		if v == Pass {
			fix = ""
		}
		report = append(report, Check{"walls", name, v, seen, fix})
	}
	f := facts{pid: os.Getpid(), abstract: fmt.Sprintf("@tele-doctor-%d", os.Getpid()), hidden: present(hide)}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		defer tcp.Close()
		f.tcp = tcp.Addr().String()
		var abstract net.Listener
		if abstract, err = net.Listen("unix", f.abstract); err == nil {
			defer abstract.Close()
		}
	}
	if err != nil {
		add("network", CannotTell, err.Error(), "see whether loopback is up")
	}
	_ = os.Setenv(mark, "1") // fails for a bad name alone
	defer os.Unsetenv(mark)
	ended, text, err := l.run(ctx, &telev1.JobSpec{}, f.args()...)
	if step := new(initproc.StepError); errors.As(err, &step) {
		add("sandbox", Fail, "it could not be made: "+step.Error(), fixOfStep(step))
		return report, nil
	}
	if err != nil {
		add("sandbox", Fail, "it could not be made: "+err.Error(), "see the checks of the machine, above")
		return report, nil
	}
	for line := range strings.Lines(text) {
		words := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
		if len(words) == 3 {
			add(words[1], Verdict(words[0]), words[2], fixOfWall(words[1], Verdict(words[0])))
		}
	}
	if ended.GetExitCode() != 0 || len(report) < len(walls) {
		add("sandbox", CannotTell, "the probe ended too early: "+ended.Message, "try again; then "+fixBug)
	}
	enforced = map[string]*telev1.LimitStatus{}
	for _, s := range ended.Limits {
		enforced[s.Name] = s
	}
	return report, enforced
}

func fixOfWall(name string, v Verdict) string {
	if name == "system calls" && v == CannotTell {
		return "use a kernel with CONFIG_SECCOMP_FILTER, and a tele with a filter"
	}
	if v == CannotTell {
		return "try again"
	}
	return fixBug
}

func fixOfStep(step *initproc.StepError) string {
	if step.NotFound() || step.NotExecutable() {
		return "put the tele program on a file system that is not mounted noexec"
	}
	return "see the checks of the machine, above; in a container, whether it may make namespaces and mounts"
}

// present are those of the directories that have something to hide.
func present(dirs []string) []string {
	var list []string
	for _, dir := range dirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil && !strings.HasPrefix(real, "/tmp/") && !strings.HasPrefix(real, "/var/tmp/") {
			list = append(list, real)
		}
	}
	return list
}

// limits runs a probe into each limit, all at the same time.
func (l lab) limits(ctx context.Context, enforced map[string]*telev1.LimitStatus) Report {
	probes := []struct {
		name  string
		limit limits.Name
		probe func(context.Context) (Verdict, string, error)
	}{
		{"cpu", limits.CPU, l.cpu},
		{"memory", limits.Memory, l.memory},
		{"processes", limits.Pids, l.pids},
		{"files in memory", limits.Memory, l.filesInMemory},
		{"direct reads", limits.IORead, l.directReads},
		{"direct writes", limits.IOWrite, l.directWrites},
		{"buffered writes", limits.IOWrite, l.bufferedWrites},
		{"output", limits.Output, l.output},
		{"timeout", "", l.timeout},
	}
	report := make(Report, len(probes))
	var all sync.WaitGroup
	for i, p := range probes {
		report[i] = Check{Area: "limits", Name: p.name}
		if s := enforced[string(p.limit)]; p.limit != "" && (s == nil || s.WhyNot != "") {
			report[i].Verdict, report[i].Seen = CannotTell, "not enforced here: "+s.GetWhyNot()
			report[i].Fix = fixOfLimit(p.limit)
			continue
		}
		all.Go(func() {
			v, seen, err := p.probe(ctx)
			if err != nil {
				v, seen = CannotTell, err.Error()
			}
			report[i].Verdict, report[i].Seen = v, seen
			switch v {
			case Fail:
				report[i].Fix = fixBug
			case CannotTell:
				report[i].Fix = "try again when the machine is less busy"
			}
			if strings.Contains(seen, "cgroup version 2") {
				report[i].Fix = "boot with cgroup version 2 alone (systemd.unified_cgroup_hierarchy=1)"
			}
		})
	}
	all.Wait()
	return report
}

func fixOfLimit(name limits.Name) string {
	if name == limits.IOWrite || name == limits.IORead {
		return "put the state directory on a disk of this machine (--state-dir), with the io controller there (see cgroups)"
	}
	return "see cgroups, above"
}

func (l lab) cpu(ctx context.Context) (Verdict, string, error) {
	ended, _, err := l.run(ctx, &telev1.JobSpec{Limits: &telev1.Limits{Cpu: spinLimit}}, "spin")
	v, seen := judgeCPU(ended)
	return v, seen, err
}

// judgeCPU goes by all the time that the job has had its group: what init used is counted, too.
func judgeCPU(ended *telev1.Job) (Verdict, string) {
	u := ended.GetUsage()
	if u.GetCpuUsec() == 0 {
		return CannotTell, "the CPU time is not counted"
	}
	share := float64(u.GetCpuUsec()) / float64(max(1, ended.GetEndedAt().AsTime().Sub(ended.GetCreatedAt().AsTime()).Microseconds()))
	seen := fmt.Sprintf("a spin got %.2f of a CPU with a limit of %s, held back %d times", share, spinLimit, u.GetThrottledCount())
	switch {
	case share > 0.4:
		return Fail, seen
	case u.GetThrottledCount() == 0:
		return CannotTell, seen // others left it no more
	}
	return Pass, seen
}

func (l lab) memory(ctx context.Context) (Verdict, string, error) {
	ended, _, err := l.run(ctx, &telev1.JobSpec{Limits: &telev1.Limits{Memory: eatLimit}}, "eat")
	v, seen := judgeMemory(ended)
	return v, seen, err
}

func judgeMemory(ended *telev1.Job) (Verdict, string) {
	peak := ended.GetUsage().GetMemoryPeakBytes() >> 20
	if ended.GetReason() != telev1.Reason_REASON_OOM_KILLED || ended.GetUsage().GetOomKills() == 0 {
		return Fail, fmt.Sprintf("it had %d MiB with a limit of %s, and %s", peak, eatLimit, ended.GetMessage())
	}
	return Pass, fmt.Sprintf("killed at %d MiB with a limit of %s", peak, eatLimit)
}

func (l lab) pids(ctx context.Context) (Verdict, string, error) {
	ended, text, err := l.run(ctx, &telev1.JobSpec{Limits: &telev1.Limits{Pids: strconv.Itoa(forkLimit)}}, "forks")
	v, seen := judgePids(ended, text)
	return v, seen, err
}

func judgePids(ended *telev1.Job, text string) (Verdict, string) {
	made, err := strconv.Atoi(strings.TrimSpace(text))
	switch {
	case err != nil:
		return CannotTell, "the probe could not count: " + ended.GetMessage()
	case made >= forkLimit:
		return Fail, fmt.Sprintf("it made %d processes with a limit of %d", made, forkLimit)
	}
	return Pass, fmt.Sprintf("a fork bomb was held at %d processes with a limit of %d", made, forkLimit)
}

func (l lab) directWrites(ctx context.Context) (Verdict, string, error) { return l.writes(ctx) }

func (l lab) writes(ctx context.Context, args ...string) (Verdict, string, error) {
	ended, text, err := l.run(ctx, &telev1.JobSpec{Limits: &telev1.Limits{IoWrite: writeLimit}}, append([]string{"write"}, args...)...)
	v, seen := judgeWrites(ended, text)
	return v, seen, err
}

// directReads are of a file that was written without a limit.
func (l lab) directReads(ctx context.Context) (Verdict, string, error) {
	ended, text, err := l.run(ctx, &telev1.JobSpec{Limits: &telev1.Limits{IoRead: writeLimit, IoWrite: "max"}}, "read")
	v, seen := judgeWrites(ended, text)
	return v, seen, err
}

// filesInMemory are those in /tmp: no more of them fit than into the memory limit.
func (l lab) filesInMemory(ctx context.Context) (Verdict, string, error) {
	ended, text, err := l.run(ctx, &telev1.JobSpec{Limits: &telev1.Limits{Memory: "64M"}}, "fill")
	v, seen := judgeFill(ended, text)
	return v, seen, err
}

// judgeFill goes by what the probe wrote before it was refused; or it was killed at the limit first.
func judgeFill(ended *telev1.Job, text string) (Verdict, string) {
	if ended.GetReason() == telev1.Reason_REASON_OOM_KILLED {
		return Pass, "a flood of /tmp was killed at the memory limit of 64M"
	}
	mib, err := strconv.Atoi(strings.TrimSpace(text))
	switch {
	case err != nil:
		return CannotTell, "the probe could not write: " + strings.TrimSpace(text+" "+ended.GetMessage())
	case mib > 64:
		return Fail, fmt.Sprintf("%d MiB fit into /tmp with a memory limit of 64M", mib)
	}
	return Pass, fmt.Sprintf("a flood of /tmp was refused at %d MiB with a memory limit of 64M", mib)
}

// judgeWrites goes by the milliseconds that the probe says it took, against the limit.
func judgeWrites(ended *telev1.Job, text string) (Verdict, string) {
	ms, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return CannotTell, "the probe could not write: " + strings.TrimSpace(text+" "+ended.GetMessage())
	}
	took := time.Duration(ms) * time.Millisecond
	seen := fmt.Sprintf("%d MiB took %s with a limit of %s a second", writeBytes>>20, took, writeLimit)
	if took < writeTakes {
		return Fail, seen
	}
	return Pass, seen
}

// bufferedWrites are those that the kernel carries out later, in version 1 in nobody's name.
func (l lab) bufferedWrites(ctx context.Context) (Verdict, string, error) {
	v, seen, err := l.writes(ctx, "buffered")
	if v != CannotTell && l.layout != "v2" {
		return CannotTell, seen + " and an fsync, but what is not waited for is not limited: that takes cgroup version 2", err
	}
	return v, seen, err
}

func (l lab) output(ctx context.Context) (Verdict, string, error) {
	ended, _, err := l.run(ctx, &telev1.JobSpec{OutputLimit: "64K"}, "flood")
	v, seen := judgeOutput(ended)
	return v, seen, err
}

func judgeOutput(ended *telev1.Job) (Verdict, string) {
	kept := ended.GetStdoutBytes()
	if ended.GetReason() != telev1.Reason_REASON_OUTPUT_LIMIT || kept > 64<<10 {
		return Fail, fmt.Sprintf("%d bytes are kept with a limit of 64K, and %s", kept, ended.GetMessage())
	}
	return Pass, fmt.Sprintf("a flood was stopped at %d bytes with a limit of 64K", kept)
}

func (l lab) timeout(ctx context.Context) (Verdict, string, error) {
	ended, _, err := l.run(ctx, &telev1.JobSpec{Timeout: durationpb.New(100 * time.Millisecond)}, "sleep")
	v, seen := judgeTimeout(ended)
	return v, seen, err
}

func judgeTimeout(ended *telev1.Job) (Verdict, string) {
	took := time.Duration(ended.GetUsage().GetWallUsec()) * time.Microsecond
	if ended.GetReason() != telev1.Reason_REASON_TIMED_OUT {
		return Fail, fmt.Sprintf("%s after %s with a timeout of 100ms", ended.GetMessage(), took)
	}
	return Pass, fmt.Sprintf("ended after %s with a timeout of 100ms", took.Round(time.Millisecond))
}
