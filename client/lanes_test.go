package client

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// A crowd answers outputs once so many are open at a time, and knows over which connections.
type crowd struct {
	size  int32
	open  atomic.Int32
	all   chan struct{}
	mu    sync.Mutex
	addrs map[string]int
	first string // if set, calls over other connections are refused
	begun atomic.Int32
	wrote func() // if set, called when all readers have something
}

func newCrowd(size int32) *crowd {
	return &crowd{size: size, all: make(chan struct{}), addrs: map[string]int{}}
}

func (c *crowd) send(r *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
	p, _ := peer.FromContext(s.Context())
	c.mu.Lock()
	c.addrs[p.Addr.String()]++
	refused := c.first != "" && c.first != p.Addr.String()
	c.mu.Unlock()
	if refused {
		return status.Error(codes.ResourceExhausted, "as many connections are open as may be")
	}
	if c.open.Add(1) == c.size {
		close(c.all)
	}
	select {
	case <-c.all:
	case <-s.Context().Done():
		return s.Context().Err()
	}
	text := "the output"[r.Offset:]
	if err := s.Send(&telev1.StreamOutputResponse{Stream: stdoutStream, Offset: r.Offset, Data: []byte(text)}); err != nil {
		return err
	}
	return s.Send(&telev1.StreamOutputResponse{Job: theJob})
}

// read reads so many outputs at a time.
func (c *crowd) read(t *testing.T, client *Client) {
	t.Helper()
	ctx := within(t)
	var readers sync.WaitGroup
	for range c.size {
		readers.Go(func() {
			var out strings.Builder
			first := sync.OnceFunc(func() {
				if c.begun.Add(1) == c.size && c.wrote != nil {
					c.wrote()
				}
			})
			_, err := client.Output(ctx, jobID, OutputOptions{Follow: true}, writerFunc(func(p []byte) (int, error) {
				out.Write(p)
				first()
				return len(p), nil
			}), io.Discard)
			if err != nil || out.String() != "the output" {
				t.Errorf("got %q, %v", out.String(), err)
			}
		})
	}
	readers.Wait()
}

// over checks how many connections there were.
func (c *crowd) over(t *testing.T, connections int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.addrs) != connections {
		t.Errorf("%d connections, want %d", len(c.addrs), connections)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestLanes: outputs that are read at once come over several connections, as many over each; one
// alone takes the client's first, and afterwards there is that one again.
func TestLanes(t *testing.T) {
	path, addr := unixAddr(t)
	f := &fake{}
	l := listen(t, "unix", path)
	counted := &countingListener{Listener: l}
	serve(t, counted, f)
	c := dial(t, Options{Addr: addr})
	for _, row := range []struct{ outputs, connections int }{{1, 1}, {2 * maxLanes, maxLanes}, {1, maxLanes}, {3 * maxLanes, 2*maxLanes - 1}} {
		crowd := newCrowd(int32(row.outputs))
		f.stream = crowd.send
		crowd.read(t, c)
		if n := int(counted.n.Load()); n != row.connections {
			t.Errorf("%d outputs: %d connections, want %d", row.outputs, n, row.connections)
		}
		c.lanes.mu.Lock()
		if c.lanes.first.outputs != 0 || len(c.lanes.more) != 0 {
			t.Errorf("afterwards: %d outputs on the first, %d more", c.lanes.first.outputs, len(c.lanes.more))
		}
		c.lanes.mu.Unlock()
	}
}

// A countingListener counts connections.
type countingListener struct {
	net.Listener
	n atomic.Int32
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return conn, err
}

// TestLanesShare: each connection has as many of the outputs as any other.
func TestLanesShare(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	crowd, ca := newCrowd(4*maxLanes), newAuthority(t)
	serve(t, l, &fake{stream: crowd.send}, ca.server(t, ca))
	crowd.read(t, dial(t, ca.options(t, ca, l.Addr().String())))
	crowd.over(t, maxLanes)
	for addr, n := range crowd.addrs {
		if n != 4 {
			t.Errorf("%d outputs over %s", n, addr)
		}
	}
}

// TestOneLane: where there are no further connections to be had, the first one does.
func TestOneLane(t *testing.T) {
	ca := newAuthority(t)
	t.Run("cut at once", func(t *testing.T) {
		l := listen(t, "tcp", "127.0.0.1:0")
		alone, crowd := newCrowd(1), newCrowd(2*maxLanes)
		f := &fake{stream: alone.send}
		serve(t, l, f, ca.server(t, ca))
		first := true
		p := startProxy(t, l.Addr().String(), func() int64 {
			if first {
				first = false
				return -1
			}
			return 0
		})
		told := make(notices, 100)
		o := ca.options(t, ca, p.Addr().String())
		o.Reconnect, o.Notice = time.Hour, told.add
		c := dial(t, o)
		alone.read(t, c)
		f.stream = crowd.send
		crowd.read(t, c)
		crowd.over(t, 1)
		if lines := told.all(); len(lines) > 0 {
			t.Errorf("notices %q", lines)
		}
	})
	t.Run("refused by the server", func(t *testing.T) {
		l := listen(t, "tcp", "127.0.0.1:0")
		alone, crowd := newCrowd(1), newCrowd(2*maxLanes)
		f := &fake{stream: alone.send}
		serve(t, l, f, ca.server(t, ca))
		c := dial(t, ca.options(t, ca, l.Addr().String()))
		alone.read(t, c)
		alone.mu.Lock()
		for crowd.first = range alone.addrs {
		}
		alone.mu.Unlock()
		f.stream = crowd.send
		crowd.read(t, c)
		crowd.over(t, maxLanes)
	})
}

// TestLanesLost: when all connections are lost, the user hears of it once, and every output goes on.
func TestLanesLost(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	crowd, ca := newCrowd(2*maxLanes), newAuthority(t)
	serve(t, l, &fake{stream: func(r *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
		if r.Offset > 0 {
			return crowd.send(r, s)
		}
		if err := s.Send(&telev1.StreamOutputResponse{Stream: stdoutStream, Data: []byte("the")}); err != nil {
			return err
		}
		<-s.Context().Done()
		return s.Context().Err()
	}}, ca.server(t, ca))
	p := startProxy(t, l.Addr().String(), func() int64 { return -1 })
	told := make(notices, 100)
	o := ca.options(t, ca, p.Addr().String())
	o.Reconnect, o.Notice = time.Hour, told.add
	crowd.wrote = p.cut
	crowd.read(t, dial(t, o))
	lines := told.all()
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "lost the server") || !strings.Contains(lines[1], "is back") {
		t.Errorf("notices %q", lines)
	}
}
