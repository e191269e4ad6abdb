package job

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A tree that is deeper than there may be descriptors goes, with all kinds of files, and nothing that
// its links lead to.
func TestRemoveDeepTree(t *testing.T) {
	outside := t.TempDir()
	kept := filepath.Join(outside, "kept")
	top := filepath.Join(t.TempDir(), "top")
	for path, text := range map[string]string{kept: "x"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(top, 0o700); err != nil {
		t.Fatal(err)
	}
	deepen(t, top, 1500, outside)
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1000, Max: files.Max}); err != nil {
		t.Fatal(err)
	}
	err := removeAll(top)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if _, statErr := os.Lstat(top); err != nil || !os.IsNotExist(statErr) {
		t.Errorf("got %v, and it is there: %v", err, statErr)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	if err := removeAll(top); err != nil {
		t.Errorf("what is not there: %v", err)
	}
}

// deepen makes directories in each other, and beside each some that are full, a link out, a FIFO and
// names that are no text.
func deepen(t *testing.T, top string, levels int, outside string) {
	t.Helper()
	fd, err := unix.Open(top, unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range levels {
		for _, err := range []error{
			unix.Mkdirat(fd, "d", 0o700), unix.Symlinkat(outside, fd, "link"), unix.Mkdirat(fd, "full", 0o700),
			unix.Mknodat(fd, "full/fifo", unix.S_IFIFO|0o600, 0), unix.Mkdirat(fd, "full/\n\xff\x1b", 0o000),
			unix.Fchmodat(fd, "full", 0o500, 0),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		next, err := unix.Openat(fd, "d", unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		fd = next
	}
	_ = unix.Close(fd)
}
