package access

import (
	"net"
	"sync"
)

// gatherSize is what gRPC writes at a time (its write buffer has 32 KiB), with what TLS adds to it.
const gatherSize = 34 << 10

// gatherBuffers are what connections gather in. One that writes nothing has none.
var gatherBuffers = sync.Pool{New: func() any { b := make([]byte, 0, gatherSize); return &b }}

// A gathering is a TLS connection whose every Write is one write(2), not one for each record of 16 KiB.
// TLS takes no more than a record at a time, and does not say whether it is the last; so what it writes
// waits in the gatherer below it until its Write returns.
type gathering struct {
	net.Conn // TLS
	below    *gatherer
}

// Write is for one goroutine at a time, as gRPC's is.
func (g gathering) Write(p []byte) (int, error) {
	g.below.gather()
	n, err := g.Conn.Write(p)
	if sendErr := g.below.send(); err == nil {
		err = sendErr
	}
	return n, err
}

// Close does not wait for a Write that nobody reads, as TLS would, which has something to say before.
func (g gathering) Close() error {
	if !g.below.mu.TryLock() {
		return g.below.Conn.Close()
	}
	g.below.mu.Unlock()
	return g.Conn.Close()
}

// A gatherer is the connection below TLS. What nobody gathers for (the handshake, an alert, the answer to
// a new key) goes out at once.
type gatherer struct {
	net.Conn

	mu  sync.Mutex
	buf *[]byte // nil when nothing is gathered
	err error   // of a write: TLS thinks that it went well, and nothing may follow
}

// gather begins to keep what is written, until send.
func (g *gatherer) gather() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.buf = gatherBuffers.Get().(*[]byte)
}

// send writes what was kept.
func (g *gatherer) send() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flushLocked()
	gatherBuffers.Put(g.buf)
	g.buf = nil
	return g.err
}

func (g *gatherer) flushLocked() {
	if len(*g.buf) > 0 && g.err == nil {
		_, g.err = g.Conn.Write(*g.buf)
	}
	*g.buf = (*g.buf)[:0]
}

// Write keeps p, or writes it.
func (g *gatherer) Write(p []byte) (n int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.buf != nil && len(*g.buf)+len(p) > cap(*g.buf) {
		g.flushLocked()
	}
	if g.err != nil {
		return 0, g.err
	}
	if g.buf == nil || len(p) > cap(*g.buf) {
		n, g.err = g.Conn.Write(p)
		return n, g.err
	}
	*g.buf = append(*g.buf, p...)
	return len(p), nil
}
