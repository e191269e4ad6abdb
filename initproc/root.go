package initproc

import "golang.org/x/sys/unix"

// What is opened by a path that was asked for must be what the path says: no link may lead elsewhere,
// openat2(2), Linux 5.6.
const noLinks = unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// makeRoot makes the new root and leaves it as the working directory.
func makeRoot(b *builder, s Spec, h host) {
	if s.Overlay {
		mountOverlay(b, s, h)
		return
	}
	root := cloneRoot(b, s)
	moveMount(b, "attach the root", root, s.Anchor)
	b.step("enter the root", unix.SYS_FCHDIR, root)
	b.step("enter the root", unix.SYS_CLOSE, root)
}

// cloneRoot takes a detached copy of a tree of mounts, the host's or a part of it, and makes it read-only,
// without devices and without set-user-ID programs. As it is not attached yet, nothing can change
// it in between. One call for the whole tree: mount_setattr(2), Linux 5.12.
func cloneRoot(b *builder, s Spec) arg {
	const name = "clone the root"
	if s.Root != "" {
		root := b.cloneExactly(name, s.Root)
		setAttributes(b, "make the root read-only", root,
			unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
		return root
	}
	root := b.stepResult(name, unix.SYS_OPEN_TREE, cwdFD, b.string("/"),
		number(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
	setAttributes(b, "make the root read-only", root,
		unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	return root
}

// cloneExactly takes a detached copy of what is mounted at path and below it.
func (b *builder) cloneExactly(name, path string) arg {
	at := b.open2(name, path, noLinks)
	tree := b.stepResult(name, unix.SYS_OPEN_TREE, at, b.string(""),
		number(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH))
	b.step(name, unix.SYS_CLOSE, at)
	return tree
}

// open2 opens a place, not what is in it.
func (b *builder) open2(name, path string, resolve uint64) arg {
	how := b.words(unix.O_PATH|unix.O_CLOEXEC, 0, resolve) // struct open_how
	return b.stepResult(name, unix.SYS_OPENAT2, cwdFD, b.string(path), how, number(3*8))
}

// pivotRoot makes the working directory the root, and lets go of the host's: after it no path leads
// back, so that also a link in the new root leads nowhere else. pivot_root(2), "pivot_root(".", ".")":
// the old root lies on top of the new one until it is unmounted, so it needs no directory. chroot(2)
// would leave the old root in reach.
func pivotRoot(b *builder) {
	b.step("pivot to the root", unix.SYS_PIVOT_ROOT, b.string("."), b.string("."))
	b.step("detach the host's root", unix.SYS_UMOUNT2, b.string("."), number(unix.MNT_DETACH))
	b.step("enter the root", unix.SYS_CHDIR, b.string("/"))
}
