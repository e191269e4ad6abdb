package cli

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Exec is `tele exec`.
type Exec struct {
	Connection
	Session
	Env      map[string]string `help:"Set an environment variable, on top of the job's; may be repeated." placeholder:"K=V" mapsep:"none"`
	Cwd      string            `help:"Directory to start in, as the job sees it (default: the job's own)." placeholder:"DIR"`
	Stdin    bool              `name:"interactive" short:"i" help:"Let the command read what tele reads; else its input is empty."`
	Terminal bool              `name:"tty" short:"t" help:"Give the command a terminal; with -i, tele's own is it."`
	ID       string            `arg:"" help:"The job: its id, a unique beginning of that, or its name."`
	Command  []string          `arg:"" passthrough:"partial" help:"The command and its arguments, after --."`
}

// Run runs the command in the job.
func (e *Exec) Run(ctx context.Context, streams Streams) error {
	command := e.Command
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	start := &telev1.ExecStart{JobId: e.ID, Command: command, Env: e.Env, Cwd: e.Cwd}
	if e.Terminal {
		streams.Err = &messages{to: streams.Err}
		start.Terminal, start.Env = terminalSize(os.Stdout, os.Stdin), terminalEnv(e.Env)
	}
	c, err := e.dial(ctx, streams)
	if err != nil {
		return err
	}
	s, err := e.open(ctx, c, streams)
	if err != nil {
		return err
	}
	defer s.close()
	exit, err := s.execute(start, e.Stdin)
	if errors.Is(context.Cause(s.ctx), errDetached) {
		return errors.New("left the command, which is ended; the job goes on")
	}
	if err != nil {
		return err
	}
	if exit.ExitCode != 0 {
		return exitError(exit.ExitCode)
	}
	return nil
}

// execute runs a command in a job, and passes input, output and signals.
func (s *session) execute(start *telev1.ExecStart, stdin bool) (*telev1.ExecExit, error) {
	later := &laterReader{ready: make(chan struct{})}
	o := client.ExecOptions{Stdout: &pipe{session: s, to: s.streams.Out}, Stderr: &pipe{session: s, to: s.streams.Err}}
	if stdin && s.streams.In != nil {
		o.Stdin = later
	}
	run, err := s.client.Exec(s.ctx, start, o)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.id, s.exec = start.JobId, run
	s.mu.Unlock()
	later.Reader = s.streams.In
	if start.Terminal != nil {
		defer s.followSize()()
	}
	if start.Terminal != nil && o.Stdin != nil {
		in, restore := s.takeTerminal()
		defer restore()
		later.Reader = in
	}
	close(later.ready)
	return run.Wait()
}

// A laterReader is read once the command runs: until then the terminal is as it was.
type laterReader struct {
	io.Reader
	ready chan struct{}
}

func (r *laterReader) Read(p []byte) (int, error) {
	<-r.ready
	return r.Reader.Read(p)
}
