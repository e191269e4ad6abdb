package files

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This is the agent of a job that files come with: the first process of the job's main command, and as its user,
// where that begins. It takes the files from standard input and then executes the
// command in its place, which finds all as if there had been no agent: the Go runtime's handlers of signals go
// with execve(2), as do its descriptors, all close-on-exec, and that it cannot be looked into; syscall.Exec
// gives the limit of open files back. What is read of standard input are the files alone, for what comes behind
// them is the command's.

// StartCommand is the command of that agent: files to these places, and then command, with stdin with what
// comes behind them as its standard input.
func StartCommand(stdin bool, to []Place, command []string) []string {
	behind := "null"
	if stdin {
		behind = "stdin"
	}
	args := []string{AgentName, "start", behind, strconv.Itoa(len(to))}
	for _, p := range to {
		args = append(args, p.Path, p.Name)
	}
	return append(args, command...)
}

// StartEnv is the environment of that agent of a command with this one, in which the Go runtime finds nothing that
// it knows. Among the arguments all users of the machine would see it.
func StartEnv(env []string) []string {
	all := slices.Clone(AgentEnv)
	for _, variable := range env {
		all = append(all, ofCommand+variable)
	}
	return all
}

// ofCommand is before the command's variables.
const ofCommand = "."

// commandEnv is what StartEnv was given.
func commandEnv() (env []string) {
	for _, variable := range os.Environ() {
		if own, found := strings.CutPrefix(variable, ofCommand); found {
			env = append(env, own)
		}
	}
	return env
}

// How an agent ends that does not become the command.
const (
	exitAgent         = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

// start is that agent, with what follows "start"; it returns the exit code.
func start(args []string) int {
	signalsByDefault()
	say := func(kind string, err any) { fmt.Fprintf(os.Stderr, "tele: %s: %v\n", kind, err) }
	stdin, places, command, err := parseStart(args)
	if err == nil {
		err = receive(places, func(text string) { say("warning", text) })
	}
	if err == nil && !stdin {
		err = readNothing()
	}
	if err != nil {
		say("upload", err)
		return exitAgent
	}
	errno := execute(command, commandEnv())
	say(show(command[0]), errno)
	if errno == unix.ENOENT || errno == unix.ENOTDIR {
		return exitNotFound
	}
	return exitNotExecutable
}

// signalsByDefault makes the kernel do with signals what it does with them by default, which os/signal cannot: they
// end whoever waits for files, as they end a command. The Go runtime prints stacks for one and takes no notice of
// others. It keeps those that come of what it does itself, and those that end it all the same.
func signalsByDefault() {
	var action [4]uint64 // a struct sigaction with SIG_DFL
	for s := unix.SIGHUP; s <= lastSignal; s++ {
		switch s {
		case unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGPIPE, unix.SIGURG, unix.SIGPROF:
		default:
			// It fails for SIGKILL and SIGSTOP.
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
		}
	}
}

// lastSignal is SIGRTMAX.
const lastSignal = syscall.Signal(64)

// parseStart reads what StartCommand made.
func parseStart(args []string) (stdin bool, places []Place, command []string, err error) {
	if len(args) >= 2 && (args[0] == "stdin" || args[0] == "null") {
		n, err := strconv.ParseUint(args[1], 10, 16)
		if rest := args[2:]; err == nil && len(rest) > 2*int(n) {
			for range n {
				places, rest = append(places, Place{Path: rest[0], Name: rest[1]}), rest[2:]
			}
			return args[0] == "stdin", places, rest, nil
		}
	}
	return false, nil, nil, fmt.Errorf("%q is nothing that it can begin with", args)
}

// receive takes the files.
func receive(places []Place, warn func(string)) error {
	for _, place := range places {
		err := Unpack(Join(os.Stdin), place, warn)
		if errors.Is(err, ErrGivenUp) {
			return ErrGivenUp
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readNothing makes standard input /dev/null, and so tells whoever writes that nobody reads.
func readNothing() error {
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	return os.NewSyscallError("dup3", unix.Dup3(fd, 0, 0))
}

// execute executes a program as execvp(3) does, but for a script of which only its name says that it is one. It
// returns why it does not.
func execute(command, env []string) syscall.Errno {
	program := command[0]
	if strings.Contains(program, "/") {
		return execve(program, command, env)
	}
	why := unix.ENOENT
	for dir := range strings.SplitSeq(os.Getenv(ofCommand+"PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		switch errno := execve(dir+"/"+program, command, env); errno {
		case unix.ENOENT, unix.ENOTDIR:
		case unix.EACCES:
			why = errno
		default:
			return errno
		}
	}
	return why
}

func execve(path string, command, env []string) syscall.Errno {
	var errno syscall.Errno
	if !errors.As(syscall.Exec(path, command, env), &errno) {
		return unix.EINVAL // a NUL: no argument can have one
	}
	return errno
}
