package initproc

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// deviceNodes are the devices that a job gets, with their minor numbers (the kernel's
// admin-guide/devices.txt): none of them holds anything.
var deviceNodes = []struct {
	name         string
	major, minor uint32
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

// CheckDevices makes sure that the host's nodes, which jobs get, are what they are called.
func CheckDevices() error {
	for _, node := range deviceNodes {
		path := "/dev/" + node.name
		var s unix.Stat_t
		if err := unix.Lstat(path, &s); err != nil {
			return &os.PathError{Op: "stat", Path: path, Err: err}
		}
		if s.Mode&unix.S_IFMT != unix.S_IFCHR || s.Rdev != unix.Mkdev(node.major, node.minor) {
			return fmt.Errorf("%s is not character device %d:%d: jobs would get whatever it is", path, node.major, node.minor)
		}
	}
	return nil
}

// cloneDevices picks up the host's nodes. They are bound and not made: mknod(2) is nobody's in a
// user namespace. Before the root is covered, where they lie without "nodev". A node is written to
// on a read-only mount, too; what cannot be is the host's inode: its mode, which is its owner's to
// change when the job is uid 0, and its times.
func cloneDevices(b *builder) []arg {
	var nodes []arg
	for _, node := range deviceNodes {
		path := "/dev/" + node.name
		fd := b.stepResult("clone "+path, unix.SYS_OPEN_TREE, cwdFD, b.string(path), number(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
		setAttributes(b, "make "+path+" read-only", fd, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
		nodes = append(nodes, fd)
	}
	return nodes
}

// makeDev makes a /dev with those nodes and the usual links, read-only.
func makeDev(b *builder, nodes []arg) {
	b.mount("mount /dev", "tmpfs", "dev", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=755,size=64k,nr_inodes=32")
	for i, node := range deviceNodes {
		path, title := "dev/"+node.name, "attach /dev/"+node.name
		b.step(title, unix.SYS_MKNODAT, cwdFD, b.string(path), number(unix.S_IFREG|0o444), number(0))
		moveMount(b, title, nodes[i], path)
		b.step(title, unix.SYS_CLOSE, nodes[i])
	}
	b.step("make /dev/pts", unix.SYS_MKDIRAT, cwdFD, b.string("dev/pts"), number(0o755))
	b.step("make /dev/shm", unix.SYS_MKDIRAT, cwdFD, b.string("dev/shm"), number(0o1777))
	for _, link := range [][2]string{
		{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"},
		{"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"},
		{"pts/ptmx", "dev/ptmx"},
	} {
		b.step("link /"+link[1], unix.SYS_SYMLINKAT, b.string(link[0]), cwdFD, b.string(link[1]))
	}
	b.step("make /dev read-only", unix.SYS_MOUNT, number(0), b.string("dev"), number(0),
		number(unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NOEXEC), number(0))
}

// mountTerminals gives the job pseudo-terminals of its own, pts(4).
func mountTerminals(b *builder) {
	b.mount("mount /dev/pts", "devpts", "dev/pts", unix.MS_NOSUID|unix.MS_NOEXEC,
		"newinstance,ptmxmode=0666,mode=0620,max=256") // of the machine's 4096, kernel.pty.max
}
