package initproc

// prepare is the sandbox as far as it can be made without knowing the job: what it can be asked for is
// in finish, or is mounted, or is a root of its own. Why in this order: see the package's documentation;
// each function says what must have happened before it.
func prepare(b *builder, s Spec, h host) {
	joinCgroups(b, s)
	protectInit(b)
	openScore(b)
	var work arg
	var mounts []arg
	if !s.Template {
		makeMountsPrivate(b)
		work, mounts = cloneWork(b, s), cloneMounts(b, s)
		shared(b, s, h, nil)
	}
	mountProc(b)
	mountTerminals(b)
	mountTmp(b, s)
	maskProc(b)
	mountWork(b, s, work)
	attachMounts(b, s, mounts)
	loopbackUp(b, s)
	park(b)
}

// shared is what no job changes and all can have in common; what is mounted at the places of unused is
// not needed for it.
func shared(b *builder, s Spec, h host, unused []string) {
	nodes := cloneDevices(b)
	makeRoot(b, s, h)
	pivotRoot(b)
	detach(b, unused)
	makeDev(b, nodes)
	mountEmpty(b)
	hide(b, s)
	makeHome(b)
}

// rest is what follows: the job's own, and its command.
func rest(b *builder, s Spec, h host) {
	input := receiveInput(b, s)
	doWithoutServer(b)
	resize(b, s)
	secrets, program := filesBehind(s)
	placeSecrets(b, s, secrets)
	setHostname(b, s)
	terminal := openTerminal(b, s)
	bornToGo(b)
	fork := forkCommand(b, s)
	newSession(b)
	controlTerminal(b, s, terminal)
	setRlimits(b, h)
	dropCapabilities(b)
	giveInput(b, s, input)
	setUser(b, s)
	newKeyring(b)
	forbidNewPrivileges(b)
	keepProject(b, s)
	filterCalls(b, s)
	changeDir(b, s)
	closeOnExec(b)
	readInput(b, s, input)
	mergeOutput(b, s)
	takeTerminal(b, s, terminal)
	if s.Agent {
		executeFile(b, s, program)
	} else {
		execute(b, s)
	}
	endCommand(b, fork)
	leaveInput(b, s, input)
	leaveProgram(b, s, program)
	toStay(b, s)
	b.step("report that the command runs", opReport)
	b.step("supervise", opSupervise)
}

// template is a Template.
func template(b *builder, s Spec, h host) {
	makeMountsPrivate(b)
	shared(b, s, h, outOfSight(s, h))
	keepProcWritable(b)
	park(b)
}
