package initproc

import (
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cloneMounts picks up what of the host was asked for, while its paths still lead there: with what is
// mounted below it, without devices and set-user-ID programs.
func cloneMounts(b *builder, s Spec) []arg {
	var trees []arg
	for _, m := range s.Mounts {
		tree := b.cloneExactly("clone "+m.Source, m.Source)
		attributes := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
		if !m.Writable {
			attributes |= unix.MOUNT_ATTR_RDONLY
		}
		setAttributes(b, "restrict "+m.Source, tree, attributes)
		trees = append(trees, tree)
	}
	return trees
}

const nameFindTarget = "find the mount point "

// attachMounts puts it into the new root, after all that the sandbox has of its own, and in the order
// in which it was asked for. The mount point is found first, beneath the root and through no link, and
// then mounted on by descriptor: there is no second look at the path.
func attachMounts(b *builder, s Spec, trees []arg) {
	for i, m := range s.Mounts {
		makeTarget(b, m)
		name := "attach " + m.Target
		target := b.open2(nameFindTarget+m.Target, relative(m.Target), noLinks|unix.RESOLVE_BENEATH)
		b.step(name, unix.SYS_MOVE_MOUNT, trees[i], b.string(""), target, b.string(""),
			number(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
		b.step(name, unix.SYS_CLOSE, target)
		b.step(name, unix.SYS_CLOSE, trees[i])
	}
}

// makeTarget makes a mount point where the sandbox has a writable place of its own, in which there is
// nothing yet but other mount points.
func makeTarget(b *builder, m Mount) {
	var missing []string
	dir := m.Target
	for dir != Home && dir != "/tmp" {
		if dir == "/" {
			return
		}
		missing = append(missing, dir)
		dir = path.Dir(dir)
	}
	for _, dir := range slices.Backward(missing) {
		name := "make " + dir
		if dir == m.Target && m.File {
			b.step(name, unix.SYS_MKNODAT, cwdFD, b.string(relative(dir)), number(unix.S_IFREG|0o444), number(0))
		} else {
			b.step(name, unix.SYS_MKDIRAT, cwdFD, b.string(relative(dir)), number(0o755))
		}
		b.tolerate(uint16(unix.EEXIST))
	}
}

// BadMount returns the mount point that a step did not find, or nothing.
func (e *StepError) BadMount() string {
	target, found := strings.CutPrefix(e.Name, nameFindTarget)
	if !found {
		return ""
	}
	return target
}
