package initproc

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// treeHash is a hash of the names, kinds, modes, owners, sizes and times of all that lies in dirs.
func treeHash(t *testing.T, dirs ...string) string {
	t.Helper()
	h := sha256.New()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			var s unix.Stat_t
			if err == nil {
				err = unix.Lstat(path, &s)
			}
			fmt.Fprintln(h, path, s.Ino, s.Mode, s.Uid, s.Gid, s.Size, s.Mtim, s.Ctim)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// rm -rf / is the job's own business. Walking all of / takes long on some machines, so it begins with
// what is looked at.
func TestRemoveEverything(t *testing.T) {
	needRoot(t)
	places := []string{"/usr/bin", "/usr/sbin", "/etc", "/opt"}
	before := treeHash(t, places...)
	for _, uid := range []uint32{1879048192, 0} {
		s := spec(t, "sh", "-c", "timeout 5 rm -rf --no-preserve-root /etc /opt /usr/sbin /usr/bin / 2>/dev/null; echo gone >/tmp/x; echo /usr/bin/*")
		s.UID, s.GID, s.Work, s.Overlay = uid, uid, "", true
		i, err := start(t, s)
		if err != nil {
			t.Fatal(err)
		}
		exit, out := finish(t, i)
		if gone := out == "/usr/bin/*\n"; !exit.Status.Exited() || gone != (uid == 0) {
			t.Errorf("uid %d: status %#x, left %.100q", uid, exit.Status, out)
		}
	}
	if treeHash(t, places...) != before {
		t.Error("the host's tree was changed")
	}
}

// A writable root is writable and as private as the other one, and nothing of its layers is in reach.
func TestOverlay(t *testing.T) {
	needRoot(t)
	for _, test := range []struct{ name, script, want string }{
		{"it can be changed", "echo x >/etc/passwd; echo y >/usr/bin/new; cat /etc/passwd /usr/bin/new", "x\ny\n"},
		{"it is of limited size", "head -c 9M /dev/zero 2>&1 >/etc/big | grep -o 'No space.*'; stat -c %s /etc/big", "No space left on device\n8388608\n"},
		{"private places stay empty", "ls -A /root /run; touch /root/x 2>&1 | grep -o 'Read-only.*'", "/root:\n\n/run:\nRead-only file system\n"},
		{"nor can they be uncovered", "rmdir /root 2>&1 | grep -o 'Device or.*'; mv /root /x 2>&1 | grep -o 'Device or.*'", "Device or resource busy\nDevice or resource busy\n"},
		{"no descriptor but its own", "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 "},
		{"init is out of sight", "ls /proc/1/fd /proc/1/root 2>&1 | grep -c 'No such'; kill -0 1 2>/dev/null; cat /proc/1/cmdline 2>&1 | grep -c 'No such'", "2\n1\n"},
		{"proc is masked", "cat /proc/keys | wc -c; (echo 1 >/proc/sysrq-trigger) 2>&1 | grep -o 'Read-only.*'", "0\n"},
		{"no device", "mknod /etc/sda b 8 0 2>&1 | grep -o 'Operation not.*'", "Operation not permitted\n"},
		{"no capabilities", "grep -c 'Cap.*:.0000000000000000' /proc/self/status", "5\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := spec(t, "sh", "-c", test.script)
			s.UID, s.GID, s.Work, s.Overlay, s.OverlaySize = 0, 0, "", true, 8<<20
			i, err := start(t, s)
			if err != nil {
				t.Fatal(err)
			}
			if exit, out := finish(t, i); out != test.want {
				t.Errorf("%s\n got %q\nwant %q, status %#x", test.script, out, test.want, exit.Status)
			}
		})
	}
	if _, err := os.Stat("/usr/bin/new"); err == nil {
		t.Error("the host was changed")
	}
}

// Other file systems below the root are there, read-only.
func TestOverlayHasMounts(t *testing.T) {
	needRoot(t)
	s := spec(t, "sh", "-c", "touch /sys/x 2>&1 | grep -c -e Read-only -e denied; ls /sys/kernel | grep -c cgroup")
	s.Hide, s.Overlay = []string{"/root"}, true
	plan, err := NewPlan(s)
	if err != nil {
		t.Fatal(err)
	}
	if text := plan.String(); !strings.Contains(text, "attach /sys ") || strings.Contains(text, "attach /proc ") {
		t.Errorf("got\n%s", text)
	}
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, out := finish(t, i); out != "1\n1\n" {
		t.Errorf("got %q", out)
	}
}

func TestUpper(t *testing.T) {
	needRoot(t)
	s := spec(t, "sh", "-c", "echo x >/etc/new")
	s.UID, s.GID, s.Overlay = 0, 0, true
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	finish(t, i)
	upper, err := i.Upper()
	if err != nil {
		t.Fatal(err)
	}
	defer upper.Close()
	fd, err := unix.Openat(int(upper.Fd()), "etc/new", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	if i, err = start(t, spec(t, "true")); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Upper(); err == nil {
		t.Error("a root that is not writable has an upper layer")
	}
}
