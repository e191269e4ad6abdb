package access

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"time"
)

// Lifetimes. A certificate is made anew at the first start within renewBefore of its end.
const (
	caLife      = 10 * 365 * 24 * time.Hour
	leafLife    = 365 * 24 * time.Hour
	renewBefore = 30 * 24 * time.Hour
	clockSkew   = time.Hour // how far behind the clock of a client may be
)

func caTemplate(now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: "tele CA"},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func serverTemplate(now time.Time) *x509.Certificate {
	subject := pkix.Name{CommonName: "tele server"}
	return leafTemplate(subject, x509.ExtKeyUsageServerAuth, now, leafLife)
}

func clientTemplate(name string, role Role, now time.Time, life time.Duration) *x509.Certificate {
	subject := pkix.Name{CommonName: name, Organization: []string{string(role)}}
	return leafTemplate(subject, x509.ExtKeyUsageClientAuth, now, life)
}

// leafTemplate has one extended usage alone: a server's certificate does not let anybody in, and
// a client's cannot pose as the server.
func leafTemplate(
	subject pkix.Name, usage x509.ExtKeyUsage, now time.Time, life time.Duration,
) *x509.Certificate {
	return &x509.Certificate{
		Subject:               subject,
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(life),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{usage},
	}
}
