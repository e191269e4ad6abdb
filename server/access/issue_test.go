package access

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
)

func TestIssue(t *testing.T) {
	state, out := newPKI(t), t.TempDir()
	issued, err := Issue(state, "alice@example.org", User, out, 7)
	if err != nil {
		t.Fatal(err)
	}
	if issued.Cert != filepath.Join(out, "alice@example.org.crt") ||
		issued.Key != filepath.Join(out, "alice@example.org.key") ||
		issued.CA != filepath.Join(CertDir(state), "ca.crt") {
		t.Errorf("files %+v", issued)
	}
	if left := time.Until(issued.NotAfter); left > 7*day || left < 7*day-time.Hour {
		t.Errorf("ends in %s, want 7 days", left)
	}
	for _, path := range []string{issued.Cert, issued.Key} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", path, info.Mode(), err)
		}
	}
	config := trusting(t, state)
	config.Certificates = append(config.Certificates, loadCertificate(t, issued.Cert, issued.Key))
	conn := dial(t, serveTLS(t, state, nil), credentials.NewTLS(config))
	if name, err := who(conn); name != "alice@example.org (user)" || err != nil {
		t.Errorf("the server took its holder for %q, %v", name, err)
	}
}

func TestIssueRefuses(t *testing.T) {
	state, out := newPKI(t), t.TempDir()
	tests := []struct {
		name string
		role Role
		days int
		want string
	}{
		{"alice", "king", 1, `no role "king": take admin, user or viewer`},
		{"alice", "", 1, "no role"},
		{"alice", User, 0, "0 days: take 1 to 3650"},
		{"alice", User, -1, "-1 days"},
		{"alice", User, 3651, "3651 days"},
		{"alice", User, 1 << 62, "days: take"},
	}
	for _, bad := range []string{"", ".", "..", "../x", "a/b", "/etc/x", "-rf", ".hidden", "a b",
		"a\n", "a\x00b", "é", "a*", strings.Repeat("a", 65)} {
		tests = append(tests, struct {
			name string
			role Role
			days int
			want string
		}{bad, User, 1, "not a name"})
	}
	for _, tt := range tests {
		_, err := Issue(state, tt.name, tt.role, out, tt.days)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q, %q, %d days: %v, want %q", tt.name, tt.role, tt.days, err, tt.want)
		}
	}
	wantEmpty(t, out)
	if _, err := os.Stat(filepath.Join(CertDir(state), issuedDir)); err == nil {
		t.Error("a refused certificate was recorded")
	}
}

func TestIssueGoodNames(t *testing.T) {
	for _, name := range []string{"a", "7", "alice", "Alice.B-c_d@e", strings.Repeat("a", 64)} {
		if !validName().MatchString(name) {
			t.Errorf("%q is refused", name)
		}
	}
}

func TestIssueReplacesNothing(t *testing.T) {
	state := newPKI(t)
	out := t.TempDir()
	if err := os.WriteFile(filepath.Join(out, "alice.key"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(out, "bob.crt")); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, out, want string }{
		{"alice", out, "alice.key is there already"},
		{"bob", out, "bob.crt is there already"},
		{"admin", CertDir(state), "admin.crt is there already"},
		{"ca", CertDir(state), "ca.crt is there already"},
		{"carol", filepath.Join(out, "missing"), "no such file or directory: make the directory"},
		{"carol", filepath.Join(out, "alice.key"), "is no directory"},
	}
	for _, tt := range tests {
		_, err := Issue(state, tt.name, User, tt.out, 1)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s into %s: %v, want %q", tt.name, tt.out, err, tt.want)
		}
	}
	if text, err := os.ReadFile(filepath.Join(out, "alice.key")); string(text) != "precious" {
		t.Errorf("alice.key became %q, %v", text, err)
	}
}

func TestIssueWithoutCA(t *testing.T) {
	empty := t.TempDir()
	keyless := newPKI(t)
	if err := os.Remove(filepath.Join(CertDir(keyless), "ca.key")); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{empty, filepath.Join(empty, "missing"), keyless} {
		_, err := Issue(state, "alice", User, t.TempDir(), 1)
		if err == nil || !strings.Contains(err.Error(), "no CA in ") {
			t.Errorf("%v", err)
		}
	}
	wantEmpty(t, empty)
}

func TestIssueNotPastTheCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	now := time.Now()
	if err := ensure(dir, nil, now.Add(-caLife+100*day)); err != nil {
		t.Fatal(err)
	}
	_, err := issueClient(dir, "alice", User, t.TempDir(), 101, now)
	if err == nil || !strings.Contains(err.Error(), "the CA ends before") {
		t.Errorf("%v", err)
	}
	if _, err := issueClient(dir, "alice", User, t.TempDir(), 99, now); err != nil {
		t.Error(err)
	}
}

func TestShow(t *testing.T) {
	state := newPKI(t)
	if _, err := Issue(state, "alice", Viewer, t.TempDir(), 7); err != nil {
		t.Fatal(err)
	}
	infos, err := Show(state)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, info := range infos {
		file, _, _ := strings.Cut(info.File, ".")
		lines = append(lines, fmt.Sprintf("%s %s %s %s",
			file, info.Name, info.Usage, joinRoles(info.Roles, ",", "-")))
		if len(info.Fingerprint) != 64 || info.NotAfter.Before(time.Now()) {
			t.Errorf("%+v", info)
		}
	}
	want := []string{"admin admin client admin", "ca tele CA ca -", "server tele server server -",
		"issued/alice alice client viewer"}
	if !slices.Equal(lines, want) {
		t.Errorf("shown\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestShowGoesOnPastABadFile(t *testing.T) {
	state := newPKI(t)
	for name, text := range map[string]string{"bad.crt": "nonsense",
		"worse.crt": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := os.WriteFile(filepath.Join(CertDir(state), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	infos, err := Show(state)
	if len(infos) != 3 || err == nil || !strings.Contains(err.Error(), "bad.crt: no certificate") ||
		!strings.Contains(err.Error(), "worse.crt: ") {
		t.Errorf("%d shown, %v", len(infos), err)
	}
	if infos, err := Show(t.TempDir()); err == nil || infos != nil {
		t.Errorf("nothing there: %v, %v", infos, err)
	}
}
