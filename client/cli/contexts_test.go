package cli

import (
	"cmp"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoContexts: where there can be no contexts, a command that asks for none goes on, and one that does says why.
func TestNoContexts(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ home, config, says string }{
		{"", "", "neither HOME nor XDG_CONFIG_HOME is set"},
		{"", "relative", "neither HOME nor XDG_CONFIG_HOME is set"},
		{dir, "", `no context "prod" in ` + dir + "/.config/tele/contexts.json"},
		{dir, "relative", `no context "prod" in ` + dir + "/.config/tele/contexts.json"},
		{"", dir, `no context "prod" in ` + dir + "/tele/contexts.json"},
		{"/dev/null", "", `no context "prod" in /dev/null/.config/tele/contexts.json`},
		{"", file, `no context "prod" in ` + file + "/tele/contexts.json"},
	} {
		t.Setenv("HOME", row.home)
		t.Setenv("XDG_CONFIG_HOME", row.config)
		c := &Connection{}
		if err := c.takeContext(); err != nil || c.Addr != "" {
			t.Errorf("%+v: %q, %v", row, c.Addr, err)
		}
		c.Context = "prod"
		if err := c.takeContext(); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%+v: %v", row, err)
		}
	}
}

// TestForeignContexts: in somebody else's home there are no contexts, and a file that is one's own and cannot be
// read is an error.
func TestForeignContexts(t *testing.T) {
	if os.Geteuid() != 0 {
		if strings.Contains(os.Getenv("TELE_REQUIRE"), "root") {
			t.Fatal("TELE_REQUIRE names root, and this is not root")
		}
		t.Skip("needs root, to become another user")
	}
	dir, err := os.MkdirTemp("", "tele-contexts-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	t.Setenv("XDG_CONFIG_HOME", dir)
	path := filepath.Join(dir, "tele", "contexts.json")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(`{"contexts": {}}`), 0); err != nil {
		t.Fatal(err)
	}
	for mode, wants := range map[os.FileMode]string{0o755: path + ": permission denied (make it readable", 0o700: ""} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		answer := make(chan error)
		go func() {
			runtime.LockOSThread() // for good: the thread ends with the goroutine
			_, err := unix.SetfsuidRetUid(65534)
			answer <- cmp.Or(err, (&Connection{}).takeContext())
		}()
		got := <-answer
		if (got == nil) != (wants == "") || got != nil && !strings.Contains(got.Error(), wants) {
			t.Errorf("mode %o: %v, want %q", mode, got, wants)
		}
	}
}
