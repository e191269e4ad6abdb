package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// buildLimit compiles limit.c into dir.
func buildLimit(dir string) (string, error) {
	source := filepath.Join(dir, "limit.c")
	if err := os.WriteFile(source, limitSource, 0o644); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "limit")
	out, err := exec.Command("cc", "-O2", "-static", "-o", program, source).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cc limit.c: %w\n%s", err, out)
	}
	return program, nil
}

// A limit is a running limit.c.
type limit struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	message strings.Builder
}

// startLimit starts it with these arguments, and env on top of PATH. It has no other environment, so
// that what it starts has not.
func startLimit(program string, env []string, args ...string) (*limit, error) {
	l := &limit{cmd: exec.Command(program, args...)}
	l.cmd.Stderr = &l.message
	l.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	l.cmd.SysProcAttr = ownGroup
	var err error
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	l.out = bufio.NewReader(out)
	return l, l.cmd.Start()
}

// run lets callers launch, in all as often as said.
func (l *limit) run(launches, callers int) (batch, error) {
	b := batch{}
	if _, err := fmt.Fprintf(l.in, "%d 0 %d\n", launches, callers); err != nil {
		return b, l.died(err)
	}
	for {
		line, err := l.out.ReadString('\n')
		if err != nil {
			return b, l.died(err)
		}
		number, last := strings.CutPrefix(strings.TrimSpace(line), "total ")
		ns, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return b, err
		}
		if last {
			b.total = time.Duration(ns)
			return b, nil
		}
		b.times = append(b.times, time.Duration(ns))
	}
}

func (l *limit) died(err error) error {
	_ = l.in.Close() // it is as good as gone
	_ = l.cmd.Wait() // what it said is worth more than its exit code
	return fmt.Errorf("%s: %w: %s", strings.Join(l.cmd.Args[1:min(3, len(l.cmd.Args))], " "), err, strings.TrimSpace(l.message.String()))
}

// close ends it, and all that it started has ended then.
func (l *limit) close() {
	_ = l.in.Close() // which is what tells it
	_ = l.cmd.Wait() // it was asked for nothing more
}
