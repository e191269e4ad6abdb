package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cleanRoot unpacks a Debian with its essential packages and mount(8) into a directory that goes with the test. It
// is made once, of this machine's release and from its mirror, and kept in build/.
func cleanRoot(t *testing.T) string {
	t.Helper()
	const kept = "../../build/clean-root.tar"
	if _, err := os.Stat(kept); err != nil {
		makeRoot(t, kept)
	}
	dir, err := os.MkdirTemp("../../build", "root-")
	if err != nil {
		t.Fatal(err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	run(t, "tar", "--extract", "--numeric-owner", "--file", kept, "--directory", dir)
	return dir
}

func makeRoot(t *testing.T, path string) {
	t.Helper()
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		run(t, "apt-get", "update", "-q")
		run(t, "apt-get", "install", "-y", "-q", "--no-install-recommends", "mmdebstrap")
	}
	mirrors := run(t, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian",
		"Label: Debian")
	mirror, _, _ := strings.Cut(mirrors, "\n")
	if mirror == "" {
		t.Fatal("apt-get indextargets names no mirror of Debian; run apt-get update")
	}
	release := run(t, "sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME")
	work := path + ".new"
	run(t, "mmdebstrap", "--quiet", "--mode=root", "--variant=essential", "--include=mount", "--format=tar", release, work, mirror)
	if err := os.Rename(work, path); err != nil {
		t.Fatal(err)
	}
}

// enter is what a script begins with that is run in the root $1: mounts of its own, and nothing of this machine's
// below it but /proc, /sys and devices. It is the root itself, and not a chroot, as sandboxes want it to be.
const enter = `
mount --rbind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
pivot_root . mnt
umount --lazy mnt
exec chroot . sh -exc "$2"
`

// inside runs a script in the root, as process 1 of namespaces that end with it, and returns what it printed.
func inside(t *testing.T, root, script string) string {
	t.Helper()
	return run(t, "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
		"sh", "-ec", enter, "enter", root, script)
}

// run runs a command and returns its stdout, without the last newline.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSuffix(string(out), "\n")
}
