package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// BenchmarkOutput reads 256 MiB of output in all, by one follower and by 16 of one client, over mTLS
// and the unix socket; live, the job writes it meanwhile. The server is a process of its own. In each
// round everything has its turn, a bare TLS connection on loopback as well, and what is reported are
// the medians of the rounds: throughput as a part of bare TLS's, and 16 followers' as a part of one's.
//
//	go test -run '^$' -bench Output -benchtime 15x ./server
func BenchmarkOutput(b *testing.B) {
	const size = 256 << 20
	o := newTarget(b)
	write := func(c *client.Client, size int) string {
		job, err := c.Start(b.Context(), sh(fmt.Sprintf("head -c %d /dev/zero", size)))
		if err != nil {
			b.Fatal(err)
		}
		return job.Id
	}
	ratios := map[string][]float64{}
	clients, jobs := map[string]*client.Client{}, map[int]string{}
	for way, options := range o.ways() {
		clients[way] = o.dial(options)
	}
	for _, followers := range []int{1, 16} {
		jobs[followers] = write(clients["unix"], size/followers)
		if _, err := clients["unix"].Wait(b.Context(), jobs[followers]); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		bare := bareTLS(b, o, size).Seconds()
		for way, c := range clients {
			one := follow(b, c, jobs[1], 1, size)
			many := follow(b, c, jobs[16], 16, size/16)
			live := follow(b, c, write(c, size), 1, size)
			ratios[way+"÷TLS"] = append(ratios[way+"÷TLS"], bare/one)
			ratios[way+"-16÷1"] = append(ratios[way+"-16÷1"], one/many)
			ratios[way+"-live÷TLS"] = append(ratios[way+"-live÷TLS"], bare/live)
		}
	}
	for name, list := range ratios {
		slices.Sort(list)
		b.ReportMetric(list[len(list)/2], name)
	}
}

// follow is how many seconds it takes until all followers have all of a job's output.
func follow(b *testing.B, c *client.Client, id string, followers, size int) float64 {
	begin := time.Now()
	var all sync.WaitGroup
	for range followers {
		all.Go(func() {
			var n counter
			_, err := c.Output(b.Context(), id, client.OutputOptions{Follow: true}, &n, io.Discard)
			if err != nil || int(n) != size {
				b.Errorf("got %d bytes, %v", n, err)
			}
		})
	}
	all.Wait()
	return time.Since(begin).Seconds()
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

// BenchmarkLine is how long a line takes from the job to its follower: a job writes the time every
// 20 ms.
func BenchmarkLine(b *testing.B) {
	o := newTarget(b)
	for name, options := range o.ways() {
		b.Run(name, func(b *testing.B) {
			c := o.dial(options)
			job, err := c.Start(b.Context(), &telev1.JobSpec{Command: []string{"bash", "-c",
				"exec 3<> <(:); while echo $EPOCHREALTIME; do read -t 0.02 <&3; done"}})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			lines := make(chan time.Duration)
			go func() {
				defer close(lines)
				_, _ = c.Output(ctx, job.Id, client.OutputOptions{Follow: true}, ages(lines), io.Discard) // ends in a cancel
			}()
			var took []time.Duration
			for b.Loop() {
				age, ok := <-lines
				if !ok {
					b.Fatal("the output has ended")
				}
				took = append(took, age)
			}
			cancel()
			for range lines {
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			if _, err := c.Stop(b.Context(), job.Id, "KILL", 0); err != nil {
				b.Error(err)
			}
		})
	}
}

// ages are how old lines are that have the time in them.
type ages chan time.Duration

func (a ages) Write(line []byte) (int, error) {
	now := time.Now().UnixMicro()
	seconds, fraction, _ := strings.Cut(strings.TrimSpace(string(line)), ".")
	wrote, err := strconv.ParseInt(seconds+fraction, 10, 64)
	if err != nil {
		return 0, err
	}
	a <- time.Duration(now-wrote) * time.Microsecond
	return len(line), nil
}

// ways are how a client reaches the server, as its administrator.
func (o *target) ways() map[string]client.Options {
	return map[string]client.Options{
		"mtls": {Addr: o.addr, StateDir: o.state},
		"unix": {Addr: "unix:" + filepath.Join(o.state, "tele.sock")},
	}
}
