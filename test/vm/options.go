package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options are the command line.
type options struct {
	setup   bool
	systemd string // the Debian release whose systemd is process 1, or nothing
	timeout time.Duration
	silence time.Duration // after which a machine is taken to hang
	memory  string        // as QEMU reads it
	cpus    int
	disk    int64    // bytes
	env     []string // of the command
	argv    []string
}

const usage = `usage: vm [flags] -- COMMAND [ARG…]

Runs COMMAND in a virtual machine with a pure cgroup v2 kernel, in the same directory of the same
root, which it may write to without any of it reaching this machine. Exits with its exit code, or
with 125 if it could not be run to its end.

`

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{disk: 512 << 20, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=/tmp"}}
	flags := flag.NewFlagSet("vm", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	flags.BoolVar(&o.setup, "setup", false, "install QEMU and virtiofsd when they are missing")
	flags.StringVar(&o.systemd, "systemd", "",
		"run COMMAND under the systemd of a Debian `RELEASE`, such as bookworm")
	flags.DurationVar(&o.timeout, "timeout", 20*time.Minute, "end the machine after this time")
	flags.DurationVar(&o.silence, "silence", 4*time.Minute,
		"take a machine to hang that says nothing for so long; one that hangs before COMMAND starts is\n"+
			"replaced, up to twice")
	flags.StringVar(&o.memory, "mem", "2048M", "memory of the machine, in M or G")
	flags.IntVar(&o.cpus, "cpus", 2, "processors of the machine")
	flags.Func("disk", "`size` of the scratch disk, in M or G (default 512M)",
		func(s string) (err error) { o.disk, err = parseSize(s); return err })
	flags.Func("env", "a variable for the command, as `NAME=VALUE`; may be repeated",
		func(s string) error { return o.addEnv(s) })
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.argv = flags.Args()
	return o, o.check()
}

func (o *options) addEnv(s string) error {
	name, _, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return errors.New("want NAME=VALUE")
	}
	// One value a name: of two, libraries differ in which they take.
	o.env = slices.DeleteFunc(o.env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	o.env = append(o.env, s)
	return nil
}

func (o *options) check() error {
	if _, err := parseSize(o.memory); err != nil {
		return fmt.Errorf("--mem %s: %w", o.memory, err)
	}
	if o.systemd != "" && !releaseForm.MatchString(o.systemd) {
		return fmt.Errorf("--systemd %s: want the name of a Debian release", o.systemd)
	}
	if o.cpus < 1 {
		return fmt.Errorf("--cpus %d: want at least 1", o.cpus)
	}
	if len(o.argv) == 0 {
		return errors.New("no command; see --help")
	}
	return nil
}

var releaseForm = regexp.MustCompile(`^[a-z]+$`)

var sizeForm = regexp.MustCompile(`^([1-9][0-9]{0,6})([MG])$`)

// parseSize reads a size as QEMU does, but takes no number without a unit.
func parseSize(s string) (int64, error) {
	match := sizeForm.FindStringSubmatch(s)
	if match == nil {
		return 0, errors.New("want a number and M or G, such as 512M")
	}
	n, _ := strconv.ParseInt(match[1], 10, 64)
	if match[2] == "G" {
		n <<= 10
	}
	return n << 20, nil
}
