package job

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A state directory that others could change is refused, with what to do.
func TestStateDirOfOthers(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"the server's own":       {func(dir string) error { return os.Chmod(dir, 0o755) }, ""},
		"open to everybody":      {func(dir string) error { return os.Chmod(dir, 0o777) }, "chmod o-w"},
		"open, with sticky bit":  {func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, "chmod o-w"},
		"of another user":        {func(dir string) error { return os.Chown(dir, 4001, 4001) }, "belongs to uid 4001"},
		"of another, and a link": {func(dir string) error { return swap(dir) }, "belongs to uid 4001"},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 && strings.Contains(tt.want, "uid") {
				t.Skip("giving a directory away takes root")
			}
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tt.spoil(dir); err != nil {
				t.Fatal(err)
			}
			lock, err := OpenStateDir(dir)
			if lock != nil {
				lock.Close()
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// swap puts a link to another user's directory in the place of dir.
func swap(dir string) error {
	if err := os.Rename(dir, dir+".theirs"); err != nil {
		return err
	}
	if err := os.Chown(dir+".theirs", 4001, 4001); err != nil {
		return err
	}
	return os.Symlink(dir+".theirs", dir)
}
