package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// This file makes further processes of this program, to be measured.

// beOther is for a process that this program has started to be measured: it does not return then.
func beOther() {
	if len(os.Args) < 2 {
		return
	}
	others := map[string]func(args []string) error{senderName: send, callName: answerCalls}
	if other := others[os.Args[1]]; other != nil {
		fmt.Fprintf(os.Stderr, "bench: %s: %v\n", os.Args[1], other(os.Args[2:]))
		os.Exit(1)
	}
}

// startOther starts such a process, and returns the address that it says it listens at. The caller calls end.
func startOther(name string, args ...string) (addr string, end func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(self, append([]string{name}, args...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = ownGroup
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	end = func() {
		_ = cmd.Process.Kill() // gone already is as good
		_ = cmd.Wait()         // killed
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		end()
		return "", nil, fmt.Errorf("%s: %w", name, err)
	}
	return strings.TrimSpace(line), end, nil
}
