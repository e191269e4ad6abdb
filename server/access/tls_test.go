package access

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// Each refused client is tried twice: as a real grpc client, and against a bare handshake, whose
// error says that it was refused for the reason that the row is about.
func TestRefusedClients(t *testing.T) {
	state := newPKI(t)
	addr := serveTLS(t, state, nil)
	for name, tt := range refusedClients(t, state) {
		t.Run(name, func(t *testing.T) {
			got, err := who(dial(t, addr, credentials.NewTLS(tt.config)))
			if err == nil || status.Code(err) != codes.Unavailable {
				t.Errorf("let in as %q, %v; want no connection", got, err)
			}
			if err := handshake(t, state, tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the handshake ended with %v, want %q", err, tt.want)
			}
		})
	}
}

type refused struct {
	config *tls.Config
	want   string // part of the server's error
}

func refusedClients(t *testing.T, state string) map[string]refused {
	t.Helper()
	now := time.Now()
	with := func(cert tls.Certificate) *tls.Config {
		config := trusting(t, state)
		// Whatever the server asks for, this is sent.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &cert, nil
		}
		return config
	}
	dir := CertDir(state)
	other := CertDir(newPKI(t))
	usageless := clientTemplate("admin", Admin, now, day)
	usageless.ExtKeyUsage = nil
	signing := clientTemplate("admin", Admin, now, day)
	signing.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	selfSigned := mustLoad(t, other, "ca")
	tls12 := asAdmin(t, state)
	tls12.MinVersion, tls12.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	plain := trusting(t, state)
	return map[string]refused{
		"no certificate": {plain, "client didn't provide a certificate"},
		"another CA": {with(loadCertificate(t, filepath.Join(other, "admin.crt"),
			filepath.Join(other, "admin.key"))), "signed by unknown authority"},
		"self-signed": {with(tls.Certificate{Certificate: [][]byte{selfSigned.cert.Raw},
			PrivateKey: selfSigned.key}), "signed by unknown authority"},
		"expired": {with(sneak(t, state, clientTemplate("admin", Admin, now.Add(-2*day), day))),
			"certificate has expired"},
		"not yet valid": {with(sneak(t, state, clientTemplate("admin", Admin, now.Add(day), day))),
			"not yet valid"},
		"for servers only": {with(loadCertificate(t, filepath.Join(dir, "server.crt"),
			filepath.Join(dir, "server.key"))), "incompatible key usage"},
		"for signing code":  {with(sneak(t, state, signing)), "incompatible key usage"},
		"for no stated use": {with(sneak(t, state, usageless)), "not one for clients"},
		"the CA itself": {with(loadCertificate(t, filepath.Join(dir, "ca.crt"),
			filepath.Join(dir, "ca.key"))), "not one for clients"},
		"TLS 1.2": {tls12, "unsupported versions"},
	}
}

// handshake returns what the server's side of a handshake with that client ended with.
func handshake(t *testing.T, state string, client *tls.Config) error {
	t.Helper()
	config, err := ServerTLS(CertDir(state), nil)
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn := tls.Client(there, client)
		// The refusal comes after the client's own part is over: it has to read on. What it
		// says is not the test's matter.
		_, _ = conn.Read(make([]byte, 1))
	}()
	err = tls.Server(here, config).HandshakeContext(t.Context())
	here.Close()
	<-done
	there.Close()
	return err
}

func TestHandshakeOfAGoodClient(t *testing.T) {
	state := newPKI(t)
	if err := handshake(t, state, asAdmin(t, state)); err != nil {
		t.Error(err)
	}
}

// A client finds out when the server is not the one that it was given a ca.crt of.
func TestClientRefusesAnotherServer(t *testing.T) {
	state := newPKI(t)
	stranger := trusting(t, newPKI(t))
	stranger.Certificates = asAdmin(t, state).Certificates
	_, err := who(dial(t, serveTLS(t, state, nil), credentials.NewTLS(stranger)))
	if err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("%v", err)
	}
}

func TestReload(t *testing.T) {
	state := newPKI(t)
	dir := CertDir(state)
	reloads := make(chan error, 10)
	addr := serveTLS(t, state, func(err error) { reloads <- err })
	old := asAdmin(t, state)
	conn := dial(t, addr, credentials.NewTLS(old))
	wantAdmin(t, "at first", conn)
	first := serial(t, addr, old)

	removeFiles(t, dir, "server.crt", "server.key")
	if err := EnsurePKI(state, nil); err != nil {
		t.Fatal(err)
	}
	if second := serial(t, addr, old); second == first {
		t.Error("the old server certificate is still shown")
	}
	wantReload(t, reloads, "")
	wantAdmin(t, "the connection from before", conn)

	removeFiles(t, dir, pkiFiles...) // a new CA
	if err := EnsurePKI(state, nil); err != nil {
		t.Fatal(err)
	}
	wantAdmin(t, "a new administrator", dial(t, addr, credentials.NewTLS(asAdmin(t, state))))
	wantReload(t, reloads, "")
	stale := trusting(t, state)
	stale.Certificates = old.Certificates
	if name, err := who(dial(t, addr, credentials.NewTLS(stale))); err == nil {
		t.Errorf("the old CA's administrator is let in as %q", name)
	}
	if len(reloads) != 0 {
		t.Errorf("reloaded without a change: %v", <-reloads)
	}
}

// Files that do not fit together leave the old ones in use, are said once, and healed later.
func TestReloadOfBadFiles(t *testing.T) {
	state := newPKI(t)
	dir := CertDir(state)
	reloads := make(chan error, 10)
	addr := serveTLS(t, state, func(err error) { reloads <- err })
	admin := asAdmin(t, state)
	first := serial(t, addr, admin)
	good := contents(t, dir)
	for _, tt := range []struct{ file, content, want string }{
		{"server.crt", "", "load the server's certificate in "},
		{"server.crt", good["server.crt"], ""},
		{"server.key", good["ca.key"], "private key does not match"},
		{"server.key", good["server.key"], ""},
		{"ca.crt", "nonsense", "no certificate in PEM form"},
		{"ca.crt", good["ca.crt"], ""},
	} {
		if err := replaceFile(filepath.Join(dir, tt.file), []byte(tt.content)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := serial(t, addr, admin); got != first {
				t.Errorf("%s %q: another certificate is shown", tt.file, tt.content)
			}
		}
		wantReload(t, reloads, tt.want)
	}
	removeFiles(t, dir, "ca.crt")
	serial(t, addr, admin)
	wantReload(t, reloads, "no such file")
	if len(reloads) != 0 {
		t.Errorf("said more than once: %v", <-reloads)
	}
}

func removeFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func wantReload(t *testing.T, reloads <-chan error, want string) {
	t.Helper()
	select {
	case err := <-reloads:
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("reloaded with %v, want %q", err, want)
		}
	case <-time.After(patience):
		t.Errorf("no reload, want %q", want)
	}
}

func wantAdmin(t *testing.T, which string, conn *grpc.ClientConn) {
	t.Helper()
	if name, err := who(conn); name != "admin (admin)" || err != nil {
		t.Errorf("%s: taken for %q, %v", which, name, err)
	}
}

// serial makes a new connection and returns the serial number of the server's certificate.
func serial(t *testing.T, addr string, config *tls.Config) string {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, withH2(config))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func withH2(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	return config
}

// An old ticket must not stand in for a certificate.
func TestNoSessionTickets(t *testing.T) {
	state := newPKI(t)
	addr := serveTLS(t, state, nil)
	config := withH2(asAdmin(t, state))
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		conn, err := tls.Dial("tcp", addr, config)
		if err != nil {
			t.Fatal(err)
		}
		// The server's settings come after a ticket would.
		_, err = conn.Read(make([]byte, 1))
		if err != nil || conn.ConnectionState().DidResume {
			t.Errorf("resumed %t, %v", conn.ConnectionState().DidResume, err)
		}
		conn.Close()
	}
}

func TestServerTLSWithoutCertificates(t *testing.T) {
	state := newPKI(t)
	removeFiles(t, CertDir(state), "ca.crt")
	for _, dir := range []string{t.TempDir(), CertDir(state)} {
		if _, err := ServerTLS(dir, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("%v", err)
		}
	}
}
