package initproc

// A message is what server and init say to each other, one packet each; a type and version first,
// so that a server of another version can tell what it cannot read. After a PLAN message its bytes
// follow in packets of at most maxPiece.
type message struct {
	kind    uint32
	version uint32
	// value is for PLAN the size of a part, for FAILED the index of the step or stepRefused, for RUNNING the
	// command's pid in the sandbox, for SIGNAL the signal, for EXIT the wait status, for CLOSE a descriptor. Of
	// what runs beside the command it is for BESIDERUNNING the pid, for BESIDEFAILED as for FAILED, for
	// BESIDEEXIT the wait status.
	value uint32
	// detail is for PLAN planAfter or 0, for FAILED the errno, for SIGNAL whom it is for (targetMain, targetAll,
	// targetGroup, or a command beside the main one: its pid, negative, as kill(2) takes a process group), for
	// BESIDEEXIT the pid.
	detail int32
	// For PLAN, BESIDERUNNING and BESIDEFAILED, which command beside the main one it is about, in userUsec.
	// For EXIT, what all processes of the sandbox used together, as getrusage(2) tells it.
	userUsec, systemUsec uint64
	maxRSS               uint64 // KiB, of the largest process
}

const (
	msgPlan = iota + 1
	msgFailed
	msgRunning
	msgSignal
	msgExit
	msgParked
	msgClose
	msgBesideRunning
	msgBesideFailed
	msgBesideExit
)

const (
	messageVersion = 1
	messageSize    = 40
	maxPiece       = 32 << 10

	// stepRefused stands for the checks before the first step.
	stepRefused = 1<<32 - 1

	planAfter = 1 // it is for when the command has ended, and the server knows

	targetMain  = 0 // the command
	targetAll   = 1 // every process of the sandbox but init
	targetGroup = 2 // the command's process group
)
