package initproc

import "golang.org/x/sys/unix"

// makeRoot makes the new root and leaves it as the working directory.
func makeRoot(b *builder, s Spec, h host) {
	if s.Overlay {
		mountOverlay(b, s, h)
		return
	}
	root := cloneRoot(b)
	moveMount(b, "attach the root", root, s.Anchor)
	b.step("enter the root", unix.SYS_FCHDIR, root)
	b.step("enter the root", unix.SYS_CLOSE, root)
}

// cloneRoot takes a detached copy of the host's tree of mounts and makes all of it read-only,
// without devices and without set-user-ID programs. As it is not attached yet, nothing can change
// it in between. One call for the whole tree: mount_setattr(2), Linux 5.12.
func cloneRoot(b *builder) arg {
	root := b.stepResult("clone the root", unix.SYS_OPEN_TREE, cwdFD, b.string("/"),
		number(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
	setAttributes(b, "make the root read-only", root,
		unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	return root
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
