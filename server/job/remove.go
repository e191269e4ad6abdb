package job

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// removeAll is os.RemoveAll for what a job made, when the job is over. It has one directory open at a
// time, where os.RemoveAll has one for each level: a tree deeper than the server may have descriptors
// would take them all, and could not be removed. And it gives itself the permissions that the job took
// from its directories, which a server that is not root needs.
func removeAll(path string) error {
	w := walk{top: path}
	err := w.enter(unix.AT_FDCWD, path)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return os.Remove(path)
	case err != nil:
		return err
	}
	defer func() { _ = w.dir.Close() }() // it was read
	for {
		name, err := w.clear()
		switch {
		case err != nil:
			return err
		case name != "":
			err = w.enter(int(w.dir.Fd()), name)
		case len(w.way) == 1:
			return os.Remove(path)
		default:
			err = w.leave()
		}
		if err != nil {
			return err
		}
	}
}

// A walk is removeAll's, on its way.
type walk struct {
	top string
	dir *os.File // where it is
	way []uint64 // inodes from the top to there
}

// enter goes into the directory called name, and never follows a link.
func (w *walk) enter(at int, name string) error {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, flags, 0)
	if err == unix.EACCES { // a directory, or else it would be another error
		if err = unix.Fchmodat(at, name, 0o700, 0); err == nil {
			fd, err = unix.Openat(at, name, flags, 0)
		}
	}
	if err != nil {
		return w.failed("open", name, err)
	}
	_ = unix.Fchmod(fd, 0o700) // where it is needed and fails, so will what needs it
	return w.at(fd, false)
}

// leave goes to the directory above, which must be the one that it came from.
func (w *walk) leave() error {
	fd, err := unix.Openat(int(w.dir.Fd()), "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return w.failed("open", "..", err)
	}
	w.way = w.way[:len(w.way)-1]
	return w.at(fd, true)
}

func (w *walk) at(fd int, back bool) error {
	var s unix.Stat_t
	err := unix.Fstat(fd, &s)
	if last := len(w.way) - 1; err == nil && back && w.way[last] != s.Ino {
		err = errors.New("the directory was moved meanwhile")
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was done with it
		return w.failed("stat", ".", err)
	}
	if !back {
		w.way = append(w.way, s.Ino)
	}
	if w.dir != nil {
		_ = w.dir.Close() // it was read
	}
	w.dir = os.NewFile(uintptr(fd), w.top)
	return nil
}

// clear removes what is in the directory, up to the first directory that is not empty, whose name it
// returns; "" when nothing is left.
func (w *walk) clear() (string, error) {
	for {
		if _, err := w.dir.Seek(0, 0); err != nil {
			return "", err
		}
		names, err := w.dir.Readdirnames(256)
		if len(names) == 0 {
			if err == nil || err == io.EOF {
				return "", nil
			}
			return "", err
		}
		for _, name := range names {
			fd := int(w.dir.Fd())
			err := unix.Unlinkat(fd, name, 0)
			if err == unix.EISDIR || err == unix.EPERM {
				err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
			}
			switch err {
			case nil, unix.ENOENT:
			case unix.ENOTEMPTY, unix.EEXIST:
				return name, nil
			default:
				return "", w.failed("remove", name, err)
			}
		}
	}
}

// failed says where, without all of a path that may be very long.
func (w *walk) failed(what, name string, err error) error {
	if name == w.top {
		return &os.PathError{Op: what, Path: w.top, Err: err}
	}
	return fmt.Errorf("%s %s, %d directories below %s: %w", what, Quote(filepath.Base(name)), max(len(w.way)-1, 0), w.top, err)
}
