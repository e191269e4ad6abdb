package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A server is one process of `tele serve`. Its log goes on in one file for all of them.
type server struct {
	cmd   *exec.Cmd
	ready chan struct{} // closed when it listens
	gone  chan struct{} // closed when it has ended; then the following are set
	err   error
	last  []string // of its log
}

// ownGroup keeps what people type at a terminal from the processes that are started.
var ownGroup = &syscall.SysProcAttr{Setpgid: true}

func (w *world) startServer(flags ...string) (*server, error) {
	args := append([]string{"serve", "--addr", w.addr, "--state-dir", w.state, "--keep-age", "0", "--keep-jobs", "0"}, flags...)
	s := &server{cmd: exec.Command(w.options.tele, args...), ready: make(chan struct{}), gone: make(chan struct{})}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	s.cmd.SysProcAttr = ownGroup
	s.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GOTRACEBACK=all"}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	w.server = s
	w.figures.add("server starts", 1)
	fmt.Fprintf(w.log, "-- %.3fs: server %d starts\n", time.Since(w.figures.began).Seconds(), s.cmd.Process.Pid)
	go func() {
		s.read(w, stderr)
		s.err = s.cmd.Wait()
		close(s.gone)
	}()
	return s, nil
}

// read passes the log on, and looks at it.
func (s *server) read(w *world, r io.Reader) {
	lines := bufio.NewReader(r)
	for listening := false; ; {
		line, err := lines.ReadString('\n')
		if line != "" {
			_, _ = w.log.WriteString(line) // it is for people
			s.last = append(s.last[max(len(s.last)-30, 0):], line)
		}
		if err != nil {
			return
		}
		if !listening && strings.Contains(line, `"message":"cgroups"`) {
			listening = true
			close(s.ready)
		}
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			w.figures.violation("the server: %s", strings.TrimSpace(line))
		}
		if strings.Contains(line, `"level":"error"`) && !strings.Contains(line, "no space left") {
			w.figures.violation("the server logged: %s", strings.TrimSpace(line))
		}
	}
}

// up waits until the server listens, and tells whether it does.
func (s *server) up(w *world) bool {
	select {
	case <-s.ready:
		return true
	case <-s.gone:
	case <-time.After(60 * time.Second):
		w.figures.violation("the server did not listen after a minute")
		_ = s.cmd.Process.Signal(unix.SIGQUIT) // its goroutines, into the log
		<-s.gone
	}
	return false
}

func (s *server) listens() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// kill ends it as a crash would.
func (s *server) kill(w *world) {
	_ = s.cmd.Process.Kill() // gone already: found below
	<-s.gone
	w.figures.add("server killed", 1)
}

// terminate ends it as an administrator would, and it must end well, and soon.
func (s *server) terminate(w *world, within time.Duration) {
	began := time.Now()
	listened := s.listens()
	_ = s.cmd.Process.Signal(unix.SIGTERM) // the same
	select {
	case <-s.gone:
		if s.err != nil && listened { // before that the signal may come before its handler
			w.figures.violation("the server ended with %v after SIGTERM:\n%s", s.err, strings.Join(s.last, ""))
		}
	case <-time.After(within):
		w.figures.violation("the server did not end within %v after SIGTERM", within)
		_ = s.cmd.Process.Signal(unix.SIGQUIT)
		<-s.gone
	}
	w.figures.add("server terminated", 1)
	fmt.Fprintf(w.log, "-- terminated after %v\n", time.Since(began))
}

// checkAlive finds a server that ended although nobody ended it.
func (s *server) checkAlive(w *world) bool {
	select {
	case <-s.gone:
		w.figures.violation("the server ended by itself, %v:\n%s", s.err, strings.Join(s.last, ""))
		return false
	default:
		return true
	}
}

// again starts servers until one is up.
func (w *world) again(flags ...string) (*server, error) {
	for range 5 {
		s, err := w.startServer(flags...)
		if err != nil {
			return nil, err
		}
		if s.up(w) {
			return s, nil
		}
		w.figures.violation("the server did not come up, %v:\n%s", s.err, strings.Join(s.last, ""))
		time.Sleep(200 * time.Millisecond)
	}
	return nil, errors.New("no server comes up any more")
}
