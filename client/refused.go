package client

import (
	"context"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
)

// With TLS 1.3 a server refuses a client's certificate after the client believes that the handshake is
// done. Its alert then races with the client's first write, and a broken pipe would be all that the
// user reads. So when nothing was read from the server yet, a write that fails reads what it said.

// alerting are credentials whose connections do that.
type alerting struct {
	credentials.TransportCredentials
}

func (a alerting) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := a.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	return &alertingConn{Conn: conn}, info, nil
}

func (a alerting) Clone() credentials.TransportCredentials {
	return alerting{a.TransportCredentials.Clone()}
}

type alertingConn struct {
	net.Conn
	answered atomic.Bool
}

func (c *alertingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.answered.Store(true)
	}
	return n, err
}

// Write may take a byte from the reader: the connection is of no use any more, and grpc closes it.
func (c *alertingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil && !c.answered.Load() {
		if _, alert := c.Conn.Read(make([]byte, 1)); alert != nil {
			err = alert
		}
	}
	return n, err
}
