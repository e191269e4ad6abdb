package access

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// maxSocketPath is what sockaddr_un holds (unix(7)), less the closing NUL.
const maxSocketPath = 107

// ListenUnix listens on a socket file at path. It removes one that a server left behind, and
// nothing that somebody listens on or that is no socket.
//
// The file is open to its owner and group alone (0660): connecting needs the right to write. That
// mode is no more than a first fence. Who a caller is comes from SO_PEERCRED, and the guard lets
// nobody in but root, the server's own user and those it was told of. A job that runs as the
// server's own user (a server without root) would be an administrator here, so its sandbox must
// not show the socket.
func ListenUnix(path string) (net.Listener, error) {
	listener, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("listen on unix socket: %w", err)
	}
	return listener, nil
}

func listenUnix(path string) (net.Listener, error) {
	if !filepath.IsAbs(path) || len(path) > maxSocketPath {
		return nil, fmt.Errorf("%q: give an absolute path of at most %d bytes", path, maxSocketPath)
	}
	unlock, err := lockSocket(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// lockSocket keeps two servers from finding the same socket stale: the slower one would remove
// the faster one's. The lock is a file beside the socket, for as long as this takes.
func lockSocket(path string) (unlock func(), err error) {
	for {
		lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(lock); err != nil {
			return nil, errors.Join(err, lock.Close())
		}
		if sameFile(lock, path+".lock") {
			return func() {
				// Removed while it is held. Whoever waits for it sees that it is gone and makes
				// another; closing gives the lock back.
				_ = os.Remove(lock.Name())
				_ = lock.Close()
			}, nil
		}
		if err := lock.Close(); err != nil {
			return nil, err
		}
	}
}

func sameFile(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, named)
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket: remove it, or choose another path", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		// Nothing was written that closing could lose.
		_ = conn.Close()
		return fmt.Errorf("%s: another server listens there: stop it, or choose another path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("is %s in use? %w", path, err)
	}
	return os.Remove(path)
}
