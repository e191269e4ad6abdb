package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const qemuCommand = "qemu-system-x86_64"

// virtiofsdPaths is where Debian puts it: out of PATH, as users are not meant to start it.
// Up to Debian 12 it comes with QEMU, later as a package of its own with other flags.
var virtiofsdPaths = []string{"/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"}

func findVirtiofsd() (string, error) {
	for _, path := range virtiofsdPaths {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("virtiofsd is in none of %s; use --setup", virtiofsdPaths)
}

// setup installs what is missing; with nothing missing it does nothing. A kernel is not installed,
// but fetching one takes package lists that are not out of date.
func setup(ctx context.Context, cache string) error {
	_, noQemu := exec.LookPath(qemuCommand)
	_, noVirtiofsd := findVirtiofsd()
	kernel, noKernel := kernelPackage(ctx)
	if noQemu == nil && noVirtiofsd == nil && noKernel == nil && isDir(filepath.Join(cache, kernel)) {
		return nil
	}
	note("updating the package lists")
	if _, err := output(ctx, "", "apt-get", "update", "-q"); err != nil {
		return err
	}
	if noQemu != nil {
		if err := install(ctx, "qemu-system-x86"); err != nil {
			return err
		}
	}
	// Asked again: on Debian 12 it has just come with QEMU, and there is no such package.
	if _, err := findVirtiofsd(); err != nil {
		return install(ctx, "virtiofsd")
	}
	return nil
}

// install leaves recommended packages out: for QEMU these are 146, a desktop's among them.
func install(ctx context.Context, name string) error {
	note("installing %s", name)
	_, err := output(ctx, "", "apt-get", "install", "-y", "-q", "--no-install-recommends",
		"-o", "DPkg::Lock::Timeout=120", name)
	return err
}

// output runs a command to its end and returns its stdout; on failure, the error ends in what it
// said on stderr.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	err = fmt.Errorf("%s: %w", strings.Join(append([]string{name}, args...), " "), err)
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return "", err
}
