package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/telerun/tele/client"
)

// A process is a client as a process: `tele run`, `tele logs` and so on.
type process struct {
	cmd         *exec.Cmd
	args        []string
	stdout, err bytes.Buffer
	reported    bool // it ends with the job's exit code
	done        chan struct{}

	mu     sync.Mutex
	killed bool
	code   int
}

// startProcess starts a client; some are killed after a while. All of them go through the proxy.
func (l *life) startProcess(trouble context.Context, reported bool, args ...string) *process {
	p := &process{cmd: exec.Command(l.world.options.tele, args...), args: args, reported: reported, done: make(chan struct{})}
	p.cmd.SysProcAttr = ownGroup
	p.cmd.Env = []string{"TELE_ADDR=" + l.world.proxy.addr(), "TELE_STATE_DIR=" + l.world.state, "HOME=/"}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.err
	if err := p.cmd.Start(); err != nil {
		l.wrong("start tele %v: %v", args, err)
		return nil
	}
	after := time.Duration(-1)
	if l.chance.in(35) {
		after = l.chance.ms(0, 2500)
	}
	go func() {
		_ = p.cmd.Wait() // the code is looked at
		p.code = p.cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	if after >= 0 {
		go func() {
			select {
			case <-p.done:
			case <-trouble.Done():
			case <-time.After(after):
				p.kill(l.world)
			}
		}()
	}
	return p
}

func (p *process) kill(w *world) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	if p.cmd.Process.Kill() == nil {
		w.figures.add("clients killed", 1)
	}
}

func (p *process) wasKilled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed
}

func (p *process) wait() { <-p.done }

// process starts a client that is looked at when the job has ended.
func (l *life) process(trouble context.Context, clients *sync.WaitGroup, reported bool, args ...string) {
	if p := l.startProcess(trouble, reported, args...); p != nil {
		l.runs = append(l.runs, p)
	}
}

// submitByProcess submits the job with `tele start`, which prints its id, or with `tele run`, which
// stays: then the server is asked which job it is.
func (l *life) submitByProcess(trouble context.Context, command string) {
	spec := l.plan.spec
	args := []string{command, "--env", tokenName + "=" + l.token}
	if spec.Limits.GetMemory() != "" {
		args = append(args, "--memory", spec.Limits.Memory)
	}
	if spec.Limits.GetPids() != "" {
		args = append(args, "--pids", spec.Limits.Pids)
	}
	if spec.OutputLimit != "" {
		args = append(args, "--output-limit", spec.OutputLimit)
	}
	if spec.Timeout != nil {
		args = append(args, "--timeout", spec.Timeout.AsDuration().String())
	}
	if spec.Cwd != "" {
		args = append(args, "--cwd", spec.Cwd)
	}
	for _, pattern := range spec.Download {
		args = append(args, "--download", pattern)
	}
	p := l.startProcess(trouble, command == "run", append(append(args, "--"), spec.Command...)...)
	if p == nil {
		l.refused = errors.New("not started")
		return
	}
	if command == "run" {
		l.find(p)
		if l.id != "" {
			l.runs = append(l.runs, p)
			return
		}
	}
	p.wait()
	switch {
	case command == "start" && p.code == 0:
		l.id = strings.TrimSpace(p.stdout.String())
	case p.wasKilled():
	case strings.Contains(p.err.String(), "no room for more jobs"):
		l.refused = errors.New("no room")
		l.world.figures.add("refused: ResourceExhausted", 1)
	case l.plan.never && (p.code == 127 || strings.Contains(p.err.String(), "cannot be used by the job")):
		l.refused = errors.New("not found")
		l.world.figures.add("refused: FailedPrecondition", 1)
	case p.code != 125:
		l.wrong("tele %s ended with %d, and there is no job: %s", command, p.code, p.err.String())
	default: // no server, or an init that was killed
		if text := p.err.String(); !unreached(text) && !initGone(text) {
			l.wrong("tele %s: %s", command, text)
		}
	}
}

// find looks for the job of a `tele run` until it is there or the process has ended.
func (l *life) find(p *process) {
	for over := false; l.id == "" && !over; {
		select {
		case <-p.done:
			over = true
		case <-time.After(50 * time.Millisecond): // nothing tells of a job that others submit
		}
		list, err := l.world.witness.List(context.Background(), client.ListOptions{})
		if err != nil {
			l.wrong("list: %v", err)
			return
		}
		for _, job := range list {
			if job.GetSpec().GetEnv()[tokenName] == l.token && job.StartedAt != nil {
				l.id = job.Id
			}
		}
	}
}

// notices are what tele itself says on standard error, between the job's bytes.
var notices = regexp.MustCompile(`tele: [^\n]*\n`)

// unreached: the server could not be reached at the first try, and a client does not try again then.
func unreached(text string) bool {
	return strings.Contains(text, "cannot reach the server") || strings.Contains(text, "no answer from the server") ||
		strings.Contains(text, "no trust in the server")
}
