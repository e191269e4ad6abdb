package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
)

// chunk is how much the sender and whoever reads from it take at a time, as tele does.
const chunk = 256 << 10

// senderName makes this program the sender: a process that writes bytes from memory to whoever
// connects, as a server does that has nothing else to do. It is what tele's output is compared with.
const senderName = "bench-sender"

// startSender starts one. With certs, a directory with a server's certificates, it talks TLS.
func startSender(network, addr, certs string) (dial func() (net.Conn, error), end func(), err error) {
	at, end, err := startOther(senderName, network, addr, certs)
	if err != nil {
		return nil, nil, err
	}
	dial = func() (net.Conn, error) { return net.Dial(network, at) }
	if certs != "" {
		config, err := tlsConfig(certs, "admin")
		if err != nil {
			end()
			return nil, nil, err
		}
		dial = func() (net.Conn, error) { return tls.Dial(network, at, config) }
	}
	return dial, end, nil
}

// receive asks a sender for that many bytes.
func receive(dial func() (net.Conn, error), bytes int64) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := binary.Write(conn, binary.BigEndian, bytes); err != nil {
		return err
	}
	return readAll(conn, bytes)
}

func readAll(r io.Reader, bytes int64) error {
	buf := make([]byte, chunk)
	for bytes > 0 {
		n, err := r.Read(buf)
		if err != nil {
			return err
		}
		bytes -= int64(n)
	}
	return nil
}

func tlsConfig(certs, who string) (*tls.Config, error) {
	pem, err := os.ReadFile(filepath.Join(certs, "ca.crt"))
	if err != nil {
		return nil, err
	}
	ca := x509.NewCertPool()
	ca.AppendCertsFromPEM(pem)
	pair, err := tls.LoadX509KeyPair(filepath.Join(certs, who+".crt"), filepath.Join(certs, who+".key"))
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca, ClientCAs: ca, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{pair}}, err
}

// send is that process, and goes on until it cannot.
func send(args []string) error {
	network, addr, certs := args[0], args[1], args[2]
	listener, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	if certs != "" {
		config, err := tlsConfig(certs, "server")
		if err != nil {
			return err
		}
		listener = tls.NewListener(listener, config)
	}
	buf := make([]byte, chunk)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() { // until it has sent what was asked for
			defer conn.Close()
			var bytes int64
			if err := binary.Read(conn, binary.BigEndian, &bytes); err != nil {
				return
			}
			for bytes > 0 {
				n, err := conn.Write(buf[:min(bytes, chunk)])
				if err != nil {
					return
				}
				bytes -= int64(n)
			}
		}()
	}
}
