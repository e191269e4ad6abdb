package access

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// addHosts puts the names and addresses that a client may reach this server by into cert: this
// machine's, and hosts.
func addHosts(cert *x509.Certificate, hosts []string) error {
	all := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && isDNSName(name) {
		all = append(all, name)
	}
	for _, host := range append(all, hosts...) {
		if err := addHost(cert, host); err != nil {
			return err
		}
	}
	return nil
}

func addHost(cert *x509.Certificate, host string) error {
	if host == "" {
		return nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		ip := net.IP(addr.Unmap().WithZone("").AsSlice())
		if !ip.IsUnspecified() && !slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		}
		return nil
	}
	if !isDNSName(host) {
		return fmt.Errorf("host %q for the server's certificate: neither an IP address nor a DNS "+
			"name; write it without scheme and port", host)
	}
	if name := strings.ToLower(host); !slices.Contains(cert.DNSNames, name) {
		cert.DNSNames = append(cert.DNSNames, name)
	}
	return nil
}

// isDNSName says whether text can stand in a certificate as a DNS name: labels of letters,
// digits, "-" and (as real machines have them) "_".
func isDNSName(text string) bool {
	if len(text) > 253 {
		return false
	}
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, dnsLetters) != "" {
			return false
		}
	}
	return true
}

const dnsLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
