package client

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// TestAddress: who says nothing gets the server of this machine by its socket, when there is one.
func TestAddress(t *testing.T) {
	state, empty := t.TempDir(), t.TempDir()
	socket := filepath.Join(state, "tele.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, row := range []struct {
		o    Options
		want string
	}{
		{Options{StateDir: state}, "unix:" + socket},
		{Options{StateDir: empty}, DefaultAddr},
		{Options{StateDir: state, Addr: "example.org:1"}, "example.org:1"},
		{Options{StateDir: state, Cert: "alice.crt"}, DefaultAddr},
		{Options{StateDir: state, Key: "alice.key"}, DefaultAddr},
		{Options{StateDir: state, CA: "ca.crt"}, DefaultAddr},
	} {
		if got := row.o.Address(); got != row.want {
			t.Errorf("%+v: %s, want %s", row.o, got, row.want)
		}
	}
}

// TestNoServiceConfig: a name is looked up as any program does it, here in /etc/hosts, and the DNS is not
// asked how to call its server.
func TestNoServiceConfig(t *testing.T) {
	was := net.DefaultResolver
	defer func() { net.DefaultResolver = was }()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("the DNS was asked")
		return nil, errors.New("there is no DNS here")
	}}
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, &fake{answer: func(context.Context, any) (any, error) { return &telev1.GetResponse{}, nil }})
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Options{}.dial("localhost:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Get(within(t), jobID); err != nil {
		t.Error(err)
	}
}
