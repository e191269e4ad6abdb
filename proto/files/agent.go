package files

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// This is the agent: this program once more, as a command in a job's sandbox beside the job's own, before it
// (start.go) or after it (collect.go). It is the job's user, behind the same walls and within the same limits, and
// so can read and write what the job can, and nothing else; a server would read and write what root can. The stream
// is its standard input or output. What it says on standard error is for whoever wanted the copy: warnings, or when
// it exits with 1, why.

// AgentName is argv[0] of an agent.
const AgentName = "tele-files"

// AgentEnv is all of an agent's environment: the job's limits are small, and a job has no say in it, also where
// StartEnv hands the command's through.
var AgentEnv = []string{"GOMAXPROCS=1", "GOMEMLIMIT=12MiB", "GOTRACEBACK=none"}

// PackCommand is the command of an agent that packs.
func PackCommand(source string) []string { return []string{AgentName, "pack", source} }

// UnpackCommand is that of one that unpacks.
func UnpackCommand(to Place) []string { return []string{AgentName, "unpack", to.Path, to.Name} }

// CollectCommand is that of one that collects; a Collection hears what it says.
func CollectCommand(patterns []string) []string {
	return append([]string{AgentName, "collect"}, patterns...)
}

// Agent is that role; it returns the exit code.
func Agent(args []string) int {
	// Others of the job are the same user. They gain nothing by it, but what it says could be theirs. Where the
	// server is root it is so from its first moment, for this user cannot read the program.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // it fails for other values alone
	warn := func(text string) { fmt.Fprintln(os.Stderr, text) }
	if os.Getppid() != 1 {
		warn(AgentName + " is the inner part of tele cp and tele run --upload, and is started by a server alone")
		return 1
	}
	if len(args) > 0 && args[0] == "start" {
		return start(args[1:])
	}
	// A caller that is gone closes the stream, and what is half-written goes then.
	signal.Ignore(unix.SIGHUP)
	var err error
	switch {
	case len(args) == 2 && args[0] == "pack":
		err = Pack(os.Stdout, args[1], warn)
	case len(args) > 1 && args[0] == "collect":
		collect(os.Stdout, args[1:], warn)
	case len(args) == 3 && args[0] == "unpack":
		err = Unpack(os.Stdin, Place{Path: args[1], Name: args[2]}, warn)
	default:
		err = fmt.Errorf("%s: %q is nothing that it does", AgentName, args)
	}
	if err != nil {
		warn(err.Error())
		return 1
	}
	return 0
}
