package initproc

// order is the sandbox, from the first step to the last. Why in this order: see the package's
// documentation; each function says what must have happened before it.
func order(b *builder, s Spec, h host) {
	joinCgroups(b, s)
	protectInit(b)
	makeMountsPrivate(b)
	work := cloneWork(b, s)
	nodes := cloneDevices(b)
	makeRoot(b, s, h)
	pivotRoot(b)
	mountProc(b)
	mountDev(b, s, nodes)
	mountTmp(b, s)
	empty := mountEmpty(b)
	hide(b, s, empty)
	maskProc(b, empty)
	mountHome(b, s, work)
	setHostname(b, s)
	loopbackUp(b, s)
	bornToGo(b)
	fork := forkCommand(b)
	newSession(b)
	setRlimits(b, h)
	dropCapabilities(b)
	setUser(b, s)
	newKeyring(b)
	forbidNewPrivileges(b)
	keepProject(b, s)
	// The seccomp filter goes here: after the last privileged call, before anything of the job's.
	changeDir(b, s)
	closeOnExec(b)
	execute(b, s)
	endCommand(b, fork)
	toStay(b, s)
	b.step("report that the command runs", opReport)
	b.step("supervise", opSupervise)
}
