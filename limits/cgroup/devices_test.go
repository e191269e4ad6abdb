package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeSys makes a sysfs of block devices: "name number" a line, a partition below its disk, and
// "name number < name name" for what lies on others.
func fakeSys(t *testing.T, text string) string {
	t.Helper()
	sys := t.TempDir()
	dirs := map[string]string{}
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, path string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		relative, err := filepath.Rel(filepath.Dir(path), to)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(relative, path); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(text) {
		made, below, _ := strings.Cut(line, " < ")
		words := strings.Fields(made)
		if len(words) == 0 {
			continue
		}
		disk, partition := filepath.Split(words[0])
		dir := filepath.Join(sys, "devices/block", disk, partition)
		dirs[partition] = dir
		write(filepath.Join(dir, "dev"), words[1]+"\n")
		if disk != "" {
			write(filepath.Join(dir, "partition"), "1\n")
		} else if err := os.MkdirAll(filepath.Join(dir, "slaves"), 0o755); err != nil {
			t.Fatal(err)
		}
		link(dir, filepath.Join(sys, "dev/block", words[1]))
		for _, name := range strings.Fields(below) {
			link(dirs[name], filepath.Join(dir, "slaves", name))
		}
	}
	link(dirs["sda2"], filepath.Join(sys, "fs/btrfs/uuid/devices/sda2"))
	link(dirs["sdb"], filepath.Join(sys, "fs/btrfs/uuid/devices/sdb"))
	return sys
}

func TestFindDevices(t *testing.T) {
	sys := fakeSys(t, `
sda 8:0
sda/sda1 8:1
sda/sda2 8:2
sdb 8:16
nvme0n1 259:0
nvme0n1/nvme0n1p1 259:1
loop0 7:0
loop0/loop0p1 259:7
md0 9:0 < sda1 sdb
dm-0 253:0 < sda1 sda2
dm-1 253:1 < dm-0 nvme0n1p1
zram0 252:0
`)
	mounts := parseMountinfo(`21 1 0:21 / /tmp rw - tmpfs tmpfs rw
22 1 0:22 / /nfs rw - nfs4 host:/x rw
23 1 0:23 / /both rw - overlay overlay rw,lowerdir=/on/8-1:/on/259-1,upperdir=/on/8-16,workdir=/w
24 1 0:24 / /mixed rw - overlay overlay rw,lowerdir=/on/8-1,upperdir=/tmp,workdir=/w
25 1 0:25 / /foreign rw - overlay overlay rw,lowerdir=/not/here,upperdir=/nor/here
26 1 0:26 / /btrfs rw - btrfs /dev/8-2 rw
27 1 0:27 / /single rw - btrfs /dev/259-1 rw
28 1 0:28 / /zfs rw - zfs pool/x rw
29 1 0:29 / /sshfs rw - fuse.sshfs host:x rw
30 1 0:30 / /bare rw - overlay overlay rw
31 1 0:31 / /guest rw - virtiofs root rw
`)
	number := func(text string) (major, minor uint32, ok bool) {
		n, _ := fmt.Sscanf(text, "%d-%d", &major, &minor)
		return major, minor, n == 2
	}
	f := finder{sys: sys, mounts: mounts,
		place: func(path string) (place, error) {
			for _, m := range mounts {
				if m.point == path {
					return place{0, uint32(m.id), m.id}, nil
				}
			}
			major, minor, ok := number(strings.TrimPrefix(path, "/on/"))
			if !ok {
				return place{}, &os.PathError{Op: "statx", Path: path, Err: os.ErrNotExist}
			}
			return place{major, minor, 1}, nil
		},
		node: func(path string) (uint32, uint32, bool) { return number(strings.TrimPrefix(path, "/dev/")) },
	}
	for _, test := range []struct{ paths, devices, why string }{
		{"/on/8-0", "sda", ""},
		{"/on/8-1", "sda", ""},
		{"/on/8-1 /on/8-2", "sda", ""},
		{"/on/8-1 /on/8-16", "sda sdb", ""},
		{"/on/259-0", "nvme0n1", ""},
		{"/on/259-1", "nvme0n1", ""},
		{"/on/7-0", "loop0", ""},
		{"/on/259-7", "loop0", ""},
		{"/on/9-0", "sda sdb", ""},
		{"/on/253-0", "sda", ""},
		{"/on/253-1", "sda nvme0n1", ""},
		{"/on/252-0", "zram0", ""},
		{"/on/77-0", "", "/on/77-0 is on no block device (77:0)"},
		{"/gone", "", "statx /gone: file does not exist"},
		{"/tmp", "", "/tmp is on tmpfs, which is in memory: there the memory limit counts"},
		{"/nfs", "", "/nfs is on nfs4, which is over the network, where no disk of this machine can be limited"},
		{"/guest", "", "/guest is on virtiofs, which is another machine's, where no disk of this one can be limited"},
		{"/zfs", "", "/zfs is on zfs, which reads and writes its disks itself, for everybody"},
		{"/sshfs", "", "/sshfs is on fuse.sshfs, which is another program's, in whose name it reads and writes"},
		{"/on/8-1 /tmp", "sda", "/tmp is on tmpfs, which is in memory: there the memory limit counts"},
		{"/both", "sda nvme0n1 sdb", ""},
		{"/mixed", "sda", "/mixed is on overlay, and of its layers /tmp is on tmpfs, which is in memory: there the memory limit counts"},
		{"/foreign", "", "/foreign is on overlay, and of its layers statx /not/here: file does not exist"},
		{"/bare", "", "/bare is on overlay, which does not name its layers"},
		{"/btrfs", "sda sdb", ""},
		{"/single", "nvme0n1", ""},
	} {
		devices, why := f.find(strings.Fields(test.paths))
		var names []string
		for _, d := range devices {
			if text, err := os.ReadFile(filepath.Join(sys, "devices/block", d.Name, "dev")); err != nil ||
				strings.TrimSpace(string(text)) != fmt.Sprintf("%d:%d", d.Major, d.Minor) {
				t.Errorf("%s: %+v is not the device of that name", test.paths, d)
			}
			names = append(names, d.Name)
		}
		if got := strings.Join(names, " "); got != test.devices || why != test.why {
			t.Errorf("%s: got %q, %q; want %q, %q", test.paths, got, why, test.devices, test.why)
		}
	}
}
