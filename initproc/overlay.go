package initproc

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOverlay makes a root that is a writable view of the host's: the kernel's
// filesystems/overlayfs.rst. What the job changes lies in the upper layer, which is in memory, of
// limited size, counted in the job's memory limit, and gone with the sandbox. Init keeps a descriptor
// of it, by which the server sees what was changed.
//
// An overlay is of one file system: others that are mounted in the host's tree are put into it
// read-only, but for those that are covered later.
//
// The layers' paths are relative ones: then nothing in them is taken for an option or a separator.
func mountOverlay(b *builder, s Spec, h host) {
	b.mount("mount the layers", "tmpfs", s.Anchor, unix.MS_NOSUID|unix.MS_NODEV, "mode=700"+sizeOption(s.OverlaySize))
	b.step("enter the layers", unix.SYS_CHDIR, b.string(s.Anchor))
	for _, dir := range []string{"upper", "work", "root"} {
		b.step("make the layers", unix.SYS_MKDIRAT, cwdFD, b.string(dir), number(0o755))
	}
	upper := b.stepResult("open the upper layer", unix.SYS_OPENAT, cwdFD, b.string("upper"),
		number(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), number(0))
	b.keep("open the upper layer", upper, fdUpper)
	// How changes are stored is not left to the machine's defaults: the server reads it.
	b.mount("mount the overlay", "overlay", "root", unix.MS_NOSUID|unix.MS_NODEV,
		"lowerdir=/,upperdir=upper,workdir=work,redirect_dir=off,metacopy=off")
	b.step("enter the root", unix.SYS_CHDIR, b.string("root"))
	for _, path := range h.mounts {
		if under(path, s.Hide) || under(path, covered) {
			continue
		}
		tree := b.stepResult("clone "+path, unix.SYS_OPEN_TREE, cwdFD, b.string(path),
			number(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
		setAttributes(b, "make "+path+" read-only", tree,
			unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
		moveMount(b, "attach "+path, tree, relative(path))
		b.step("attach "+path, unix.SYS_CLOSE, tree)
	}
}

// covered are the places of every root that the sandbox has something of its own for.
var covered = []string{"/proc", "/dev", "/tmp", "/mnt", "/home"}

// under tells whether path is one of dirs, or below one.
func under(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, dir+"/")
	})
}

// mountsBelowRoot are where this process has something mounted below its root; what is below one of
// them is left out.
func mountsBelowRoot() ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(text), nil
}

// parseMounts reads proc_pid_mountinfo(5): the fifth field is the mount point.
func parseMounts(mountinfo []byte) []string {
	var all, top []string
	for line := range bytes.Lines(mountinfo) {
		if fields := strings.Fields(string(line)); len(fields) > 4 && fields[4] != "/" {
			all = append(all, unescape(fields[4]))
		}
	}
	slices.Sort(all)
	for _, path := range all {
		if !under(path, top) {
			top = append(top, path)
		}
	}
	return top
}

// unescape replaces \040, and what else the kernel writes so.
func unescape(field string) string {
	parts := strings.Split(field, `\`)
	for i, part := range parts[1:] {
		if len(part) < 3 {
			continue
		}
		if c, err := strconv.ParseUint(part[:3], 8, 8); err == nil {
			parts[i+1] = string([]byte{byte(c)}) + part[3:]
		}
	}
	return strings.Join(parts, "")
}
