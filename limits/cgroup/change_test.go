package cgroup

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/telerun/tele/limits"
)

// contents are the files of a group that have its limits.
func contents(g *Group) string {
	var text strings.Builder
	for _, path := range g.Paths() {
		for _, file := range []string{"cpu.max", "cpu.cfs_quota_us", "memory.max", "memory.high", "memory.swap.max",
			"memory.limit_in_bytes", memsw, "pids.max", "io.max", "blkio.throttle.read_bps_device",
			"blkio.throttle.write_bps_device"} {
			if content, err := os.ReadFile(filepath.Join(path, file)); err == nil { // each is in one tree
				text.WriteString(file + " " + string(content))
			}
		}
	}
	return text.String()
}

// Limits of a group change as in one that was made with them; one below the memory in use, and one that the
// kernel refuses, change nothing.
func TestChange(t *testing.T) {
	m := open1(t)
	before := limits.Default()
	before.Memory = 300 << 20
	g := create(t, m, map[limits.Name]int64{limits.Memory: before.Memory})
	cmd := commandIn(g, "python3", "-c",
		"import sys\nx = bytearray(100 << 20)\nprint('ready', flush=True)\nsys.stdin.read()")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil { // it was not killed for a limit
			t.Error(err)
		}
	}()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	for _, change := range []map[limits.Name]int64{
		{limits.Memory: 200 << 20, limits.CPU: 2000, limits.Pids: 7},
		{limits.Memory: 400 << 20},
		{limits.Memory: limits.Max, limits.Swap: limits.Max},
		{limits.Memory: 300 << 20, limits.Swap: 0, limits.CPU: limits.Max, limits.Pids: limits.Max},
	} {
		after := before
		for name, value := range change {
			after.Set(name, value)
		}
		status, err := g.Change(before, Request{Limits: after})
		if err != nil {
			t.Fatalf("%+v: %v", after, err)
		}
		seen := map[limits.Name]bool{}
		for _, s := range status {
			seen[s.Name] = true
			if s.Name != limits.Swap && (s.Asked != limits.Format(s.Name, after.Get(s.Name)) || s.Applied != s.Asked) {
				t.Errorf("%+v: %+v", after, s)
			}
		}
		for name := range change {
			if before.Get(name) != after.Get(name) && !seen[name] {
				t.Errorf("%+v: nothing is said of %s", after, name)
			}
		}
		before = after
	}
	was := contents(g)
	for name, set := range map[limits.Name]func(*limits.Limits){
		limits.Memory: func(l *limits.Limits) { l.CPU, l.Memory, l.Pids = 100, 20<<20, 3 },
		limits.IORead: func(l *limits.Limits) { l.CPU, l.Memory, l.IORead = 100, 350<<20, 7<<20 }, // on no disk
	} {
		after := before
		set(&after)
		changed, err := g.Change(before, Request{Limits: after, NoReadDevice: "there is none"})
		failed := new(ChangeError)
		if !errors.As(err, &failed) || failed.Status.Name != name || changed != nil {
			t.Errorf("%s: got %v, %v", name, changed, err)
		}
		if now := contents(g); now != was {
			t.Errorf("%s: limits are\n%s\nwere\n%s", name, now, was)
		}
	}
}
