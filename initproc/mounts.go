package initproc

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// cwdFD is AT_FDCWD: a relative path begins at the working directory, which from pivotRoot on is
// the new root.
var cwdFD = number(unix.AT_FDCWD)

// makeMountsPrivate cuts the ties to the host's mount namespace: what is mounted afterwards shows
// nowhere else, mount_namespaces(7). Before any other mount.
func makeMountsPrivate(b *builder) {
	b.step("make mounts private", unix.SYS_MOUNT, number(0), b.string("/"), number(0),
		number(unix.MS_REC|unix.MS_PRIVATE), number(0))
}

func setAttributes(b *builder, name string, tree arg, attributes uint64) {
	attr := b.words(attributes, 0, 0, 0) // struct mount_attr: attr_set, attr_clr, propagation, userns_fd
	b.step(name, unix.SYS_MOUNT_SETATTR, tree, b.string(""),
		number(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE), attr, number(4*8))
}

func moveMount(b *builder, name string, tree arg, path string) {
	b.step(name, unix.SYS_MOVE_MOUNT, tree, b.string(""), cwdFD, b.string(path),
		number(unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// mountTmp gives the job a /tmp of its own, in memory, so counted in its memory limit; /var/tmp is
// the same. So is shared memory, shm_open(3).
func mountTmp(b *builder, s Spec) {
	b.mount("mount /dev/shm", "tmpfs", "dev/shm", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"+sizeOption(s.Usual.Tmp))
	b.mount("mount /tmp", "tmpfs", "tmp", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"+sizeOption(s.Usual.Tmp))
	b.bind("mount /var/tmp", "tmp", "var/tmp")
	b.tolerate(uint16(unix.ENOENT))
}

// resize gives the job's file systems in memory the sizes that were asked for, where those are not the
// usual ones: tmpfs(5), a remount.
func resize(b *builder, s Spec) {
	set := func(path string, size, usual int64) {
		if size != 0 && size != usual {
			b.step("set the size of /"+path, unix.SYS_MOUNT, number(0), b.string(path), number(0),
				number(unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV), b.string(strings.TrimPrefix(sizeOption(size), ",")))
		}
	}
	set("tmp", s.TmpSize, s.Usual.Tmp)
	set("dev/shm", s.TmpSize, s.Usual.Tmp)
	if s.Work == "" {
		set(relative(Home), s.WorkSize, s.Usual.Work)
	}
}

// sizeOption is an option of tmpfs(5), for which half of the machine's memory is the default.
func sizeOption(size int64) string {
	if size == 0 {
		return ""
	}
	return fmt.Sprintf(",size=%d", size)
}

// empty is a directory with nothing in it, to cover others with. /mnt is where the host's administrator
// mounts what is nobody else's.
const empty = "mnt"

func mountEmpty(b *builder) {
	b.mount("hide /mnt", "tmpfs", empty, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
		"mode=755,size=4k,nr_inodes=1")
}

// hide covers private places of the host with the empty directory.
func hide(b *builder, s Spec) {
	for _, path := range s.Hide {
		b.bind("hide "+path, empty, relative(path))
	}
}

// outOfSight are the host's mounts that the sandbox covers. Its /proc stays: inits are executed through
// it.
func outOfSight(s Spec, h host) []string {
	var list []string
	for _, path := range h.mounts {
		if path != "/proc" && (under(path, s.Hide) || under(path, covered)) {
			list = append(list, path)
		}
	}
	return list
}

// keepProcWritable is for openScore: in a template the host's /proc is read-only as all of its root. It
// is covered by the job's own before there is a job.
func keepProcWritable(b *builder) {
	b.step("keep /proc writable", unix.SYS_MOUNT_SETATTR, cwdFD, b.string("proc"), number(0),
		b.words(0, unix.MOUNT_ATTR_RDONLY, 0, 0), number(4*8))
}

// detach takes mounts away, with all below them. It makes each start's copy of the tree smaller, and
// what would be covered is not even there.
func detach(b *builder, paths []string) {
	for _, path := range paths {
		b.step("detach "+path, unix.SYS_UMOUNT2, b.string(relative(path)), number(unix.MNT_DETACH))
		b.tolerate(uint16(unix.EINVAL), uint16(unix.ENOENT)) // gone meanwhile; or locked, in a container
	}
}

func (b *builder) mount(name, fstype, target string, flags uintptr, options string) {
	data := number(0)
	if options != "" {
		data = b.string(options)
	}
	b.step(name, unix.SYS_MOUNT, b.string(fstype), b.string(target), b.string(fstype),
		number(flags), data)
}

// bind shows the file or directory at from also at to; what is mounted at from with its flags.
func (b *builder) bind(name, from, to string) {
	b.step(name, unix.SYS_MOUNT, b.string(from), b.string(to), number(0), number(unix.MS_BIND), number(0))
}

func (b *builder) remountReadOnly(name, target string) {
	b.step(name, unix.SYS_MOUNT, number(0), b.string(target), number(0),
		number(unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV), number(0))
}

// relative is an absolute path of the sandbox as seen from its root.
func relative(path string) string { return strings.TrimPrefix(path, "/") }
