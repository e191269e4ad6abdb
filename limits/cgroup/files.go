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

// open opens dir/name and retries where a signal interrupted.
func open(dir, name string, flags int) (int, error) {
	path := filepath.Join(dir, name)
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

// readFile returns the text of dir/name without the last newline.
func readFile(dir, name string) (string, error) {
	fd, err := open(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	text, err := readAll(fd)
	if err != nil {
		return "", &os.PathError{Op: "read", Path: filepath.Join(dir, name), Err: err}
	}
	return text, nil
}

// readAll reads fd from its beginning, wherever it stands.
func readAll(fd int) (string, error) {
	var text []byte
	buffer := make([]byte, 4096)
	for {
		n, err := unix.Pread(fd, buffer, int64(len(text)))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return "", err
		case n == 0:
			return strings.TrimSuffix(string(text), "\n"), nil
		default:
			text = append(text, buffer[:n]...)
		}
	}
}

// writeFile writes value to dir/name in one call, which is how these files want it.
func writeFile(dir, name, value string) error {
	fd, err := open(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Write(fd, []byte(value))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("write %q to %s: %w", value, filepath.Join(dir, name), err)
		}
		return nil
	}
}

func exists(dir, name string) bool {
	return unix.Access(filepath.Join(dir, name), unix.F_OK) == nil
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

// removeTree removes the group dir and the groups below it. The kernel's files in them go by
// themselves, so os.RemoveAll, which begins with the files, is of no use.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == unix.EBUSY {
		for _, child := range children(dir) {
			if err := removeTree(filepath.Join(dir, child)); err != nil {
				return err
			}
		}
		err = unix.Rmdir(dir)
	}
	if err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// children are the names of the groups directly below dir.
func children(dir string) []string {
	// What cannot be listed has no children that could be dealt with.
	entries, _ := os.ReadDir(dir)
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
		words := strings.Fields(line)
		if len(words) == 2 && words[0] == key {
			n, err := strconv.ParseUint(words[1], 10, 64)
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
