package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/telerun/tele/limits"
	"golang.org/x/sys/unix"
)

// runIn runs a command in a group: in version 2 it is born there, and joins those of version 1.
func runIn(t *testing.T, g *Group, args ...string) time.Duration {
	t.Helper()
	return runWith(t, g, nil, nil, args...)
}

// runWith is runIn with files that the command itself might not open.
func runWith(t *testing.T, g *Group, stdin, stdout *os.File, args ...string) time.Duration {
	t.Helper()
	cmd := commandIn(g, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if stdout != nil {
		cmd.Stdout = stdout
	}
	start := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, &out)
	}
	return time.Since(start)
}

// commandIn is a command that is to run in a group.
func commandIn(g *Group, args ...string) *exec.Cmd {
	join := ""
	for i := range g.JoinFiles() {
		join += fmt.Sprintf("echo 0 >&%d; ", 3+i)
	}
	cmd := exec.Command("sh", append([]string{"-c", join + `exec "$@"`, "sh"}, args...)...)
	cmd.ExtraFiles = g.JoinFiles()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: g.CloneFD() >= 0, CgroupFD: g.CloneFD()}
	return cmd
}

func create(t *testing.T, m *Manager, set map[limits.Name]int64, devices ...Device) *Group {
	t.Helper()
	l := limits.Default()
	for name, value := range set {
		l.Set(name, value)
	}
	g, err := m.Create("job", Request{Limits: l, Devices: devices})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.CloseStartFiles()
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// A process that wants a whole CPU gets the fifth that it may have.
func TestCPULimitHolds(t *testing.T) {
	m := open1(t)
	cpu, err := limits.Parse(limits.CPU, "0.2")
	if err != nil {
		t.Fatal(err)
	}
	g := create(t, m, map[limits.Name]int64{limits.CPU: cpu})
	took := runIn(t, g, "sh", "-c", "timeout 2 sh -c 'while :; do :; done'; true")
	u := g.Usage()
	if u.CPU == nil || u.ThrottledCount == nil {
		t.Fatalf("usage %+v", u)
	}
	share := float64(*u.CPU) / float64(took.Microseconds())
	t.Logf("%.2f of a CPU in %s, held back %d times", share, took, *u.ThrottledCount)
	if share > 0.3 || *u.ThrottledCount == 0 {
		t.Errorf("got %.2f of a CPU, held back %d times", share, *u.ThrottledCount)
	}
}

// Direct reads and writes take at least the time that their limit gives them.
func TestIOLimitsHold(t *testing.T) {
	m := open1(t)
	path, devices := blockDevice(t)
	// Opened here: in the group, no disk can be (nodes.go).
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const rate, size = 4 << 20, 12 << 20
	for _, test := range []struct {
		limit         limits.Name
		stdin, stdout *os.File
		args          []string
	}{
		{limits.IOWrite, nil, file, []string{"if=/dev/zero", "oflag=direct"}},
		{limits.IORead, file, nil, []string{"of=/dev/null", "iflag=direct"}},
	} {
		t.Run(string(test.limit), func(t *testing.T) {
			g := create(t, m, map[limits.Name]int64{limits.CPU: limits.Max, test.limit: rate}, devices...)
			for _, s := range g.Status() {
				if s.Name == test.limit && s.WhyNot != "" {
					t.Fatalf("%+v", s)
				}
			}
			args := append([]string{"dd", "bs=512k", fmt.Sprintf("count=%d", size/(512<<10)), "conv=notrunc"}, test.args...)
			if _, err := file.Seek(0, 0); err != nil {
				t.Fatal(err)
			}
			took := runWith(t, g, test.stdin, test.stdout, args...)
			t.Logf("%d MiB in %s", size>>20, took)
			// The kernel lets a first portion through at once.
			if least := (size/rate - 1) * time.Second; took < least {
				t.Errorf("took %s, want at least %s", took, least)
			}
			u := g.Usage()
			moved := u.IOWrite
			if test.limit == limits.IORead {
				moved = u.IORead
			}
			if moved == nil || *moved < size {
				t.Errorf("usage says %v bytes were moved", moved)
			}
		})
	}
}

// blockDevice returns a path on a real disk, and the disk: TELE_SCRATCH, a device that may be
// overwritten, or a file in the temporary directory.
func blockDevice(t *testing.T) (string, []Device) {
	t.Helper()
	if path := os.Getenv("TELE_SCRATCH"); path != "" {
		var s unix.Stat_t
		if err := unix.Stat(path, &s); err != nil {
			t.Fatal(err)
		}
		return path, []Device{{Major: unix.Major(s.Rdev), Minor: unix.Minor(s.Rdev), Name: filepath.Base(path)}}
	}
	path := filepath.Join(t.TempDir(), "file")
	devices, why := FindDevices(filepath.Dir(path))
	if len(devices) == 0 {
		if strings.Contains(os.Getenv("TELE_REQUIRE"), "blockdev") {
			t.Fatalf("TELE_REQUIRE names blockdev, but %s", why)
		}
		t.Skipf("needs a block device: %s", why)
	}
	return path, devices
}
