package initproc

import "golang.org/x/sys/unix"

// joinCgroups puts init into the job's version 1 groups; into its version 2 group clone3 has put
// it. It comes first: whatever the later steps use is counted.
//
// Writing "0" to `tasks` moves the writing thread and does not wait for an RCU grace period, as
// any write of a pid to cgroup.procs does, for 10 ms. The threads that the Go runtime may have
// started in init stay behind; the command comes from this one.
func joinCgroups(b *builder, s Spec) {
	for i := range s.Join {
		b.step("join the job's cgroups", unix.SYS_WRITE, number(fdFiles+i), b.string("0"), number(1))
		b.step("join the job's cgroups", unix.SYS_CLOSE, number(fdFiles+i))
	}
	if s.Join > 0 {
		// The namespace made by clone3 begins where init was then (cgroup_namespaces(7)).
		b.step("unshare the cgroup namespace", unix.SYS_UNSHARE, number(unix.CLONE_NEWCGROUP))
	}
}

// protectInit makes init hard to look into and hard to kill. Not dumpable, its /proc/1 is root's,
// also for who has the same user: no exe, no fd, no mem (proc(5), CVE-2019-5736). The host's /proc
// must still be mounted.
//
// When the machine runs out of memory, and when the job is over its limit, it is the job that must
// go, not its init: see openScore.
func protectInit(b *builder) {
	b.step("set the umask", unix.SYS_UMASK, number(0o022))
	b.step("make init not dumpable", unix.SYS_PRCTL, number(unix.PR_SET_DUMPABLE), number(0))
}

// openScore opens init's own oom_score_adj for bornToGo, which is called for each process that it
// starts: in the host's /proc, for that of the job is read-only, and must not know init by name: a
// process that was looked up once is found again, also by who may not see it.
func openScore(b *builder) {
	fd := b.stepResult("open init's OOM score", unix.SYS_OPENAT, cwdFD, b.string("/proc/self/oom_score_adj"),
		number(unix.O_WRONLY|unix.O_CLOEXEC), number(0))
	b.keep("open init's OOM score", fd, fdOOM)
}

// jobOOMScore is far above that of anything else on a machine: when memory is short, jobs go first.
const jobOOMScore = "500"

// bornToGo has the next process of init's be born with the score of a job's. A child has the score
// that its parent had at fork(2), and could not set it itself: its /proc is read-only.
func bornToGo(b *builder) {
	b.step("set the command's OOM score", unix.SYS_WRITE, number(fdOOM), b.string(jobOOMScore), number(len(jobOOMScore)))
	b.tolerate(uint16(unix.EACCES)) // the server's own is higher, and only root may lower it
}

// toStay gives init a score of its own again: with a job's it would be chosen before a small process of
// the job's own, and the job be lost. Lowering it below 0 takes CAP_SYS_RESOURCE, which root in a
// container may lack; the sandbox is as tight without it.
func toStay(b *builder, s Spec) {
	scores := []string{"0", "-1000"}
	if s.UserNamespace {
		scores = scores[:1]
	}
	for _, score := range scores {
		b.step("take init out of the OOM killer's choice", unix.SYS_WRITE, number(fdOOM), b.string(score), number(len(score)))
		b.tolerate(uint16(unix.EACCES))
	}
}
