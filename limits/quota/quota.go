// Package quota limits how much of a disk a directory takes, with the project quotas of ext4 and XFS
// (quotactl(2)). Probe tells whether a file system has them; Limit puts an empty directory into a
// project of its own; Release removes the directory and frees its project.
//
// Project quotas do not hold for who has CAP_SYS_RESOURCE, nor for a file's owner who may call
// FS_IOC_FSSETXATTR, FS_IOC_SETFLAGS or file_setattr on it: see initproc.Spec.Project.
package quota

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Projects have ids from firstProject on, far from those that administrators give.
const (
	firstProject = 0x70000000
	projects     = 1 << 28
)

// The commands of quotactl_fd(2), Linux 5.14, for project quotas, linux/quota.h and dqblk_xfs.h.
const (
	prjQuota  = 2
	getQuota  = 0x800007<<8 | prjQuota
	setQuota  = 0x800008<<8 | prjQuota
	getStatus = 0x5808<<8 | prjQuota // Q_XGETQSTATV

	enforced = 1 << 5 // FS_QUOTA_PDQ_ENFD

	validLimits = 1 | 4 // QIF_BLIMITS, QIF_ILIMITS
)

// An if_dqblk.
type diskQuota struct {
	spaceHard, spaceSoft   uint64 // KiB
	space                  uint64 // bytes
	inodesHard, inodesSoft uint64
	inodes                 uint64
	spaceTime, inodesTime  uint64
	valid                  uint32
	_                      uint32
}

// An fs_quota_statv, version 1.
type quotaStatus struct {
	version int8
	_       uint8
	flags   uint16
	_       [172]byte
}

// An fsxattr.
type fsxattr struct {
	flags, extentSize, extents, project, cowSize uint32
	_                                            [8]byte
}

const (
	getXattr     = 0x801c581f // FS_IOC_FSGETXATTR
	setXattr     = 0x401c5820 // FS_IOC_FSSETXATTR
	inheritedBit = 0x200      // FS_XFLAG_PROJINHERIT
)

// Probe returns why the file system of dir does not enforce project quotas, or nil.
func Probe(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	s := quotaStatus{version: 1}
	// ENOSYS is also the answer of a file system without quotas.
	if err := quotactl(f, getStatus, 0, unsafe.Pointer(&s)); err != nil || s.flags&enforced == 0 {
		return fmt.Errorf("the file system of %s does not enforce project quotas (make it with mkfs.ext4 -O quota,project, and mount it with prjquota)", dir)
	}
	// The answer is the file system's; whether it works as well, one directory shows.
	name, err := os.MkdirTemp(dir, ".quota-")
	if err != nil {
		return err
	}
	_, err = Limit(name, 1<<20)
	return errors.Join(err, Release(name, os.RemoveAll))
}

// Limit holds all that is made in an empty directory to so many bytes, and to one inode for each 4
// KiB of them. It returns in words what the kernel said when it was read back.
func Limit(dir string, bytes int64) (how string, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer f.Close()
	project, err := unused(f)
	if err != nil {
		return "", err
	}
	attr, err := attributes(f)
	if err != nil {
		return "", err
	}
	attr.project, attr.flags = project, attr.flags|inheritedBit
	if err := ioctl(f, setXattr, &attr); err != nil {
		return "", fmt.Errorf("put %s into project %d: %w", dir, project, err)
	}
	kib := uint64(bytes+1023) / 1024
	want := diskQuota{spaceHard: kib, inodesHard: kib/4 + 16, valid: validLimits}
	if err := quotactl(f, setQuota, project, unsafe.Pointer(&want)); err != nil {
		return "", fmt.Errorf("limit project %d to %d bytes: %w", project, bytes, err)
	}
	var got diskQuota
	if err := quotactl(f, getQuota, project, unsafe.Pointer(&got)); err != nil {
		return "", fmt.Errorf("read the quota of project %d: %w", project, err)
	}
	if got.spaceHard != kib || got.inodesHard != want.inodesHard || got.inodes == 0 {
		return "", fmt.Errorf("the quota of project %d is %d KiB and %d inodes, of which %s takes %d",
			project, got.spaceHard, got.inodesHard, dir, got.inodes)
	}
	return fmt.Sprintf("project quota %d: %d bytes, %d inodes", project, got.spaceHard<<10, got.inodesHard), nil
}

// unused finds a project that nothing belongs to.
func unused(f *os.File) (uint32, error) {
	for range 100 {
		project := firstProject + rand.Uint32N(projects)
		var q diskQuota
		if err := quotactl(f, getQuota, project, unsafe.Pointer(&q)); err != nil && !errors.Is(err, unix.ENOENT) {
			return 0, fmt.Errorf("read the quota of project %d: %w", project, err)
		}
		if q.inodes == 0 && q.spaceHard == 0 {
			return project, nil
		}
	}
	return 0, errors.New("no free project found")
}

// Release removes a directory, with os.Remove or os.RemoveAll, and with it the limit that Limit has given
// it, if it has.
func Release(dir string, remove func(string) error) error {
	f, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return remove(dir) // not there, or no directory
	}
	file := os.NewFile(uintptr(f), dir)
	defer file.Close() // keeps the file system in reach
	attr, noProject := attributes(file)
	if err := remove(dir); err != nil {
		return err
	}
	if noProject == nil && attr.project >= firstProject && attr.project < firstProject+projects {
		// What it says is about nothing from here on: when it stays, it only takes a few bytes.
		_ = quotactl(file, setQuota, attr.project, unsafe.Pointer(&diskQuota{valid: validLimits}))
	}
	return nil
}

func attributes(f *os.File) (a fsxattr, err error) {
	if err := ioctl(f, getXattr, &a); err != nil {
		return a, fmt.Errorf("read the project of %s: %w", f.Name(), err)
	}
	return a, nil
}

func ioctl(f *os.File, request uintptr, a *fsxattr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(a)))
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

func quotactl(f *os.File, command uintptr, id uint32, data unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), command, uintptr(id), uintptr(data), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("quotactl_fd", errno)
	}
	return nil
}
