// Command chaos kills, stops, cuts and fills whatever tele has, while many jobs run, and checks that
// nothing of them is lost, doubled or left behind. `make chaos` builds bin/tele and runs it; it needs
// root.
//
// Everything happens in a mount namespace of its own, on a small file system that is made for it, with
// a server that listens on a loopback port of its own. What is chosen (which jobs, what is done to
// them, what happens to the server, and when) follows from the seed, which is printed; what the machine
// makes of it differs from run to run.
//
// world.go has the order of a run; kinds.go the jobs and how each must end; life.go one job with its
// clients; trouble.go what is done to all of them; judge.go what must be true of a job, leftovers.go
// what must be true of the machine afterwards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// options are the command line.
type options struct {
	seed     uint64
	duration time.Duration
	atOnce   int
	disk     string
	size     int64
	dir      string // where everything is; set for the process inside the mount namespace
	tele     string
}

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 0, "the seed of all choices; 0 takes one by chance")
	flag.DurationVar(&o.duration, "time", 3*time.Minute, "how long there is trouble")
	flag.IntVar(&o.atOnce, "jobs", 32, "jobs at the same time")
	flag.StringVar(&o.disk, "disk", "tmpfs", "what the state directory lies on: tmpfs or ext4 (on a loop device)")
	flag.Int64Var(&o.size, "size", 192<<20, "the size of that file system, in bytes")
	flag.StringVar(&o.tele, "tele", "bin/tele", "the program to test")
	flag.StringVar(&o.dir, "inside", "", "for the process in the mount namespace")
	flag.Parse()
	if o.seed == 0 {
		o.seed = rand.Uint64N(1e9) + 1
	}
	if o.dir != "" {
		os.Exit(play(o))
	}
	code, err := outside(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		code = 1
	}
	os.Exit(code)
}

// outside runs this program again in a mount namespace of its own, and removes what it made unless
// somebody has to look at it.
func outside(o options) (code int, err error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("needs root: it mounts, and looks into all processes of its jobs")
	}
	dir, err := os.MkdirTemp("", "tele-chaos-")
	if err != nil {
		return 0, err
	}
	// The one inside ends in an orderly way when it is interrupted, and this one when that has.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT)
	// Go makes all mounts private in the new namespace: nothing that is mounted there gets out.
	cmd := exec.Command("/proc/self/exe", "--inside", dir, "--seed", fmt.Sprint(o.seed), "--time", o.duration.String(),
		"--jobs", fmt.Sprint(o.atOnce), "--disk", o.disk, "--size", fmt.Sprint(o.size), "--tele", o.tele)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	err = cmd.Run()
	if err == nil {
		return 0, os.RemoveAll(dir)
	}
	fmt.Println("kept for a closer look:", dir)
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return 1, nil
	}
	return 0, err
}

// play is the process in the mount namespace.
func play(o options) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	w, err := newWorld(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	err = w.run(ctx)
	if err != nil {
		w.figures.violation("%v", err)
	}
	if !w.figures.print() {
		w.sweep()
		w.keep(filepath.Join(o.dir, "state"))
		return 1
	}
	return 0
}
