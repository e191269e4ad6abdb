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
// or a RAID those below it, of a btrfs all that it is on, of an overlay those of its layers, as far
// as they are in sight. Where a path lies on none, why says so.
func FindDevices(paths ...string) (devices []Device, why string) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err.Error()
	}
	return finder{"/sys", parseMountinfo(string(text)), statPlace, statNode}.find(paths)
}

// A finder finds the disks behind paths. Tests give it another sysfs and other answers.
type finder struct {
	sys    string
	mounts []mount
	place  func(path string) (place, error)
	node   func(path string) (major, minor uint32, ok bool) // of a device's file
}

// A place is where the file system of a path is from.
type place struct {
	major, minor uint32
	mount        int // its line in mountinfo; 0 where the kernel is older than 5.8
}

func statPlace(path string) (place, error) {
	var s unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &s); err != nil {
		return place{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	p := place{major: s.Dev_major, minor: s.Dev_minor}
	if s.Mask&unix.STATX_MNT_ID != 0 {
		p.mount = int(s.Mnt_id)
	}
	return p, nil
}

func statNode(path string) (major, minor uint32, ok bool) {
	var s unix.Stat_t
	if unix.Stat(path, &s) != nil || s.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, false
	}
	return unix.Major(s.Rdev), unix.Minor(s.Rdev), true
}

func (f finder) find(paths []string) (devices []Device, why string) {
	for _, path := range paths {
		found, whyNot := f.behind(path, 0)
		if why == "" {
			why = whyNot
		}
		for _, d := range found {
			if !slices.Contains(devices, d) {
				devices = append(devices, d)
			}
		}
	}
	return devices, why
}

// behind are the disks behind one path; depth counts overlays on overlays.
func (f finder) behind(path string, depth int) ([]Device, string) {
	p, err := f.place(path)
	if err != nil {
		return nil, err.Error()
	}
	if found := f.disks(fmt.Sprintf("dev/block/%d:%d", p.major, p.minor)); len(found) > 0 {
		return found, ""
	}
	// Device numbers that stand for no device, proc_pid_mountinfo(5).
	i := slices.IndexFunc(f.mounts, func(m mount) bool { return m.id == p.mount })
	if i < 0 {
		return nil, fmt.Sprintf("%s is on no block device (%d:%d)", path, p.major, p.minor)
	}
	m := f.mounts[i]
	switch {
	case m.kind == "overlay" && depth < 3:
		return f.layers(path, m.options, depth)
	case m.kind == "btrfs":
		if found := f.btrfs(m.source); len(found) > 0 {
			return found, ""
		}
	}
	return nil, fmt.Sprintf("%s is on %s, %s", path, m.kind, nature(m.kind))
}

// nature says why a type of file system has no disk to limit.
func nature(kind string) string {
	switch {
	case kind == "tmpfs", kind == "ramfs", kind == "rootfs":
		return "which is in memory: there the memory limit counts"
	case strings.HasPrefix(kind, "nfs"), kind == "cifs", kind == "smb3", kind == "ceph", kind == "afs", kind == "glusterfs":
		return "which is over the network, where no disk of this machine can be limited"
	case kind == "9p", kind == "virtiofs":
		return "which is another machine's, where no disk of this one can be limited"
	case kind == "zfs":
		return "which reads and writes its disks itself, for everybody"
	case strings.HasPrefix(kind, "fuse"):
		return "which is another program's, in whose name it reads and writes"
	}
	return "which has no disk of its own to limit"
}

// layers are the disks of an overlay's layers. Their paths are those of who made the mount, perhaps
// in another mount namespace: then they are not found.
func (f finder) layers(path, options string, depth int) (devices []Device, why string) {
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		if key != "upperdir" && key != "lowerdir" && key != "lowerdir+" && key != "datadir+" {
			continue
		}
		for layer := range strings.SplitSeq(value, ":") {
			if layer == "" { // "::" comes before layers that have data alone
				continue
			}
			found, whyNot := f.behind(layer, depth+1)
			if whyNot != "" && why == "" {
				why = fmt.Sprintf("%s is on overlay, and of its layers %s", path, whyNot)
			}
			for _, d := range found {
				if !slices.Contains(devices, d) {
					devices = append(devices, d)
				}
			}
		}
	}
	if len(devices) == 0 && why == "" {
		why = path + " is on overlay, which does not name its layers"
	}
	return devices, why
}

// btrfs are the disks of a btrfs that is mounted from source: one device of perhaps several.
func (f finder) btrfs(source string) []Device {
	major, minor, ok := f.node(source)
	if !ok {
		return nil
	}
	own := fmt.Sprintf("dev/block/%d:%d", major, minor)
	name, err := filepath.EvalSymlinks(filepath.Join(f.sys, own))
	if err != nil {
		return nil
	}
	for _, id := range linked(filepath.Join(f.sys, "fs/btrfs")) {
		all := linked(filepath.Join(f.sys, "fs/btrfs", id, "devices"))
		if !slices.Contains(all, filepath.Base(name)) {
			continue
		}
		var devices []Device
		for _, n := range all {
			devices = append(devices, f.disks(filepath.Join("fs/btrfs", id, "devices", n))...)
		}
		return devices
	}
	return f.disks(own)
}

// disks returns the whole disks behind a device's folder in sysfs.
func (f finder) disks(folder string) []Device {
	dir, err := filepath.EvalSymlinks(filepath.Join(f.sys, folder))
	if err != nil {
		return nil
	}
	if exists(dir, "partition") {
		dir = filepath.Dir(dir)
	}
	if below := linked(filepath.Join(dir, "slaves")); len(below) > 0 {
		base, err := filepath.EvalSymlinks(f.sys)
		if err != nil {
			return nil
		}
		inside, err := filepath.Rel(base, dir)
		if err != nil {
			return nil
		}
		var all []Device
		for _, name := range below {
			for _, d := range f.disks(filepath.Join(inside, "slaves", name)) {
				if !slices.Contains(all, d) { // two partitions of one disk
					all = append(all, d)
				}
			}
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

// stacked tells whether a device, as "8:0", passes on to others what it is given: what it did is
// counted once more there.
func stacked(number string) bool {
	dir := filepath.Join("/sys/dev/block", number)
	return len(linked(filepath.Join(dir, "slaves"))) > 0
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
