package initproc

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// cloneWork picks up the work directory by the path that it has on the host, if it has one.
func cloneWork(b *builder, s Spec) arg {
	if s.Work == "" {
		return arg{}
	}
	work := b.stepResult("clone the work directory", unix.SYS_OPEN_TREE, cwdFD, b.string(s.Work),
		number(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
	setAttributes(b, "restrict the work directory", work,
		unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	return work
}

// makeHome covers /home with a place for the work directory.
func makeHome(b *builder) {
	b.mount("mount /home", "tmpfs", "home", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=4k,nr_inodes=3")
	b.step("make "+Home, unix.SYS_MKDIRAT, cwdFD, b.string(relative(Home)), number(0o755))
	b.remountReadOnly("make /home read-only", "home")
}

// mountWork puts the work directory there: the host's that cloneWork picked up, or one in memory, which
// is counted in the job's memory limit and gone with the sandbox.
func mountWork(b *builder, s Spec, work arg) {
	if s.Work == "" {
		owner := "" // in a user namespace its one user
		if !s.UserNamespace {
			owner = fmt.Sprintf(",uid=%d,gid=%d", s.UID, s.GID)
		}
		b.mount("mount the work directory", "tmpfs", relative(Home), unix.MS_NOSUID|unix.MS_NODEV,
			"mode=700"+owner+sizeOption(s.Usual.Work))
	} else {
		moveMount(b, "attach the work directory", work, relative(Home))
		b.step("attach the work directory", unix.SYS_CLOSE, work)
	}
}
