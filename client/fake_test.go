package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// jobID is the job that the fakes have.
const jobID = "abcdefghijkl"

// A fake is a JobService of which a test scripts the answers.
type fake struct {
	telev1.UnimplementedJobServiceServer
	// answer answers all calls with one answer, by the type of the request; not set: unimplemented.
	answer func(ctx context.Context, request any) (any, error)
	stream func(*telev1.StreamOutputRequest, grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error
	watch  func(*telev1.WatchRequest, grpc.ServerStreamingServer[telev1.WatchResponse]) error
	files  func(*telev1.StreamFilesRequest, grpc.ServerStreamingServer[telev1.StreamFilesResponse]) error
	input  func(grpc.BidiStreamingServer[telev1.WriteInputRequest, telev1.WriteInputResponse]) error
}

func (f *fake) WriteInput(s grpc.BidiStreamingServer[telev1.WriteInputRequest, telev1.WriteInputResponse]) error {
	if f.input == nil {
		return status.Error(codes.Unimplemented, "no input")
	}
	return f.input(s)
}

func (f *fake) Watch(r *telev1.WatchRequest, s grpc.ServerStreamingServer[telev1.WatchResponse]) error {
	if f.watch == nil {
		return status.Error(codes.Unimplemented, "no events")
	}
	return f.watch(r, s)
}

func (f *fake) StreamFiles(r *telev1.StreamFilesRequest, s grpc.ServerStreamingServer[telev1.StreamFilesResponse]) error {
	if f.files == nil {
		return status.Error(codes.Unimplemented, "no files")
	}
	return f.files(r, s)
}

func (f *fake) StreamOutput(r *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
	if f.stream == nil {
		return status.Error(codes.Unimplemented, "no stream")
	}
	return f.stream(r, s)
}

// serve serves f on l until stop is called or the test ends.
func serve(t *testing.T, l net.Listener, f *fake, options ...grpc.ServerOption) (stop func()) {
	options = append(options, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second}))
	s := grpc.NewServer(append(options, grpc.UnaryInterceptor(
		func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if f.answer == nil {
				return handler(ctx, request)
			}
			return f.answer(ctx, request)
		}))...)
	telev1.RegisterJobServiceServer(s, f)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	stop = sync.OnceFunc(func() {
		s.Stop()
		<-ended
	})
	t.Cleanup(stop)
	return stop
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // its server has closed it already
	return l
}

// unixAddr is an address for listen and one for Options.
func unixAddr(t *testing.T) (path, addr string) {
	path = filepath.Join(t.TempDir(), "s")
	return path, "unix:" + path
}

func dial(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // a test may have closed it
	return c
}

// within is a context for what must not take long: a call that wrongly tries to reconnect fails.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A notices collects what a client tells.
type notices chan string

// add never blocks: there are too many then, which the test sees.
func (n notices) add(text string) {
	select {
	case n <- text:
	default:
	}
}

// all are those there are.
func (n notices) all() (list []string) {
	for {
		select {
		case text := <-n:
			list = append(list, text)
		default:
			return list
		}
	}
}

// A proxy passes connections on, and cuts them.
type proxy struct {
	net.Listener
	backend string

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]bool
	cuts  int
}

// startProxy asks budget for each connection after how many bytes from the server to cut it; negative
// is never.
func startProxy(t *testing.T, backend string, budget func() int64) *proxy {
	p := &proxy{Listener: listen(t, "tcp", "127.0.0.1:0"), backend: backend, conns: map[net.Conn]bool{}}
	p.wg.Go(func() {
		for {
			conn, err := p.Accept()
			if err != nil {
				return
			}
			n := budget()
			p.wg.Go(func() { p.pass(conn, n) })
		}
	})
	t.Cleanup(func() {
		_ = p.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) pass(client net.Conn, budget int64) {
	server, err := net.Dial("tcp", p.backend)
	if err != nil {
		_ = client.Close() // that is how the client sees it
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	up := make(chan struct{})
	go func() {
		defer close(up)
		_, _ = io.Copy(server, client) // ends when either is closed
		_ = server.Close()
	}()
	if budget < 0 {
		_, _ = io.Copy(client, server)
	} else if n, _ := io.CopyN(client, server, budget); n == budget {
		p.mu.Lock()
		p.cuts++
		p.mu.Unlock()
	}
	_ = client.Close()
	_ = server.Close()
	<-up
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// cut cuts all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
		p.cuts++
	}
}

// An authority is a CA for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true,
		BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

func (a *authority) issue(t *testing.T) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "x"},
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
}

// server are a server's credentials, which takes the clients of another authority.
func (a *authority) server(t *testing.T, clients *authority) grpc.ServerOption {
	return grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{a.issue(t)}, ClientCAs: clients.pool, ClientAuth: tls.RequireAndVerifyClientCert}))
}

// options are a client's, which trusts the servers of another authority.
func (a *authority) options(t *testing.T, servers *authority, addr string) Options {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return Options{Addr: addr, CA: file("ca", "CERTIFICATE", servers.cert.Raw),
		Cert: file("cert", "CERTIFICATE", a.issue(t).Certificate[0]), Key: file("key", "PRIVATE KEY", key)}
}
