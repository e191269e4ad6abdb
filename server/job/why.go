package job

import (
	"fmt"
	"strings"
	"time"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// This file answers "why did my job end so": one cause, what is known that points to it, and what
// can be done. Texts are for people; the kinds are in tele.v1.Cause.

// Explain returns the job as it is now, with what it has used so far, and the cause.
func (j *Job) Explain() (*telev1.Job, *telev1.Cause) {
	job := j.Snapshot()
	j.mu.Lock()
	group := j.group
	j.mu.Unlock()
	if job.StartedAt != nil && job.EndedAt == nil && group != nil {
		job = proto.Clone(job).(*telev1.Job)
		job.Usage = usageOf(group.Usage(), initproc.Exit{})
	}
	return job, explain(job, time.Now())
}

// explain comes to the cause by what is in the record alone; the first that fits counts, from what
// tele did itself to what it can only guess.
func explain(job *telev1.Job, now time.Time) *telev1.Cause {
	c := &cause{job: job, usage: job.GetUsage()}
	if c.usage == nil {
		c.usage = &telev1.Usage{}
	}
	failed := job.GetExitCode() != 0
	switch {
	case job.EndedAt == nil:
		c.running(now)
		return c.done()
	case job.Reason == telev1.Reason_REASON_LOST:
		c.lost()
	case job.Reason == telev1.Reason_REASON_START_FAILED:
		c.is("start_failed", "its last try %s", job.Message)
		c.advice = "The reason is the server's machine, or has changed since its first try: tele doctor, there, knows more."
	case job.Reason == telev1.Reason_REASON_STOPPED:
		c.stopped()
	case job.Reason == telev1.Reason_REASON_TIMED_OUT:
		c.timedOut()
	case job.Reason == telev1.Reason_REASON_OUTPUT_LIMIT:
		c.output()
	case job.Reason == telev1.Reason_REASON_OOM_KILLED:
		c.oom()
	case failed && (len(job.Refused) > 0 || unix.Signal(job.Signal) == unix.SIGSYS):
		c.refused(job.Refused)
	case failed && c.usage.GetPidsLimitHits() > 0:
		c.pids()
	case job.Signal != 0:
		c.signaled()
	default:
		c.exited()
	}
	c.tries()
	if job.StartedAt != nil {
		c.add("it ran for %s", job.EndedAt.AsTime().Sub(job.StartedAt.AsTime()).Round(time.Millisecond))
	}
	return c.done()
}

// A cause is a telev1.Cause in the making.
type cause struct {
	job   *telev1.Job
	usage *telev1.Usage

	kind, title, advice string
	evidence            []string
}

func (c *cause) is(kind, title string, args ...any) {
	c.kind, c.title = kind, fmt.Sprintf(title, args...)
}

func (c *cause) add(text string, args ...any) {
	c.evidence = append(c.evidence, fmt.Sprintf(text, args...))
}

func (c *cause) done() *telev1.Cause {
	return &telev1.Cause{Kind: c.kind, Title: c.title, Evidence: c.evidence, Advice: c.advice}
}

// applied is the value of a limit that holds; false when it does not, or is none.
func (c *cause) applied(name limits.Name) (int64, bool) {
	for _, l := range c.job.Limits {
		if l.Name == string(name) {
			value, err := limits.Parse(name, l.Applied)
			return value, err == nil && value != limits.Max
		}
	}
	return 0, false
}

// ending says with what the command ended.
func (c *cause) ending() string {
	if c.job.Signal != 0 {
		return "it was ended by signal " + signalText(c.job.Signal)
	}
	return fmt.Sprintf("its command exited with code %d", c.job.GetExitCode())
}

func signalText(n int32) string {
	if name := unix.SignalName(unix.Signal(n)); name != "" {
		return fmt.Sprintf("%d (%s)", n, name)
	}
	return fmt.Sprint(n)
}

// killed adds how a job ended that tele asked to end.
func (c *cause) killed() {
	if unix.Signal(c.job.Signal) == unix.SIGKILL {
		c.add("it had not ended when its grace time was over, and was killed")
	} else {
		c.add("%s", c.ending())
	}
}

func (c *cause) stopped() {
	c.is("stopped", "%s", c.job.Message) // "stopped by NAME"
	c.killed()
	c.advice = "Nothing is wrong with it as far as tele knows; run it again if it was stopped by mistake."
}

func (c *cause) timedOut() {
	c.is("timed_out", "%s", c.job.Message)
	c.killed()
	if n := c.usage.GetThrottledUsec(); n > 0 {
		c.add("the CPU limit held it back for %s in all", micros(n))
	}
	c.advice = "Give it more time with --timeout, or more CPUs with --cpu when the limit held it back."
}

func (c *cause) output() {
	written := c.job.StdoutBytes + c.job.StderrBytes
	if limit, ok := c.applied(limits.Output); ok && written >= uint64(limit) {
		c.is("output_limit", "wrote more output than its limit of %s", limits.Format(limits.Output, limit))
		c.advice = "Give it a larger --output-limit, or let it write less or to a file."
	} else {
		c.is("output_full", "wrote output for which the server had no more room")
		c.advice = "Make room on the server: tele rm or tele prune, --keep-output of tele serve, or the disk itself."
	}
	c.add("%s of output are kept, %s came after that and are not", size(written), size(c.job.DroppedBytes))
	c.killed()
}

func (c *cause) oom() {
	limit, limited := c.applied(limits.Memory)
	peak := c.usage.GetMemoryPeakBytes()
	// The kernel counts every process that it killed for want of memory, also of the machine's own.
	if c.usage.MemoryPeakBytes != nil && (!limited || peak < uint64(limit)/10*9) {
		c.is("machine_oom", "the kernel killed it since the machine itself was short of memory")
		c.advice = "Run fewer jobs at a time, with lower --memory, or give the machine more memory."
	} else {
		c.is("oom", "it needed more memory than its limit, and the kernel killed it")
		c.advice = "Give it more with --memory, or let it use less; what it has in /tmp and /dev/shm counts, too."
	}
	if limited {
		c.add("its limit was %s", limits.Format(limits.Memory, limit))
	}
	if c.usage.MemoryPeakBytes != nil {
		c.add("it had %s at most", size(peak))
	}
	if c.usage.LargestProcessBytes != nil {
		c.add("its largest process had %s", size(c.usage.GetLargestProcessBytes()))
	}
	c.add("the kernel counted %s killed for want of memory", number(c.usage.GetOomKills(), "process", "processes"))
	c.add("%s", c.ending())
}

func (c *cause) refused(calls []*telev1.RefusedCall) {
	if len(calls) == 0 {
		c.is("refused_call", "it made a system call that its sandbox refuses")
		c.add("%s", c.ending())
		c.advice = "Run it with --seccomp-log to learn which call it was."
		return
	}
	var names []string
	for _, call := range calls {
		names = append(names, call.Call)
		text := fmt.Sprintf("%s was refused %s", call.Call, number(call.Count, "time", "times"))
		if call.Errno != 0 {
			text += ", with " + unix.ErrnoName(unix.Errno(call.Errno))
		}
		c.add("%s", text)
	}
	c.is("refused_call", "it failed after its sandbox refused it %s", strings.Join(names, ", "))
	c.add("%s", c.ending())
	c.advice = "A job is not given these system calls; let the program do without them."
}

func (c *cause) pids() {
	if limit, ok := c.applied(limits.Pids); ok {
		c.is("pids_limit", "it failed after it wanted more than its limit of %d processes and threads", limit)
	} else {
		c.is("pids_limit", "it failed after it wanted more processes and threads than it may have")
	}
	c.add("the kernel refused it a new one %s", number(c.usage.GetPidsLimitHits(), "time", "times"))
	if c.usage.PidsPeak != nil {
		c.add("it had %d at most", c.usage.GetPidsPeak())
	}
	c.add("%s", c.ending())
	c.advice = "Give it more with --pids, or let it start fewer (make -j, a pool's size)."
}

// crashes are signals that the kernel sends a program for what it did.
var crashes = map[unix.Signal]string{
	unix.SIGSEGV: "it used memory that it does not have", unix.SIGBUS: "it used memory that has nothing behind it, as of a file cut short",
	unix.SIGILL: "it came to an instruction that this processor does not have", unix.SIGFPE: "it divided by zero or the like",
	unix.SIGABRT: "it gave up by itself (abort), mostly with a message", unix.SIGTRAP: "it met a breakpoint or an assertion",
	unix.SIGPIPE: "it wrote to a pipe that nobody reads", unix.SIGXFSZ: "it wrote more to a file than its rlimit lets it",
	unix.SIGXCPU: "it used more CPU time than its rlimit lets it",
}

func (c *cause) signaled() {
	signal := unix.Signal(c.job.Signal)
	c.add("tele sent it none: nobody stopped it, and no timeout ended it")
	if c.usage.OomKills != nil {
		c.add("the kernel counted %s killed for want of memory", number(c.usage.GetOomKills(), "process", "processes"))
	}
	if why, known := crashes[signal]; known {
		c.is("crashed", "it was ended by signal %s: %s", signalText(c.job.Signal), why)
		c.advice = "Look at what it wrote last: tele logs " + c.job.Id
		return
	}
	c.is("signaled", "it was ended by signal %s, which came from a process of the job, or from root on the machine",
		signalText(c.job.Signal))
	c.advice = "Look for what in the job sends it; on the machine, for who kills processes."
}

func (c *cause) exited() {
	code := c.job.GetExitCode()
	own := code != 0
	c.advice = "Look at what it wrote: tele logs " + c.job.Id
	switch {
	case code == 0:
		c.is("success", "it did what it was to do: its command exited with code 0")
		c.advice = ""
	case len(c.job.Spec.GetUpload()) > 0 && uploadEnds[code] != "":
		own = false
		c.is("exited", "it ended with exit code %d, its command's own or: %s", code, uploadEnds[code])
		c.advice = "Which of the two it was, and why, is at the end of what it wrote: tele logs " + c.job.Id
	case code == 126:
		c.is("exited", "its command exited with code 126: by custom, a shell found a program that cannot be executed")
		c.advice = "See that the program in the script is executable and made for this machine: tele logs " + c.job.Id
	case code == 127:
		c.is("exited", "its command exited with code 127: by custom, a shell did not find a program")
		c.advice = "See that the program in the script is there in the sandbox and in its PATH: tele logs " + c.job.Id
	case code > 128 && code <= 128+64:
		c.is("exited", "its command exited with code %d: by custom, a shell saw a program of its own end by signal %s",
			code, signalText(code-128))
	default:
		c.is("exited", "its command exited with code %d, by itself", code)
	}
	if own {
		c.add("the code is the command's own; tele and the kernel did not end it")
	}
	if n := c.usage.GetOomKills(); n > 0 {
		c.add("though the kernel killed %s of it for want of memory", number(n, "process", "processes"))
	}
	if n := c.usage.GetPidsLimitHits(); n > 0 {
		c.add("though the kernel refused it a new process %s", number(n, "time", "times"))
	}
}

func (c *cause) lost() {
	c.is("lost", "nobody saw how it ended: %s", c.job.Message)
	if c.job.GetUsage().GetOomKills() > 0 {
		c.add("the kernel counted %s killed for want of memory", number(c.usage.GetOomKills(), "process", "processes"))
	}
	c.add("its output up to then is kept: %s", size(c.job.StdoutBytes+c.job.StderrBytes))
	c.advice = "Run it again; whether it did its work, only what it wrote can tell: tele logs " + c.job.Id
}

// tries adds how often it was tried.
func (c *cause) tries() {
	if n := len(c.job.Tries); n > 1 {
		c.add("it was tried %d times", n)
	}
}

func (c *cause) running(now time.Time) {
	if c.job.StartedAt == nil {
		c.is("submitted", "it is about to start")
		return
	}
	if c.job.Status == telev1.JobStatus_JOB_STATUS_SUBMITTED {
		c.is("between_tries", "it waits for its next try: %s", c.job.Message)
		c.advice = "See what the last one wrote: tele logs " + c.job.Id
		return
	}
	ran := now.Sub(c.job.StartedAt.AsTime())
	c.is("running", "it is running, for %s", ran.Round(time.Second))
	if c.job.Paused {
		c.add("it is paused: tele resume %s lets it go on", c.job.Id)
	}
	if d := timeoutOf(c.job); d > 0 {
		c.add("its timeout of %s comes in %s", d, max(d-ran, 0).Round(time.Second))
	}
	near := false
	part := func(what string, used *uint64, name limits.Name, write func(uint64) string) {
		limit, ok := c.applied(name)
		if !ok || used == nil || *used < uint64(limit)/10*9 {
			return
		}
		near = true
		c.add("%s: %s of %s", what, write(*used), write(uint64(limit)))
	}
	plain := func(n uint64) string { return fmt.Sprint(n) }
	written := c.job.StdoutBytes + c.job.StderrBytes
	part("near its memory limit, at most so far", c.usage.MemoryPeakBytes, limits.Memory, size)
	part("near its limit of processes, at most so far", c.usage.PidsPeak, limits.Pids, plain)
	part("near its output limit", &written, limits.Output, size)
	if n := c.usage.GetOomKills(); n > 0 {
		near = true
		c.add("the kernel killed %s of it for want of memory", number(n, "process", "processes"))
	}
	if n := c.usage.GetPidsLimitHits(); n > 0 {
		near = true
		c.add("the kernel refused it a new process %s", number(n, "time", "times"))
	}
	if n := c.usage.GetThrottledUsec(); n > 0 {
		near = true
		c.add("the CPU limit has held it back for %s in all", micros(n))
	}
	if !near {
		c.add("it is near none of its limits")
	}
	c.advice = "See what it writes: tele logs " + c.job.Id
}

func number(n uint64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func micros(n uint64) string {
	return (time.Duration(min(n, 1<<53)) * time.Microsecond).Round(time.Millisecond).String()
}

// size writes bytes in the powers of 1024 that limits are given in, with a digit after the point.
func size(bytes uint64) string {
	unit, value := "", float64(bytes)
	for _, next := range []string{"K", "M", "G", "T"} {
		if value < 1024 {
			break
		}
		unit, value = next, value/1024
	}
	if unit == "" {
		return number(bytes, "byte", "bytes")
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + unit
}
