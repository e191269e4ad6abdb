package client

import (
	"net"
	"path/filepath"
	"testing"
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
