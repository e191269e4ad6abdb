package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// A Cmd is a command that is going to run as a job, runs, or has run. It is what os/exec's Cmd is, for
// another machine, and what has the same name does the same; it does it by Client's methods, which are
// there for all else, by Job.Id. A Cmd runs once. Signal and Kill are for any goroutine, the rest for one.
type Cmd struct {
	// Args are the program and its arguments. A program without a slash is looked for in PATH, by the server.
	Args []string
	// Env is added to the environment that every job has, each as NAME=VALUE; the last of several values for
	// a name counts. Nothing of this process's environment is passed on.
	Env []string
	// Dir is the directory that the command starts in, as the job sees it; empty is the job's own.
	Dir string
	// Stdin is what the command reads; nil is nothing. When the job has ended, a Read that waits is waited for
	// no longer: it goes on, once, in a goroutine of its own.
	Stdin io.Reader
	// Stdout and Stderr are where output goes; nil is nowhere. When neither is a pipe they are written by one
	// goroutine, in the order in which the output reached the server. A command that writes on after a Write
	// has failed gets SIGPIPE.
	Stdout, Stderr io.Writer
	// Secrets are files that the command, and nobody else, can read in the directory that TELE_SECRETS names,
	// by their names (telev1.Secret). They are in no record of the server's, nor in any list or log.
	Secrets map[string][]byte
	// Spec is what else the job is to have, like limits, a timeout or a terminal; nil is no wish. The fields
	// above go before what it says.
	Spec *telev1.JobSpec
	// Cancel is called when the context of CommandContext is done before the job has ended. CommandContext
	// sets it to Kill. It may be changed before Start.
	Cancel func() error
	// Job is the job as it was when Start had started it, then as Wait saw its end.
	Job *telev1.Job

	client          *Client
	ctx             context.Context // what os/exec's Cmd keeps it for, too
	started, waited bool
	pipes           []*outputPipe
	stdin           *io.PipeReader // of StdinPipe

	id       string
	calls    context.Context // of the calls of a started command, which goes on when ctx is done
	end      context.CancelFunc
	undo     func() bool // of what waits for ctx
	canceled chan error
	copies   sync.WaitGroup

	mu     sync.Mutex
	failed error // the first that went wrong with input or output
}

// Command returns a Cmd that runs the program with the arguments.
func (c *Client) Command(name string, args ...string) *Cmd {
	return &Cmd{Args: append([]string{name}, args...), client: c, ctx: context.Background()}
}

// CommandContext is Command, and ends the job when ctx is done before the job has ended: see Cmd.Cancel.
func (c *Client) CommandContext(ctx context.Context, name string, args ...string) *Cmd {
	cmd := c.Command(name, args...)
	cmd.ctx, cmd.Cancel = ctx, cmd.Kill
	return cmd
}

// An ExitError says that a job ended in another way than by exiting with 0.
type ExitError struct {
	Job *telev1.Job // as it ended; Reason and Message say how
	// Stderr is what the command wrote to its standard error, its beginning and end when that was much. Only
	// Output sets it, when it had no other place to go.
	Stderr []byte
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("job %s: %s", e.Job.GetId(), e.Job.GetMessage())
}

// ExitCode is the command's own exit code, or 128+n when signal n ended it. It is -1 when that does not say
// that the job failed: nobody saw its end, or it exited with 0 at its timeout or output limit.
func (e *ExitError) ExitCode() int {
	if e.Job.GetExitCode() == 0 {
		return -1
	}
	return int(e.Job.GetExitCode())
}

// String is the command as a person would write it, without quotes.
func (c *Cmd) String() string { return strings.Join(c.Args, " ") }

// Run starts the command and waits for its end. The error is Start's or Wait's.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Start starts the command and returns when it runs. A command that cannot be run is an error here, as
// Client.Start documents it. After a Start without error, Wait must be called.
//
// When the context ends before the server has answered, the job may have been started or not.
func (c *Cmd) Start() error {
	if c.started {
		return errors.New("start command: it was started before; a Cmd runs once")
	}
	c.started = true
	job, err := c.start()
	if err != nil {
		c.closePipes()
		c.closeStdin()
		return err
	}
	c.Job, c.id = job, job.Id
	c.calls, c.end = context.WithCancel(context.WithoutCancel(c.ctx))
	c.copy()
	c.canceled = make(chan error, 1)
	c.undo = context.AfterFunc(c.ctx, func() { c.canceled <- c.cancel() })
	return nil
}

func (c *Cmd) start() (*telev1.Job, error) {
	spec, err := c.spec()
	if err != nil {
		return nil, err
	}
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	var secrets []*telev1.Secret
	for name, data := range c.Secrets {
		secrets = append(secrets, &telev1.Secret{Name: name, Data: data})
	}
	job, err := c.client.Start(c.ctx, spec, secrets...)
	if err != nil && c.ctx.Err() != nil {
		err = fmt.Errorf("%w before the server said that the job runs; it may have been started, see: tele status",
			c.ctx.Err())
	}
	return job, err
}

func (c *Cmd) spec() (*telev1.JobSpec, error) {
	spec := &telev1.JobSpec{}
	if c.Spec != nil {
		spec = proto.CloneOf(c.Spec)
	}
	spec.Command = c.Args
	if c.Dir != "" {
		spec.Cwd = c.Dir
	}
	if c.Stdin != nil {
		spec.Stdin = true
	}
	for _, variable := range c.Env {
		name, value, ok := strings.Cut(variable, "=")
		if !ok {
			return nil, fmt.Errorf("start command: environment %q is not NAME=VALUE", variable)
		}
		if spec.Env == nil {
			spec.Env = map[string]string{}
		}
		spec.Env[name] = value
	}
	return spec, nil
}

// copy begins to copy input and output.
func (c *Cmd) copy() {
	if c.Stdin != nil {
		c.copies.Go(c.feed)
	}
	// A pipe that nobody reads must not hold up what goes elsewhere: the two have a call each then.
	stdout, _ := c.Stdout.(*outputPipe)
	stderr, _ := c.Stderr.(*outputPipe)
	if c.Stdout != nil && c.Stderr != nil && stdout == stderr {
		c.copies.Go(func() { c.drain(telev1.OutputStream_OUTPUT_STREAM_UNSPECIFIED, c.Stdout, c.Stderr, stdout) })
		return
	}
	if c.Stdout != nil {
		c.copies.Go(func() { c.drain(telev1.OutputStream_OUTPUT_STREAM_STDOUT, c.Stdout, nil, stdout) })
	}
	if c.Stderr != nil {
		c.copies.Go(func() { c.drain(telev1.OutputStream_OUTPUT_STREAM_STDERR, nil, c.Stderr, stderr) })
	}
}

func (c *Cmd) feed() {
	err := c.client.Input(c.calls, c.id, c.Stdin)
	if err != nil && !errors.Is(err, ErrInputClosed) && c.calls.Err() == nil {
		c.fail(err)
	}
	c.closeStdin()
}

// drain copies one stream, or both, to its end. The pipe is nil where there is none.
func (c *Cmd) drain(stream telev1.OutputStream, stdout, stderr io.Writer, pipe *outputPipe) {
	ctx, cancel := context.WithCancel(c.calls)
	defer cancel()
	if pipe != nil {
		defer context.AfterFunc(pipe.left, cancel)()
	}
	_, err := c.client.Output(ctx, c.id, OutputOptions{Stream: stream, Follow: true},
		&sink{cmd: c, to: stdout}, &sink{cmd: c, to: stderr})
	if ctx.Err() != nil {
		err = nil // Wait has said that no more is wanted, or has an error of its own
	}
	if err != nil {
		c.fail(err)
	}
	if pipe != nil {
		_ = pipe.CloseWithError(err) // never fails; nil is the end
	}
}

func (c *Cmd) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		c.failed = err
	}
}

// A sink writes output, to nowhere when that has failed: the other stream goes on.
type sink struct {
	cmd    *Cmd
	to     io.Writer
	broken bool
}

func (s *sink) Write(data []byte) (int, error) {
	if s.broken {
		return len(data), nil
	}
	if _, err := s.to.Write(data); err != nil {
		s.broken = true
		if !errors.Is(err, io.ErrClosedPipe) { // a pipe is closed by who reads it, or by Wait
			s.cmd.fail(&WriteError{err})
		}
		_ = s.cmd.Signal(syscall.SIGPIPE) // it may have ended
	}
	return len(data), nil
}

// cancel calls Cancel, and returns what Wait is to say of it.
func (c *Cmd) cancel() error {
	if c.Cancel == nil {
		return nil
	}
	switch err := c.Cancel(); {
	case err == nil:
		return c.ctx.Err()
	case errors.Is(err, os.ErrProcessDone):
		return nil
	default:
		return fmt.Errorf("cancel job %s: %w", c.id, err)
	}
}

// Wait waits until the job has ended and its input and output are copied. It closes the pipes of StdoutPipe
// and StderrPipe when the job has ended: it must not be called before all is read from them.
//
// The error is nil when the command exited with 0 and nothing went wrong with input and output, and an
// *ExitError when it ended in another way. Other errors are of the connection, of the context, or of Stdin,
// Stdout and Stderr; after them the job may go on.
func (c *Cmd) Wait() error {
	switch {
	case c.id == "":
		return errNotStarted
	case c.waited:
		return errors.New("wait for command: Wait was called before")
	}
	c.waited = true
	defer c.end()
	job, err := c.client.Wait(c.calls, c.id)
	if err != nil {
		c.end()
	}
	c.closePipes()
	c.copies.Wait()
	var canceled error
	if !c.undo() {
		canceled = <-c.canceled
	}
	switch {
	case err != nil:
		return err
	case job.Status != telev1.JobStatus_JOB_STATUS_SUCCESS:
		c.Job = job
		return &ExitError{Job: job}
	case canceled != nil:
		c.Job = job
		return canceled
	}
	c.Job = job
	return c.failed
}

var errNotStarted = errors.New("command: it was not started")

// Output runs the command and returns what it wrote to its standard output. The error is Run's; in an
// *ExitError is then what it wrote to its standard error, when Stderr was nil.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("output of command: Stdout is set already")
	}
	var stdout, stderr ends
	stdout.most = -1
	c.Stdout = &stdout
	capture := c.Stderr == nil
	if capture {
		stderr.most = 32 << 10
		c.Stderr = &stderr
	}
	err := c.Run()
	var exit *ExitError
	if capture && errors.As(err, &exit) {
		exit.Stderr = stderr.bytes()
	}
	return stdout.bytes(), err
}

// CombinedOutput runs the command and returns what it wrote to its standard output and standard error, in
// the order in which that reached the server.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	switch {
	case c.Stdout != nil:
		return nil, errors.New("output of command: Stdout is set already")
	case c.Stderr != nil:
		return nil, errors.New("output of command: Stderr is set already")
	}
	all := &ends{most: -1}
	c.Stdout, c.Stderr = all, all
	err := c.Run()
	return all.bytes(), err
}

// ends keeps the beginning and the end of what is written to it, each at most so long; all when most is -1.
type ends struct {
	most        int
	first, last []byte
	left        int64 // how much was left out between them
}

func (e *ends) Write(data []byte) (int, error) {
	rest := data
	if n := e.most - len(e.first); e.most >= 0 && n < len(data) {
		rest = data[:n]
	}
	e.first = append(e.first, rest...)
	e.last = append(e.last, data[len(rest):]...)
	if over := len(e.last) - e.most; e.most >= 0 && over > 0 {
		e.last, e.left = e.last[over:], e.left+int64(over)
	}
	return len(data), nil
}

func (e *ends) bytes() []byte {
	all := e.first
	if e.left > 0 {
		all = fmt.Appendf(all, "\n... %d bytes left out ...\n", e.left)
	}
	return append(all, e.last...)
}

// An outputPipe is what Stdout or Stderr is after StdoutPipe or StderrPipe.
type outputPipe struct {
	*io.PipeWriter
	reader *io.PipeReader
	left   context.Context // done when nobody is to read any more
	leave  context.CancelFunc
}

// StdoutPipe returns a pipe that is connected to the command's standard output when it starts. Wait closes
// it, so most callers need not. To close it before is as if a local command's reader had gone away: what
// still writes gets SIGPIPE. Each of the two pipes may be read to its end before the other.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) {
	return c.outputPipe("StdoutPipe", "Stdout", &c.Stdout)
}

// StderrPipe is StdoutPipe for the standard error.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) {
	return c.outputPipe("StderrPipe", "Stderr", &c.Stderr)
}

func (c *Cmd) outputPipe(method, field string, to *io.Writer) (io.ReadCloser, error) {
	if err := c.pipeable(method, field, *to != nil); err != nil {
		return nil, err
	}
	pipe := &outputPipe{}
	pipe.reader, pipe.PipeWriter = io.Pipe()
	pipe.left, pipe.leave = context.WithCancel(context.Background())
	c.pipes = append(c.pipes, pipe)
	*to = pipe
	return pipe.reader, nil
}

// StdinPipe returns a pipe that is connected to the command's standard input when it starts. Who has
// written all closes it, and the command reads the end; Wait closes it too. Once the command reads no more,
// writing returns ErrInputClosed.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if err := c.pipeable("StdinPipe", "Stdin", c.Stdin != nil); err != nil {
		return nil, err
	}
	reader, writer := io.Pipe()
	c.Stdin, c.stdin = reader, reader
	return writer, nil
}

func (c *Cmd) pipeable(method, field string, set bool) error {
	switch {
	case c.started:
		return fmt.Errorf("%s of command: it was started already", method)
	case set:
		return fmt.Errorf("%s of command: %s is set already", method, field)
	}
	return nil
}

// closePipes is for the end of the command, or one that did not start: nobody is to read any more.
func (c *Cmd) closePipes() {
	for _, pipe := range c.pipes {
		pipe.leave()
		_ = pipe.reader.Close() // never fails
	}
}

// closeStdin is for when the command reads no more.
func (c *Cmd) closeStdin() {
	if c.stdin != nil {
		_ = c.stdin.CloseWithError(ErrInputClosed) // never fails
	}
}

// Signal sends a signal to the command and what it started in its process group, as a terminal would.
// When the job has ended it returns os.ErrProcessDone; one between two tries (Restart) has nothing that it could
// be sent to, which is another error.
func (c *Cmd) Signal(sig os.Signal) error {
	number, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal command: %v is no signal of Linux", sig)
	}
	if c.id == "" {
		return errNotStarted
	}
	_, err := c.client.Signal(context.WithoutCancel(c.ctx), c.id, strconv.Itoa(int(number)),
		telev1.SignalTarget_SIGNAL_TARGET_GROUP)
	if status.Code(err) == codes.FailedPrecondition && !betweenTries(err) {
		return os.ErrProcessDone
	}
	return err
}

func betweenTries(err error) bool {
	return slices.ContainsFunc(status.Convert(err).Details(), func(detail any) bool {
		info, is := detail.(*errdetails.ErrorInfo)
		return is && info.Reason == "BETWEEN_TRIES"
	})
}

// Kill kills all processes of the job and returns when they are gone. When the job had ended by itself it
// returns os.ErrProcessDone. Who wants to give it time calls Client.Stop instead, also as Cancel.
func (c *Cmd) Kill() error {
	if c.id == "" {
		return errNotStarted
	}
	job, err := c.client.Stop(context.WithoutCancel(c.ctx), c.id, "KILL", 0)
	if err == nil && job.Reason != telev1.Reason_REASON_STOPPED {
		return os.ErrProcessDone
	}
	return err
}
