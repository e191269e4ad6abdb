package attacks

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/cgroup"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/job"
	"github.com/telerun/tele/server/output"
	"github.com/telerun/tele/server/seccomp"
	"golang.org/x/sys/unix"
)

// A sandbox is one attack's, running.
type sandbox struct {
	id     string
	pid    int           // of the init, on the host
	ready  func()        // waits for the first of its output
	output func() string // what was written until its end, for which it waits
	stop   func()        // kills it
	wait   func() end
}

// An end is how an attack ended.
type end struct {
	status syscall.WaitStatus
	oom    bool // it was killed at its memory limit
	reason telev1.Reason
	memory int64 // bytes, at the most
	pids   int64
}

// A starter makes sandboxes: of a job's user, or of uid 0, each in every way that there is.
type starter func(t *testing.T, h *host, spec *telev1.JobSpec) (*sandbox, error)

// asUser starts a job, as the server does.
func asUser(t *testing.T, h *host, spec *telev1.JobSpec) (*sandbox, error) {
	return asUserWith(t, h, nil, spec)
}

// asUserWith is the same with secrets.
func asUserWith(t *testing.T, h *host, secrets []*telev1.Secret, spec *telev1.JobSpec) (*sandbox, error) {
	j, err := h.table.Start(t.Context(), "attacker", "", spec, secrets...)
	if err != nil {
		return nil, err
	}
	snapshot := j.Snapshot()
	s := &sandbox{id: snapshot.Id}
	s.wait = func() end {
		done, err := j.Wait(t.Context())
		mustDo(t, err)
		status := syscall.WaitStatus(done.GetExitCode() << 8)
		if done.Signal != 0 {
			status = syscall.WaitStatus(done.Signal)
		}
		return end{status: status, oom: done.Reason == telev1.Reason_REASON_OOM_KILLED, reason: done.Reason,
			memory: int64(done.Usage.GetMemoryPeakBytes()), pids: int64(done.Usage.GetPidsPeak())}
	}
	s.ready = func() {
		r, err := j.Output(output.ReadOptions{Follow: true})
		mustDo(t, err)
		defer r.Close()
		_, err = r.Next(t.Context(), make([]byte, 1))
		mustDo(t, err)
	}
	s.output = func() string { return readOutput(t, j) }
	s.stop = func() { mustDo(t, j.Stop(unix.SIGTERM, 100*time.Millisecond, "the test")) }
	return s, nil
}

// asWarm starts a job in a sandbox that was ready for one.
func asWarm(t *testing.T, h *host, spec *telev1.JobSpec) (*sandbox, error) {
	var ready []string
	for end := time.Now().Add(time.Minute); len(ready) == 0; runtime.Gosched() {
		if ready = h.table.Warm(); time.Now().After(end) {
			t.Fatal("no sandbox is kept ready")
		}
	}
	s, err := asUser(t, h, spec)
	if err == nil && s.id != ready[0] {
		t.Errorf("sandbox %s was ready, the job got %s", ready[0], s.id)
	}
	return s, err
}

func readOutput(t *testing.T, j *job.Job) string {
	t.Helper()
	r, err := j.Output(output.ReadOptions{Follow: true})
	mustDo(t, err)
	defer r.Close()
	var all strings.Builder
	buf := make([]byte, 64<<10)
	for {
		c, err := r.Next(t.Context(), buf)
		if err == io.EOF {
			return all.String()
		}
		mustDo(t, err)
		all.Write(c.Data)
	}
}

// gone returns when the sandbox is gone: a job has ended before.
func (s *sandbox) gone(t *testing.T, h *host) {
	t.Helper()
	for end := time.Now().Add(time.Minute); slices.Contains(h.cgroups.List(), s.id); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("its cgroup is there, so processes of it are")
		}
	}
}

var serial int // of the sandboxes of uid 0

// asRoot starts a sandbox as the server does, but that its command is uid 0, from nothing; with its work
// directory on the disk.
func asRoot(t *testing.T, h *host, spec *telev1.JobSpec) (*sandbox, error) {
	return rootSandbox(t, h, spec, nil)
}

// asSharedRoot is the same with a sandbox that begins with a template; its work directory is in memory.
func asSharedRoot(t *testing.T, h *host, spec *telev1.JobSpec) (*sandbox, error) {
	template, err := initproc.NewTemplate(t.Context(), initproc.Spec{Anchor: h.state + "/root", Hide: h.hidden()})
	mustDo(t, err)
	defer template.Close()
	return rootSandbox(t, h, spec, template)
}

func rootSandbox(t *testing.T, h *host, spec *telev1.JobSpec, template *initproc.Template) (*sandbox, error) {
	serial++
	id := fmt.Sprintf("root%d", serial)
	dir := filepath.Join(h.state, id)
	for _, path := range []string{dir, dir + "/work", dir + "/anchor"} {
		mustDo(t, os.Mkdir(path, 0o700))
	}
	values := limits.Default()
	values.IORead, values.IOWrite = limits.Max, limits.Max
	for name, text := range map[limits.Name]string{limits.Memory: spec.Limits.GetMemory(), limits.Pids: spec.Limits.GetPids()} {
		if text != "" {
			value, err := limits.Parse(name, text)
			mustDo(t, err)
			values.Set(name, value)
		}
	}
	group, err := h.cgroups.Create(id, cgroup.Request{Limits: values})
	mustDo(t, err)
	defer group.CloseStartFiles()
	what := initproc.Spec{Hostname: id, Work: dir + "/work", Anchor: dir + "/anchor", Hide: h.hidden(),
		Join: len(group.JoinFiles()), Seccomp: seccomp.Filter(), TmpSize: values.Memory, Command: spec.Command,
		Env: []string{"PATH=" + path(spec), "HOME=" + initproc.Home, "TELE_JOB_ID=" + id}, Cwd: cwd(spec)}
	if template != nil {
		what.Template, what.Work, what.WorkSize = true, "", values.Memory
	}
	plan, err := initproc.NewPlan(what)
	mustDo(t, err)
	i, err := initproc.Start(plan, initproc.StartOptions{Cgroup: group.CloneFD(), Template: template,
		Join: func() ([]*os.File, error) { return group.JoinFiles(), nil }})
	if err == nil {
		if err = i.Run(t.Context(), plan, nil); err != nil {
			i.Close()
		}
	}
	if err != nil {
		mustDo(t, group.Delete())
		return nil, err
	}
	s := &sandbox{id: id, pid: i.Pid}
	var text [2]string
	var drains sync.WaitGroup
	ready := make(chan struct{})
	s.ready = func() { <-ready }
	for n, fd := range []int{i.Stdout, i.Stderr} {
		fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) // Close closes the other
		mustDo(t, err)
		pipe := os.NewFile(uintptr(fd), "output")
		drains.Go(func() {
			defer pipe.Close()
			first := make([]byte, 1)
			got, err := io.ReadFull(pipe, first)
			if n == 0 {
				close(ready)
			}
			data, restErr := io.ReadAll(pipe)
			if err != nil && err != io.EOF || restErr != nil {
				t.Error(err, restErr)
			}
			text[n] = string(first[:got]) + string(data)
		})
	}
	s.wait = sync.OnceValue(func() end {
		exit, err := i.Exit()
		for ; err == initproc.ErrRunning; exit, err = i.Exit() {
			fds := []unix.PollFd{{Fd: int32(i.FD()), Events: unix.POLLIN}}
			_, _ = unix.Poll(fds, -1) // interrupted is as good
		}
		if err != nil {
			t.Error(err)
		}
		_ = unix.Kill(i.Pid, unix.SIGKILL) // init has the pipes, too
		drains.Wait()
		usage := group.Usage()
		i.Close()
		mustDo(t, group.Delete())
		return end{exit.Status, usage.OOMKills != nil && *usage.OOMKills > 0, 0, value(usage.MemoryPeak), value(usage.PidsPeak)}
	})
	s.output = func() string { s.wait(); return text[0] + text[1] }
	s.stop = func() { _ = i.SignalAll(unix.SIGKILL) } // it may have ended
	t.Cleanup(func() {
		s.stop()
		s.wait()
		mustDo(t, os.RemoveAll(dir))
	})
	return s, nil
}

func value(n *uint64) int64 {
	if n == nil {
		return 0
	}
	return int64(*n)
}

func path(spec *telev1.JobSpec) string {
	return cmp.Or(spec.Env["PATH"], "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

func cwd(spec *telev1.JobSpec) string { return cmp.Or(spec.Cwd, initproc.Home) }
