package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The kernel's files are opened without package os: os.Open would enter each into the runtime's
// poller, which they accept, and a start opens two dozen of them.

// A dir is the directory of a group: a name below a directory that is held open, or a whole path. The way
// from the root to a group costs as much as all the rest of opening one of its files.
type dir struct {
	at   *os.File // nil for a whole path
	name string
}

func (d dir) fd() int {
	if d.at == nil {
		return unix.AT_FDCWD
	}
	return int(d.at.Fd()) // -1 when it was closed: EBADF
}

// path is the whole path of a file in it, and of itself without one.
func (d dir) path(file string) string {
	if d.at == nil {
		return filepath.Join(d.name, file)
	}
	return filepath.Join(d.at.Name(), d.name, file)
}

// open opens a file in it, and retries where a signal interrupted.
func (d dir) open(file string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(d.fd(), d.name+"/"+file, flags|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, &os.PathError{Op: "open", Path: d.path(file), Err: err}
		}
	}
}

// read returns the text of a file without the last newline.
func (d dir) read(file string) (string, error) {
	fd, err := d.open(file, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return d.readAll(file, fd)
}

func (d dir) readAll(file string, fd int) (string, error) {
	text, err := readAll(fd)
	if err != nil {
		return "", &os.PathError{Op: "read", Path: d.path(file), Err: err}
	}
	return text, nil
}

// readAll reads fd from its beginning, wherever it stands.
//
// The kernel writes such a file as one record (seq_file.rst, kernfs_seq_start), and a read gives as much of
// a record as there is room for: when room is left, that was all. It is not so for cgroup.procs and tasks,
// which have a record a process.
func readAll(fd int) (text string, err error) {
	var buffer [4096]byte
	for {
		n, err := unix.Pread(fd, buffer[:], int64(len(text)))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		text += string(buffer[:n])
		if n < len(buffer) {
			return strings.TrimSuffix(text, "\n"), nil
		}
	}
}

// write writes value to a file in one call, which is how these files want it.
func (d dir) write(file, value string) error {
	fd, err := d.open(file, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return d.writeAll(file, fd, value)
}

func (d dir) writeAll(file string, fd int, value string) error {
	for {
		_, err := unix.Write(fd, []byte(value))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("write %q to %s: %w", value, d.path(file), err)
		}
		return nil
	}
}

// set writes value to a file, and returns what the kernel then says is in it.
func (d dir) set(file, value string) (string, error) {
	fd, err := d.open(file, unix.O_RDWR)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := d.writeAll(file, fd, value); err != nil {
		return "", err
	}
	return d.readAll(file, fd) // from the beginning, so it is made anew
}

// remove removes the group and the groups below it. The kernel's files in them go by themselves, so
// os.RemoveAll, which begins with the files, is of no use.
func (d dir) remove() error {
	err := unix.Unlinkat(d.fd(), d.name, unix.AT_REMOVEDIR)
	if err == unix.EBUSY {
		for _, child := range children(d.path("")) {
			if err := (dir{d.at, d.name + "/" + child}).remove(); err != nil {
				return err
			}
		}
		err = unix.Unlinkat(d.fd(), d.name, unix.AT_REMOVEDIR)
	}
	if err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: d.path(""), Err: err}
	}
	return nil
}

func readFile(path, file string) (string, error) { return dir{nil, path}.read(file) }
func writeFile(path, file, value string) error   { return dir{nil, path}.write(file, value) }
func removeTree(path string) error               { return dir{nil, path}.remove() }

// hold opens a directory to go on from.
func hold(path string) (*os.File, error) {
	fd, err := dir{nil, path}.open("", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func exists(path, name string) bool {
	return unix.Access(filepath.Join(path, name), unix.F_OK) == nil
}

// gone says whether err means that the group is not there (any more). Reading a file of a group
// that was removed after the file was opened gives ENODEV.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// makeDir makes path unless it is there.
func makeDir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// children are the names of the groups directly below the one at path.
func children(path string) []string {
	// What cannot be listed has no children that could be dealt with.
	entries, _ := os.ReadDir(path)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// field returns the number after key in a text of lines "key number".
func field(text, key string) (uint64, bool) {
	for line := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(line, key+" "); found {
			n, err := strconv.ParseUint(strings.TrimSpace(rest), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// pids reads a text of one pid a line. A pid of 0 is a process that this PID namespace cannot
// see; it is left out.
func pids(text string) []int {
	var list []int
	for _, word := range strings.Fields(text) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			list = append(list, pid)
		}
	}
	return list
}
