// Vmtest runs the tests of packages in a virtual machine with pure cgroup v2 (package test/vm), all
// in one boot:
//
//	go run ./test/vmtest
//	VM_PACKAGES="./limits/..." VM_RUN='Memory|CPU' go run ./test/vmtest --mem 4G
//
// Test binaries are compiled here, as compiling takes the machine ages, and run there, each in its
// package's directory. A line a package says how it went; the output of those that failed follows
// theirs, as does the reason of each skipped test. The last line is "N passed, N failed", which
// counts tests without their subtests; the exit code is 1 when one failed. Flags go to the machine.
//
//	VM_PACKAGES  packages, as go list takes them; all with tests, but in test/ only test/attacks
//	VM_RUN       only tests whose names match
//	VM_TIMEOUT   for each package (15m)
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// guestArg makes this program its own other half, the one in the machine.
const guestArg = "guest"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	run := func() (int, error) { return host(ctx, os.Args[1:]) }
	if len(os.Args) == 3 && os.Args[1] == guestArg {
		run = func() (int, error) { return guest(os.Args[2]) }
	}
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

// host compiles all that the machine needs, and starts it.
func host(ctx context.Context, flags []string) (int, error) {
	b, err := findBuild(ctx)
	if err != nil {
		return 0, err
	}
	packages, err := b.packages(ctx, os.Getenv("VM_PACKAGES"))
	if err != nil {
		return 0, err
	}
	if err := b.compile(ctx, packages); err != nil {
		return 0, err
	}
	list := filepath.Join(b.out, "packages.json")
	if err := writeJSON(list, packages); err != nil {
		return 0, err
	}
	args := append([]string{"--setup", "--timeout", "1h"}, environment(b.goEnv)...)
	args = append(args, flags...)
	args = append(args, "--", b.tool("vmtest"), guestArg, list)
	return boot(ctx, b.tool("vm"), args)
}

// environment is what the tests get, as flags of the machine.
func environment(goEnv map[string]string) []string {
	values := []string{
		// Everything takes the machine longer: tests multiply what they wait for at most.
		"TELE_TEST_SLOW=10",
		// What is here, so that a test that needs it may not be skipped.
		"TELE_REQUIRE=root,cgroup2,blockdev,userns,loop,quota",
		"TELE_SCRATCH=/dev/vda",
		"HOME=/tmp",
		"VM_RUN=" + os.Getenv("VM_RUN"),
		"VM_TIMEOUT=" + os.Getenv("VM_TIMEOUT"),
		// For tests that call go: there is no network, but the caches here are in sight.
		"GOPROXY=off",
		"GOTOOLCHAIN=local",
	}
	for name, value := range goEnv {
		values = append(values, name+"="+value)
	}
	var flags []string
	for _, value := range values {
		flags = append(flags, "--env", value)
	}
	return flags
}

// boot runs the machine and returns its exit code.
func boot(ctx context.Context, vm string, args []string) (int, error) {
	cmd := exec.CommandContext(ctx, vm, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// It cleans up; killed it could not.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}
