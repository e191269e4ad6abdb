// Package cli is tele's client commands, one file a group. Each is a kong command with a Run
// method; what they print goes to Streams, and how they exit is decided in exit.go.
package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/telerun/tele/client"
)

// Streams are where a command writes, and what it reads.
type Streams struct {
	Out, Err io.Writer
	In       io.Reader
}

// Connection are the flags that say which server, and as whom.
type Connection struct {
	Addr     string `help:"The server: HOST:PORT or unix:/path (default: this machine's, by its socket tele.sock in the state directory; where there is none, 127.0.0.1:50051)." placeholder:"ADDR" env:"TELE_ADDR" group:"Connection"`
	StateDir string `help:"State directory of a server on this machine, for its socket and certificates." env:"TELE_STATE_DIR" type:"path" placeholder:"DIR" group:"Connection"`
	CA       string `name:"ca" help:"Certificate of the CA to trust." env:"TELE_CA" placeholder:"FILE" type:"path" group:"Connection"`
	Cert     string `help:"Certificate to show." env:"TELE_CERT" placeholder:"FILE" type:"path" group:"Connection"`
	Key      string `help:"Its key." env:"TELE_KEY" placeholder:"FILE" type:"path" group:"Connection"`
	Context  string `help:"Take from this context what of these is not given (tele context)." env:"TELE_CONTEXT" placeholder:"NAME" group:"Connection"`

	Reconnect time.Duration `help:"How long to try to reconnect when the server is lost on the way; 0 is never." default:"5m" env:"TELE_RECONNECT" group:"Connection"`

	contextErr error // for who wants to connect; not every command that may does
}

// AfterApply is called by kong with all flags set; messages name the address that is used.
func (c *Connection) AfterApply() error {
	c.contextErr = c.takeContext()
	c.Addr = c.options().Address()
	return nil
}

func (c *Connection) options() client.Options {
	return client.Options{Addr: c.Addr, CA: c.CA, Cert: c.Cert, Key: c.Key, StateDir: c.StateDir, Reconnect: c.Reconnect}
}

// dial connects until ctx ends. A command leaves the connection to the end of its process, which is
// next: to take leave of the server takes longer.
func (c *Connection) dial(ctx context.Context, streams Streams) (*client.Client, error) {
	if c.contextErr != nil {
		return nil, c.contextErr
	}
	o := c.options()
	o.Notice = func(text string) { fmt.Fprintln(streams.Err, "tele:", text) }
	server, err := client.Dial(o)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = server.Close() }) // nobody uses it any more
	return server, nil
}

// each calls f for every id, and returns the first error when it has been through all.
func each(ctx context.Context, ids []string, f func(context.Context, string) error) error {
	var first error
	for _, id := range ids {
		if err := f(ctx, id); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Commands are the client's commands.
type Commands struct {
	Run      Run      `cmd:"" help:"Run a command: stream its output, and exit with its exit code."`
	Start    Start    `cmd:"" help:"Start a command and print the job's id (run -d)."`
	Status   Status   `cmd:"" help:"Show jobs."`
	Ps       Ps       `cmd:"" help:"List jobs: those that filters let through, sorted, and in a form for scripts."`
	Top      Top      `cmd:"" help:"Show what running jobs use now: live on a terminal, once elsewhere."`
	Why      Why      `cmd:"" help:"Say why a job ended as it did, what points to it, and what to do."`
	Events   Events   `cmd:"" help:"Show what happened to jobs, or happens: a line each time one starts, ends, or changes."`
	Logs     Logs     `cmd:"" help:"Show a job's output from the first byte, until it ends."`
	Attach   Attach   `cmd:"" help:"Be in front of a running job again: its output from now on, its input, and signals."`
	Exec     Exec     `cmd:"" help:"Run a further command in a running job's sandbox."`
	Cp       Cp       `cmd:"" help:"Copy files into a running job, or out of it."`
	Download Download `cmd:"" help:"Get the files that a job was asked to leave (run --download), once it has ended."`
	Kill     Kill     `cmd:"" help:"Send jobs a signal, and no more."`
	Pause    Pause    `cmd:"" help:"Freeze jobs: their processes stop where they are."`
	Resume   Resume   `cmd:"" help:"Let paused jobs go on."`
	Set      Set      `cmd:"" help:"Change limits and the timeout of a running job."`
	Stop     Stop     `cmd:"" help:"Stop jobs: a signal, and after a grace time a kill."`
	Wait     Wait     `cmd:"" help:"Wait for jobs to end, and exit with the exit code of the last."`
	Diff     Diff     `cmd:"" help:"List what a job with --root overlay has changed in its root: A added, C changed, D deleted."`
	Rm       Rm       `cmd:"" help:"Remove ended jobs and their output."`
	Prune    Prune    `cmd:"" help:"Remove all ended jobs, or those that ended some time ago."`

	Context Contexts `cmd:"" help:"Give servers names, and choose one."`
}
