package job

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// causeText is a cause as one text, without what differs from one run to the next.
func causeText(c *telev1.Cause) string {
	lines := append([]string{c.Kind + ": " + c.Title}, c.Evidence...)
	text := strings.Join(append(lines, c.Advice), "\n")
	for _, r := range []struct{ pattern, to string }{
		{`it ran for [0-9.ms]+`, "it ran for TIME"},
		{`running, for [0-9.ms]+`, "running, for TIME"},
		{`held it back for [0-9.ms]+`, "held it back for TIME"},
		{`(it had|process had|near its memory limit, at most so far:) [0-9.]+[KMG]`, "$1 SIZE"},
		{`[0-9.]+[KMG]? (of output are kept|came after)`, "SIZE $1"},
		{`counted [1-9][0-9]* process(es)?`, "counted N"},
		{`kept, [0-9.]+ ?[a-zA-Z]* came`, "kept, SIZE came"},
		{`tele logs [a-z2-7]{12}`, "tele logs ID"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.to)
	}
	return text
}

// One job for each cause that can be made at will.
func TestWhy(t *testing.T) {
	table := open(t)
	spec := func(script string, change func(*telev1.JobSpec)) *telev1.JobSpec {
		s := sh(script)
		s.Limits = &telev1.Limits{}
		if change != nil {
			change(s)
		}
		return s
	}
	python := func(script string, change func(*telev1.JobSpec)) *telev1.JobSpec {
		s := spec(script, change)
		s.Command = []string{"python3", "-c", script}
		return s
	}
	for _, test := range []struct {
		name string
		spec *telev1.JobSpec
		want string
	}{
		{"success", spec("true", nil), "success: it did what it was to do: its command exited with code 0\nit ran for TIME\n"},
		{"exited", spec("exit 7", nil), `exited: its command exited with code 7, by itself
the code is the command's own; tele and the kernel did not end it
it ran for TIME
Look at what it wrote: tele logs ID`},
		{"126", spec("/etc/passwd", nil), `exited: its command exited with code 126: by custom, a shell found a program that cannot be executed
the code is the command's own; tele and the kernel did not end it
it ran for TIME
See that the program in the script is executable and made for this machine: tele logs ID`},
		{"127", spec("no-such-program", nil), `exited: its command exited with code 127: by custom, a shell did not find a program
the code is the command's own; tele and the kernel did not end it
it ran for TIME
See that the program in the script is there in the sandbox and in its PATH: tele logs ID`},
		{"128+n", spec("sh -c 'kill -TERM $$'; exit $?", nil), `exited: its command exited with code 143: by custom, a shell saw a program of its own end by signal 15 (SIGTERM)
the code is the command's own; tele and the kernel did not end it
it ran for TIME
Look at what it wrote: tele logs ID`},
		{"crashed", spec("kill -SEGV $$", nil), `crashed: it was ended by signal 11 (SIGSEGV): it used memory that it does not have
tele sent it none: nobody stopped it, and no timeout ended it
the kernel counted 0 processes killed for want of memory
it ran for TIME
Look at what it wrote last: tele logs ID`},
		{"signaled", spec("kill -KILL $$", nil), `signaled: it was ended by signal 9 (SIGKILL), which came from a process of the job, or from root on the machine
tele sent it none: nobody stopped it, and no timeout ended it
the kernel counted 0 processes killed for want of memory
it ran for TIME
Look for what in the job sends it; on the machine, for who kills processes.`},
		{"oom", python("x = b'x' * (200 << 20)", func(s *telev1.JobSpec) { s.Limits.Memory = "100M" }), `oom: it needed more memory than its limit, and the kernel killed it
its limit was 100M
it had SIZE at most
its largest process had SIZE
the kernel counted N killed for want of memory
it was ended by signal 9 (SIGKILL)
it ran for TIME
Give it more with --memory, or let it use less; what it has in /tmp and /dev/shm counts, too.`},
		{"timed out", spec("sleep 1000", func(s *telev1.JobSpec) { s.Timeout = durationpb.New(50 * time.Millisecond) }),
			`timed_out: ran longer than its timeout of 50ms
it was ended by signal 15 (SIGTERM)
it ran for TIME
Give it more time with --timeout, or more CPUs with --cpu when the limit held it back.`},
		{"output limit", spec("head -c 100000 /dev/zero; sleep 1000", func(s *telev1.JobSpec) { s.OutputLimit = "1K" }),
			`output_limit: wrote more output than its limit of 1K
SIZE of output are kept, SIZE came after that and are not
it was ended by signal 15 (SIGTERM)
it ran for TIME
Give it a larger --output-limit, or let it write less or to a file.`},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := begin(t, table, test.spec)
			wait(t, j)
			_, cause := j.Explain()
			got := causeText(cause)
			got = regexp.MustCompile(`the CPU limit held it back .*\n`).ReplaceAllString(got, "") // on a slow machine
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	t.Run("pids", func(t *testing.T) {
		_, cause := whyOf(t, table, python("import os, signal\nwhile True:\n if os.fork() == 0: signal.pause()",
			func(s *telev1.JobSpec) { s.Limits.Pids = "8" }))
		if cause.Kind != "pids_limit" || cause.Title != "it failed after it wanted more than its limit of 8 processes and threads" ||
			cause.Evidence[0] != "the kernel refused it a new one 1 time" {
			t.Errorf("got %v", cause)
		}
	})
	t.Run("refused call", func(t *testing.T) {
		_, cause := whyOf(t, table, python("import ctypes\nif ctypes.CDLL(None, use_errno=True).unshare(0x10000000): exit(3)",
			func(s *telev1.JobSpec) { s.SeccompLog = true }))
		if cause.Kind != "refused_call" || !strings.HasPrefix(cause.Title, "it failed after its sandbox refused it unshare") ||
			!strings.HasSuffix(cause.Evidence[0], "was refused 1 time, with EPERM") {
			t.Errorf("got %v", cause)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		for script, how := range map[string]string{
			"echo ready; exec sleep 1000":                            "it was ended by signal 15 (SIGTERM)",
			"trap '' TERM; echo ready; while :; do sleep 0.01; done": "it had not ended when its grace time was over, and was killed",
		} {
			j := begin(t, table, sh(script))
			firstOutput(t, j)
			if _, cause := j.Explain(); cause.Kind != "running" || !strings.HasPrefix(cause.Title, "it is running, for ") {
				t.Errorf("got %v", cause)
			}
			if err := j.Stop(unix.SIGTERM, 200*time.Millisecond, "alice"); err != nil {
				t.Fatal(err)
			}
			wait(t, j)
			if _, cause := j.Explain(); cause.Kind != "stopped" || cause.Title != "stopped by alice" || cause.Evidence[0] != how {
				t.Errorf("got %v", cause)
			}
		}
	})
	t.Run("running near its limits", func(t *testing.T) {
		s := python("import time\nx = b'x' * (182 << 20)\nprint('ready', flush=True)\ntime.sleep(1000)",
			func(s *telev1.JobSpec) { s.Limits.Memory = "200M"; s.Timeout = durationpb.New(time.Hour) })
		j := begin(t, table, s)
		firstOutput(t, j)
		job, cause := j.Explain()
		if job.Usage.GetMemoryPeakBytes() < 182<<20 {
			t.Errorf("the usage so far: %v", job.Usage)
		}
		text := causeText(cause)
		for _, want := range []string{"running: it is running, for TIME\nits timeout of 1h0m0s comes in ", "near its memory limit, at most so far: SIZE of 200M"} {
			if !strings.Contains(text, want) {
				t.Errorf("got %s", text)
			}
		}
		if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
			t.Fatal(err)
		}
		wait(t, j)
	})
}

func whyOf(t *testing.T, table *Table, spec *telev1.JobSpec) (*telev1.Job, *telev1.Cause) {
	t.Helper()
	j := begin(t, table, spec)
	wait(t, j)
	return j.Explain()
}

// Those that take a machine short of memory or a server that dies: their records alone.
func TestWhyOfRecords(t *testing.T) {
	n := proto.Uint64
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	job := func(reason telev1.Reason, change func(*telev1.Job)) *telev1.Job {
		j := &telev1.Job{Id: "aaaaaaaaaaaa", Reason: reason, StartedAt: timestamppb.New(start),
			EndedAt: timestamppb.New(start.Add(1500 * time.Millisecond)), Usage: &telev1.Usage{}, ExitCode: proto.Int32(1),
			Limits: []*telev1.LimitStatus{{Name: "memory", Applied: "500M"}, {Name: "pids", WhyNot: "no cgroup"}, {Name: "output", Applied: "1G"}}}
		change(j)
		return j
	}
	for _, test := range []struct {
		job  *telev1.Job
		want string
	}{
		{job: job(telev1.Reason_REASON_OOM_KILLED, func(j *telev1.Job) {
			j.Usage = &telev1.Usage{OomKills: n(2), MemoryPeakBytes: n(100 << 20)}
			j.Signal, j.ExitCode = 9, proto.Int32(137)
		}), want: `machine_oom: the kernel killed it since the machine itself was short of memory
its limit was 500M
it had SIZE at most
the kernel counted N killed for want of memory
it was ended by signal 9 (SIGKILL)
it ran for TIME
Run fewer jobs at a time, with lower --memory, or give the machine more memory.`},
		{job: job(telev1.Reason_REASON_EXITED, func(j *telev1.Job) {
			j.Refused = []*telev1.RefusedCall{{Call: "mount", Count: 3, Errno: int32(unix.EPERM)}, {Call: "others", Count: 1}}
		}),
			want: `refused_call: it failed after its sandbox refused it mount, others
mount was refused 3 times, with EPERM
others was refused 1 time
its command exited with code 1
it ran for TIME
A job is not given these system calls; let the program do without them.`},
		{job: job(telev1.Reason_REASON_SIGNALED, func(j *telev1.Job) { j.Signal, j.ExitCode = 31, proto.Int32(159) }),
			want: `refused_call: it made a system call that its sandbox refuses
it was ended by signal 31 (SIGSYS)
it ran for TIME
Run it with --seccomp-log to learn which call it was.`},
		{job: job(telev1.Reason_REASON_EXITED, func(j *telev1.Job) {
			j.ExitCode, j.Refused = proto.Int32(0), []*telev1.RefusedCall{{Call: "mount", Count: 3, Errno: int32(unix.EPERM)}}
		}),
			want: "success: it did what it was to do: its command exited with code 0\nit ran for TIME\n"},
		{job: job(telev1.Reason_REASON_EXITED, func(j *telev1.Job) { j.Usage.PidsLimitHits = n(4) }),
			want: `pids_limit: it failed after it wanted more processes and threads than it may have
the kernel refused it a new one 4 times
its command exited with code 1
it ran for TIME
Give it more with --pids, or let it start fewer (make -j, a pool's size).`},
		{job: job(telev1.Reason_REASON_EXITED, func(j *telev1.Job) {
			j.ExitCode, j.Usage = proto.Int32(0), &telev1.Usage{OomKills: n(1), PidsLimitHits: n(1)}
		}), want: `success: it did what it was to do: its command exited with code 0
though the kernel killed 1 process of it for want of memory
though the kernel refused it a new process 1 time
it ran for TIME
`},
		{job: job(telev1.Reason_REASON_OUTPUT_LIMIT, func(j *telev1.Job) { j.StdoutBytes, j.DroppedBytes, j.Signal = 2048, 1, 15 }),
			want: `output_full: wrote output for which the server had no more room
SIZE of output are kept, SIZE came after that and are not
it was ended by signal 15 (SIGTERM)
it ran for TIME
Make room on the server: tele rm or tele prune, --keep-output of tele serve, or the disk itself.`},
		{job: job(telev1.Reason_REASON_LOST, func(j *telev1.Job) {
			j.ExitCode, j.Message, j.Usage = nil, "the machine was restarted while the job ran", nil
		}), want: `lost: nobody saw how it ended: the machine was restarted while the job ran
its output up to then is kept: 0 bytes
it ran for TIME
Run it again; whether it did its work, only what it wrote can tell: tele logs ID`},
		{job: job(0, func(j *telev1.Job) { j.StartedAt, j.EndedAt = nil, nil }), want: "submitted: it is about to start\n"},
		{job: job(0, func(j *telev1.Job) {
			j.EndedAt, j.StdoutBytes = nil, 1<<30-1
			j.Usage = &telev1.Usage{ThrottledUsec: n(5_000_000), OomKills: n(1), PidsLimitHits: n(2), PidsPeak: n(10)}
		}), want: `running: it is running, for TIME
near its output limit: 1024M of 1G
the kernel killed 1 process of it for want of memory
the kernel refused it a new process 2 times
the CPU limit has held it back for TIME in all
See what it writes: tele logs ID`},
		{job: job(0, func(j *telev1.Job) { j.EndedAt, j.Paused = nil, true }), want: "running: it is running, for TIME\n" +
			"it is paused: tele resume aaaaaaaaaaaa lets it go on\nit is near none of its limits\nSee what it writes: tele logs ID"},
		{job: job(0, func(j *telev1.Job) { j.EndedAt = nil }), want: "running: it is running, for TIME\nit is near none of its limits\nSee what it writes: tele logs ID"},
	} {
		got := strings.ReplaceAll(causeText(explain(test.job, start.Add(10*time.Second))), "has held it back for 5s", "has held it back for TIME")
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}
