// Vm runs a command in a virtual machine with Debian's cloud kernel, where all controllers are on
// cgroup v2 and no v1 hierarchy is mounted:
//
//	go build -o build/vm/run ./test/vm
//	build/vm/run --setup -- /bin/cat /sys/fs/cgroup/cgroup.controllers
//
// The command finds itself in the directory that vm was called in. It is root, on this machine's
// root file system, but what it writes goes to memory and is gone afterwards; this machine's /tmp
// and /run it does not see. /dev/vda is an empty disk, for what needs a real block device.
//
// With --systemd RELEASE, process 1 is the systemd of that Debian, basic.target is reached before the
// command starts, and the command is a process beside the services, in init.scope. systemd and the
// libraries that it needs lie over the root; nothing of it is installed here. RELEASE must not be
// older than this machine's, since the C library is among them.
//
// What the command prints, on stdout and stderr, comes on stdout as it is printed. Its exit code
// is vm's, though "go run" makes 1 of any other than 0. 125 says that the command was not run to
// its end; the reason, and the end of the machine's console, are on stderr then.
//
// It needs root, for virtiofsd; any x86-64 Debian from 12 on; and no KVM: without, processes are
// 10 to 17 times slower, and starting one 50 times.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/telerun/tele/test/vm/internal/spec"
)

// exitRunner is the exit code when the command has none.
const exitRunner = 125

func main() {
	// Children die with the thread that started them: it is to be the one that lives longest.
	runtime.LockOSThread()
	// "go run" hands on no signal, and leaves what it runs behind when it dies of one.
	unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0)
	// SIGPIPE, so that the temporary files go when nobody reads the output any more.
	ctx, stop := signal.NotifyContext(context.Background(),
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	o, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	code := exitRunner
	if err == nil {
		code, err = run(ctx, o)
	}
	if err != nil {
		note("%v", err)
		os.Exit(exitRunner)
	}
	os.Exit(code)
}

func note(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "vm: "+format+"\n", args...)
}

// run does all that main does after it has read the command line.
func run(ctx context.Context, o options) (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("not root, which sharing the root file system needs")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout,
		fmt.Errorf("the command has not ended within %v; see --timeout", o.timeout))
	defer cancel()
	repository, err := findRepository()
	if err != nil {
		return 0, err
	}
	if o.setup {
		if err := setup(ctx, kernelCache(repository)); err != nil {
			return 0, fmt.Errorf("set up: %w", err)
		}
	}
	// A machine that stops while it boots says nothing about the command, which another one may run. Once
	// the command runs, it may be what the machine hangs from: that is a failure.
	for tries := 3; ; tries-- {
		code, err := runOnce(ctx, o, repository)
		if !errors.Is(err, errBoot) || tries == 1 {
			return code, err
		}
		note("%v", err)
		note("starting another machine")
	}
}

// runOnce runs the command in one machine.
func runOnce(ctx context.Context, o options, repository string) (int, error) {
	dir, err := os.MkdirTemp("", "tele-vm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	m, err := boot(ctx, o, repository, dir)
	if err != nil {
		return 0, err
	}
	defer m.stop()
	code, err := m.run(ctx, o.silence, os.Stdout)
	if err != nil {
		m.stop()
		err = fmt.Errorf("%w%s", err, logs(dir))
	}
	return code, err
}

// boot brings together all that a machine needs, and starts it.
func boot(ctx context.Context, o options, repository, dir string) (*machine, error) {
	virtiofsd, err := findVirtiofsd()
	if err != nil {
		return nil, err
	}
	if _, err := exec.LookPath(qemuCommand); err != nil {
		return nil, fmt.Errorf("%w; use --setup", err)
	}
	k, err := findKernel(ctx, kernelCache(repository))
	if err != nil {
		return nil, err
	}
	modules, err := k.loadModules()
	if err != nil {
		return nil, fmt.Errorf("read the modules in %s: %w; remove it to fetch them anew", k.modules, err)
	}
	layer := ""
	if o.systemd != "" {
		if layer, err = findSystemd(ctx, kernelCache(repository), o.systemd); err != nil {
			return nil, err
		}
	}
	init, err := buildInit(ctx, repository, dir)
	if err != nil {
		return nil, err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	orders := spec.Spec{Keep: repository, Dir: cwd, Argv: o.argv, Env: o.env,
		Layer: layer, Systemd: o.systemd != ""}
	if err := writeInitrd(filepath.Join(dir, "initrd"), init, modules, orders); err != nil {
		return nil, err
	}
	if err := makeDisk(filepath.Join(dir, "disk.img"), o.disk); err != nil {
		return nil, err
	}
	return startMachine(dir, o, k, virtiofsd)
}

// findRepository returns the folder with go.mod at or above the working directory.
func findRepository() (string, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := cwd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", fmt.Errorf("no go.mod at or above %s: start in tele's repository", cwd)
		}
	}
}

// logs is the end of each log of a machine that is not empty, under a headline.
func logs(dir string) string {
	const most = 4 << 10
	var all bytes.Buffer
	for _, name := range []string{"console.log", "qemu.log", "virtiofsd.log"} {
		data, _ := os.ReadFile(filepath.Join(dir, name))
		if len(data) > most {
			data = data[len(data)-most:]
		}
		if data = bytes.TrimSpace(data); len(data) > 0 {
			fmt.Fprintf(&all, "\n--- %s:\n%s", name, data)
		}
	}
	return all.String()
}
