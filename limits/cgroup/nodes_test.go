package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

// Of the machine's devices a process in a group may open those that every job has, and no other.
func TestDevicesAreClosed(t *testing.T) {
	m := open1(t)
	for _, line := range m.Explain() {
		t.Log(line)
	}
	g := create(t, m, nil)
	for range 2 {
		for _, path := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"} {
			runIn(t, g, "sh", "-c", `: < "$0"`, path)
		}
		runIn(t, g, "sh", "-c", ": > /dev/null")
		closed := 0
		for _, path := range []string{"/dev/vda", "/dev/sda", "/dev/loop-control", "/dev/kmsg", "/dev/fuse", "/dev/hwrng", "/dev/console"} {
			f, err := os.Open(path) // out here
			if err != nil {
				continue
			}
			_ = f.Close() // it was only looked at
			closed++
			runIn(t, g, "sh", "-c", `! (: < "$0")`, path)
		}
		// Nor make a node of one: memory and a disk.
		for _, node := range []string{"c 1 1", "b 8 0"} {
			path := filepath.Join(t.TempDir(), "node")
			runIn(t, g, "sh", "-c", `! mknod "$0" $1 2>/dev/null && ! [ -e "$0" ]`, path, node)
		}
		if closed == 0 {
			t.Fatal("there is no device to try")
		}
		// The next server attaches no second program, and forbids nothing that was allowed.
		if err := m.closeDevices(); err != nil {
			t.Error(err)
		}
	}
}
