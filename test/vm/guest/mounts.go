package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/telerun/tele/test/vm/internal/spec"
)

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

const noExecDevSuid = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// early is what finding the devices takes.
var early = []mount{
	{"proc", "/proc", "proc", noExecDevSuid, ""},
	{"sysfs", "/sys", "sysfs", noExecDevSuid, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, ""},
}

// rootParts make the new root in /root: the host's below memory that takes what is written.
var rootParts = []mount{
	{spec.HostTag, "/host", "virtiofs", unix.MS_RDONLY, ""},
	{"tmpfs", "/writable", "tmpfs", 0, "mode=755"},
	{"overlay", "/root", "overlay", 0,
		"lowerdir=/host,upperdir=/writable/upper,workdir=/writable/work"},
}

// late is what a Linux machine has mounted.
var late = []mount{
	{"proc", "/proc", "proc", noExecDevSuid, ""},
	{"sysfs", "/sys", "sysfs", noExecDevSuid, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, ""},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "ptmxmode=666,mode=620,gid=5"},
	{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
	{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	// As systemd mounts it.
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", noExecDevSuid, "nsdelegate,memory_recursiveprot"},
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := m.mount(); err != nil {
			return err
		}
	}
	return nil
}

func (m mount) mount() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	return nil
}

// enterRoot makes the new root and changes to it. Not by pivot_root, which cannot leave the
// initial RAM disk; after the move, it works for the command.
func enterRoot(orders spec.Spec) error {
	for _, m := range rootParts {
		if err := m.mount(); err != nil {
			return err
		}
		if m.kind == "tmpfs" {
			if err := makeDirs("/writable/upper", "/writable/work"); err != nil {
				return err
			}
			if err := addLayer(orders.Layer); err != nil {
				return err
			}
		}
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the new root to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	kept, err := os.Open(orders.Keep)
	if err != nil {
		return err
	}
	defer kept.Close()
	if err := mountAll(late); err != nil {
		return err
	}
	return show(kept)
}

// addLayer puts the layer's files over the host's. They are copied, since a layer of an overlay
// that is within another one is refused (ELOOP).
func addLayer(layer string) error {
	if layer == "" {
		return nil
	}
	return os.CopyFS("/writable/upper", os.DirFS("/host"+layer))
}

// show brings a folder back that was opened before a mount hid it, at its old place.
func show(dir *os.File) error {
	if _, err := os.Stat(dir.Name()); err == nil {
		return nil
	}
	source := fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
	return mount{source, dir.Name(), "", unix.MS_BIND, ""}.mount()
}

func makeDirs(paths ...string) error {
	for _, path := range paths {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
	}
	return nil
}
