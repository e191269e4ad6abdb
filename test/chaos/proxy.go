package main

import (
	"fmt"
	"io"
	"net"
	"sync"
)

// A proxy passes connections on to the server and cuts them: some after a number of bytes, which may be
// half-way through a message or the TLS handshake, and some whenever cutSome is called. A cut is a
// reset, or an end that comes without a word of TLS.
type proxy struct {
	world    *world
	listener net.Listener

	mu     sync.Mutex
	chance chance
	calm   bool
	conns  map[*passing]bool
}

// A passing is one connection with its other half.
type passing struct {
	client, server *net.TCPConn
	once           sync.Once
}

func newProxy(w *world) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{world: w, listener: l, calm: true, chance: newChance(w.options.seed, "proxy"), conns: map[*passing]bool{}}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			go p.pass(conn.(*net.TCPConn))
		}
	}()
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) pass(client *net.TCPConn) {
	conn, err := net.Dial("tcp", p.world.addr)
	if err != nil {
		_ = client.Close() // that is how the client sees it
		return
	}
	c := &passing{client: client, server: conn.(*net.TCPConn)}
	p.world.figures.add("connections", 1)
	p.mu.Lock()
	up, down := p.budget(2000), p.budget(100_000)
	p.conns[c] = true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(c, c.server, c.client, up) })
	both.Go(func() { p.copy(c, c.client, c.server, down) })
	both.Wait()
	c.end(false)
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// budget is after how many bytes to cut; negative is never.
func (p *proxy) budget(typical int) int64 {
	if p.calm || p.chance.in(60) {
		return -1
	}
	return int64(p.chance.ExpFloat64() * float64(typical))
}

func (p *proxy) copy(c *passing, to, from *net.TCPConn, budget int64) {
	var r io.Reader = from
	if budget >= 0 {
		r = io.LimitReader(from, budget)
	}
	n, err := io.Copy(to, r)
	if budget >= 0 && n >= budget && err == nil {
		p.cut(c, n%2 == 0)
		return
	}
	_ = to.CloseWrite() // one side ended: the other hears of it
}

func (p *proxy) cut(c *passing, reset bool) {
	if c.end(reset) {
		p.world.figures.add("connections cut", 1)
	}
}

// end closes both halves, and tells whether it was this call that did.
func (c *passing) end(reset bool) (first bool) {
	c.once.Do(func() {
		first = true
		for _, conn := range []*net.TCPConn{c.client, c.server} {
			if reset {
				_ = conn.SetLinger(0) // close(2) sends a reset then
			}
			_ = conn.Close()
		}
	})
	return first
}

// cutSome cuts each connection with so many chances of a hundred.
func (p *proxy) cutSome(percent int) {
	p.mu.Lock()
	var chosen []*passing
	for c := range p.conns {
		if p.chance.in(percent) {
			chosen = append(chosen, c)
		}
	}
	p.mu.Unlock()
	for i, c := range chosen {
		p.cut(c, i%2 == 0)
	}
}

// rest ends the cutting, or begins it.
func (p *proxy) rest(calm bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calm = calm
}

func (p *proxy) close() error {
	if err := p.listener.Close(); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	p.cutSome(100)
	return nil
}
