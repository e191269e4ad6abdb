package access

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// tele parses and runs args as main does.
func tele(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var cli struct {
		Certs Certs `cmd:"" help:"Certificates."`
	}
	var out bytes.Buffer
	parser, err := kong.New(&cli, kong.Writers(&out, &out), kong.BindTo(&out, (*io.Writer)(nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := parser.Parse(args)
	if err != nil {
		return out.String(), err
	}
	err = ctx.Run()
	return out.String(), err
}

func TestCertsCommands(t *testing.T) {
	state, dir := newPKI(t), t.TempDir()
	t.Setenv("TELE_STATE_DIR", state)
	out, err := tele(t, "certs", "issue", "alice", "--role", "viewer", "--out", dir, "--days", "7")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"for alice, role viewer, until ",
		filepath.Join(CertDir(state), "ca.crt"), filepath.Join(dir, "alice.crt"),
		filepath.Join(dir, "alice.key"), "TELE_CERT"} {
		if !strings.Contains(out, want) {
			t.Errorf("issue says %q, which lacks %q", out, want)
		}
	}
	out, err = tele(t, "certs", "show")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[0], "FILE ") ||
		!strings.Contains(lines[4], "viewer") || !strings.Contains(lines[4], "(6 days)") {
		t.Errorf("show says\n%s", out)
	}
}

func TestCertsCommandsRefuse(t *testing.T) {
	empty := t.TempDir()
	for _, tt := range []struct{ args, want string }{
		{"certs issue", `expected "<name>"`},
		{"certs issue alice --role king", "must be one of"},
		{"certs issue ../x --state-dir " + empty, "not a name"},
		{"certs issue alice --state-dir " + empty, "no CA in "},
		{"certs show --state-dir " + empty, "no CA in "},
		{"certs --state-dir " + empty + " show", "no CA in "},
	} {
		_, err := tele(t, strings.Fields(tt.args)...)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.args, err, tt.want)
		}
	}
}

func TestExpiry(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for at, want := range map[time.Time]string{
		now.Add(36 * time.Hour): "2030-01-03 (1 day)",
		now.Add(60 * time.Hour): "2030-01-04 (2 days)",
		now.Add(time.Hour):      "2030-01-02 (within a day)",
		now.Add(-time.Hour):     "2030-01-02 (expired)",
	} {
		if got := expiry(at, now); got != want {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
	if got := printable("a\x1b[2J"); strings.ContainsRune(got, 0x1b) {
		t.Errorf("a name steers the terminal: %q", got)
	}
	if got := printable("tele CA é"); got != "tele CA é" {
		t.Errorf("a plain name became %q", got)
	}
}
