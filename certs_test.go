package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// makeCert is `cert KIND`: writes KIND.crt and KIND.key, a client's certificate that no server may
// take: expired and server (for servers alone) are signed by the CA of the script's server, and
// foreign by itself.
func makeCert(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: cert expired|server|foreign")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "eve", Organization: []string{"admin"}},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	certs := filepath.Join(ts.Getenv("TELE_STATE_DIR"), "certs")
	ca, err := tls.LoadX509KeyPair(filepath.Join(certs, "ca.crt"), filepath.Join(certs, "ca.key"))
	ts.Check(err)
	signer, signerKey := ca.Leaf, ca.PrivateKey
	switch args[0] {
	case "expired":
		cert.NotAfter = time.Now().Add(-time.Hour)
	case "server":
		cert.ExtKeyUsage[0] = x509.ExtKeyUsageServerAuth
	case "foreign":
		signer, signerKey = cert, key
	default:
		ts.Fatalf("no kind of certificate: %s", args[0])
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, signer, &key.PublicKey, signerKey)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	for name, block := range map[string]*pem.Block{
		".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		ts.Check(os.WriteFile(ts.MkAbs(args[0]+name), pem.EncodeToMemory(block), 0o600))
	}
}
