package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// place returns the group of the version 2 tree that the server's own group goes into.
//
// A group with processes in it cannot hand controllers to groups below it, and one that does takes
// no process in: EBUSY. For a unit with Delegate=yes that means: once there are jobs with limits
// below the unit's group, systemd cannot start the unit again in that group, as it would have to for
// a server that was killed or restarted while its jobs went on; the unit fails with 219/CGROUP. From
// systemd 254 on, DelegateSubgroup= has it start the server in a group below, so that the unit's own
// stays empty. Only then do the jobs go into the unit's group.
func (m *Manager) place(h hierarchy) (string, error) {
	own, err := ownGroup(h)
	root := os.Geteuid() == 0
	if err == nil && own != h.point {
		// Not the root of what is mounted: in a container that one may be marked as delegated, and
		// belongs to the container's init.
		unit := filepath.Dir(own)
		if unit != h.point && isDelegated(unit) && unix.Access(unit, unix.W_OK) == nil {
			return unit, nil
		}
		if root && isDelegated(own) {
			m.notes = append(m.notes, fmt.Sprintf("jobs are in groups below %s, not in %s, which systemd "+
				"delegated: that takes DelegateSubgroup= in the unit, and systemd 254", h.point, own))
		}
	}
	if root {
		return h.point, nil
	}
	if err != nil {
		return "", err
	}
	if err := unix.Access(own, unix.W_OK); err != nil {
		return "", fmt.Errorf("%s is not delegated to this user (start the server under "+
			"systemd with Delegate=yes, or as root)", own)
	}
	return own, m.moveToLeaf(own)
}

// ownGroup is the directory of the group that this process is in.
func ownGroup(h hierarchy) (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	path, found := ownV2(string(text))
	dir, below := h.dir(path)
	if !found || !below {
		return "", errors.New("this process's own group is not in sight")
	}
	return dir, nil
}

// isDelegated tells whether systemd has marked a group as left to what runs in it: the attribute
// user.delegate, from 251 on, and trusted.delegate, which only root can read.
func isDelegated(dir string) bool {
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		value := make([]byte, 1)
		if n, err := unix.Getxattr(dir, name, value); err == nil && n == 1 && value[0] == '1' {
			return true
		}
	}
	return false
}

// moveToLeaf makes room for groups that get controllers: a group with processes has none.
func (m *Manager) moveToLeaf(own string) error {
	leaf := filepath.Join(own, "server")
	if err := makeDir(leaf); err != nil {
		return err
	}
	if err := writeFile(leaf, "cgroup.procs", "0"); err != nil {
		_ = removeTree(leaf) // it was made a line ago
		return err
	}
	m.own = own
	return nil
}
