package client

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
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

// TestListLimit: no more jobs are asked for than are wanted, over any number of pages.
func TestListLimit(t *testing.T) {
	const there = 2500
	for limit, pages := range map[int][]int32{0: {1000, 1000, 1000}, 1: {1}, 1000: {1000}, 1001: {1000, 1}, 9000: {1000, 1000, 1000}} {
		path, addr := unixAddr(t)
		var asked []int32
		given := 0
		serve(t, listen(t, "unix", path), &fake{answer: func(_ context.Context, request any) (any, error) {
			size := request.(*telev1.ListRequest).PageSize
			asked = append(asked, size)
			r := &telev1.ListResponse{}
			for ; len(r.Jobs) < int(size) && given < there; given++ {
				r.Jobs = append(r.Jobs, &telev1.Job{Id: jobID})
			}
			if given < there {
				r.NextPageToken = "more"
			}
			return r, nil
		}})
		jobs, err := dial(t, Options{Addr: addr}).List(within(t), ListOptions{Limit: limit})
		want := there
		if limit > 0 {
			want = min(limit, there)
		}
		if err != nil || len(jobs) != want || !slices.Equal(asked, pages) {
			t.Errorf("limit %d: %d jobs by pages of %v, %v; want %d by %v", limit, len(jobs), asked, err, want, pages)
		}
	}
}
