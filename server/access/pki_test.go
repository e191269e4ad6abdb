package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pkiFiles are all files of a first start, in the order in which a listing has them.
var pkiFiles = []string{"admin.crt", "admin.key", "ca.crt", "ca.key", "server.crt", "server.key"}

// contents reads every file of dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[entry.Name()] = string(text)
	}
	return all
}

// changed names the files that differ between two listings.
func changed(before, after map[string]string) []string {
	var names []string
	for _, name := range pkiFiles {
		if before[name] != after[name] {
			names = append(names, name)
		}
	}
	return names
}

func TestEnsureTwiceIsTheSame(t *testing.T) {
	state := newPKI(t)
	before := contents(t, CertDir(state))
	if err := EnsurePKI(state, nil); err != nil {
		t.Fatal(err)
	}
	after := contents(t, CertDir(state))
	if names := changed(before, after); names != nil {
		t.Errorf("the second start replaced %v", names)
	}
	if len(after) != len(pkiFiles) {
		t.Errorf("%d files, want %v alone", len(after), pkiFiles)
	}
}

func TestEnsureAtOnce(t *testing.T) {
	state := t.TempDir()
	var group sync.WaitGroup
	results := make([]map[string]string, 8)
	for i := range results {
		group.Go(func() {
			if err := EnsurePKI(state, nil); err != nil {
				t.Errorf("one of many: %v", err)
				return
			}
			results[i] = contents(t, CertDir(state))
		})
	}
	group.Wait()
	for i, result := range results {
		if names := changed(results[0], result); names != nil {
			t.Errorf("start %d has other files than start 0: %v", i, names)
		}
	}
}

func TestPermissions(t *testing.T) {
	old := syscall.Umask(0) // the modes must not depend on it
	defer syscall.Umask(old)
	state := filepath.Join(t.TempDir(), "state")
	if err := EnsurePKI(state, nil); err != nil {
		t.Fatal(err)
	}
	wantModes(t, state)
	for _, name := range []string{"", "ca.key", "server.key", "admin.key"} {
		if err := os.Chmod(filepath.Join(CertDir(state), name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := EnsurePKI(state, nil); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{CertDir(state), filepath.Join(CertDir(state), "ca.key")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s was loosened and stays open to others: %v", path, info.Mode())
		}
	}
}

func wantModes(t *testing.T, state string) {
	t.Helper()
	err := filepath.WalkDir(state, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		want := fs.FileMode(0o600)
		if entry.IsDir() {
			want = 0o700
		}
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestCertificatesAreForOneUse(t *testing.T) {
	dir := CertDir(newPKI(t))
	ca := mustLoad(t, dir, "ca").cert
	server, admin := mustLoad(t, dir, "server").cert, mustLoad(t, dir, "admin").cert
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	tests := []struct {
		cert *x509.Certificate
		use  x509.ExtKeyUsage
		good bool
	}{
		{server, x509.ExtKeyUsageServerAuth, true},
		{server, x509.ExtKeyUsageClientAuth, false},
		{admin, x509.ExtKeyUsageClientAuth, true},
		{admin, x509.ExtKeyUsageServerAuth, false},
	}
	for _, tt := range tests {
		_, err := tt.cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{tt.use}})
		if (err == nil) != tt.good {
			t.Errorf("%s for use %d: %v, want good %t", tt.cert.Subject, tt.use, err, tt.good)
		}
	}
	for _, cert := range []*x509.Certificate{ca, server, admin} {
		if key, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
			t.Errorf("%s: key %T, want ECDSA P-256", cert.Subject, cert.PublicKey)
		}
		if cert.IsCA != (cert == ca) {
			t.Errorf("%s: is a CA: %t", cert.Subject, cert.IsCA)
		}
	}
	if admin.Subject.String() != "CN=admin,O=admin" || !ca.MaxPathLenZero {
		t.Errorf("administrator %s, CA with path length %d", admin.Subject, ca.MaxPathLen)
	}
}

func mustLoad(t *testing.T, dir, name string) pair {
	t.Helper()
	p, err := loadPair(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestHosts(t *testing.T) {
	state := t.TempDir()
	hosts := []string{"Build-7.example.org", "192.0.2.7", "fe80::1%eth0", "0.0.0.0", "::", "",
		"localhost"}
	if err := EnsurePKI(state, hosts); err != nil {
		t.Fatal(err)
	}
	cert := mustLoad(t, CertDir(state), "server").cert
	good := []string{"localhost", "127.0.0.1", "::1", "build-7.example.org", "192.0.2.7", "fe80::1"}
	if name, err := os.Hostname(); err == nil && isDNSName(name) {
		good = append(good, name)
	}
	for _, host := range good {
		if err := cert.VerifyHostname(host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, host := range []string{"0.0.0.0", "192.0.2.8", "other.example.org"} {
		if cert.VerifyHostname(host) == nil {
			t.Errorf("the certificate is good for %s too", host)
		}
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(cert.DNSNames)))); n != len(cert.DNSNames) {
		t.Errorf("a name stands twice in %v", cert.DNSNames)
	}
}

func TestHostsThatAreNone(t *testing.T) {
	for _, host := range []string{"https://x", "x:50051", "a b", "*.example.org", "a..b", "-é-",
		strings.Repeat("a", 64), strings.Repeat("a.", 127), "x\n"} {
		state := t.TempDir()
		err := EnsurePKI(state, []string{host})
		if err == nil || !strings.Contains(err.Error(), "neither an IP address nor a DNS name") {
			t.Errorf("host %q: %v", host, err)
		}
		wantEmpty(t, state)
	}
}

func TestNewHostRenewsTheServersCertificate(t *testing.T) {
	state := newPKI(t)
	before := contents(t, CertDir(state))
	for range 2 {
		if err := EnsurePKI(state, []string{"192.0.2.7", "new.example.org"}); err != nil {
			t.Fatal(err)
		}
		after := contents(t, CertDir(state))
		if names := changed(before, after); !slices.Equal(names, []string{"server.crt", "server.key"}) {
			t.Errorf("new hosts replaced %v", names)
		}
		before["server.crt"] = ""
	}
	kept := contents(t, CertDir(state))
	if err := EnsurePKI(state, nil); err != nil { // fewer hosts are no reason
		t.Fatal(err)
	}
	if names := changed(kept, contents(t, CertDir(state))); names != nil {
		t.Errorf("fewer hosts replaced %v", names)
	}
}

func leafs() []string {
	return []string{"admin.crt", "admin.key", "server.crt", "server.key"}
}

func TestRenewal(t *testing.T) {
	tests := []struct {
		age  time.Duration
		want []string
	}{
		{0, nil},
		{leafLife - renewBefore - day, nil},
		{leafLife - renewBefore + day, leafs()},
		{leafLife + day, leafs()},
		{caLife - renewBefore + day, slices.Insert(leafs(), 2, "ca.crt")},
		{caLife + day, slices.Insert(leafs(), 2, "ca.crt")},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.age), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "certs")
			now := time.Now()
			if err := ensure(dir, nil, now.Add(-tt.age)); err != nil {
				t.Fatal(err)
			}
			before := contents(t, dir)
			for range 2 { // the second start has nothing to do
				if err := ensure(dir, nil, now); err != nil {
					t.Fatal(err)
				}
				after := contents(t, dir)
				if names := changed(before, after); !slices.Equal(names, tt.want) {
					t.Errorf("replaced %v, want %v", names, tt.want)
				}
				before, tt.want = after, nil
			}
			wantChain(t, dir, mustLoad(t, dir, "ca").cert, now)
		})
	}
}

// wantChain checks that the server's and the administrator's certificates are ca's and in date.
func wantChain(t *testing.T, dir string, ca *x509.Certificate, now time.Time) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	for _, name := range []string{"server", "admin"} {
		cert := mustLoad(t, dir, name).cert
		_, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil {
			t.Errorf("%s.crt: %v", name, err)
		}
	}
}

// What the old CA certificate signed stays good under the new one, and the other way round.
func TestRenewedCAKeepsWhatItIssued(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	past := time.Now().Add(-caLife + renewBefore - day)
	if err := ensure(dir, nil, past); err != nil {
		t.Fatal(err)
	}
	// Not the subject and the key id that this program would choose.
	foreign := caTemplate(past)
	foreign.Subject.CommonName, foreign.SubjectKeyId = "ACME CA", []byte("acme")
	key := mustLoad(t, dir, "ca").key
	oldCA, err := sign(foreign, key, pair{key: key})
	if err != nil {
		t.Fatal(err)
	}
	if err := oldCA.save(dir, "ca"); err != nil {
		t.Fatal(err)
	}
	life := caLife - renewBefore + 2*day
	alice, err := issue(clientTemplate("alice", User, past, life), oldCA)
	if err != nil {
		t.Fatal(err)
	}
	if err := ensure(dir, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	newCA := mustLoad(t, dir, "ca").cert
	if !newCA.NotAfter.After(oldCA.cert.NotAfter) || string(newCA.SubjectKeyId) != "acme" {
		t.Errorf("new CA until %s, key id %q", newCA.NotAfter, newCA.SubjectKeyId)
	}
	wantChain(t, dir, oldCA.cert, time.Now())
	pool := x509.NewCertPool()
	pool.AddCert(newCA)
	_, err = alice.cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: alice.cert.ExtKeyUsage})
	if err != nil {
		t.Errorf("a certificate of before: %v", err)
	}
}

// A leaf does not outlive its CA, which would promise what cannot be kept.
func TestLeafEndsWithItsCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	if err := ensure(dir, nil, time.Now().Add(-caLife+100*day)); err != nil {
		t.Fatal(err)
	}
	if err := ensure(dir, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	ca, server := mustLoad(t, dir, "ca").cert, mustLoad(t, dir, "server").cert
	if server.NotAfter.After(ca.NotAfter) {
		t.Errorf("server until %s, CA until %s", server.NotAfter, ca.NotAfter)
	}
}

// Every subset of the files may be missing: a start that was cut off, or a hand that removed some.
func TestMissingFiles(t *testing.T) {
	for set := range 1 << len(pkiFiles) {
		var missing []string
		for i, name := range pkiFiles {
			if set&(1<<i) != 0 {
				missing = append(missing, name)
			}
		}
		t.Run(strings.Join(missing, ","), func(t *testing.T) { testMissing(t, missing) })
	}
}

func testMissing(t *testing.T, missing []string) {
	state := newPKI(t)
	dir := CertDir(state)
	for _, name := range missing {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	lacks := func(name string) bool { return slices.Contains(missing, name) }
	before := contents(t, dir)
	err := EnsurePKI(state, nil)
	if lacks("ca.key") && !lacks("ca.crt") {
		// The certificates are made elsewhere: nothing is touched, and a missing server is said.
		noServer := lacks("server.crt") || lacks("server.key")
		if (err != nil) != noServer || noServer && !strings.Contains(err.Error(), "without ca.key") {
			t.Errorf("without ca.key: %v", err)
		}
		if names := changed(before, contents(t, dir)); names != nil {
			t.Errorf("replaced %v", names)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	wantChain(t, dir, mustLoad(t, dir, "ca").cert, time.Now())
	if !lacks("ca.key") && before["ca.key"] != contents(t, dir)["ca.key"] {
		t.Error("the CA's key was replaced")
	}
}

func TestDamage(t *testing.T) {
	other := contents(t, CertDir(newPKI(t)))
	tests := []struct {
		name, file, content string
		want                string // part of the error; none means that it is healed
	}{
		{"a cut off renewal of the server", "server.key", other["server.key"], ""},
		{"an empty server.crt", "server.crt", "", ""},
		{"an administrator of another CA", "admin.crt", other["admin.crt"], ""},
		{"another CA's certificate", "ca.crt", other["ca.crt"], "put back the pair"},
		{"a CA's key that is none", "ca.key", "nonsense", "put back the pair"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			state := newPKI(t)
			dir := CertDir(state)
			before := contents(t, dir)
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			err := EnsurePKI(state, nil)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				wantChain(t, dir, mustLoad(t, dir, "ca").cert, time.Now())
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if names := changed(before, contents(t, dir)); !slices.Equal(names, []string{tt.file}) {
				t.Errorf("an error that replaced %v", names)
			}
		})
	}
}

func TestCAThatIsNone(t *testing.T) {
	state := newPKI(t)
	dir := CertDir(state)
	admin := mustLoad(t, dir, "admin")
	if err := admin.save(dir, "ca"); err != nil {
		t.Fatal(err)
	}
	err := EnsurePKI(state, nil)
	if err == nil || !strings.Contains(err.Error(), "is no CA certificate") {
		t.Errorf("a client's certificate as CA: %v", err)
	}
}

func TestExpiredServerWithoutCAKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	if err := ensure(dir, nil, time.Now().Add(-leafLife-day)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	err := ensure(dir, nil, time.Now())
	if err == nil || !strings.Contains(err.Error(), "server.crt has expired") {
		t.Errorf("%v", err)
	}
}

func TestStateDirThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := EnsurePKI(file, nil)
	if err == nil || !strings.Contains(err.Error(), "prepare certificates: ") {
		t.Errorf("a state directory that is a file: %v", err)
	}
}

func TestSameAddressInBothForms(t *testing.T) {
	cert := &x509.Certificate{}
	for _, host := range []string{"192.0.2.7", "::ffff:192.0.2.7"} {
		if err := addHost(cert, host); err != nil {
			t.Fatal(err)
		}
	}
	if len(cert.IPAddresses) != 1 || !cert.IPAddresses[0].Equal(net.IPv4(192, 0, 2, 7)) {
		t.Errorf("addresses %v", cert.IPAddresses)
	}
}
