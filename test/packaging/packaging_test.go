// Package packaging tests the Debian package that `make package` builds, in a root with little but Debian's
// essential packages:
//
//	make test-package
package packaging

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// need skips where no package was built.
func need(t *testing.T) string {
	t.Helper()
	deb := os.Getenv("TELE_PACKAGE")
	if deb == "" {
		t.Skip("TELE_PACKAGE names no package: make test-package builds it")
	}
	return deb
}

// TestPackage: installed where there is nothing else, it runs a job, and removed it leaves nothing behind.
func TestPackage(t *testing.T) {
	deb := need(t)
	root := cleanRoot(t)
	before := files(t, root)
	run(t, "cp", deb, filepath.Join(root, "tele.deb"))
	inside(t, root, "dpkg --install tele.deb; dpkg --verify tele")
	for path, link := range map[string]string{
		"bin/tele": "", "bin/teleworker": "tele", "bin/telerun": "tele",
		"lib/systemd/system/tele.service":           "",
		"share/man/man1/tele.1.gz":                  "",
		"share/man/man1/tele-run.1.gz":              "",
		"share/man/man7/tele-limits.7.gz":           "",
		"share/bash-completion/completions/tele":    "",
		"share/bash-completion/completions/telerun": "tele",
		"share/zsh/site-functions/_tele":            "",
		"share/fish/vendor_completions.d/tele.fish": "",
		"share/doc/tele/copyright":                  "",
	} {
		got, err := os.Readlink(filepath.Join(root, "usr", path))
		if _, statErr := os.Stat(filepath.Join(root, "usr", path)); statErr != nil || link != "" && (err != nil || got != link) {
			t.Errorf("/usr/%s: a link to %q, want %q; %v", path, got, link, statErr)
		}
	}
	out := inside(t, root, `
mkfifo log
exec 3<>log
{ tele serve --state-dir /state --addr unix:/sock --stop-jobs-on-exit 2>&3 & echo $! >pid; wait; echo ended >&3; } &
while read -r line <&3; do
	echo "$line" >&2
	case $line in *listening*) break ;; ended) exit 1 ;; esac
done
export TELE_ADDR=unix:/sock
tele run -- echo hi
telerun start -- true
kill -INT $(cat pid)
wait
`)
	if !strings.HasPrefix(out, "hi\n{\"job_id\":") {
		t.Errorf("the jobs print %q", out)
	}
	// The rest of the unit is test/systemd's.
	unit, err := os.ReadFile(filepath.Join(root, "usr/lib/systemd/system/tele.service"))
	if err != nil || !strings.Contains(string(unit), "\nExecStart=/usr/bin/tele serve\n") {
		t.Errorf("the unit does not start /usr/bin/tele: %v\n%s", err, unit)
	}
	inside(t, root, "dpkg --remove tele; rm -r state log pid tele.deb; rm -f sock")
	for _, path := range files(t, root) {
		if _, had := slices.BinarySearch(before, path); !had && !strings.HasPrefix(path, "/var/lib/dpkg/") &&
			!strings.HasPrefix(path, "/var/log/") {
			t.Errorf("%s is left behind", path)
		}
	}
}

// files are the paths in the root, sorted.
func files(t *testing.T, root string) []string {
	t.Helper()
	list := strings.Fields(run(t, "find", root, "-xdev", "-printf", "/%P\n"))
	slices.Sort(list)
	return list
}
