package job

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// text is a diff, a line a change.
func text(diff *telev1.DiffResponse) string {
	var out strings.Builder
	for _, c := range diff.Changes {
		fmt.Fprintf(&out, "%c %s\n", strings.TrimPrefix(c.Kind.String(), "CHANGE_KIND_")[0], c.Path)
	}
	return out.String()
}

// upperLayer makes what an overlay would.
func upperLayer(t *testing.T) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	for _, name := range []string{"etc/apt/new", "new/sub"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"etc/passwd", "etc/tele-new", "new/sub/\xff\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"etc/group", "usr"} {
		if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(filepath.Join(dir, "etc/apt"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func diffOf(t *testing.T, dir string) *telev1.DiffResponse {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	diff, err := changesIn(f)
	if err != nil {
		t.Fatal(err)
	}
	return diff
}

func TestChanges(t *testing.T) {
	const want = "C /etc\nD /etc/apt\nA /etc/apt\nA /etc/apt/new\nD /etc/group\nC /etc/passwd\nA /etc/tele-new\n" +
		"A /link\nA /new\nA /new/sub\nA /new/sub/\xff\n\nD /usr\n"
	if diff := diffOf(t, upperLayer(t)); text(diff) != want || diff.More != 0 || diff.Incomplete {
		t.Errorf("got\n%s\nwant\n%s", text(diff), want)
	}
}

// What is too much is said to be more.
func TestManyChanges(t *testing.T) {
	dir := upperLayer(t)
	for n := range mostChanges {
		if err := unix.Mknod(fmt.Sprintf("%s/f%d", dir, n), unix.S_IFREG|0o600, 0); err != nil {
			t.Fatal(err)
		}
	}
	if diff := diffOf(t, dir); len(diff.Changes) != mostChanges || diff.More != 12 || diff.Incomplete {
		t.Errorf("got %d changes and %d more, %t", len(diff.Changes), diff.More, diff.Incomplete)
	}
	deep := filepath.Join(upperLayer(t), "deep")
	if err := os.MkdirAll(deep+strings.Repeat("/d", mostDepth+10), 0o755); err != nil {
		t.Fatal(err)
	}
	if diff := diffOf(t, filepath.Dir(deep)); !diff.Incomplete || len(diff.Changes) != 12+mostDepth+1 {
		t.Errorf("got %d changes, %t", len(diff.Changes), diff.Incomplete)
	}
}

// A job that puts a link to the host's tree where a directory was gets nothing of that listed.
func TestChangesWhileTheyChange(t *testing.T) {
	dir := upperLayer(t)
	trap, aside := filepath.Join(dir, "new"), filepath.Join(dir, "aside")
	if err := os.Symlink("/etc", aside); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, trap, unix.AT_FDCWD, aside, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 2000 {
		if out := text(diffOf(t, dir)); strings.Contains(out, "new/passwd") || strings.Contains(out, "aside/passwd") {
			t.Errorf("a link was followed:\n%s", out)
			break
		}
	}
	close(stop)
	swapper.Wait()
}

func TestDiff(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh("true"))
	wait(t, j)
	if _, err := j.Diff(); !errors.Is(err, ErrNoOverlay) {
		t.Errorf("without an overlay: %v", err)
	}
	spec := sh("echo ready; exec sleep 1000")
	spec.Root, spec.RootSize = RootOverlay, "8M"
	j = begin(t, table, spec)
	firstOutput(t, j)
	if diff, err := j.Diff(); err != nil || text(diff) != "" {
		t.Errorf("got %v, %v", diff, err)
	}
	table = reopen(t, table)
	j = find(t, table, j.id)
	if diff, err := j.Diff(); err != nil || text(diff) != "" {
		t.Errorf("after a restart: %v, %v", diff, err)
	}
	if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, j); !strings.HasPrefix(limitOf(job, "root").How, "tmpfs size=8388608") {
		t.Errorf("got %v", limitOf(job, "root"))
	}
	table = reopen(t, table)
	if diff, err := find(t, table, j.id).Diff(); err != nil || text(diff) != "" {
		t.Errorf("after its end: %v, %v", diff, err)
	}
}
