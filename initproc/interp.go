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
	beside bool               // the plan is of a command beside the main one
	child  bool               // this is the process that is to become the command
	token  uint64             // which of these it is
	broken uint32             // the error of such a plan's fork
	other  uintptr            // pid of such a plan's command, or the index of the step that did not fork it
	others [maxBeside]uintptr // pids of such commands that run; 0 for none
	asleep uint64             // the signals that it blocks while it waits: none
	fds    [3]unix.PollFd     // what it waits for
	iov    [2]uintptr
	header [7]uintptr // struct msghdr
	rights [5]uintptr // struct cmsghdr, with up to six descriptors behind it
	answer [18]uint64 // struct stat or struct rusage
}

const (
	rightsHeader = 16
	rightsSize   = rightsHeader + mostFiles*4
	mostFiles    = 6 // with one message
)

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
	closeInherited()
	takeSignals()
}

// closeInherited closes what the server, or whoever started that, left open by mistake: init has what is in
// fds.go and nothing else, and what comes with a plan has its numbers.
//
//go:norace
//go:nosplit
func closeInherited() {
	if r := sys(unix.SYS_CLOSE_RANGE, fdFiles, 1<<32-1, 0, 0, 0, 0); failed(r) {
		exit(exitTele)
	}
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

// receive takes a message from the server, if there is one. The descriptors that come with it go to
// fdFiles and the numbers after it.
//
//go:norace
//go:nosplit
func (m *machine) receive() bool {
	m.iov = [2]uintptr{uintptr(unsafe.Pointer(&m.msg)), messageSize}
	m.rights[0] = 0
	m.header = [7]uintptr{0, 0, uintptr(unsafe.Pointer(&m.iov)), 1, uintptr(unsafe.Pointer(&m.rights)), rightsSize, 0}
	n := sys(unix.SYS_RECVMSG, fdControl, uintptr(unsafe.Pointer(&m.header)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC,
		0, 0, 0)
	if failed(n) {
		if errno(n) == int32(unix.EAGAIN) {
			return false
		}
		exit(exitTele)
	}
	m.takeFiles()
	if n != messageSize || m.msg.version != messageVersion {
		m.refuse(int32(unix.EPROTO))
	}
	return true
}

// takeFiles moves the descriptors that came. The kernel gave them the lowest free numbers, in ascending
// order, none above where it goes: so the last one goes first.
//
//go:norace
//go:nosplit
func (m *machine) takeFiles() {
	if m.rights[0] > rightsSize {
		return
	}
	for offset := m.rights[0]; offset > rightsHeader; offset -= 4 {
		to := fdFiles + (offset-rightsHeader)/4 - 1
		if fd := uintptr(*(*uint32)(unsafe.Add(unsafe.Pointer(&m.rights), offset-4))); fd != to {
			sys(unix.SYS_DUP3, fd, to, unix.O_CLOEXEC, 0, 0, 0)
			sys(unix.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
		}
	}
}

// accept makes room for the part of the plan that the server announced. That of a command beside the main
// one comes whole, as a file: a server that is killed must not leave the beginning of one.
//
//go:norace
//go:nosplit
func (m *machine) accept() {
	m.beside, m.token = m.state == stateSupervising, m.msg.userUsec
	m.noted, m.broken, m.next = false, 0, 0
	m.size = m.msg.value
	if m.msg.kind != msgPlan || m.size < uint32(headerSize) || m.size > maxPlan {
		m.refuse(int32(unix.EPROTO))
		return
	}
	// What would run now would outlive the command, but for what waits for its end.
	if m.ended && !(m.told && m.msg.detail == planAfter) {
		m.refuse(int32(unix.ESRCH))
		return
	}
	flags, fd := uintptr(unix.MAP_PRIVATE|unix.MAP_ANONYMOUS), ^uintptr(0)
	if m.beside {
		flags, fd = unix.MAP_PRIVATE, fdFiles
	}
	m.plan = sys(unix.SYS_MMAP, 0, uintptr(m.size), unix.PROT_READ|unix.PROT_WRITE, flags, fd, 0)
	switch {
	case failed(m.plan):
		e := errno(m.plan)
		m.plan = 0
		m.refuse(e)
	case m.beside:
		m.begun()
	default:
		m.have, m.state = 0, stateReceiving
	}
}

// begun begins to carry out a plan that is there whole.
//
//go:norace
//go:nosplit
func (m *machine) begun() {
	m.state = stateRunning
	if m.check() {
		m.relocate()
	}
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
		m.begun()
	}
	return true
}

// check refuses a plan that is not one, and any plan in the server's own mount namespace: a mount
// made there would be the whole machine's.
//
//go:norace
//go:nosplit
func (m *machine) check() bool {
	h := (*header)(at(m.plan))
	steps := uint64(h.steps) + uint64(h.nsteps)*uint64(stepSize)
	relocs := uint64(h.relocs) + uint64(h.nrelocs)*uint64(relocSize)
	if h.magic != planMagic || h.version != planVersion || h.size != m.size ||
		steps > uint64(m.size) || relocs > uint64(m.size) || h.steps%8 != 0 || h.relocs%4 != 0 {
		m.refuse(int32(unix.EPROTO))
		return false
	}
	if h.before > 0 || m.beside {
		return true // the namespace is still the one that the first part was carried out in
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
	return true
}

//go:norace
//go:nosplit
func (m *machine) relocate() {
	h := (*header)(at(m.plan))
	for i := uint32(0); i < h.nrelocs; i++ {
		r := (*reloc)(at(m.plan + uintptr(h.relocs) + uintptr(i)*uintptr(relocSize)))
		if r.where+8 > m.size || r.target >= m.size {
			m.refuse(int32(unix.EPROTO))
			return
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
		return
	}
	s := (*step)(at(m.plan + uintptr(h.steps) + uintptr(m.next)*uintptr(stepSize)))
	switch s.nr {
	case opFork:
		m.fork(s)
	case opFail:
		e := int32(s.args[0])
		if m.noted {
			e = int32(unix.EACCES)
		}
		m.fail(e)
	case opReport:
		m.report()
		m.next++
	case opPark:
		m.say(msgParked, 0, 0)
		m.forget(stateIdle)
	case opSupervise:
		m.supervised()
	default:
		m.call(s)
	}
}

// report says what became of the command.
//
//go:norace
//go:nosplit
func (m *machine) report() {
	switch {
	case !m.beside:
		m.say(msgRunning, uint32(m.main), 0)
	case m.broken != 0:
		m.sayBeside(msgBesideFailed, uint32(m.other), int32(m.broken))
	default:
		m.sayBeside(msgBesideRunning, uint32(m.other), 0)
	}
}

// supervised ends a plan, and what one beside the main one has opened.
//
//go:norace
//go:nosplit
func (m *machine) supervised() {
	m.forget(stateSupervising)
	if m.beside {
		m.beside = false
		sys(unix.SYS_CLOSE_RANGE, fdFiles, fdBesideMaster-1, 0, 0, 0, 0)
	}
}

// forget ends the part of the plan that is done.
//
//go:norace
//go:nosplit
func (m *machine) forget(next uint32) {
	if m.plan != 0 {
		sys(unix.SYS_MUNMAP, m.plan, uintptr(m.size), 0, 0, 0, 0)
	}
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
// "running" is true when it is said. Beside the main command there are others of the job's, which can stop
// a child of their user's before it has executed anything: init does not wait for that one.
//
//go:norace
//go:nosplit
func (m *machine) fork(s *step) {
	at := m.next
	m.next = uint32(s.args[0])
	if m.beside && m.place(0) == nil {
		m.broken, m.other = uint32(unix.EUSERS), uintptr(at)
		return
	}
	flags := uintptr(unix.SIGCHLD) | uintptr(s.args[1])
	if !m.beside {
		flags |= unix.CLONE_VFORK
	}
	pid := sys(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	switch {
	case pid == 0:
		m.child = true
		m.next = at + 1
	case !m.beside && failed(pid):
		m.next = at
		m.fail(errno(pid))
	case !m.beside:
		m.main = pid
	case failed(pid):
		m.broken, m.other = uint32(errno(pid)), uintptr(at)
	default:
		m.other = pid
		*m.place(0) = pid
	}
}

// place is where others has that pid, or nil.
//
//go:norace
//go:nosplit
func (m *machine) place(pid uintptr) *uintptr {
	for i := uintptr(0); i < maxBeside; i++ {
		if p := (*uintptr)(unsafe.Add(unsafe.Pointer(&m.others), i*unsafe.Sizeof(pid))); *p == pid {
			return p
		}
	}
	return nil
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
	case msgPlan:
		m.accept()
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
	case m.msg.detail < 0:
		m.signalBeside(uintptr(-m.msg.detail))
		return
	case m.ended:
		return
	case m.msg.detail == targetGroup:
		whom = -m.main
	}
	sys(unix.SYS_KILL, whom, uintptr(m.msg.value), 0, 0, 0, 0)
}

// signalBeside sends the signal to the process group of a command that runs beside the main one, or to its
// process alone where that has not got so far as to have a group.
//
//go:norace
//go:nosplit
func (m *machine) signalBeside(pid uintptr) {
	if m.place(pid) == nil {
		return
	}
	r := sys(unix.SYS_KILL, -pid, uintptr(m.msg.value), 0, 0, 0, 0)
	if failed(r) && errno(r) == int32(unix.ESRCH) {
		sys(unix.SYS_KILL, pid, uintptr(m.msg.value), 0, 0, 0, 0)
	}
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
		default:
			m.reaped(r)
		}
	}
}

// reaped tells the server of a command that ran beside the main one.
//
//go:norace
//go:nosplit
func (m *machine) reaped(pid uintptr) {
	if p := m.place(pid); p != nil {
		*p = 0
		m.say(msgBesideExit, m.wait, int32(pid))
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

// sayBeside says what became of a plan beside the main one.
//
//go:norace
//go:nosplit
func (m *machine) sayBeside(kind, value uint32, detail int32) {
	m.msg.userUsec = m.token
	m.say(kind, value, detail)
}

// fail names the step that failed, and ends this process: init, and with it the sandbox, or the
// command's process before there was a command. A plan beside the main one is given up instead.
//
//go:norace
//go:nosplit
func (m *machine) fail(e int32) {
	if m.beside {
		if !m.child {
			m.sayBeside(msgBesideFailed, m.next, e)
			m.supervised()
			return
		}
		m.msg.kind, m.msg.version, m.msg.value, m.msg.detail = msgBesideFailed, messageVersion, m.next, e
		sys(unix.SYS_WRITE, fdStatus, uintptr(unsafe.Pointer(&m.msg)), messageSize, 0, 0, 0)
	} else {
		m.say(msgFailed, (*header)(at(m.plan)).before+m.next, e)
	}
	exit(exitTele)
}

//go:norace
//go:nosplit
func (m *machine) refuse(e int32) {
	if m.beside {
		m.sayBeside(msgBesideFailed, stepRefused, e)
		m.supervised()
		return
	}
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
