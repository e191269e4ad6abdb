package access

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

// issuedDir keeps a copy of every certificate that Issue made, without its key, so that Show can
// say who was given one.
const issuedDir = "issued"

const day = 24 * time.Hour

// Issued are the files of a new client certificate. The client needs all three.
type Issued struct {
	Cert string // NAME.crt
	Key  string // NAME.key
	CA   string // the server's ca.crt

	NotAfter time.Time
}

// A name becomes a file's name and is shown in tables, and X.509 ends a common name at 64.
// Compiled when needed: clients, which are the same program, start faster.
var validName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`) })

// Issue makes a client certificate for name with one role, good for days, and writes NAME.crt and
// NAME.key into outDir, the working directory when that is empty. It replaces no file.
func Issue(stateDir, name string, role Role, outDir string, days int) (Issued, error) {
	issued, err := issueClient(CertDir(stateDir), name, role, outDir, days, time.Now())
	if err != nil {
		return Issued{}, fmt.Errorf("issue a certificate for %q: %w", name, err)
	}
	return issued, nil
}

func issueClient(
	dir, name string, role Role, outDir string, days int, now time.Time,
) (Issued, error) {
	switch {
	case !validName().MatchString(name):
		return Issued{}, errors.New("not a name: begin with a letter or a digit, then at most 63 " +
			"letters, digits, dots, dashes, underscores and @")
	case !role.Known():
		return Issued{}, fmt.Errorf("no role %q: take admin, user or viewer", role)
	case days < 1 || days > int(caLife/day):
		return Issued{}, fmt.Errorf("%d days: take 1 to %d", days, caLife/day)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return Issued{}, explainCA(dir, err)
	}
	defer unlock()
	ca, err := loadPair(dir, "ca")
	if err != nil {
		return Issued{}, explainCA(dir, err)
	}
	template := clientTemplate(name, role, now, time.Duration(days)*day)
	if template.NotAfter.After(ca.cert.NotAfter) {
		return Issued{}, fmt.Errorf("%d days: the CA ends before, on %s; ask for fewer days",
			days, ca.cert.NotAfter.Format(time.DateOnly))
	}
	return writeClient(dir, name, outDir, template, ca)
}

// writeClient writes the copy first: there is no certificate that Show does not know.
func writeClient(dir, name, outDir string, template *x509.Certificate, ca pair) (Issued, error) {
	if outDir == "" {
		outDir = "."
	}
	if err := checkOut(outDir, name); err != nil {
		return Issued{}, err
	}
	made, err := issue(template, ca)
	if err != nil {
		return Issued{}, err
	}
	if err := os.MkdirAll(filepath.Join(dir, issuedDir), 0o700); err != nil {
		return Issued{}, err
	}
	copied := filepath.Join(dir, issuedDir, name+"."+fingerprint(made.cert)[:8]+".crt")
	if err := saveCert(copied, made.cert); err != nil {
		return Issued{}, err
	}
	if err := made.save(outDir, name); err != nil {
		return Issued{}, err
	}
	return Issued{
		Cert:     filepath.Join(outDir, name+".crt"),
		Key:      filepath.Join(outDir, name+".key"),
		CA:       filepath.Join(dir, "ca.crt"),
		NotAfter: made.cert.NotAfter,
	}, nil
}

// checkOut looks before anything is made whether both files can be new ones in dir.
func checkOut(dir, name string) error {
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("%w: make the directory, or choose another", err)
	} else if !info.IsDir() {
		return fmt.Errorf("%s is no directory", dir)
	}
	for _, file := range []string{name + ".crt", name + ".key"} {
		path := filepath.Join(dir, file)
		if there, err := exists(path); err != nil {
			return err
		} else if there {
			return fmt.Errorf("%s is there already: remove it, or choose another directory", path)
		}
	}
	return nil
}

func explainCA(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no CA in %s: name the state directory of a server that has started "+
			"once (--state-dir, TELE_STATE_DIR), or issue where ca.key is kept (%w)", dir, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: do it as the user that runs the server", err)
	}
	return err
}

// CertInfo is what a certificate says.
type CertInfo struct {
	File        string // in the certs directory
	Name        string // the common name: for a client, the user
	Usage       string // ca, server or client
	Roles       []Role // of a client
	NotAfter    time.Time
	Fingerprint string // SHA-256 in hexadecimal, as `openssl x509 -fingerprint -sha256` without colons
}

// Show returns every certificate of the certs directory: the server's own, then those that Issue
// made. A file that holds none is part of the error, and the others are returned all the same.
func Show(stateDir string) ([]CertInfo, error) {
	dir := CertDir(stateDir)
	// ReadDir and not Glob: it is what tells "no directory" and "no permission" from "no file".
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("show certificates: %w", explainCA(dir, err))
	}
	var infos []CertInfo
	var bad []error
	for _, pattern := range []string{"*.crt", issuedDir + "/*.crt"} {
		// The one error of Glob is a bad pattern.
		paths, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, path := range paths {
			cert, err := loadCert(path)
			if err != nil {
				bad = append(bad, fmt.Errorf("show certificates: %w", err))
				continue
			}
			infos = append(infos, describe(dir, path, cert))
		}
	}
	return infos, errors.Join(bad...)
}

func loadCert(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(bytes.TrimSpace(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: no certificate in PEM form in it", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

func describe(dir, path string, cert *x509.Certificate) CertInfo {
	file, err := filepath.Rel(dir, path)
	if err != nil { // path was found below dir
		file = path
	}
	info := CertInfo{
		File:        file,
		Name:        cert.Subject.CommonName,
		Usage:       "server",
		NotAfter:    cert.NotAfter,
		Fingerprint: fingerprint(cert),
	}
	switch {
	case cert.IsCA:
		info.Usage = "ca"
	case allowsClient(cert):
		info.Usage = "client"
		info.Roles = knownRoles(cert.Subject.Organization)
	}
	return info
}

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}
