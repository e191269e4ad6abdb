package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestMain(m *testing.M) {
	if state := os.Getenv(beServer); state != "" {
		os.Exit(serverMain(state))
	}
	goleak.VerifyTestMain(m)
}

// A logWriter sends on the address that the server logs.
type logWriter struct{ addr chan string }

func (w logWriter) Write(line []byte) (int, error) {
	var entry struct{ Message, Addr string }
	if json.Unmarshal(line, &entry) == nil && entry.Message == "listening" {
		w.addr <- entry.Addr
	}
	return len(line), nil
}

// serve runs a server until stop is called or the test ends.
func serve(t *testing.T, command Command) (c *client.Client, stop func()) {
	t.Helper()
	c, _, stop = serveAt(t, command)
	return c, stop
}

// serveAt is serve for who needs the address as well.
func serveAt(t *testing.T, command Command) (c *client.Client, at string, stop func()) {
	t.Helper()
	needRoot(t)
	ctx, cancel := context.WithCancel(context.Background())
	command.Addr, command.StopJobsOnExit = "127.0.0.1:0", true
	if command.StateDir == "" {
		command.StateDir = t.TempDir()
	}
	addr, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- command.Serve(ctx, zerolog.New(logWriter{addr})) }()
	var o client.Options
	select {
	case err := <-ended:
		t.Fatal(err)
	case o.Addr = <-addr:
	}
	o.StateDir = command.StateDir
	c, err := client.Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return c, o.Addr, stop
}

func sh(script string) *telev1.JobSpec {
	return &telev1.JobSpec{Command: []string{"sh", "-c", script}}
}

func start(t *testing.T, c *client.Client, spec *telev1.JobSpec) *telev1.Job {
	t.Helper()
	job, err := c.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// holdings are what a server may hold of the machine.
type holdings struct {
	files, cgroups   string // a line each
	children, mounts int
}

func count(t *testing.T, stateDir string) holdings {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	h := holdings{files: openFiles(), mounts: bytes.Count(mounts, []byte("\n"))}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, path := range stats {
		stat, _ := os.ReadFile(path) // it may have ended
		if i := bytes.LastIndexByte(stat, ')'); i > 0 {
			if fields := strings.Fields(string(stat[i+1:])); fields[1] == fmt.Sprint(os.Getpid()) {
				h.children++
			}
		}
	}
	name := fmt.Sprintf("tele-%.4x", sha256.Sum256([]byte(stateDir)))
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(path, name) {
			h.cgroups += path + "\n"
		}
		return nil // groups of others come and go
	})
	return h
}

// openFiles tells what this process's descriptors lead to.
func openFiles() string {
	var files []string
	links, _ := filepath.Glob("/proc/self/fd/*") // the pattern is good
	for _, path := range links {
		if to, err := os.Readlink(path); err == nil { // not the one that Glob read them with
			files = append(files, to+"\n")
		}
	}
	slices.Sort(files)
	return strings.Join(files, "")
}

// awaitNoSockets returns when the connections of what ended, which grpc closes in goroutines of its
// own, are closed.
func awaitNoSockets(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; runtime.Gosched() {
		if !strings.Contains(openFiles(), "socket:") {
			return
		}
		if time.Now().After(end) {
			t.Fatal("sockets are still open after a minute")
		}
	}
}

// Many jobs, followers, stops, starts and follows that are cut off, and a shutdown in the middle of
// it leave nothing behind.
func TestNothingIsLeft(t *testing.T) {
	dir := t.TempDir()
	warm, stopWarm := serve(t, Command{StateDir: dir}) // what Go's runtime opens once is open then
	start(t, warm, sh("true"))
	stopWarm()
	awaitNoSockets(t)
	before := count(t, dir)

	c, stop := serve(t, Command{StateDir: dir})
	t.Run("200 jobs at once", func(t *testing.T) { manyJobs(t, c, 200) })
	t.Run("50 followers", func(t *testing.T) { manyFollowers(t, c, 50) })
	t.Run("starts cut off", func(t *testing.T) { cutStarts(t, c) })
	t.Run("a follow cut off", func(t *testing.T) { cutFollow(t, c) })
	var wg sync.WaitGroup
	for range 5 {
		job := start(t, c, sh("sleep 1000"))
		wg.Go(func() {
			ended, err := c.Wait(t.Context(), job.Id)
			if err != nil || ended.Reason != telev1.Reason_REASON_STOPPED {
				t.Errorf("at shutdown: got %v, %v", ended, err)
			}
		})
	}
	// The server must know of the waits before it ends.
	if _, err := c.List(t.Context(), client.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 10 { // into the shutdown
		go func() { _, _ = c.Start(context.Background(), sh("sleep 1000")) }()
	}
	stop()
	wg.Wait()
	awaitNoSockets(t)
	if after := count(t, dir); after != before {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func manyJobs(t *testing.T, c *client.Client, n int) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			job, err := c.Start(t.Context(), sh(fmt.Sprintf("echo job %d; exit %d", i, i%7)))
			if err != nil {
				t.Error(err)
				return
			}
			var out bytes.Buffer
			job, err = c.Output(t.Context(), job.Id, client.OutputOptions{Follow: true}, &out, io.Discard)
			if err != nil || out.String() != fmt.Sprintf("job %d\n", i) || job.GetExitCode() != int32(i%7) {
				t.Errorf("job %d: got %q, %v, %v", i, out.String(), job, err)
			}
		})
	}
	wg.Wait()
}

func manyFollowers(t *testing.T, c *client.Client, n int) {
	job := start(t, c, sh("for i in 1 2 3 4 5; do head -c 100000 /dev/urandom; sleep 0.02; done"))
	sums := make(chan string, n)
	for range n {
		go func() {
			hash := sha256.New()
			if _, err := c.Output(t.Context(), job.Id, client.OutputOptions{Follow: true}, hash, hash); err != nil {
				t.Error(err)
			}
			sums <- fmt.Sprintf("%x", hash.Sum(nil))
		}()
	}
	first := <-sums
	for range n - 1 {
		if sum := <-sums; sum != first {
			t.Errorf("followers read different output: %s and %s", first, sum)
		}
	}
}

// cutStarts gives up on starts after different times: the job runs or was never there.
func cutStarts(t *testing.T, c *client.Client) {
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
		_, _ = c.Start(ctx, sh("sleep 1000")) // cut off, mostly
		cancel()
	}
	jobs, err := c.List(t.Context(), client.ListOptions{Statuses: []telev1.JobStatus{
		telev1.JobStatus_JOB_STATUS_RUNNING, telev1.JobStatus_JOB_STATUS_SUBMITTED}})
	if err != nil {
		t.Fatal(err)
	}
	for _, job := range jobs {
		if _, err := c.Stop(t.Context(), job.Id, "KILL", time.Second); err != nil {
			t.Error(err)
		}
	}
}

func cutFollow(t *testing.T, c *client.Client) {
	job := start(t, c, sh("while :; do echo line; sleep 0.01; done"))
	ctx, cancel := context.WithCancel(t.Context())
	cut := client.OutputOptions{Follow: true, Chunk: func(*telev1.StreamOutputResponse) error { cancel(); return nil }}
	if _, err := c.Output(ctx, job.Id, cut, nil, nil); status.Code(err) != codes.Canceled {
		t.Errorf("a cancelled follow returned %v", err)
	}
	if _, err := c.Stop(t.Context(), job.Id, "TERM", time.Second); err != nil {
		t.Error(err)
	}
}

// A wrong request gets its code and says which field is wrong.
func TestErrors(t *testing.T) {
	c, _ := serve(t, Command{})
	long := start(t, c, sh("sleep 1000"))
	spec := func(change func(*telev1.JobSpec)) func() error {
		s := sh("true")
		change(s)
		return func() error { _, err := c.Start(t.Context(), s); return err }
	}
	for name, test := range map[string]struct {
		call  func() error
		code  codes.Code
		field string
	}{
		"no command": {spec(func(s *telev1.JobSpec) { s.Command = nil }), codes.InvalidArgument, "spec.command"},
		"memory": {spec(func(s *telev1.JobSpec) { s.Limits = &telev1.Limits{Memory: "12X"} }),
			codes.InvalidArgument, "spec.limits.memory"},
		"env":         {spec(func(s *telev1.JobSpec) { s.Env = map[string]string{"a=b": ""} }), codes.InvalidArgument, "spec.env"},
		"cwd":         {spec(func(s *telev1.JobSpec) { s.Cwd = "relative" }), codes.InvalidArgument, "spec.cwd"},
		"timeout":     {spec(func(s *telev1.JobSpec) { s.Timeout = durationpb.New(-1) }), codes.InvalidArgument, "spec.timeout"},
		"network":     {spec(func(s *telev1.JobSpec) { s.Network = telev1.Network_NETWORK_HOST }), codes.PermissionDenied, ""},
		"unknown job": {func() error { _, err := c.Get(t.Context(), "zzzz"); return err }, codes.NotFound, ""},
		"no id":       {func() error { _, err := c.Get(t.Context(), ""); return err }, codes.NotFound, ""},
		"signal": {func() error { _, err := c.Stop(t.Context(), long.Id, "NOPE", 0); return err },
			codes.InvalidArgument, "signal"},
		"offset": {func() error {
			_, err := c.Output(t.Context(), long.Id, client.OutputOptions{Offset: 1 << 40}, io.Discard, io.Discard)
			return err
		}, codes.OutOfRange, ""},
		"since": {func() error {
			o := client.OutputOptions{Since: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}
			_, err := c.Output(t.Context(), long.Id, o, io.Discard, io.Discard)
			return err
		}, codes.InvalidArgument, "since"},
	} {
		err := test.call()
		field := ""
		for _, detail := range status.Convert(err).Details() {
			if bad, ok := detail.(*errdetails.BadRequest); ok {
				field = bad.FieldViolations[0].Field
			}
		}
		if status.Code(err) != test.code || field != test.field {
			t.Errorf("%s: got %v with field %q, want %v with %q", name, err, field, test.code, test.field)
		}
	}
}

// One call runs a job and returns it when it has ended; a caller that goes away leaves it running.
func TestRunInOneCall(t *testing.T) {
	c, _ := serve(t, Command{})
	for code := range 3 {
		job, err := c.Run(t.Context(), sh(fmt.Sprintf("echo out; exit %d", code)))
		if err != nil || job.GetExitCode() != int32(code) || job.EndedAt == nil || job.StdoutBytes != 4 {
			t.Errorf("got %v, %v", job, err)
		}
	}
	if _, err := c.Run(t.Context(), &telev1.JobSpec{Command: []string{"/no/such/program"}}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("no such program: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := c.Run(ctx, sh("sleep 1000"))
		gone <- err
	}()
	var running []*telev1.Job
	for len(running) == 0 {
		var err error
		if running, err = c.List(t.Context(), client.ListOptions{Statuses: []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_RUNNING}}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-gone; status.Code(err) != codes.Canceled {
		t.Errorf("cut off: %v", err)
	}
	if job, err := c.Get(t.Context(), running[0].Id); err != nil || job.Status != telev1.JobStatus_JOB_STATUS_RUNNING {
		t.Errorf("after that: %v, %v", job, err)
	}
	if _, err := c.Stop(t.Context(), running[0].Id, "KILL", 0); err != nil {
		t.Error(err)
	}
}

// A client may have so many jobs and no more, until one ends.
func TestMaxJobs(t *testing.T) {
	c, _ := serve(t, Command{MaxJobs: 1})
	first := start(t, c, sh("sleep 1000"))
	if _, err := c.Start(t.Context(), sh("true")); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a second job: %v", err)
	}
	if _, err := c.Stop(t.Context(), first.Id, "KILL", 0); err != nil {
		t.Fatal(err)
	}
	start(t, c, sh("true"))
}

// A server whose descriptors are all jobs' says what to do about it, and can still be called.
func TestMoreJobsThanFiles(t *testing.T) {
	was := jobFiles
	jobFiles = func() int { return 8 }
	defer func() { jobFiles = was }()
	c, _ := serve(t, Command{})
	start(t, c, sh("sleep 1000"))
	second := start(t, c, sh("sleep 1000"))
	_, err := c.Start(t.Context(), sh("true"))
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "LimitNOFILE=") {
		t.Errorf("a third job: %v", err)
	}
	if _, err := c.Stop(t.Context(), second.Id, "KILL", 0); err != nil {
		t.Fatal(err)
	}
	start(t, c, sh("true"))
}

// Pages hold every job once, newest first, and can be narrowed to a status.
func TestListPages(t *testing.T) {
	dir := t.TempDir()
	c, _ := serve(t, Command{StateDir: dir})
	for i := range 7 {
		job := start(t, c, sh(fmt.Sprintf("exit %d", i%2)))
		if _, err := c.Wait(t.Context(), job.Id); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := grpc.NewClient("unix:"+filepath.Join(dir, "tele.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var all []*telev1.Job
	request := &telev1.ListRequest{PageSize: 3}
	for pages := 1; ; pages++ {
		r, err := telev1.NewJobServiceClient(conn).List(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r.Jobs...)
		if request.PageToken = r.NextPageToken; request.PageToken == "" {
			if pages != 3 || len(all) != 7 {
				t.Fatalf("got %d jobs on %d pages", len(all), pages)
			}
			break
		}
	}
	seen := map[string]bool{all[0].Id: true}
	for i, job := range all[1:] {
		if seen[job.Id] || job.CreatedAt.AsTime().After(all[i].CreatedAt.AsTime()) {
			t.Errorf("job %s comes twice or too late", job.Id)
		}
		seen[job.Id] = true
	}
	failed, err := c.List(t.Context(), client.ListOptions{Statuses: []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_FAILED}})
	if err != nil || len(failed) != 3 {
		t.Errorf("got %d failed jobs, %v", len(failed), err)
	}
}

// Output goes on at any byte.
func TestOutputFromAnyOffset(t *testing.T) {
	c, _ := serve(t, Command{})
	job := start(t, c, sh("printf 'a\\0b\\377\\ncdef'"))
	want := "a\x00b\xff\ncdef"
	for offset := range len(want) + 1 {
		var out bytes.Buffer
		_, err := c.Output(t.Context(), job.Id, client.OutputOptions{Offset: uint64(offset), Follow: true}, &out, &out)
		if err != nil || out.String() != want[offset:] {
			t.Errorf("from %d: got %q, %v", offset, out.String(), err)
		}
	}
	var tail bytes.Buffer
	if _, err := c.Output(t.Context(), job.Id, client.OutputOptions{Tail: 1}, &tail, &tail); err != nil || tail.String() != "cdef" {
		t.Errorf("tail: got %q, %v", tail.String(), err)
	}
}

// A gigabyte of output, a follower that reads all of it and one that stops reading: the server's
// memory does not grow with it, and neither the job nor the reader is held up.
func TestBigOutput(t *testing.T) {
	size := int64(1 << 30)
	if os.Getenv("TELE_TEST_SLOW") != "" {
		size = 64 << 20 // the machine's disk is its memory
	}
	c, _ := serve(t, Command{})
	before := anonymous(t)
	job := start(t, c, sh(fmt.Sprintf("head -c %d /dev/zero", size)))
	ctx, cancel := context.WithCancel(t.Context())
	stuck, release := make(chan struct{}), make(chan struct{})
	var followers sync.WaitGroup
	followers.Go(func() {
		first := sync.OnceFunc(func() { close(stuck) })
		_, _ = c.Output(ctx, job.Id, client.OutputOptions{Follow: true, // ends in a cancel
			Chunk: func(*telev1.StreamOutputResponse) error { first(); <-release; return nil }}, nil, nil)
	})
	<-stuck
	var read counter
	if _, err := c.Output(t.Context(), job.Id, client.OutputOptions{Follow: true}, &read, io.Discard); err != nil || int64(read) != size {
		t.Errorf("read %d bytes of %d, %v", read, size, err)
	}
	grown := anonymous(t) - before
	t.Logf("%d MiB of output, memory grew by %d MiB", size>>20, grown>>20)
	if grown > 32<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	cancel()
	close(release)
	followers.Wait()
}

type counter int64

func (c *counter) Write(data []byte) (int, error) { *c += counter(len(data)); return len(data), nil }

// anonymous is the memory of this process that is not files.
func anonymous(t *testing.T) int64 {
	t.Helper()
	runtime.GC()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
