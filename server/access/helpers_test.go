package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// newPKI makes a state directory with certificates.
func newPKI(t *testing.T) (stateDir string) {
	t.Helper()
	stateDir = t.TempDir()
	if err := EnsurePKI(stateDir, nil); err != nil {
		t.Fatal(err)
	}
	return stateDir
}

// echo answers with the identity that the guard found.
type echo struct {
	telev1.UnimplementedJobServiceServer
}

func (echo) Get(ctx context.Context, _ *telev1.GetRequest) (*telev1.GetResponse, error) {
	id, _ := FromContext(ctx)
	return &telev1.GetResponse{Job: &telev1.Job{User: id.String()}}, nil
}

func (echo) StreamOutput(
	_ *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse],
) error {
	id, _ := FromContext(s.Context())
	return s.Send(&telev1.StreamOutputResponse{Data: []byte(id.String())})
}

// newServer is a real server with every service that a tele server has.
func newServer(creds credentials.TransportCredentials, guard *Guard) *grpc.Server {
	s := grpc.NewServer(grpc.Creds(creds),
		grpc.ChainUnaryInterceptor(guard.Unary), grpc.ChainStreamInterceptor(guard.Stream))
	telev1.RegisterJobServiceServer(s, echo{})
	healthv1.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	return s
}

// serve runs s on listener until the test ends.
func serve(t *testing.T, s *grpc.Server, listener net.Listener) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// serveTLS runs a server with the certificates of stateDir and returns its address.
func serveTLS(t *testing.T, stateDir string, reloaded func(error)) string {
	t.Helper()
	config, err := ServerTLS(CertDir(stateDir), reloaded)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, newServer(Credentials(config), &Guard{}), listener)
	return listener.Addr().String()
}

// dial returns a connection that the test closes.
func dial(t *testing.T, target string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close the connection: %v", err)
		}
	})
	return conn
}

// trusting returns a client's configuration that trusts ca.crt of stateDir and has no certificate.
func trusting(t *testing.T, stateDir string) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(CertDir(stateDir), "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatal("ca.crt holds no certificate")
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// asAdmin returns the configuration of the client that the first start made.
func asAdmin(t *testing.T, stateDir string) *tls.Config {
	t.Helper()
	dir := CertDir(stateDir)
	config := trusting(t, stateDir)
	config.Certificates = []tls.Certificate{loadCertificate(t,
		filepath.Join(dir, "admin.crt"), filepath.Join(dir, "admin.key"))}
	return config
}

func loadCertificate(t *testing.T, cert, key string) tls.Certificate {
	t.Helper()
	both, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return both
}

// sneak signs template with the CA of stateDir, as nobody may who does not hold ca.key.
func sneak(t *testing.T, stateDir string, template *x509.Certificate) tls.Certificate {
	t.Helper()
	ca, err := loadPair(CertDir(stateDir), "ca")
	if err != nil {
		t.Fatal(err)
	}
	made, err := issue(template, ca)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{made.cert.Raw}, PrivateKey: made.key, Leaf: made.cert}
}

// who calls Get and returns whom the server took the caller for.
func who(conn *grpc.ClientConn) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	response, err := telev1.NewJobServiceClient(conn).Get(ctx, &telev1.GetRequest{})
	return response.GetJob().GetUser(), err
}

func whoOverUnix(path string) (string, error) {
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	name, err := who(conn)
	if closeErr := conn.Close(); err == nil {
		err = closeErr
	}
	return name, err
}
