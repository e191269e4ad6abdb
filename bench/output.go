package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// writer is a job that writes that many bytes and ends.
func writer(bytes int64) *telev1.JobSpec {
	return &telev1.JobSpec{Command: writerCommand(bytes), OutputLimit: strconv.FormatInt(bytes+1<<20, 10)}
}

func writerCommand(bytes int64) []string {
	return []string{"/bin/dd", "if=/dev/zero", "bs=" + strconv.Itoa(chunk), "count=" + strconv.FormatInt(bytes/chunk, 10), "status=none"}
}

// A counter counts what is written to it.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// follow reads a job's output to its end, which must be after that many bytes.
func follow(c *client.Client, id string, bytes int64) error {
	var got counter
	job, err := c.Output(context.Background(), id, client.OutputOptions{Follow: true}, &got, io.Discard)
	if err == nil && (got.n != bytes || job.Status != telev1.JobStatus_JOB_STATUS_SUCCESS) {
		err = fmt.Errorf("job %s: %d of %d bytes; %s", id, got.n, bytes, job.Message)
	}
	return err
}

// live follows a new job with each client, all from its start, and removes it.
func live(bytes int64, clients ...*client.Client) error {
	ctx := context.Background()
	job, err := clients[0].Start(ctx, writer(bytes))
	if err != nil {
		return err
	}
	errs := make([]error, len(clients))
	var group sync.WaitGroup
	for i, c := range clients {
		group.Go(func() { errs[i] = follow(c, job.Id, bytes) })
	}
	group.Wait()
	_, err = clients[0].Remove(ctx, job.Id)
	return errors.Join(append(errs, err)...)
}

const (
	followers     = 16
	nameRawTLS    = "raw TLS over TCP"
	nameLiveTLS   = "tele, one follower, mutual TLS"
	nameKeptTLS   = "tele, kept output, mutual TLS"
	nameSharedTLS = "tele, 16 followers, one connection"
	nameManyTLS   = "tele, 16 followers, a connection each"
)

// output is how fast output comes to clients, in turn with what else moves bytes between processes.
func (b *bench) output() error {
	s := b.cold
	size := int64(b.many(1<<30, 64<<20))
	each := size / 8 // of the many
	local, err := s.dial(s.socket())
	if err != nil {
		return err
	}
	defer local.Close()
	shared, many := make([]*client.Client, followers), make([]*client.Client, followers)
	for i := range many {
		shared[i] = s.client
		if many[i], err = s.dial(s.addr); err != nil {
			return err
		}
		defer many[i].Close()
	}
	kept, err := s.client.Start(context.Background(), writer(size))
	if err != nil {
		return err
	}
	if err := follow(s.client, kept.Id, size); err != nil {
		return err
	}
	type way struct {
		name  string
		bytes int64
		run   func() error
	}
	ways := []way{{"a pipe", size, func() error { return pipe(size) }}}
	for _, raw := range []struct{ name, network, addr, certs string }{
		{"raw unix socket", "unix", filepath.Join(b.dir, "sender.sock"), ""},
		{"raw TCP", "tcp", "127.0.0.1:0", ""},
		{nameRawTLS, "tcp", "127.0.0.1:0", filepath.Join(s.dir, "certs")},
	} {
		dial, end, err := startSender(raw.network, raw.addr, raw.certs)
		if err != nil {
			return err
		}
		defer end()
		ways = append(ways, way{raw.name, size, func() error { return receive(dial, size) }})
	}
	ways = append(ways,
		way{nameLiveTLS, size, func() error { return live(size, s.client) }},
		way{"tele, one follower, local socket", size, func() error { return live(size, local) }},
		way{nameKeptTLS, size, func() error { return follow(s.client, kept.Id, size) }},
		way{"tele, kept output, local socket", size, func() error { return follow(local, kept.Id, size) }},
		way{nameSharedTLS, each * followers, func() error { return live(each, shared...) }},
		way{nameManyTLS, each * followers, func() error { return live(each, many...) }})
	rates := map[string][]float64{}
	for range b.many(5, 2) {
		for _, w := range ways {
			began := time.Now()
			if err := w.run(); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			rates[w.name] = append(rates[w.name], float64(w.bytes)/1e6/time.Since(began).Seconds())
		}
	}
	median := func(name string) float64 { return quantile(slices.Sorted(slices.Values(rates[name])), 0.5) }
	for _, w := range ways {
		b.results.Output = append(b.results.Output, Amount{w.name, median(w.name), "MB/s"})
	}
	goal := func(what, must, aim, above, below string) {
		b.results.goal(what, must, aim, ratio(rates[above], rates[below], 0.5))
	}
	goal("1 GiB to one follower over mutual TLS, as it is written ÷ raw TLS", "≥ 0.6", "≥ 0.8", nameLiveTLS, nameRawTLS)
	goal("the same, of kept output ÷ raw TLS", "≥ 0.6", "≥ 0.8", nameKeptTLS, nameRawTLS)
	goal("16 followers with a connection each, in all ÷ one follower", "≥ 1.0", "≥ 1.3", nameManyTLS, nameLiveTLS)
	goal("16 followers on one connection, in all ÷ one follower", "", "", nameSharedTLS, nameLiveTLS)
	return b.lines(map[string]*client.Client{"mutual TLS": s.client, "local socket": local})
}

// pipe reads from the writer without tele.
func pipe(bytes int64) error {
	command := writerCommand(bytes)
	cmd := exec.Command(command[0], command[1:]...)
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	_, _ = unix.FcntlInt(write.Fd(), unix.F_SETPIPE_SZ, 1<<20) // as tele's is; a smaller one works too
	cmd.Stdout = write
	err = cmd.Start()
	_ = write.Close() // it is the writer's
	if err != nil {
		return err
	}
	if err := readAll(read, bytes); err != nil {
		return err
	}
	return cmd.Wait()
}

// lines is how long single lines take from a job's write to a follower's.
func (b *bench) lines(clients map[string]*client.Client) error {
	count := b.many(400, 30)
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range clients {
			if !yield(name) {
				return
			}
		}
	}) {
		c := clients[name]
		job, err := c.Start(context.Background(), &telev1.JobSpec{Command: []string{b.limit, "tick", "5000", strconv.Itoa(count)}})
		if err != nil {
			return err
		}
		var seen arrivals
		ended, err := c.Output(context.Background(), job.Id, client.OutputOptions{Follow: true}, &seen, os.Stderr)
		if err != nil {
			return err
		}
		if ended.Status != telev1.JobStatus_JOB_STATUS_SUCCESS || len(seen.times) != count {
			return fmt.Errorf("job %s: %d of %d lines: %s", job.Id, len(seen.times), count, ended.Message)
		}
		b.results.Line = append(b.results.Line, seen.row(name))
	}
	return nil
}

// arrivals is a writer of lines that hold the time when they were written.
type arrivals struct {
	samples
	rest []byte
}

func (a *arrivals) Write(p []byte) (int, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, err
	}
	a.rest = append(a.rest, p...)
	for {
		line, rest, whole := bytes.Cut(a.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		a.rest = rest
		written, err := strconv.ParseInt(string(line), 10, 64)
		if err != nil {
			return 0, err
		}
		a.times = append(a.times, float64(now.Nano()-written)/1e6)
	}
}

// growth is how much more memory the server needs while a job writes much and somebody follows.
func (b *bench) growth() error {
	size := int64(10 << 30)
	if b.quick {
		size = 256 << 20
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(b.dir, &disk); err != nil {
		return err
	}
	size = min(size, int64(disk.Bavail)*disk.Bsize/2) &^ (chunk - 1)
	s, err := b.serve("growth", b.cold.flags...)
	if err != nil {
		return err
	}
	defer s.stop()
	// What a first use of anything takes is no growth.
	if err := live(64<<20, s.client); err != nil {
		return err
	}
	pid := s.cmd.Process.Pid
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil { // the peak begins anew
		return err
	}
	before := kib(pid, "status", "VmRSS:")
	began := time.Now()
	if err := live(size, s.client); err != nil {
		return err
	}
	took := time.Since(began)
	grown := (kib(pid, "status", "VmHWM:") - before) / 1024
	b.results.Growth = []Amount{
		{"written and followed over mutual TLS", float64(size) / (1 << 30), "GiB"},
		{"rate", float64(size) / 1e6 / took.Seconds(), "MB/s"},
		{"the server before", before / 1024, "MiB"},
		{"the server's peak above that", grown, "MiB"},
	}
	b.results.goal("server memory growth while a job writes 10 GiB, MiB (none: a heap breathes)", "≤ 8", "≤ 8", Ratio{Value: max(grown, 0.01)})
	return nil
}
