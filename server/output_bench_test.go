package server

import (
	"crypto/tls"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// BenchmarkOutput reads the output of a job, over mTLS and the unix socket, by one follower and by
// 16 of one client. The server is a process of its own. Each round sends as much through a bare TLS
// connection on loopback as well: "÷TLS" is the throughput as a part of that one's, the median of
// the rounds.
//
//	go test -run '^$' -bench Output -benchtime 5x ./server
func BenchmarkOutput(b *testing.B) {
	o := newTarget(b)
	admin := client.Options{Addr: o.addr, StateDir: o.state}
	socket := client.Options{Addr: "unix:" + filepath.Join(o.state, "tele.sock")}
	for _, by := range []struct {
		name      string
		options   client.Options
		followers int
		live      bool
	}{
		{"mtls/followers=1", admin, 1, false},
		{"mtls/followers=16", admin, 16, false},
		{"mtls/live", admin, 1, true},
		{"unix/followers=1", socket, 1, false},
		{"unix/followers=16", socket, 16, false},
	} {
		b.Run(by.name, func(b *testing.B) {
			const size = 1 << 30
			c := o.dial(by.options)
			each := size / by.followers
			var job *telev1.Job
			write := func() {
				var err error
				if job, err = c.Start(b.Context(), sh(fmt.Sprintf("head -c %d /dev/zero", each))); err != nil {
					b.Fatal(err)
				}
			}
			write()
			if _, err := c.Wait(b.Context(), job.Id); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			var ratios []float64
			for b.Loop() {
				b.StopTimer()
				bare := bareTLS(b, o, size)
				b.StartTimer()
				begin := time.Now()
				if by.live {
					write()
				}
				var all sync.WaitGroup
				for range by.followers {
					all.Go(func() {
						var n tally
						_, err := c.Output(b.Context(), job.Id, client.OutputOptions{Follow: true}, &n, io.Discard)
						if err != nil || int(n) != each {
							b.Errorf("got %d bytes, %v", n, err)
						}
					})
				}
				all.Wait()
				ratios = append(ratios, bare.Seconds()/time.Since(begin).Seconds())
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "÷TLS")
		})
	}
}

// bareTLS is how long size bytes take through a TLS connection on loopback.
func bareTLS(b *testing.B, o *target, size int) time.Duration {
	pair, err := tls.LoadX509KeyPair(filepath.Join(o.state, "certs", "server.crt"), filepath.Join(o.state, "certs", "server.key"))
	if err != nil {
		b.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	sent := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			sent <- err
			return
		}
		defer conn.Close()
		block := make([]byte, 256<<10)
		for n := 0; n < size && err == nil; n += len(block) {
			_, err = conn.Write(block)
		}
		sent <- err
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), o.tls)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	begin := time.Now()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, conn, make([]byte, 256<<10))
	took := time.Since(begin)
	if err != nil || n != int64(size) {
		b.Fatalf("bare TLS: %d bytes, %v", n, err)
	}
	if err := <-sent; err != nil {
		b.Fatal(err)
	}
	return took
}

// A tally counts the bytes that it is given.
type tally int

func (t *tally) Write(p []byte) (int, error) {
	*t += tally(len(p))
	return len(p), nil
}
