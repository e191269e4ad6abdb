package initproc

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// otherRoot makes a root with nothing in it but links to what is to be mounted on its /usr.
func otherRoot(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"dev", "home", "mnt", "proc", "tmp", "usr", "data", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "srv")); err != nil { // the host's, were it followed there
		t.Fatal(err)
	}
	return dir
}

// folder makes a directory of the host that everybody may write to.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// inOtherRoot is a job in another root.
func inOtherRoot(t *testing.T, script string) Spec {
	t.Helper()
	s := spec(t, "sh", "-c", script)
	s.Work, s.Hide, s.Root = "", nil, otherRoot(t)
	s.Mounts = []Mount{{Source: "/usr", Target: "/usr"}}
	return s
}

func TestOtherRoot(t *testing.T) {
	needRoot(t)
	s := inOtherRoot(t, `echo /*; ls -A /etc /home; touch /x /usr/x 2>&1 | grep -c Read-only; echo x >f && cat f; id -u; ls /proc/self/fd | tr '\n' ' '; ls /srv/passwd`)
	i, err := start(t, s)
	if err != nil {
		t.Fatal(err)
	}
	const want = "/bin /data /dev /etc /home /lib /lib64 /mnt /proc /srv /tmp /usr\n/etc:\n\n/home:\njob\n2\nx\n1879048192\n0 1 2 3 " +
		"ls: cannot access '/srv/passwd': No such file or directory\n"
	if _, out := finish(t, i); out != want {
		t.Errorf("got %q\nwant %q", out, want)
	}
	if entries, err := os.ReadDir(filepath.Join(s.Root, "home")); err != nil || len(entries) != 0 {
		t.Errorf("something was made in the root: %v, %v", entries, err)
	}
}

func TestMounts(t *testing.T) {
	needRoot(t)
	read, write := folder(t), folder(t)
	s := spec(t, "sh", "-c", `cat /tmp/a/b/file /opt/file f; for d in /tmp/a/b /opt x/y; do touch $d/new 2>&1 | grep -o 'Read-only.*'; done; `+
		`(echo x >f) 2>&1 | grep -o 'Read-only.*'; ls -A . /tmp; grep -c ' /opt .*nosuid,nodev' /proc/self/mountinfo; ls /proc/self/fd | tr '\n' ' '`)
	s.Mounts = []Mount{
		{Source: read, Target: "/tmp/a/b"},
		{Source: read, Target: "/opt"}, // in the read-only root
		{Source: write, Target: Home + "/x/y", Writable: true},
		{Source: filepath.Join(read, "file"), Target: Home + "/f", File: true},
	}
	const ro = "Read-only file system\n"
	const want = "content\ncontent\ncontent\n" + ro + ro + ro + ".:\nf\nx\n\n/tmp:\na\n1\n0 1 2 3 "
	for _, memory := range []bool{true, false} {
		if memory {
			s.Work = ""
		} else {
			s.Work = spec(t, "true").Work
		}
		i, err := start(t, s)
		if err != nil {
			t.Fatal(err)
		}
		if _, out := finish(t, i); out != want {
			t.Errorf("in memory %t: got %q\nwant %q", memory, out, want)
		}
		if err := os.Remove(filepath.Join(write, "new")); err != nil {
			t.Errorf("what was written is not there: %v", err)
		}
	}
}

// No link is followed, neither on the host nor in the root, and what is not there is named.
func TestBadMounts(t *testing.T) {
	needRoot(t)
	dir := folder(t)
	if err := os.Symlink(dir, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		mount Mount
		root  string
		errno syscall.Errno
		step  string
	}{
		{Mount{Source: dir + "/link", Target: "/opt"}, "", syscall.ELOOP, "clone " + dir + "/link"},
		{Mount{Source: dir + "/link/file", Target: "/opt", File: true}, "", syscall.ELOOP, "clone "},
		{Mount{Source: dir + "/none", Target: "/opt"}, "", syscall.ENOENT, "clone "},
		{Mount{Source: "/proc/self/cwd", Target: "/opt"}, "", syscall.ELOOP, "clone "},
		{Mount{Source: dir, Target: "/none"}, "", syscall.ENOENT, nameFindTarget + "/none"},
		{Mount{Source: dir, Target: "/var/run/x"}, "", syscall.ELOOP, nameFindTarget},
		{Mount{Source: dir, Target: "/opt/../../x"}, "", syscall.EXDEV, nameFindTarget},
		{Mount{Source: dir, Target: "/srv/apt"}, otherRoot(t), syscall.ELOOP, nameFindTarget},
		{Mount{Source: dir, Target: "/opt"}, dir + "/link", syscall.ELOOP, "clone the root"},
	} {
		s := spec(t, "true")
		s.Mounts, s.Root, s.Hide = []Mount{test.mount}, test.root, nil
		_, err := start(t, s)
		var step *StepError
		if !errors.As(err, &step) || step.Errno != test.errno || !strings.HasPrefix(step.Name, test.step) ||
			(step.BadMount() != "") != (test.step[:4] == "find") {
			t.Errorf("%v in %q: got %v", test.mount, test.root, err)
		}
	}
}
