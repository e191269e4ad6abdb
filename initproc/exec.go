package initproc

import (
	"strings"

	"golang.org/x/sys/unix"
)

// park says that init has done what it can without the job, and waits for the rest of the plan.
func park(b *builder) { b.step("wait for the job", opPark) }

// doWithoutServer is where an init has all that it needs: before, it ends with its server.
func doWithoutServer(b *builder) {
	b.step("do without the server", unix.SYS_CLOSE, number(fdServer))
}

// forkCommand begins the steps of the command's own process and returns the index of its step. With
// CLONE_FILES it shares init's table of descriptors until closeOnExec, for filterCalls.
func forkCommand(b *builder, s Spec) int {
	share := 0
	if s.SeccompListener {
		share = unix.CLONE_FILES
	}
	b.step("start the command's process", opFork, number(0), number(share))
	return len(b.steps) - 1
}

// endCommand ends what forkCommand began: init goes on with the step that comes next.
func endCommand(b *builder, fork int) {
	b.steps[fork].args[0] = uint64(len(b.steps))
}

// newSession makes the command the leader of a session and a process group, as a login does.
func newSession(b *builder) {
	b.step("make a session", unix.SYS_SETSID)
	b.step("unblock signals", unix.SYS_RT_SIGPROCMASK, number(unix.SIG_SETMASK), b.words(0), number(0),
		number(8))
}

const nameChangeDir = "change to the working directory"

// changeDir comes after setUser: where the job's user may not go, the command does not begin.
func changeDir(b *builder, s Spec) {
	b.step(nameChangeDir, unix.SYS_CHDIR, b.string(s.Cwd))
}

// closeOnExec leaves the command 0, 1 and 2: also what no step opened (CVE-2024-21626). Not closed
// at once, for a failed exec is still to be reported. A table that is shared with init is copied first.
func closeOnExec(b *builder) {
	b.step("close descriptors on exec", unix.SYS_CLOSE_RANGE, number(3), number(uint32(1<<32-1)),
		number(unix.CLOSE_RANGE_CLOEXEC|unix.CLOSE_RANGE_UNSHARE))
}

// executeFile executes an open file, execveat(2). It is no script, so its descriptor may be closed by that.
func executeFile(b *builder, s Spec, fd arg) {
	b.step("execute the program that came with the plan", unix.SYS_EXECVEAT, fd, b.string(""), b.strings(s.Command),
		b.strings(s.Env), number(unix.AT_EMPTY_PATH))
}

// leaveProgram is init's part of it.
func leaveProgram(b *builder, s Spec, fd arg) {
	if s.Agent {
		b.step("close the program that came with the plan", unix.SYS_CLOSE, fd)
	}
}

const nameExecute = "execute the command"

// execute looks for the program as execvp(3) does, one step for each directory of PATH, in the
// sandbox and as the job's user. The last step is reached only when none of them succeeded.
func execute(b *builder, s Spec) {
	program := s.Command[0]
	argv, env := b.strings(s.Command), b.strings(s.Env)
	if strings.Contains(program, "/") {
		b.step(nameExecute, unix.SYS_EXECVE, b.string(program), argv, env)
		return
	}
	for _, dir := range strings.Split(s.path(), ":") {
		if dir == "" {
			dir = "."
		}
		b.step(nameExecute, unix.SYS_EXECVE, b.string(dir+"/"+program), argv, env)
		b.tolerate(uint16(unix.ENOENT), uint16(unix.ENOTDIR), uint16(unix.EACCES))
	}
	b.step(nameExecute, opFail, number(uint32(unix.ENOENT)))
}
