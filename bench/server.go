package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// ownGroup keeps what people type at a terminal from the processes that are started: the harness ends
// them itself.
var ownGroup = &syscall.SysProcAttr{Setpgid: true}

// A server is a running `tele serve` with a state directory of its own, and a kept connection to it.
type server struct {
	tele, dir, addr string
	flags           []string
	files           int // its limit of open files; 0 is this process's
	cmd             *exec.Cmd
	ended           chan struct{}
	client          *client.Client // over mutual TLS
}

func newServer(tele, dir string, flags ...string) (*server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := listener.Addr().String()
	_ = listener.Close() // its port is what was wanted
	return &server{tele: tele, dir: dir, addr: addr, flags: flags}, nil
}

func (s *server) socket() string { return "unix:" + filepath.Join(s.dir, "tele.sock") }

// start returns when the server answers.
func (s *server) start() error {
	// Ended jobs are kept all: what removing them costs is no part of any row.
	args := append([]string{"serve", "--addr", s.addr, "--state-dir", s.dir, "--keep-age", "0", "--keep-jobs", "0",
		"--keep-output", "100G", "--stop-jobs-on-exit"}, s.flags...)
	s.cmd = exec.Command(s.tele, args...)
	if s.files > 0 {
		limited := fmt.Sprintf(`ulimit -n %d && exec "$@"`, s.files)
		s.cmd = exec.Command("/bin/sh", append([]string{"-c", limited, "sh", s.tele}, args...)...)
	}
	s.cmd.SysProcAttr = ownGroup
	s.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	log, err := os.OpenFile(s.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	go func() {
		_ = s.cmd.Wait() // its log says why
		close(s.ended)
	}()
	return s.answers()
}

// answers returns when the server takes calls.
func (s *server) answers() error {
	deadline := time.Now().Add(time.Minute)
	for !knock("unix", filepath.Join(s.dir, "tele.sock")) || !knock("tcp", s.addr) {
		select {
		case <-s.ended:
			said, _ := os.ReadFile(s.dir + ".log") // as much as there is
			return fmt.Errorf("tele serve ended: %s", bytes.TrimSpace(said))
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			return errors.New("tele serve does not listen")
		}
	}
	c, err := s.dial(s.addr)
	if err != nil {
		return err
	}
	s.client = c
	_, err = c.List(context.Background(), client.ListOptions{Statuses: []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_RUNNING}})
	return err
}

// knock tells whether somebody listens.
func knock(network, addr string) bool {
	conn, err := net.Dial(network, addr)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was said
	return true
}

func (s *server) dial(addr string) (*client.Client, error) {
	return client.Dial(client.Options{Addr: addr, StateDir: s.dir})
}

// stop ends the server, and its jobs with it. It may have ended, or not have begun.
func (s *server) stop() {
	if s.ended == nil {
		return
	}
	if s.client != nil {
		_ = s.client.Close() // nothing is under way
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // gone already is as good
	select {
	case <-s.ended:
	case <-time.After(time.Minute):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
}

// run launches over the kept connection, with that many callers.
func (s *server) run(launches, callers int) (batch, error) {
	return inTurn(launches, callers, func() error { return launch(s.client, "/bin/true") })
}

// launch runs a command that must succeed.
func launch(c *client.Client, command ...string) error {
	job, err := c.Run(context.Background(), &telev1.JobSpec{Command: command})
	if err != nil {
		return err
	}
	if job.Status != telev1.JobStatus_JOB_STATUS_SUCCESS {
		return fmt.Errorf("job %s: %s", job.Id, job.Message)
	}
	return nil
}

// hasFlag tells whether this tele's server knows a flag.
func hasFlag(tele, flag string) bool {
	help, _ := exec.Command(tele, "serve", "--help").Output() // without help it has no flag
	return bytes.Contains(help, []byte(flag))
}

// isolation is what the plan of this server's sandboxes covers, so that others can be told to.
type isolation struct {
	hidden, maskedFiles, maskedDirs []string
	steps, filter                   int
}

func (s *server) isolation() (isolation, error) {
	i, err := s.readPlan(&telev1.JobSpec{Command: []string{"/bin/true"}})
	if err != nil || len(i.hidden) > 0 {
		return i, err
	}
	// The usual root is prepared before any job, and is in no plan. One that a job can write to is not,
	// and has the same places hidden.
	own, err := s.readPlan(&telev1.JobSpec{Command: []string{"/bin/true"}, Root: "overlay"})
	i.hidden = own.hidden
	if err == nil && len(i.hidden) == 0 {
		err = errors.New("no hidden directory in tele's plan")
	}
	return i, err
}

func (s *server) readPlan(spec *telev1.JobSpec) (i isolation, err error) {
	plan, err := s.client.Plan(context.Background(), spec)
	if err != nil {
		return i, err
	}
	for line := range strings.Lines(plan) {
		words := strings.Fields(line)
		if len(words) < 3 {
			continue
		}
		i.steps++
		path := words[2]
		switch words[1] {
		case "hide":
			i.hidden = append(i.hidden, path)
		case "mask":
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				i.maskedDirs = append(i.maskedDirs, path)
			} else if err == nil {
				i.maskedFiles = append(i.maskedFiles, path)
			}
		case "filter":
			before, _, _ := strings.Cut(line, " instructions")
			_, count, _ := strings.Cut(before, "{")
			i.filter, _ = strconv.Atoi(count) // 0 is "not known"
		}
	}
	return i, nil
}

// limitOptions are limit.c's for the same sandbox.
func (i isolation) limitOptions(anchor string) []string {
	options := []string{"-a", anchor}
	for flag, paths := range map[string][]string{"-h": i.hidden, "-m": i.maskedFiles, "-d": i.maskedDirs} {
		for _, path := range paths {
			options = append(options, flag, path)
		}
	}
	return options
}
