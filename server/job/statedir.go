package job

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stateVersion is the version of the state directory's layout, in its file "version".
const stateVersion = 1

// OpenStateDir makes the state directory if it is missing and locks it for this process; closing
// what it returns, or the process's end, gives it free. It refuses a directory that another server
// uses, that is of another version, or that this process may not write.
func OpenStateDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w (tele serve --state-dir chooses another)", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w (run the server as the user it belongs to, or choose another with --state-dir)", err)
	}
	if err := lockAndCheck(dir, lock); err != nil {
		_ = lock.Close() // nothing was written
		return nil, err
	}
	return lock, nil
}

// checkOwner refuses a directory in which others could put their own files in the place of the
// server's: what is in it is the server's alone, but names belong to the directory.
func checkOwner(dir string) error {
	var s unix.Stat_t
	if err := unix.Stat(dir, &s); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if s.Mode&0o002 != 0 {
		return fmt.Errorf("state directory %s can be written by everybody, mode %#o (chmod o-w %s)", dir, s.Mode&0o7777, dir)
	}
	if uid := os.Geteuid(); s.Uid != 0 && int(s.Uid) != uid {
		return fmt.Errorf("state directory %s belongs to uid %d, and this server is uid %d (chown it, or choose another with --state-dir)",
			dir, s.Uid, uid)
	}
	return nil
}

func lockAndCheck(dir string, lock *os.File) error {
	if err := checkOwner(dir); err != nil {
		return err
	}
	// The lock ends with the process, however that ends: flock(2).
	err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	holder, _ := os.ReadFile(lock.Name()) // without it the lock alone counts
	for until := time.Now().Add(lockGrace); err == unix.EWOULDBLOCK && gone(holder) && time.Now().Before(until); {
		time.Sleep(lockGrace / 200) // flock(2) waits for ever or not at all
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == unix.EWOULDBLOCK {
		return fmt.Errorf("state directory %s is in use by another server, pid %s (stop that one, or choose another with --state-dir)",
			dir, strings.TrimSpace(string(holder)))
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if err := lock.Truncate(0); err != nil {
		return err
	}
	if _, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return checkVersion(filepath.Join(dir, "version"))
}

// lockGrace is how long to wait for the lock of a server that is gone: it may have forked an init that
// has not come to its execve(2) yet, and has all its descriptors until then.
const lockGrace = 5 * time.Second

// gone tells whether the process that a lock names has surely ended.
func gone(holder []byte) bool {
	pid, err := strconv.Atoi(strings.TrimSpace(string(holder)))
	return err == nil && unix.Kill(pid, 0) == unix.ESRCH
}

// checkVersion reads the version of a state directory, and writes it into a new one.
func checkVersion(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return os.WriteFile(path, []byte(strconv.Itoa(stateVersion)+"\n"), 0o600)
	}
	if err != nil {
		return err
	}
	if found := strings.TrimSpace(string(text)); found != strconv.Itoa(stateVersion) {
		return fmt.Errorf("state directory %s is of version %q and this server knows %d (use the server that made it, or choose another with --state-dir)",
			filepath.Dir(path), found, stateVersion)
	}
	return nil
}
