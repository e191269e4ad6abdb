// Command tele runs commands on Linux machines for people who are somewhere else. This one binary
// is the server, the client, and the init of each sandbox; which one is said by the name that it is
// called by (see README.md).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/telerun/tele/client/cli"
	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/proto/files"
	"github.com/telerun/tele/server"
	"github.com/telerun/tele/server/access"
	"github.com/telerun/tele/server/doctor"
)

// version is set by the linker.
var version = "unknown"

const description = "Run commands on Linux machines, each in a sandbox of its own."

// A commandLine is `tele`.
type commandLine struct {
	Serve server.Command `cmd:"" help:"Be the server."`
	cli.Commands
	Doctor doctorCmd    `cmd:"" help:"Look at this machine, and prove each wall and limit of the sandbox on it."`
	Certs  access.Certs `cmd:"" help:"Issue and show certificates."`
	Links  cli.Links    `cmd:"" help:"Make the links by which tele is also called."`

	// Help needs all commands, and so its field has not the command's name (grammarFor).
	HelpOn     cli.Help       `cmd:"" name:"help" help:"Explain a command, or one of the topics exit-codes, limits and sandbox."`
	Completion cli.Completion `cmd:"" help:"Print the script that completes command lines in a shell."`
	Version    versionCmd     `cmd:"" help:"Print the version."`
}

// A doctorCmd is `tele doctor`: it looks at this machine without a server, or asks one.
type doctorCmd struct {
	doctor.Command
	cli.Timings
}

// Run prints what there is to say.
func (d *doctorCmd) Run(ctx context.Context, streams cli.Streams) error {
	if d.Timing {
		return d.ShowTimings(ctx, streams)
	}
	return d.Examine(streams.Out, d.Output, d.StateDir)
}

type versionCmd struct{}

func (versionCmd) Run(streams cli.Streams) error {
	entry := "package hook" // each start and each job costs more
	if initproc.EarlyEntry() {
		entry = "early entry"
	}
	_, err := fmt.Fprintf(streams.Out, "tele %s %s %s/%s\ninit: %s\n", version, runtime.Version(), runtime.GOOS,
		runtime.GOARCH, entry)
	return err
}

func main() { os.Exit(run(os.Args)) }

// run is the program in the role that args[0] names.
func run(args []string) int {
	completing := len(args) > 2 && args[1] == cli.CompleteWord
	if completing {
		args = args[2:] // the command line that somebody types
	}
	name := filepath.Base(args[0])
	args = args[1:]
	var grammar any
	var vars kong.Vars
	switch command, isLink := strings.CutPrefix(name, "tele-"); {
	case name == doctor.ProbeName:
		return doctor.Probe(args)
	case name == files.AgentName:
		return files.Agent(args)
	case name == "telerun":
		grammar = &cli.Telerun{}
	case name == "teleworker":
		grammar, vars = &server.Command{}, variables()
	default:
		if isLink {
			args = append([]string{command}, args...)
		}
		name = "tele"
		grammar, vars = grammarFor(args)
		if completing && len(args) == 1 {
			grammar, vars = &commandLine{}, variables() // the command's name is not finished
		}
	}
	unsetEmpty()
	streams := cli.Streams{Out: os.Stdout, Err: os.Stderr, In: os.Stdin}
	parser, err := kong.New(grammar, kong.Name(name), kong.UsageOnError(),
		kong.Description(description),
		kong.Configuration(server.LoadConfig), vars,
		kong.Bind(streams), kong.BindTo(context.Background(), (*context.Context)(nil)),
		kong.BindTo(os.Stdout, (*io.Writer)(nil)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "tele:", err)
		return 125
	}
	if completing {
		cli.Complete(context.Background(), parser.Model.Node, args, streams.Out)
		return 0
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v (see %s --help)\n", name, err, helpOf(name, err))
		return 125
	}
	err = parsed.Run(grammar)
	if errors.Is(err, doctor.ErrFailed) {
		return 1
	}
	code, message := cli.Exit(err, address(parsed))
	if message != "" {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, message)
	}
	return code
}

// unsetEmpty makes a variable that is empty one that is not set: kong would take it for a path or a number.
func unsetEmpty() {
	for _, setting := range os.Environ() {
		if name, value, _ := strings.Cut(setting, "="); value == "" && strings.HasPrefix(name, "TELE_") {
			_ = os.Unsetenv(name) // fails for no name that there is
		}
	}
}

// grammarFor is the part of commandLine that args need: the command that they begin with, or all; and the
// variables that are in it. Kong builds its model by reflection, and that of all commands takes as long as
// running a small job.
func grammarFor(args []string) (any, kong.Vars) {
	if len(args) > 0 {
		for _, field := range reflect.VisibleFields(reflect.TypeFor[commandLine]()) {
			if field.Anonymous || strings.ToLower(field.Name) != args[0] {
				continue
			}
			grammar := reflect.New(reflect.StructOf([]reflect.StructField{field})).Interface()
			if _, isClient := reflect.TypeFor[cli.Commands]().FieldByName(field.Name); isClient {
				return grammar, nil
			}
			return grammar, variables()
		}
	}
	return &commandLine{}, variables()
}

// variables are what the texts of the server's commands name. Kong looks for each of them in each text,
// again for each flag, which takes 0.3 ms; the client's commands have none.
func variables() kong.Vars {
	return kong.Vars{"state_dir": access.DefaultStateDir(), "hide": server.DefaultHide,
		"uid_range": server.DefaultUIDRange}
}

// helpOf is the command whose help has what the error was about.
func helpOf(name string, err error) string {
	var parsing *kong.ParseError
	if errors.As(err, &parsing) {
		for _, path := range parsing.Context.Path {
			if path.Command != nil {
				name += " " + path.Command.Name
			}
		}
	}
	return name
}

// address is the server that a command was for, for its error message.
func address(parsed *kong.Context) string {
	for _, flag := range parsed.Flags() {
		if flag.Name == "addr" {
			return fmt.Sprint(parsed.FlagValue(flag))
		}
	}
	return ""
}
