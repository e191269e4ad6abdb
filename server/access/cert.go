package access

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// pair is a certificate with its private key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newKey makes a private key. P-256 is what every TLS stack takes, and signing with it costs some
// 20 µs.
func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a private key: %w", err)
	}
	return key, nil
}

// sign makes the certificate of template for key, signed by issuer; an issuer without a
// certificate signs its own.
func sign(template *x509.Certificate, key crypto.Signer, issuer pair) (pair, error) {
	parent := issuer.cert
	if parent == nil {
		parent = template
	}
	// Without a serial number in the template, a random one is made.
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), issuer.key)
	if err != nil {
		return pair{}, fmt.Errorf("sign a certificate for %s: %w", template.Subject, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, fmt.Errorf("read back the certificate for %s: %w", template.Subject, err)
	}
	return pair{cert: cert, key: key}, nil
}

// issue makes a new key and its certificate, which does not outlive the issuer's.
func issue(template *x509.Certificate, ca pair) (pair, error) {
	key, err := newKey()
	if err != nil {
		return pair{}, err
	}
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	return sign(template, key, ca)
}

// loadPair reads NAME.crt and NAME.key and checks that they belong together.
func loadPair(dir, name string) (pair, error) {
	certPEM, err := os.ReadFile(filepath.Join(dir, name+".crt"))
	if err != nil {
		return pair{}, err
	}
	keyPEM, err := os.ReadFile(filepath.Join(dir, name+".key"))
	if err != nil {
		return pair{}, err
	}
	both, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return pair{}, fmt.Errorf("%s.crt and %s.key in %s: %w", name, name, dir, err)
	}
	key, ok := both.PrivateKey.(crypto.Signer)
	if !ok {
		return pair{}, fmt.Errorf("%s.key in %s: this kind of key cannot sign", name, dir)
	}
	return pair{cert: both.Leaf, key: key}, nil
}

// save writes NAME.key and NAME.crt, in this order: a certificate that is there has its key.
func (p pair) save(dir, name string) error {
	if err := saveKey(dir, name, p.key); err != nil {
		return err
	}
	return saveCert(filepath.Join(dir, name+".crt"), p.cert)
}

func saveCert(path string, cert *x509.Certificate) error {
	return replaceFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}

func saveKey(dir, name string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode %s.key: %w", name, err)
	}
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	return replaceFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(block))
}

func loadKey(dir, name string) (crypto.Signer, error) {
	path := filepath.Join(dir, name+".key")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM block in it", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: this kind of key cannot sign", path)
	}
	return signer, nil
}

// replaceFile writes a file that only its owner reads. Whoever opens path finds the old content
// or the new, never a part, and after a crash too.
func replaceFile(path string, content []byte) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// The error that is returned says more than one about the leftover would.
			_ = os.Remove(temp.Name())
		}
	}()
	_, err = temp.Write(content)
	if err == nil {
		err = temp.Sync()
	}
	if err := errors.Join(err, temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// endsWithin says whether cert ends within d of now, or has ended.
func endsWithin(cert *x509.Certificate, now time.Time, d time.Duration) bool {
	return cert.NotAfter.Before(now.Add(d))
}
