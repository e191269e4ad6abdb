package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/telerun/tele/client"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
)

// This file is what many ended jobs, many idle ones and many followers do to a server.

func (b *bench) scaled(name string, value float64, unit string) {
	b.results.Scale = append(b.results.Scale, Amount{name, value, unit})
}

// ended keeps many jobs that have ended. The first are run; the rest are copies of them, as it would
// take minutes to run them all.
func (b *bench) ended() error {
	s, err := b.serve("scale", b.cold.flags...)
	if err != nil {
		return err
	}
	defer s.stop()
	ran := b.many(1000, 100)
	if _, err := s.run(ran, 8); err != nil {
		return err
	}
	have := ran
	for _, jobs := range []int{b.many(10000, 200), b.many(100000, 400)} {
		s.stop()
		if err := copyJobs(filepath.Join(s.dir, "jobs"), have, jobs-have); err != nil {
			return err
		}
		have = jobs
		start, list, err := b.startAndList(s)
		if err != nil {
			return err
		}
		title := fmt.Sprintf("%d ended jobs: ", jobs)
		b.scaled(title+"server, from exec to its first answer", start, "ms")
		b.scaled(title+"tele status", list, "ms")
		b.scaled(title+"the server's memory afterwards, PSS", pss(s.cmd.Process.Pid)/1024, "MiB")
		if err := b.besideEmpty(s, title); err != nil {
			return err
		}
		if jobs == 10000 {
			b.results.goal("10,000 ended jobs: server start, ms", "< 1000", "", Ratio{Value: start})
			b.results.goal("10,000 ended jobs: tele status, ms", "< 100", "", Ratio{Value: list})
		}
	}
	return nil
}

// startAndList starts the server some times and lists its jobs; milliseconds, the median of each.
func (b *bench) startAndList(s *server) (start, list float64, err error) {
	var starts []float64
	for range b.many(3, 1) {
		s.stop()
		began := time.Now()
		if err := s.start(); err != nil {
			return 0, 0, err
		}
		starts = append(starts, time.Since(began).Seconds()*1000)
	}
	slices.Sort(starts)
	l, err := startLimit(b.limit, []string{"HOME=/root", "TELE_STATE_DIR=" + s.dir}, "exec", b.tele, "status", "--addr", s.socket())
	if err != nil {
		return 0, 0, err
	}
	defer l.close()
	var status samples
	got, err := l.run(b.many(10, 3), 1)
	if err != nil {
		return 0, 0, err
	}
	status.add(got)
	return quantile(starts, 0.5), status.row("").P50, nil
}

// copyJobs makes more ended jobs of those in a directory, as if they had run before these.
func copyJobs(dir string, have, more int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	models := min(have, len(entries))
	for i := range more {
		from := filepath.Join(dir, entries[i%models].Name())
		id := fmt.Sprintf("%08x%04d", uint32(i+have)*2654435761, i%10000) // all different, and in no order
		if err := copyJob(from, filepath.Join(dir, id), time.Duration(i+have)*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func copyJob(from, to string, earlier time.Duration) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"stdout", "stderr", "index"} {
		text, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) { // it has written nothing
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), text, 0o600)
		}
		if err != nil {
			return err
		}
	}
	data, err := os.ReadFile(filepath.Join(from, "record"))
	if err != nil {
		return err
	}
	// The last of its frames counts: size, checksum, record.
	size := uint32(0)
	for at := data; len(at) > frameHeader; at = at[size:] {
		size = binary.LittleEndian.Uint32(at)
		at = at[frameHeader:]
		data = at[:size]
	}
	var r recordv1.Record
	if err := proto.Unmarshal(data, &r); err != nil {
		return err
	}
	r.Job.Id, r.IdempotencyKey = filepath.Base(to), filepath.Base(to)
	seconds := int64(earlier / time.Second)
	r.Job.CreatedAt.Seconds -= seconds
	r.Job.StartedAt.Seconds -= seconds
	r.Job.EndedAt.Seconds -= seconds
	if data, err = proto.Marshal(&r); err != nil {
		return err
	}
	frame := binary.LittleEndian.AppendUint32(nil, uint32(len(data)))
	frame = binary.LittleEndian.AppendUint32(frame, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	return os.WriteFile(filepath.Join(to, "record"), append(frame, data...), 0o600)
}

// frameHeader is what server/job/record.go has before each record.
const frameHeader = 8

// besideEmpty compares launches on s with those on a server that has nothing else to do, and with the
// kernel alone, in turn.
func (b *bench) besideEmpty(s *server, title string) error {
	ways := []struct {
		name string
		run  func(launches, callers int) (batch, error)
	}{
		{"launch and wait, p50", s.run},
		{"the same on an empty server meanwhile", b.cold.run},
		{"the kernel alone meanwhile, " + nameFull[len("the kernel: "):], b.contender(nameFull).run},
	}
	times := make([]samples, len(ways))
	for range b.many(10, 2) {
		for i, w := range ways {
			got, err := w.run(20, 1)
			if err != nil {
				return err
			}
			times[i].add(got)
		}
	}
	for i, w := range ways {
		b.scaled(title+w.name, times[i].row("").P50, "ms")
	}
	return nil
}

func (b *bench) contender(name string) *contender {
	i := slices.IndexFunc(b.contenders, func(c *contender) bool { return c.name == name })
	return b.contenders[i]
}

// idleFiles is the limit of open files under which many jobs are to fit, as login shells and containers
// often have it.
const idleFiles = 20_000

// idling has many idle jobs at once.
func (b *bench) idling() error {
	s, err := b.serveLimited(idleFiles, "many", b.cold.flags...)
	if err != nil {
		return err
	}
	defer s.stop()
	b.scaled("limit of open files", idleFiles, "")
	if _, err := s.run(b.many(400, 40), 4); err != nil {
		return err
	}
	pid := s.cmd.Process.Pid
	if err := b.besideEmpty(s, "no idle job: "); err != nil {
		return err
	}
	serverBefore, filesBefore, freeBefore := pss(pid), files(pid), available()
	have := 0
	for _, jobs := range []int{b.many(1000, 20), b.many(5000, 40)} {
		began := time.Now()
		started, err := startIdle(s.client, jobs-have)
		if err != nil {
			b.results.Missing = append(b.results.Missing, fmt.Sprintf("%d idle jobs: after %d: %v", jobs, have+started, err))
			if err := endSome(s.client); err != nil {
				return err
			}
		}
		rate := float64(started) / time.Since(began).Seconds()
		have += started
		n := float64(have)
		title := fmt.Sprintf("%d idle jobs: ", have)
		b.scaled(title+"started", rate, "/s")
		b.scaled(title+"inits, PSS", overhead(pid)/n, "KiB a job")
		b.scaled(title+"the server, PSS", (pss(pid)-serverBefore)/n, "KiB a job")
		b.scaled(title+"of the machine, jobs and kernel included", (freeBefore-available())/n, "KiB a job")
		b.scaled(title+"descriptors of the server", float64(files(pid)-filesBefore)/n, "a job")
		if err := b.besideEmpty(s, title); err != nil {
			return err
		}
		if started == 0 || err != nil {
			break
		}
	}
	began := time.Now()
	endIdle(pid)
	running := client.ListOptions{Brief: true, Statuses: []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_RUNNING}}
	for {
		left, err := s.client.List(context.Background(), running)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.scaled(fmt.Sprintf("%d idle jobs: all ended, after", have), time.Since(began).Seconds(), "s")
	return nil
}

// endSome makes room for a few launches.
func endSome(c *client.Client) error {
	ctx := context.Background()
	jobs, err := c.List(ctx, client.ListOptions{Brief: true, Statuses: []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_RUNNING}})
	for _, job := range jobs[:min(len(jobs), 4)] {
		if _, stopErr := c.Stop(ctx, job.Id, "KILL", 0); stopErr != nil {
			err = errors.Join(err, stopErr)
		}
	}
	return err
}

// startIdle starts jobs until one cannot be, and returns how many there are.
func startIdle(c *client.Client, jobs int) (int, error) {
	var started, next atomic.Int64
	var failed atomic.Pointer[error]
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for failed.Load() == nil && next.Add(1) <= int64(jobs) {
				if _, err := c.Start(context.Background(), &telev1.JobSpec{Command: idle}); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				started.Add(1)
			}
		})
	}
	callers.Wait()
	if err := failed.Load(); err != nil {
		return int(started.Load()), *err
	}
	return int(started.Load()), nil
}

// files is how many descriptors a process has.
func files(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)) // gone: none
	return len(entries)
}

// available is the machine's memory that is free, or would be when asked for; KiB.
func available() float64 {
	var kib float64
	for line := range strings.Lines(fileText("/proc/meminfo")) {
		_, _ = fmt.Sscanf(line, "MemAvailable: %f kB", &kib) // other lines are other values
	}
	return kib
}

// following has many followers of one job, over ten connections.
func (b *bench) following() error {
	s, err := b.serve("followed", b.cold.flags...)
	if err != nil {
		return err
	}
	defer s.stop()
	many, lines := b.many(1000, 50), 100
	ctx := context.Background()
	job, err := s.client.Start(ctx, &telev1.JobSpec{Command: []string{"/bin/sh", "-c",
		fmt.Sprintf("trap 'go=1' USR1; while [ -z \"$go\" ]; do sleep 0.1; done; i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done", lines)}})
	if err != nil {
		return err
	}
	pid := s.cmd.Process.Pid
	before := pss(pid)
	var clients []*client.Client
	for range 10 {
		c, err := s.dial(s.addr)
		if err != nil {
			return err
		}
		defer c.Close()
		clients = append(clients, c)
	}
	var group sync.WaitGroup
	var bytes atomic.Int64
	errs := make([]error, many)
	for i := range many {
		group.Go(func() {
			_, errs[i] = clients[i%len(clients)].Output(ctx, job.Id, client.OutputOptions{Follow: true}, adder{&bytes}, io.Discard)
		})
	}
	time.Sleep(3 * time.Second) // nothing says that they all wait
	b.scaled(fmt.Sprintf("%d followers: the server, PSS, while they wait", many), (pss(pid)-before)/float64(many), "KiB a follower")
	began := time.Now()
	for _, p := range descendants(pid) {
		if p.name == "sh" {
			_ = syscall.Kill(p.pid, syscall.SIGUSR1)
		}
	}
	group.Wait()
	b.scaled(fmt.Sprintf("%d followers: each has %d lines, after", many, lines), time.Since(began).Seconds()*1000, "ms")
	b.scaled(fmt.Sprintf("%d followers: the server, PSS, afterwards", many), (pss(pid)-before)/float64(many), "KiB a follower")
	fmt.Fprintln(os.Stderr, "bytes", bytes.Load())
	return errors.Join(errs...)
}

// An adder counts what is written to it, with others.
type adder struct{ n *atomic.Int64 }

func (a adder) Write(p []byte) (int, error) {
	a.n.Add(int64(len(p)))
	return len(p), nil
}
