package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Device is a whole disk, as the io controller wants it.
type Device struct {
	Major, Minor uint32
	Name         string // "sda"
}

// FindDevices returns the disks behind paths: of a partition its disk, of a device mapper's target
// those below it. Where a path lies on none, why says so.
func FindDevices(paths ...string) (devices []Device, why string) {
	for _, path := range paths {
		var s unix.Stat_t
		if err := unix.Stat(path, &s); err != nil {
			return nil, fmt.Sprintf("%s: %v", path, err)
		}
		major, minor := unix.Major(s.Dev), unix.Minor(s.Dev)
		found := disks(fmt.Sprintf("/sys/dev/block/%d:%d", major, minor))
		if len(found) == 0 && why == "" {
			why = fmt.Sprintf("%s is on no block device (%d:%d; a file system in memory, on the network, or of several layers)",
				path, major, minor)
		}
		for _, d := range found {
			if !slices.Contains(devices, d) {
				devices = append(devices, d)
			}
		}
	}
	return devices, why
}

// disks returns the whole disks behind a device's folder in sysfs.
func disks(sys string) []Device {
	dir, err := filepath.EvalSymlinks(sys)
	if err != nil {
		return nil
	}
	if exists(dir, "partition") {
		dir = filepath.Dir(dir)
	}
	if below := linked(filepath.Join(dir, "slaves")); len(below) > 0 {
		var all []Device
		for _, name := range below {
			all = append(all, disks(filepath.Join(dir, "slaves", name))...)
		}
		return all
	}
	text, err := os.ReadFile(filepath.Join(dir, "dev"))
	if err != nil {
		return nil
	}
	d := Device{Name: filepath.Base(dir)}
	if _, err := fmt.Sscanf(strings.TrimSpace(string(text)), "%d:%d", &d.Major, &d.Minor); err != nil {
		return nil
	}
	return []Device{d}
}

// linked are the names in a folder of sysfs, which are links.
func linked(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
