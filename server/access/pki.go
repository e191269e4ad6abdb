package access

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// EnsurePKI makes what is missing in the certs directory of stateDir, and renews what ends soon:
//
//	ca.crt     ca.key      signs the others; whoever has the key can be anybody
//	server.crt server.key  for this machine's names and addresses, and hosts
//	admin.crt  admin.key   a client with the role admin
//
// It may be called again at any time, also while a server uses the files. Two callers at once
// wait for each other. Where ca.crt has no ca.key beside it the certificates are somebody else's
// to make: EnsurePKI then only checks that a server's is there.
//
// An address like 0.0.0.0 among hosts names no host and is left out.
func EnsurePKI(stateDir string, hosts []string) error {
	if err := ensure(CertDir(stateDir), hosts, time.Now()); err != nil {
		return fmt.Errorf("prepare certificates: %w", err)
	}
	return nil
}

func ensure(dir string, hosts []string, now time.Time) error {
	server := serverTemplate(now)
	if err := addHosts(server, hosts); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer unlock()
	elsewhere, err := managedElsewhere(dir)
	if err != nil {
		return err
	}
	if elsewhere {
		return checkServer(dir, now)
	}
	if err := tighten(dir); err != nil {
		return err
	}
	ca, err := ensureCA(dir, now)
	if err != nil {
		return err
	}
	if err := ensureLeaf(dir, "server", server, ca, now); err != nil {
		return err
	}
	return ensureLeaf(dir, "admin", clientTemplate("admin", Admin, now, leafLife), ca, now)
}

// lockDir waits until no other process is at work in dir. Only the owner of dir can open it, so
// nobody else can hold the lock.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := flock(d); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	// Closing gives the lock back; a directory has nothing to flush that could fail.
	return func() { _ = d.Close() }, nil
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

func managedElsewhere(dir string) (bool, error) {
	cert, err := exists(filepath.Join(dir, "ca.crt"))
	if err != nil || !cert {
		return false, err
	}
	key, err := exists(filepath.Join(dir, "ca.key"))
	return err == nil && !key, err
}

// checkServer says what is wrong with a server certificate that EnsurePKI cannot replace.
func checkServer(dir string, now time.Time) error {
	server, err := loadPair(dir, "server")
	if err == nil && endsWithin(server.cert, now, 0) {
		err = fmt.Errorf("%s has expired", filepath.Join(dir, "server.crt"))
	}
	if err != nil {
		return fmt.Errorf("%w; without ca.key no other can be made: put server.crt and server.key "+
			"there, or remove %s to begin with a new CA", err, dir)
	}
	return nil
}

// tighten takes from others what rights they have to the directory and the keys: a backup or a
// copy may have come back with looser modes.
func tighten(dir string) error {
	keys, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil {
		return err
	}
	for _, path := range append(keys, dir) {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 || info.Mode().Perm()&0o077 == 0 {
			continue
		}
		if err := os.Chmod(path, info.Mode().Perm()&0o700); err != nil {
			return err
		}
	}
	return nil
}

// ensureCA returns the CA, made or renewed where needed.
func ensureCA(dir string, now time.Time) (pair, error) {
	ca, err := loadPair(dir, "ca")
	switch {
	case err == nil && !ca.cert.IsCA:
		return pair{}, fmt.Errorf("%s is no CA certificate: put the right one there, or remove %s "+
			"to begin with a new CA", filepath.Join(dir, "ca.crt"), dir)
	case err == nil && !endsWithin(ca.cert, now, renewBefore):
		return ca, nil
	case err == nil:
		return signCA(dir, ca.key, ca.cert, now)
	case !errors.Is(err, fs.ErrNotExist):
		return pair{}, fmt.Errorf("%w: put back the pair that belongs together, or remove %s to "+
			"begin with a new CA (every certificate issued so far becomes void)", err, dir)
	}
	key, err := ensureCAKey(dir)
	if err != nil {
		return pair{}, err
	}
	return signCA(dir, key, nil, now)
}

// ensureCAKey returns the key that waits for its certificate: a first start may have been cut off
// between the two files.
func ensureCAKey(dir string) (crypto.Signer, error) {
	key, err := loadKey(dir, "ca")
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = newKey(); err != nil {
		return nil, err
	}
	return key, saveKey(dir, "ca", key)
}

// signCA writes a new ca.crt for key. With the subject and the key of the old one, everything
// that was issued stays good.
func signCA(dir string, key crypto.Signer, old *x509.Certificate, now time.Time) (pair, error) {
	template := caTemplate(now)
	if old != nil {
		template.RawSubject, template.SubjectKeyId = old.RawSubject, old.SubjectKeyId
	}
	ca, err := sign(template, key, pair{key: key})
	if err != nil {
		return pair{}, err
	}
	return ca, saveCert(filepath.Join(dir, "ca.crt"), ca.cert)
}

// ensureLeaf makes NAME.crt and NAME.key like want, unless a good pair is there. A pair that does
// not fit together or is another CA's is replaced: a cut off start leaves such ones, and nothing
// else could use them with this CA.
func ensureLeaf(dir, name string, want *x509.Certificate, ca pair, now time.Time) error {
	have, err := loadPair(dir, name)
	if err == nil && stillGood(have.cert, want, ca.cert, now) {
		return nil
	}
	var unread *fs.PathError
	if errors.As(err, &unread) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	made, err := issue(want, ca)
	if err != nil {
		return err
	}
	return made.save(dir, name)
}

func stillGood(have, want, ca *x509.Certificate, now time.Time) bool {
	return !endsWithin(have, now, renewBefore) &&
		bytes.Equal(have.RawIssuer, ca.RawSubject) &&
		have.CheckSignatureFrom(ca) == nil &&
		slices.Equal(have.ExtKeyUsage, want.ExtKeyUsage) &&
		containsAll(have.DNSNames, want.DNSNames, func(a, b string) bool { return a == b }) &&
		containsAll(have.IPAddresses, want.IPAddresses, net.IP.Equal)
}

func containsAll[T any](have, want []T, equal func(a, b T) bool) bool {
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h T) bool { return equal(h, w) }) {
			return false
		}
	}
	return true
}
