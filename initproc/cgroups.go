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
		b.step("join the job's cgroups", unix.SYS_WRITE, number(fdJoin+i), b.string("0"), number(1))
		b.step("join the job's cgroups", unix.SYS_CLOSE, number(fdJoin+i))
	}
	if s.Join > 0 {
		// The namespace made by clone3 begins where init was then (cgroup_namespaces(7)).
		b.step("unshare the cgroup namespace", unix.SYS_UNSHARE, number(unix.CLONE_NEWCGROUP))
	}
}

// protectInit takes init out of the OOM killer's choice: when the job is over its memory limit it
// is the job that must go. Without root the kernel does not let it. The host's /proc must still be
// mounted.
func protectInit(b *builder, s Spec) {
	b.step("set the umask", unix.SYS_UMASK, number(0o022))
	b.step("make init not dumpable", unix.SYS_PRCTL, number(unix.PR_SET_DUMPABLE), number(0))
	if !s.UserNamespace {
		setOOMScore(b, "take init out of the OOM killer's choice", "-1000")
	}
}

// exposeCommand undoes protectInit for the command. It is privileged: user and capabilities are
// still to be given up.
func exposeCommand(b *builder, s Spec) {
	if !s.UserNamespace {
		setOOMScore(b, "make the command the OOM killer's choice", "0")
	}
}

func setOOMScore(b *builder, name, score string) {
	fd := b.stepResult(name, unix.SYS_OPENAT, cwdFD, b.string("/proc/self/oom_score_adj"),
		number(unix.O_WRONLY|unix.O_CLOEXEC), number(0))
	b.step(name, unix.SYS_WRITE, fd, b.string(score), number(len(score)))
	b.tolerate(uint16(unix.EACCES)) // lowering it takes CAP_SYS_RESOURCE, which root may lack
	b.step(name, unix.SYS_CLOSE, fd)
}
