package access

import (
	"container/list"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// A Door bounds the connections of a server, so that nobody takes the descriptors and the memory
// that the others need. A connection is a stranger until its TLS handshake has said whose it is,
// and a client's afterwards.
//
//	door := access.NewDoor(access.DoorOptions{…})
//	server := grpc.NewServer(grpc.Creds(door.Credentials(config)), grpc.StatsHandler(door.Intake()), …)
//	server.Serve(door.Listen(listener))
//
// There is only room for so many strangers. Each new one beyond that pushes out the oldest: who
// means well is a stranger for some round trips, who holds connections half-open is for longer.
type Door struct {
	options DoorOptions

	mu        sync.Mutex
	open      int
	strangers list.List           // of *visitor, the oldest first
	accounts  map[string]*account // those that have a connection
}

// DoorOptions are the bounds. None of them is checked when it is 0.
type DoorOptions struct {
	Connections int // open in all
	Strangers   int // of these, those that have not said yet whose they are
	PerClient   int // of these, those of one identity

	RequestTime time.Duration // from the first byte of a request to its last
}

// NewDoor returns a Door for one server.
func NewDoor(o DoorOptions) *Door {
	return &Door{options: o, accounts: make(map[string]*account)}
}

// An account is what one identity has under way.
type account struct {
	connections int // guarded by Door.mu
	intake      intake
}

// A visitor is a connection that came through the door. It is the AuthInfo of its calls' peer as
// well, around that of the credentials.
type visitor struct {
	net.Conn
	credentials.AuthInfo // set by the handshake

	door *Door
	gone chan struct{} // closed with the connection

	// Guarded by Door.mu.
	place   *list.Element // among the strangers, nil when it is none
	account *account      // whose it is, nil for a stranger
	name    string        // of account
	closed  bool
}

// refusedLife is how long a connection too many may stay to hear why.
const refusedLife = 2 * time.Second

// Listen returns a listener whose connections are those of l that the door has room for.
func (d *Door) Listen(l net.Listener) net.Listener { return doorListener{l, d} }

type doorListener struct {
	net.Listener
	door *Door
}

func (l doorListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		v, out := l.door.enter(conn)
		if out != nil {
			_ = out.Close() // nothing was written to it
		}
		if v != nil {
			return v, nil
		}
	}
}

// enter makes conn a stranger, and returns who has to go for it: the oldest one, or conn itself.
func (d *Door) enter(conn net.Conn) (v *visitor, out net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	full := d.options.Connections > 0 && d.open >= d.options.Connections
	if full || d.options.Strangers > 0 && d.strangers.Len() >= d.options.Strangers {
		oldest := d.strangers.Front()
		if oldest == nil {
			return nil, conn
		}
		old := oldest.Value.(*visitor)
		d.leaveLocked(old)
		out = old.Conn
	}
	v = &visitor{Conn: conn, door: d, gone: make(chan struct{})}
	v.place = d.strangers.PushBack(v)
	d.open++
	return v, out
}

// know makes a stranger the client name's, unless that one has as many connections as it may.
func (d *Door) know(v *visitor, name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v.closed {
		return false
	}
	c := d.accounts[name]
	if c == nil {
		c = &account{intake: newIntake()}
		d.accounts[name] = c
	}
	if d.options.PerClient > 0 && c.connections >= d.options.PerClient {
		return false
	}
	c.connections++
	d.strangers.Remove(v.place)
	v.place, v.account, v.name = nil, c, name
	return true
}

func (d *Door) leaveLocked(v *visitor) {
	if v.closed {
		return
	}
	v.closed = true
	close(v.gone)
	d.open--
	if v.place != nil {
		d.strangers.Remove(v.place)
		v.place = nil
	}
	if v.account != nil {
		if v.account.connections--; v.account.connections == 0 {
			delete(d.accounts, v.name)
		}
	}
}

// Close gives the place free.
func (v *visitor) Close() error {
	v.door.mu.Lock()
	v.door.leaveLocked(v)
	v.door.mu.Unlock()
	return v.Conn.Close()
}

// owner is the client whose connection this is, nil for a stranger.
func (v *visitor) owner() *account {
	v.door.mu.Lock()
	defer v.door.mu.Unlock()
	return v.account
}

// visitorOf is the connection of a call that came through a door, or nil.
func visitorOf(ctx context.Context) *visitor {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	v, _ := p.AuthInfo.(*visitor)
	return v
}

// Gone is closed when the connection of a call that came through a door is. A call's context ends
// earlier: with the call.
func Gone(ctx context.Context) <-chan struct{} {
	if v := visitorOf(ctx); v != nil {
		return v.gone
	}
	return nil
}

// Credentials are those of the function Credentials, for connections that came through the door.
func (d *Door) Credentials(config *tls.Config) credentials.TransportCredentials {
	return doorCredentials{Credentials(config)}
}

type doorCredentials struct {
	credentials.TransportCredentials
}

func (c doorCredentials) Clone() credentials.TransportCredentials {
	return doorCredentials{c.TransportCredentials.Clone()}
}

// ServerHandshake finds out whose connection it is. One too many remains a stranger that is soon
// to go, and the guard refuses its calls: a client that was cut off would not know why.
func (c doorCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	v, ok := raw.(*visitor)
	if !ok {
		return nil, nil, fmt.Errorf("handshake with a %T: it did not come through the door", raw)
	}
	conn, info, err := c.TransportCredentials.ServerHandshake(v)
	if err != nil {
		return nil, nil, err
	}
	v.AuthInfo = info
	if !v.door.know(v, nameOf(info)) {
		time.AfterFunc(refusedLife, func() { _ = v.Close() }) // only the place matters
	}
	return conn, v, nil
}

// nameOf is the name under which a connection is counted, the same as its Identity will have.
func nameOf(info credentials.AuthInfo) string {
	switch info := info.(type) {
	case credentials.TLSInfo:
		if len(info.State.VerifiedChains) > 0 {
			return info.State.VerifiedChains[0][0].Subject.CommonName
		}
	case PeerInfo:
		return info.Name
	}
	return ""
}

// checkRoom refuses a call on a connection too many.
func checkRoom(ctx context.Context) error {
	if v := visitorOf(ctx); v != nil && v.owner() == nil {
		return status.Errorf(codes.ResourceExhausted,
			"%q has as many connections open as one client may (%d); close one, or share one among calls",
			nameOf(v.AuthInfo), v.door.options.PerClient)
	}
	return nil
}
