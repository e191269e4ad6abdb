package access

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// ServerTLS returns the configuration of the TCP listener: TLS 1.3 alone, with server.crt and
// server.key of certDir, and only for clients whose certificate is signed by one of ca.crt, in
// date, and made for clients.
//
// Every handshake looks whether the files have changed, so new ones count without a restart. If
// they do not fit together the ones before stay in use. In both cases reloaded, if not nil, is
// called once for each change, with nil or the error; it must not wait.
func ServerTLS(certDir string, reloaded func(error)) (*tls.Config, error) {
	if reloaded == nil {
		reloaded = func(error) {}
	}
	r := &reloader{dir: certDir, reloaded: reloaded, seen: stampsOf(certDir)}
	var err error
	if r.config, err = loadTLS(certDir); err != nil {
		return nil, err
	}
	config := r.config.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return r.current(), nil
	}
	return config, nil
}

type reloader struct {
	dir      string
	reloaded func(error)

	mu     sync.Mutex
	seen   [3]stamp
	config *tls.Config // replaced as a whole, never changed
}

func (r *reloader) current() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Stamped before the reading: a file that changes meanwhile is read again next time.
	now := stampsOf(r.dir)
	if now == r.seen {
		return r.config
	}
	r.seen = now
	config, err := loadTLS(r.dir)
	if err == nil {
		r.config = config
	}
	r.reloaded(err)
	return r.config
}

// stamp tells one content of a file from another without reading it. The change time is the
// kernel's own: unlike the modification time it cannot be set back by a copy that keeps times.
type stamp struct {
	inode   uint64
	size    int64
	changed syscall.Timespec
}

func stampsOf(dir string) (all [3]stamp) {
	for i, name := range [3]string{"ca.crt", "server.crt", "server.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			continue // a file that is gone differs from what was seen; loading it says why
		}
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			all[i] = stamp{inode: sys.Ino, size: sys.Size, changed: sys.Ctim}
		}
	}
	return all
}

func loadTLS(dir string) (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	if err != nil {
		return nil, fmt.Errorf("load the server's certificate in %s: %w", dir, err)
	}
	caPath := filepath.Join(dir, "ca.crt")
	text, err := os.ReadFile(caPath)
	if err != nil {
		return nil, fmt.Errorf("load the CA's certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("load the CA's certificate: %s: no certificate in PEM form in it", caPath)
	}
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		Certificates:     []tls.Certificate{own},
		ClientAuth:       tls.RequireAndVerifyClientCert,
		ClientCAs:        pool,
		VerifyConnection: verifyClient,
		NextProtos:       []string{"h2"},
		// A ticket would let a client back in without showing its certificate to a new ca.crt.
		SessionTicketsDisabled: true,
	}, nil
}

// verifyClient refuses what crypto/tls lets pass: a certificate that names no usage at all, like
// the CA's own, counts there as one for every usage.
func verifyClient(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 || !allowsClient(state.PeerCertificates[0]) {
		return errors.New("the certificate is not one for clients (extended key usage clientAuth)")
	}
	return nil
}

func allowsClient(cert *x509.Certificate) bool {
	return slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
}
