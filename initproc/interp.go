package initproc

// This file is the init: the process with pid 1 in the sandbox's namespaces, root there, and the
// child that it starts, up to the point where that becomes the command.
//
// It keeps to rules that let it run without a Go runtime around it, as it does where the kernel
// entered in entry_*.s: no allocation, no goroutine, defer, map, interface or building of strings, no
// index that the compiler would check, no call but of its own functions and sys. A test in the
// module's root (entry_test.go) disassembles the program and holds them. None of its functions looks
// at the stack's limit (nosplit): that is where the runtime leaves its wish to run something else, and
// in the forked child there is no other thread that could. Memory that is not in a machine is the
// plan's, by address.

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A machine is the state of an init.
type machine struct {
	state  uint32
	ended  bool // the command has ended
	told   bool // and the server knows
	noted  bool // an execve met EACCES, and the plan went on
	size   uint32
	have   uint32  // bytes of the plan's part received
	plan   uintptr // address of the plan's part
	next   uint32  // index of the step to be done
	main   uintptr // pid of the command
	status uint32  // wait status of the command
	msg    message
	wait   uint32
	asleep uint64         // the signals that it blocks while it waits: none
	fds    [3]unix.PollFd // what it waits for
	answer [18]uint64     // struct stat or struct rusage
}

const (
	stateIdle      = iota // waiting for a part of the plan; without the server that has it, there is no use for init
	stateReceiving        // the same
	stateRunning
	stateSupervising
)

// begin is what comes before the first run.
//
//go:norace
//go:nosplit
func (m *machine) begin() {
	if !startedByServer() {
		sys(unix.SYS_WRITE, 2, uintptr(unsafe.Pointer(unsafe.StringData(byHand))), uintptr(len(byHand)), 0, 0, 0)
		exit(exitTele)
	}
	takeSignals()
}

const byHand = InitName + ": this is the inner part of tele's sandbox and is started by the server alone; " +
	"to run a command use: tele run -- COMMAND\n"

// startedByServer tells whether there is what a server would have left at fdControl.
//
//go:norace
//go:nosplit
func startedByServer() bool {
	var kind int32
	size := uint32(unsafe.Sizeof(kind))
	r := sys(unix.SYS_GETSOCKOPT, fdControl, unix.SOL_SOCKET, unix.SO_TYPE, uintptr(unsafe.Pointer(&kind)),
		uintptr(unsafe.Pointer(&size)), 0)
	return !failed(r) && kind == unix.SOCK_SEQPACKET
}

// beforeWait prepares the ppoll(2) that a caller of run makes: it returns how many of fds to wait for.
// SIGCHLD, which says that a child has ended, comes during it and not at other times.
//
//go:norace
//go:nosplit
func (m *machine) beforeWait() uintptr {
	m.asleep = 0
	m.fds = [3]unix.PollFd{{Fd: fdControl, Events: unix.POLLIN}, {Fd: fdChild, Events: unix.POLLIN},
		{Fd: fdServer, Events: unix.POLLIN}}
	if m.state < stateRunning {
		return 3
	}
	return 2
}

// afterWait does not return when the server has ended that had the plan.
//
//go:norace
//go:nosplit
func (m *machine) afterWait() {
	if m.fds[2].Revents != 0 && m.fds[0].Revents == 0 {
		exit(exitTele)
	}
}

// run goes on until it has to wait for fdControl or fdChild, or without a plan for fdServer.
//
//go:norace
//go:nosplit
func (m *machine) run() {
	for {
		switch m.state {
		case stateIdle:
			if !m.receive() {
				return
			}
			m.accept()
		case stateReceiving:
			if !m.receivePiece() {
				return
			}
		case stateRunning:
			m.step()
		case stateSupervising:
			if !m.supervise() {
				return
			}
		}
	}
}

// receive takes a message from the server, if there is one.
//
//go:norace
//go:nosplit
func (m *machine) receive() bool {
	n := sys(unix.SYS_RECVFROM, fdControl, uintptr(unsafe.Pointer(&m.msg)), messageSize,
		unix.MSG_DONTWAIT, 0, 0)
	if failed(n) {
		if errno(n) == int32(unix.EAGAIN) {
			return false
		}
		exit(exitTele)
	}
	if n != messageSize || m.msg.version != messageVersion {
		m.refuse(int32(unix.EPROTO))
	}
	return true
}

// accept makes room for the part of the plan that the server announced.
//
//go:norace
//go:nosplit
func (m *machine) accept() {
	m.size = m.msg.value
	if m.msg.kind != msgPlan || m.size < uint32(headerSize) || m.size > maxPlan {
		m.refuse(int32(unix.EPROTO))
	}
	m.plan = sys(unix.SYS_MMAP, 0, uintptr(m.size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	if failed(m.plan) {
		m.refuse(errno(m.plan))
	}
	m.have, m.next, m.state = 0, 0, stateReceiving
}

// receivePiece takes a piece of it, and after the last one begins to carry it out.
//
//go:norace
//go:nosplit
func (m *machine) receivePiece() bool {
	n := sys(unix.SYS_RECVFROM, fdControl, m.plan+uintptr(m.have), uintptr(m.size-m.have),
		unix.MSG_DONTWAIT, 0, 0)
	if failed(n) {
		if errno(n) == int32(unix.EAGAIN) {
			return false
		}
		exit(exitTele)
	}
	if n == 0 {
		exit(exitTele)
	}
	m.have += uint32(n)
	if m.have == m.size {
		m.check()
		m.relocate()
		m.state = stateRunning
	}
	return true
}

// check refuses a plan that is not one, and any plan in the server's own mount namespace: a mount
// made there would be the whole machine's.
//
//go:norace
//go:nosplit
func (m *machine) check() {
	h := (*header)(at(m.plan))
	steps := uint64(h.steps) + uint64(h.nsteps)*uint64(stepSize)
	relocs := uint64(h.relocs) + uint64(h.nrelocs)*uint64(relocSize)
	if h.magic != planMagic || h.version != planVersion || h.size != m.size ||
		steps > uint64(m.size) || relocs > uint64(m.size) || h.steps%8 != 0 || h.relocs%4 != 0 {
		m.refuse(int32(unix.EPROTO))
	}
	if h.before > 0 {
		return // the namespace is still the one that the first part was carried out in
	}
	name := [...]byte{'/', 'p', 'r', 'o', 'c', '/', 's', 'e', 'l', 'f', '/', 'n', 's', '/', 'm', 'n', 't', 0}
	cwd := unix.AT_FDCWD
	r := sys(sysFstatat, uintptr(cwd), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&m.answer)), 0, 0, 0)
	if failed(r) {
		m.refuse(errno(r))
	}
	if inode := m.answer[1]; inode == h.hostMnt {
		m.refuse(int32(unix.EPERM))
	}
}

//go:norace
//go:nosplit
func (m *machine) relocate() {
	h := (*header)(at(m.plan))
	for i := uint32(0); i < h.nrelocs; i++ {
		r := (*reloc)(at(m.plan + uintptr(h.relocs) + uintptr(i)*uintptr(relocSize)))
		if r.where+8 > m.size || r.target >= m.size {
			m.refuse(int32(unix.EPROTO))
		}
		*(*uintptr)(at(m.plan + uintptr(r.where))) = m.plan + uintptr(r.target)
	}
}

// step carries out the next step.
//
//go:norace
//go:nosplit
func (m *machine) step() {
	h := (*header)(at(m.plan))
	if m.next >= h.nsteps {
		m.fail(int32(unix.EPROTO))
	}
	s := (*step)(at(m.plan + uintptr(h.steps) + uintptr(m.next)*uintptr(stepSize)))
	switch s.nr {
	case opFork:
		m.fork(s)
	case opFail:
		if m.noted {
			m.fail(int32(unix.EACCES))
		}
		m.fail(int32(s.args[0]))
	case opReport:
		m.say(msgRunning, uint32(m.main), 0)
		m.next++
	case opPark:
		m.say(msgParked, 0, 0)
		m.forget(stateIdle)
	case opSupervise:
		m.forget(stateSupervising)
	default:
		m.call(s)
	}
}

// forget ends the part of the plan that is done.
//
//go:norace
//go:nosplit
func (m *machine) forget(next uint32) {
	sys(unix.SYS_MUNMAP, m.plan, uintptr(m.size), 0, 0, 0, 0)
	m.plan, m.state = 0, next
}

// call makes the system call of a step.
//
//go:norace
//go:nosplit
func (m *machine) call(s *step) {
	r := sys(uintptr(s.nr), m.arg(s, 0), m.arg(s, 1), m.arg(s, 2), m.arg(s, 3), m.arg(s, 4), m.arg(s, 5))
	if failed(r) {
		m.tolerate(s, errno(r))
	} else if s.dest != 0 {
		*(*uint64)(at(m.plan + uintptr(s.dest))) = uint64(r)
	}
	m.next++
}

//go:norace
//go:nosplit
func (m *machine) arg(s *step, i uintptr) uintptr {
	value := uintptr(*(*uint64)(unsafe.Add(unsafe.Pointer(&s.args), i*8)))
	switch *(*uint8)(unsafe.Add(unsafe.Pointer(&s.kinds), i)) {
	case argAddr:
		return m.plan + value
	case argResult:
		return uintptr(*(*uint64)(at(m.plan + value)))
	}
	return value
}

// tolerate returns when the step may end in this error.
//
//go:norace
//go:nosplit
func (m *machine) tolerate(s *step, e int32) {
	for i := uintptr(0); i < 4; i++ {
		if t := *(*uint16)(unsafe.Add(unsafe.Pointer(&s.tolerate), i*2)); t != 0 && int32(t) == e {
			m.noted = m.noted || s.nr == unix.SYS_EXECVE && e == int32(unix.EACCES)
			return
		}
	}
	m.fail(e)
}

// fork starts the command's process. The two share nothing but what fork(2) shares, and what the
// plan says; CLONE_VFORK only makes init wait until the child has executed its program, so that
// "running" is true when it is said.
//
//go:norace
//go:nosplit
func (m *machine) fork(s *step) {
	pid := sys(unix.SYS_CLONE, unix.CLONE_VFORK|uintptr(unix.SIGCHLD)|uintptr(s.args[1]), 0, 0, 0, 0, 0)
	switch {
	case failed(pid):
		m.fail(errno(pid))
	case pid == 0:
		m.next++
	default:
		m.main = pid
		m.next = uint32(s.args[0])
	}
}

// supervise does what there is to do for PID 1: reap, and what the server says. It returns false
// when there is nothing left to do for now.
//
//go:norace
//go:nosplit
func (m *machine) supervise() bool {
	var count uint64
	sys(unix.SYS_READ, fdChild, uintptr(unsafe.Pointer(&count)), 8, 0, 0, 0)
	m.reap()
	if !m.receive() {
		return false
	}
	switch m.msg.kind {
	case msgSignal:
		m.signal()
	case msgClose:
		sys(unix.SYS_CLOSE, uintptr(m.msg.value), 0, 0, 0, 0, 0)
	}
	return true
}

//go:norace
//go:nosplit
func (m *machine) signal() {
	whom := m.main
	switch {
	case m.msg.detail == targetAll:
		whom = ^uintptr(0)
	case m.ended:
		return
	case m.msg.detail == targetGroup:
		whom = -m.main
	}
	sys(unix.SYS_KILL, whom, uintptr(m.msg.value), 0, 0, 0, 0)
}

// reap takes in every child that has ended. Once the command has, what it left behind is killed,
// and when the last of it is gone the server is told.
//
//go:norace
//go:nosplit
func (m *machine) reap() {
	for {
		r := sys(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&m.wait)),
			unix.WNOHANG|unix.WALL, 0, 0, 0)
		switch {
		case r == 0:
			return
		case failed(r) && errno(r) == int32(unix.ECHILD):
			m.tell()
			return
		case failed(r):
			return
		case r == m.main && !m.ended:
			m.ended, m.status = true, m.wait
			m.killRest()
		}
	}
}

// killRest kills what the command has left behind. All of it are init's children by now, or theirs. When
// there are none nobody is asked: kill(2) of all goes through every process of the machine.
//
//go:norace
//go:nosplit
func (m *machine) killRest() {
	r := sys(unix.SYS_WAITID, unix.P_ALL, 0, 0, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, 0, 0)
	if failed(r) && errno(r) == int32(unix.ECHILD) {
		return
	}
	sys(unix.SYS_KILL, ^uintptr(0), uintptr(unix.SIGKILL), 0, 0, 0, 0)
}

//go:norace
//go:nosplit
func (m *machine) tell() {
	if !m.ended || m.told {
		return
	}
	m.told = true
	sys(unix.SYS_GETRUSAGE, ^uintptr(0), uintptr(unsafe.Pointer(&m.answer)), 0, 0, 0, 0)
	m.msg.userUsec = m.answer[0]*1e6 + m.answer[1]
	m.msg.systemUsec = m.answer[2]*1e6 + m.answer[3]
	m.msg.maxRSS = m.answer[4]
	m.say(msgExit, m.status, 0)
}

// say sends a message to the server. A message that cannot be sent has nobody who could be told.
//
//go:norace
//go:nosplit
func (m *machine) say(kind, value uint32, detail int32) {
	m.msg.kind, m.msg.version, m.msg.value, m.msg.detail = kind, messageVersion, value, detail
	sys(unix.SYS_SENDTO, fdControl, uintptr(unsafe.Pointer(&m.msg)), messageSize,
		unix.MSG_NOSIGNAL, 0, 0)
}

// fail names the step that failed, and ends this process: init, and with it the sandbox, or the
// command's process before there was a command.
//
//go:norace
//go:nosplit
func (m *machine) fail(e int32) {
	m.say(msgFailed, (*header)(at(m.plan)).before+m.next, e)
	exit(exitTele)
}

//go:norace
//go:nosplit
func (m *machine) refuse(e int32) {
	m.say(msgFailed, stepRefused, e)
	exit(exitTele)
}

//go:norace
//go:nosplit
func exit(code uintptr) {
	for {
		sys(unix.SYS_EXIT_GROUP, code, 0, 0, 0, 0, 0)
	}
}

// exitTele is the exit code of tele's own failures.
const exitTele = 125
