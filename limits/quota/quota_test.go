package quota

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// own runs a test in a process with a mount namespace of its own: true in there.
func own(t *testing.T) bool {
	t.Helper()
	if os.Getenv("TELE_TEST_OWN") != "" {
		return true
	}
	if os.Geteuid() != 0 {
		needs(t, "root", "this is not root, who may mount")
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "TELE_TEST_OWN=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skipf("in a mount namespace of its own: %s", out) // which says what it lacked
	}
	t.Logf("%s", out)
	return false
}

func needs(t *testing.T, word, lacks string) {
	t.Helper()
	if strings.Contains(","+os.Getenv("TELE_REQUIRE")+",", ","+word+",") {
		t.Fatalf("TELE_REQUIRE names %s, but %s", word, lacks)
	}
	t.Skip(lacks)
}

// disk mounts a new ext4.
func disk(t *testing.T, format, mount string) string {
	t.Helper()
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		append(append([]string{"mkfs.ext4", "-q"}, strings.Fields(format)...), image),
		{"mount", "-t", "ext4", "-o", "loop" + mount, image, mnt},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			needs(t, "quota", fmt.Sprintf("%q: %v %s", args, err, out))
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
	})
	return mnt
}

func TestLimit(t *testing.T) {
	if !own(t) {
		return
	}
	mnt := disk(t, "-O quota,project -E quotatype=prjquota", ",prjquota")
	if err := Probe(mnt); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(mnt, "work")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	for up := mnt; up != os.TempDir(); up = filepath.Dir(up) { // for the user below
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	how, err := Limit(dir, 1<<20)
	if err != nil || !strings.Contains(how, ": 1048576 bytes, 272 inodes") {
		t.Fatal(how, err)
	}
	cmd := exec.Command("sh", "-c", "head -c 2M /dev/zero >f; stat -c %s f; i=0; while mkdir $i; do i=$((i+1)); done")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	// The directory itself takes a block, and what describes the file may take another.
	var written int
	if n, _ := fmt.Sscan(string(out), &written); err != nil || n != 1 || written > 1<<20 || written < 1<<20-16<<10 ||
		strings.Count(stderr.String(), "isk quota exceeded") != 2 {
		t.Errorf("wrote %s, %s", out, &stderr)
	}
	var project fsxattr
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if project, err = attributes(f); err != nil || project.project < firstProject {
		t.Fatal(project, err)
	}
	if err := Release(dir, os.RemoveAll); err != nil {
		t.Fatal(err)
	}
	_ = f.Close() // it held the directory's inode
	root, err := os.Open(mnt)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var left diskQuota
	err = quotactl(root, getQuota, project.project, unsafe.Pointer(&left))
	if err != nil || left.spaceHard != 0 || left.inodesHard != 0 || left.space != 0 || left.inodes != 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
	_ = root.Close()
}

// A file system that only counts, or does not even that, is none.
func TestProbeRefuses(t *testing.T) {
	if !own(t) {
		return
	}
	tmpfs := t.TempDir()
	if err := unix.Mount("tmpfs", tmpfs, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(tmpfs, 0)
	for _, dir := range []string{tmpfs, disk(t, "-O ^quota", "")} {
		err := Probe(dir)
		if err == nil || !strings.Contains(err.Error(), "project quotas") {
			t.Errorf("%s: %v", dir, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 1 { // lost+found
			t.Errorf("left: %v, %v", left, err)
		}
	}
}
