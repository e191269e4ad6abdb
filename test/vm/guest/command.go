package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/telerun/tele/test/vm/internal/spec"
)

// Exit codes that are not the command's, as of a shell.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // and the signal's number
)

// runCommand runs the command with its output sent to the port, and returns its exit code when it
// and all that it left behind have ended.
func runCommand(orders spec.Spec, port io.Writer) (byte, error) {
	output, writer, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	sent := make(chan error, 1)
	go func() { sent <- spec.SendOutput(port, output) }()
	process, err := start(orders, writer)
	if err != nil {
		fmt.Fprintln(writer, "vm:", err)
		writer.Close()
		return startCode(err), <-sent
	}
	writer.Close()
	code, err := reap(process.Pid)
	if err != nil {
		return 0, err
	}
	// What is left could hold the pipe open for ever. ESRCH: nothing is left.
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && err != unix.ESRCH {
		return 0, os.NewSyscallError("kill", err)
	}
	return code, <-sent
}

func start(orders spec.Spec, output *os.File) (*os.Process, error) {
	if err := os.Chdir(orders.Dir); err != nil {
		return nil, err
	}
	for _, variable := range orders.Env {
		if name, value, _ := strings.Cut(variable, "="); name == "PATH" {
			os.Setenv(name, value) // for LookPath
		}
	}
	path, err := exec.LookPath(orders.Argv[0])
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return os.StartProcess(path, orders.Argv, &os.ProcAttr{
		Env:   orders.Env,
		Files: []*os.File{null, output, output},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

func startCode(err error) byte {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitNotFound
	}
	return exitNotExecutable
}

// reap waits for every process, as the orphans are process 1's children too, until it was the
// command's.
func reap(pid int) (byte, error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("wait4", err)
		case got == pid && status.Signaled():
			return byte(exitSignal + status.Signal()), nil
		case got == pid:
			return byte(status.ExitStatus()), nil
		}
	}
}
