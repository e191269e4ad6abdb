package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Spec are the flags that say what to run.
type Spec struct {
	CPU        string            `name:"cpu" help:"CPUs, like 1.5 or 500m (default: 1)." placeholder:"N" group:"Limits"`
	Memory     string            `help:"Memory, like 500M or 2G (default: 500M)." placeholder:"SIZE" group:"Limits"`
	IORead     string            `name:"io-read" help:"Disk reads a second (default: 5M)." placeholder:"SIZE" group:"Limits"`
	IOWrite    string            `name:"io-write" help:"Disk writes a second (default: 5M)." placeholder:"SIZE" group:"Limits"`
	Pids       string            `help:"Processes and threads at one time (default: 512)." placeholder:"N" group:"Limits"`
	Output     string            `name:"output-limit" help:"Output that is kept, like 10M; the job is stopped when it writes more (default: 1G)." placeholder:"SIZE" group:"Limits"`
	Work       string            `name:"work-size" help:"What fits into the work directory, like 2G (default: the memory limit, or 1G where it is on disk)." placeholder:"SIZE" group:"Limits"`
	Changes    string            `name:"root-size" help:"What a job may change with --root overlay, like 2G (default: the memory limit)." placeholder:"SIZE" group:"Limits"`
	Strict     bool              `help:"Refuse to run when a limit cannot be enforced." group:"Limits"`
	Env        map[string]string `help:"Set an environment variable; may be repeated." placeholder:"K=V" mapsep:"none"`
	EnvFile    []string          `name:"env-file" help:"Set those of a file, a line each: NAME=VALUE, or NAME for its value here; may be repeated, --env comes after." placeholder:"FILE" sep:"none" type:"path"`
	Secret     []string          `help:"Give the job a file in memory that nobody else sees: NAME, with what is in FILE (- is standard input), in the directory that TELE_SECRETS names; may be repeated." placeholder:"NAME=FILE" sep:"none"`
	Cwd        string            `help:"Directory to start in, as the job sees it (default: /home/job)." placeholder:"DIR"`
	Warn       string            `help:"Send the command a signal so long before the timeout, like USR1@2m." placeholder:"SIGNAL@TIME"`
	Name       string            `help:"A name for the job, which commands take in place of its id." placeholder:"NAME"`
	Label      map[string]string `help:"A label for the job, which tele ps can ask for; may be repeated." placeholder:"K=V" mapsep:"none"`
	Hostname   string            `help:"The host name that the job sees (default: the job's id)." placeholder:"NAME"`
	Timeout    time.Duration     `help:"Stop the command after this time, like 90s." placeholder:"TIME"`
	Restart    string            `help:"Run the command again when it fails, as another try of the same job: on-failure is up to 3 further tries, on-failure:N up to N. The first waits 1s, or TIME, each that follows twice as long, up to 1m." placeholder:"on-failure[:N[@TIME]]"`
	StopSignal string            `help:"The signal that asks the command to end, like INT: of tele stop, of the timeout, of a limit (default: TERM)." placeholder:"SIGNAL"`
	Download   []string          `help:"Keep these files of the job beyond its end, as in glob(7), relative to --cwd or absolute; may be repeated." placeholder:"PATTERN" sep:"none"`
	Stdin      bool              `name:"interactive" short:"i" help:"Let the command read what tele reads; else its input is empty."`
	Terminal   bool              `name:"tty" short:"t" help:"Give the command a terminal; with -i, tele's own is it."`
	Merge      bool              `help:"Make standard error the command's standard output: all in the exact order in which it was written."`
	SeccompLog bool              `name:"seccomp-log" help:"Say at the end which system calls the command was refused."`
	Root       string            `help:"The root: overlay is a writable view of the server machine's own, thrown away at the end; DIR another one of that machine's, read-only (default: its own, read-only)." placeholder:"ROOT"`
	Mount      []string          `help:"Show the job a file or directory of the server's machine, read-only or writable; may be repeated." placeholder:"SRC:DST[:rw]" sep:"none"`
	Upload     []string          `help:"Put a file or directory of this machine into the sandbox before the command runs, as tele cp does: at DST, or by its name where the command starts; DIR/. is what is in DIR; may be repeated." placeholder:"SRC[:DST]" sep:"none"`
	User       string            `help:"Run as this user of the server's machine (default: one of the job's own)." placeholder:"NAME|UID[:GID]"`
	Net        string            `help:"Network: none or host." enum:"none,host" default:"none"`
	File       string            `short:"f" help:"Take the job from a file in YAML or JSON, - for standard input; flags and a command beside it come first." placeholder:"FILE" type:"path"`
	Command    []string          `arg:"" optional:"" passthrough:"partial" help:"The command and its arguments, after --."`

	given   []string // the flags, where there is a job file
	sources []string // of Upload
}

// proto is the job that the flags, and the job file, ask for; in is what tele reads.
func (s *Spec) proto(in io.Reader) (*telev1.JobSpec, error) {
	command := s.Command
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	env, err := s.environment()
	if err != nil {
		return nil, err
	}
	spec := &telev1.JobSpec{Command: command, Env: env, Cwd: s.Cwd, Strict: s.Strict, OutputLimit: s.Output, WorkSize: s.Work,
		Root: s.Root, RootSize: s.Changes, User: s.User, SeccompLog: s.SeccompLog, Stdin: s.Stdin,
		Name: s.Name, Labels: s.Label, Hostname: s.Hostname, StopSignal: s.StopSignal, Merge: s.Merge, Download: s.Download,
		Limits: &telev1.Limits{Cpu: s.CPU, Memory: s.Memory, IoRead: s.IORead, IoWrite: s.IOWrite, Pids: s.Pids}}
	if s.Terminal {
		spec.Terminal = &telev1.TerminalSize{}
	}
	if s.Timeout != 0 {
		spec.Timeout = durationpb.New(s.Timeout)
	}
	if s.Warn != "" {
		signal, text, _ := strings.Cut(s.Warn, "@")
		before, err := time.ParseDuration(text)
		if err != nil || signal == "" {
			return nil, fmt.Errorf("--warn %s: write it like USR1@2m", s.Warn)
		}
		spec.WarnSignal, spec.WarnBefore = signal, durationpb.New(before)
	}
	if spec.Restart, err = parseRestart(s.Restart); err != nil {
		return nil, err
	}
	if s.Net == "host" {
		spec.Network = telev1.Network_NETWORK_HOST
	}
	if s.sources, spec.Upload, err = s.places(); err != nil {
		return nil, err
	}
	for _, text := range s.Mount {
		source, rest, found := strings.Cut(text, ":")
		target, mode, hasMode := strings.Cut(rest, ":")
		if !found || source == "" || target == "" || hasMode && mode != "rw" && mode != "ro" {
			return nil, fmt.Errorf("--mount %s: write it like /data:/data, or /data:/data:rw to let the job write", text)
		}
		spec.Mounts = append(spec.Mounts, &telev1.Mount{Source: source, Target: target, Writable: mode == "rw"})
	}
	if s.File != "" {
		file, err := readJobFile(s.File, in)
		if err != nil {
			return nil, err
		}
		if len(file.Upload) > 0 {
			return nil, fmt.Errorf("-f %s: upload: which files go there is said by --upload SRC:DST alone, beside -f", s.File)
		}
		spec = s.over(file, spec)
	}
	if len(spec.Command) == 0 {
		return nil, errors.New("no command: give it after --, or in a job file with -f (see tele run --help)")
	}
	if spec.Terminal != nil {
		addTerminal(spec)
	}
	return spec, nil
}

// warn says which limits do not hold, a line each.
func warn(streams Streams, job *telev1.Job) {
	for _, l := range job.Limits {
		if l.WhyNot != "" {
			fmt.Fprintf(streams.Err, "tele: warning: limit %s %s is not enforced: %s\n", l.Name, l.Asked, l.WhyNot)
		}
	}
}

// refused is a refused call for people.
func refused(r *telev1.RefusedCall) string {
	text := r.Call
	if r.Errno != 0 {
		text += ": " + syscall.Errno(r.Errno).Error()
	}
	if r.Count > 1 {
		text += fmt.Sprintf(" (%d times)", r.Count)
	}
	return text
}

// Run is `tele run`.
type Run struct {
	Connection
	Spec
	Session
	To     string `name:"download-to" help:"Where to put what --download names, each under its path (default: here)." placeholder:"DIR" type:"path"`
	Kill   bool   `name:"kill-on-disconnect" help:"Stop the job when this tele, or its connection, is gone for 10 s."`
	Detach bool   `short:"d" help:"Print the job's id and return." xor:"end"`
	DryRun bool   `help:"Print the steps that would make the sandbox, and run nothing." xor:"end"`
	Usage  bool   `help:"Print at the end, on stderr, what the job used." xor:"end"`
}

// together refuses what does not go together.
func (r *Run) together(spec *telev1.JobSpec) error {
	switch {
	case r.File == "-" && spec.Stdin && !r.Detach && !r.DryRun:
		return errors.New("-f -: standard input is the job file, and cannot be the command's input, too (name a file, or leave out -i)")
	case r.To != "" && (r.Detach || r.DryRun):
		return errors.New("--download-to: nothing is got here; when the job has ended: tele download ID DIR")
	case r.To != "" && len(spec.Download) == 0:
		return errors.New("--download-to: say what to keep, too: --download PATTERN")
	case r.To == "-":
		return errors.New("--download-to -: standard output is the command's; a tar stream comes when the job has ended: tele download ID -")
	case r.Detach && spec.Stdin && len(r.sources) > 0:
		return errors.New("--upload: the job's input is open as long as tele sends files, and ends then: leave out -i, or -d to stay with the job")
	}
	return nil
}

// Run runs the command.
func (r *Run) Run(ctx context.Context, streams Streams) error {
	spec, err := r.proto(streams.In)
	if err != nil {
		return err
	}
	if err := r.together(spec); err != nil {
		return err
	}
	secrets, err := r.secrets(streams.In, spec)
	if err != nil {
		return err
	}
	spec.StopWhenLeft = spec.StopWhenLeft || r.Kill
	if spec.Terminal != nil {
		streams.Err = &messages{to: streams.Err}
	}
	c, err := r.dial(ctx, streams)
	if err != nil {
		return err
	}
	if r.DryRun {
		plan, err := c.Plan(ctx, spec, secrets...)
		fmt.Fprint(streams.Out, plan)
		return err
	}
	if r.Detach && len(r.sources) == 0 {
		job, err := c.Start(ctx, spec, secrets...)
		if err != nil {
			return err
		}
		warn(streams, job)
		fmt.Fprintln(streams.Out, job.Id)
		return nil
	}
	s, err := r.open(ctx, c, streams)
	if err != nil {
		return err
	}
	defer s.close()
	job, err := s.start(spec, secrets)
	if err != nil {
		return err
	}
	warn(streams, job)
	s.upload = newUpload(r.sources, streams)
	defer s.upload.close()
	if r.Detach {
		return s.leaveSupplied(job)
	}
	ended, err := s.follow(job, client.OutputOptions{})
	if err != nil {
		return err
	}
	if r.Usage {
		fmt.Fprint(streams.Err, usageText(ended.GetUsage()))
	}
	if why := s.upload.failure(); why != nil {
		return why
	}
	code := s.tell(ended)
	if len(spec.Download) == 0 {
		return code
	}
	s.close()
	err = download(ctx, c, streams, ended, cmp.Or(r.To, "."), false)
	if code == nil {
		return err
	}
	if err != nil { // the command's own goes first
		fmt.Fprintln(streams.Err, "tele:", err)
	}
	return code
}

// Start is `tele start`.
type Start struct {
	Connection
	Spec
}

// Run starts the command.
func (s *Start) Run(ctx context.Context, streams Streams) error {
	run := Run{Connection: s.Connection, Spec: s.Spec, Detach: true}
	return run.Run(ctx, streams)
}
