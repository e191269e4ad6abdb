package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBoot starts real machines, which takes QEMU and four seconds each.
func TestBoot(t *testing.T) {
	if os.Getenv("TELE_VM") == "" {
		t.Skip("TELE_VM is not set: starts virtual machines only on request")
	}
	vm := filepath.Join(t.TempDir(), "vm")
	if out, err := exec.Command("go", "build", "-o", vm, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, script, out, stderr string
		code                      int
		flags                     []string
	}{
		{
			name:   "pure cgroup v2",
			script: "cat /sys/fs/cgroup/cgroup.controllers; ! grep ' cgroup ' /proc/mounts",
			out:    "cpuset cpu io memory hugetlb pids rdma misc\n",
		},
		{name: "exit code", script: "exit 42", code: 42},
		{name: "signal", script: "kill -TERM $$", code: 128 + 15},
		{name: "directory and environment", script: "pwd; echo $HOME $WORD >&2",
			out: cwd + "\n/tmp word\n"},
		{name: "what is left behind does not hold it up",
			script: "sleep 1000 & exec sleep 1000 & exit 3", code: 3},
		{name: "scratch disk", script: "head -c 64M /dev/vda | tr -d '\\0' | wc -c; " +
			"cat /sys/block/vda/size", out: "0\n131072\n"},
		{name: "the root can be written to, but not this machine's",
			script: "echo x >written-in-vm && cat written-in-vm", out: "x\n"},
		{name: "systemd", flags: []string{"--systemd", "trixie"}, code: 3,
			script: "cat /proc/1/comm; systemctl is-active basic.target; exit 3", out: "systemd\nactive\n"},
		{name: "a machine that dies", script: "echo c >/proc/sysrq-trigger; sleep 1000",
			code: exitRunner, stderr: "Kernel panic"},
		{name: "a machine that hangs", flags: []string{"--systemd", "trixie", "--silence", "30s"},
			script: "echo once; kill -STOP $PPID; sleep 1000", out: "once\n", code: exitRunner, stderr: errHangs.Error()},
		{name: "a machine that does not come up", flags: []string{"--silence", "1s"}, // in less than it takes
			script: "true", code: exitRunner, stderr: "starting another machine"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := append([]string{"--setup", "--disk", "64M", "--env", "WORD=word", "--timeout", "2m"}, test.flags...)
			cmd := exec.Command(vm, append(args, "--", "sh", "-c", test.script)...)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d, want %d; stderr:\n%s", code, test.code, stderr.String())
			}
			if string(out) != test.out {
				t.Errorf("output %q, want %q", out, test.out)
			}
			if !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("stderr %q, want %q in it", stderr.String(), test.stderr)
			}
		})
	}
	if _, err := os.Stat("written-in-vm"); err == nil {
		t.Error("a file written in the machine is on this one")
	}
}
