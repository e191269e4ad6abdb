package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/access"
	"golang.org/x/net/http2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// beServer is a state directory in a child of the test binary: it runs a server there, so that what
// a server's process has can be told from what its attackers have.
const beServer = "TELE_TEST_SERVER"

// impatient makes that server wait some seconds where others wait longer.
const impatient = "TELE_TEST_IMPATIENT"

// serverMain is the child. It says on stdout where it listens, then for each line of stdin how many
// goroutines it has, and ends with stdin. Its log goes to stderr.
func serverMain(state string) int {
	ctx, cancel := context.WithCancel(context.Background())
	addr := make(chan string, 1)
	go func() {
		fmt.Println(<-addr)
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			debug.FreeOSMemory()
			fmt.Println(runtime.NumGoroutine())
		}
		cancel()
	}()
	c := Command{Addr: "127.0.0.1:0", StateDir: state, StopJobsOnExit: true,
		MaxStreams: 1000, MaxConnections: 100, MaxRate: 5000}
	if os.Getenv(impatient) != "" {
		handshakeTime, requestTime, pingAfter, pingTime = time.Second, time.Second, time.Second, 5*time.Second
	}
	log := zerolog.New(io.MultiWriter(os.Stderr, logWriter{addr})).Level(zerolog.TraceLevel)
	if err := c.Serve(ctx, log); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A target is a server in a process of its own, and who attacks it: mallory, who has a certificate.
type target struct {
	t       testing.TB
	addr    string
	state   string
	pid     int
	stdin   io.Writer
	stdout  *bufio.Reader
	log     *bytes.Buffer // complete when the process has ended
	stop    func()
	mallory client.Options
	tls     *tls.Config
}

func newTarget(t testing.TB) *target {
	t.Helper()
	needRoot(t)
	cmd := exec.Command("/proc/self/exe")
	o := &target{t: t, state: t.TempDir(), log: &bytes.Buffer{}}
	cmd.Env = append(os.Environ(), beServer+"="+o.state)
	cmd.Stderr = o.log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	o.pid, o.stdin, o.stdout = cmd.Process.Pid, stdin, bufio.NewReader(stdout)
	o.stop = sync.OnceFunc(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended: %v\n%s", err, o.log)
		}
	})
	t.Cleanup(o.stop)
	o.addr = o.line()
	issued, err := access.Issue(o.state, "mallory", access.User, t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	o.mallory = client.Options{Addr: o.addr, CA: issued.CA, Cert: issued.Cert, Key: issued.Key}
	pair, err := tls.LoadX509KeyPair(issued.Cert, issued.Key)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(issued.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	o.tls = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"},
		ServerName: "127.0.0.1"}
	return o
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if strings.Contains(os.Getenv("TELE_REQUIRE"), "root") {
		t.Fatal("TELE_REQUIRE names root, and this is not root")
	}
	t.Skip("needs root")
}

func (o *target) line() string {
	line, err := o.stdout.ReadString('\n')
	if err != nil {
		o.t.Fatalf("the server is gone: %v\n%s", err, o.log)
	}
	return strings.TrimSpace(line)
}

func (o *target) goroutines() (n int) {
	fmt.Fprintln(o.stdin)
	fmt.Sscan(o.line(), &n)
	return n
}

func (o *target) files() int {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", o.pid))
	if err != nil {
		o.t.Fatal(err)
	}
	return len(list)
}

// memory is a line of the process's status in MiB: VmRSS, or VmHWM, its peak since resetPeak.
func (o *target) memory(field string) (mib int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", o.pid))
	if err != nil {
		o.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), field+":")
	fmt.Sscan(rest, &mib)
	return mib >> 10
}

func (o *target) resetPeak() {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", o.pid), []byte("5"), 0); err != nil { // proc(5)
		o.t.Fatal(err)
	}
}

// dial is a client that the test closes.
func (o *target) dial(options client.Options) *client.Client {
	o.t.Helper()
	c, err := client.Dial(options)
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { c.Close() })
	return c
}

// Attacks from outside and from inside; each takes what it can get and holds it. The server stays
// up, with bounded memory, serves others meanwhile, and is as before afterwards.
func TestDoorHolds(t *testing.T) {
	o := newTarget(t)
	admin := o.dial(client.Options{Addr: o.addr, StateDir: o.state})
	job, err := admin.Start(t.Context(), sh("head -c 50000000 /dev/zero"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Wait(t.Context(), job.Id); err != nil {
		t.Fatal(err)
	}
	mallory := o.dial(o.mallory)
	mallorys, err := mallory.Start(t.Context(), sh("head -c 50000000 /dev/zero"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mallory.Wait(t.Context(), mallorys.Id); err != nil {
		t.Fatal(err)
	}
	little, err := mallory.Start(t.Context(), sh("head -c 64000 /dev/zero"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mallory.Wait(t.Context(), little.Id); err != nil {
		t.Fatal(err)
	}
	for _, attack := range []struct {
		name   string
		memory int // MiB that the server may grow by
		run    func(*target) (held []io.Closer)
	}{
		{"2,000 connections that say nothing", 64, halfOpen},
		{"a byte of a handshake at a time", 64, slowHandshakes},
		{"noise instead of TLS", 64, noise},
		{"noise instead of HTTP/2", 64, noiseInside},
		{"connections of one client", 128, manyConnections},
		{"headers without end", 64, endlessHeaders},
		{"a bomb of headers", 64, headerBomb},
		{"frames of 16 MiB", 64, hugeFrames},
		{"settings and pings that nobody reads the answers to", 64, floodUnread},
		{"rapid reset", 160, rapidReset},
		{"messages of 4 GiB", 64, hugeMessages},
		{"requests that do not end", 320, unfinishedRequests},
		{"requests a byte a frame", 160, dribbledRequests},
		{"handshakes without a certificate", 64, strangersHandshakes},
		{"connections that come and go", 128, churn},
		{"streams of output that nobody reads", 200, func(o *target) []io.Closer { return unreadOutput(o, mallorys.Id) }},
		{"output that has ended and that nobody reads", 200, func(o *target) []io.Closer { return unreadEnds(o, little.Id) }},
		{"messages that are none", 64, brokenMessages}, // last: a Prune is among them
	} {
		t.Run(attack.name, func(t *testing.T) {
			files, goroutines, memory := o.files(), o.goroutines(), o.memory("VmRSS")
			o.resetPeak()
			ctx, cancel := context.WithCancel(t.Context())
			worst := make(chan time.Duration, 1)
			go func() { worst <- victim(ctx, t, o, job.Id) }()
			begin := time.Now()
			held := attack.run(o)
			took := time.Since(begin)
			cancel()
			slowest, peak := <-worst, o.memory("VmHWM")
			t.Logf("%.1f s; memory %d MiB, at most %d; descriptors %d, now %d; others waited up to %s",
				took.Seconds(), memory, peak, files, o.files(), slowest.Round(time.Millisecond))
			allow := bloat
			if os.Getenv("TELE_TEST_SLOW") != "" {
				allow *= 2 // garbage waits longer to be collected there
			}
			if most := attack.memory * allow; peak-memory > most {
				t.Errorf("memory grew by %d MiB, the most is %d", peak-memory, most)
			}
			if slowest > longest*time.Duration(allow) {
				t.Errorf("another client waited %s", slowest)
			}
			for _, c := range held {
				c.Close()
			}
			o.settles(t, files, goroutines)
		})
	}
}

// longest is how long another client may wait. Attackers, server and victim share the machine here,
// with other tests: without those it is at most half a second.
const longest = 10 * time.Second

// getAnew makes a call on a connection of its own.
func getAnew(ctx context.Context, o *target, id string) error {
	fresh, err := client.Dial(client.Options{Addr: o.addr, StateDir: o.state})
	if err != nil {
		return err
	}
	defer fresh.Close()
	_, err = fresh.Get(ctx, id)
	return err
}

// victim makes calls on new connections and on an old one, and returns the longest that one took.
func victim(ctx context.Context, t *testing.T, o *target, id string) (worst time.Duration) {
	old, err := client.Dial(client.Options{Addr: o.addr, StateDir: o.state})
	if err != nil {
		t.Error(err)
		return 0
	}
	defer old.Close()
	get := func() error {
		bounded, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := getAnew(bounded, o, id)
		if status.Code(err) == codes.Unavailable { // pushed out by a flood of strangers while it was one
			err = getAnew(bounded, o, id)
		}
		if err == nil {
			_, err = old.Get(bounded, id)
		}
		return err
	}
	for n := 0; ctx.Err() == nil || n < 3; n++ {
		begin := time.Now()
		if err := get(); err != nil {
			t.Errorf("another client: %v", err)
			return worst
		}
		worst = max(worst, time.Since(begin))
	}
	return worst
}

// settles waits until the server has let go of what it held for an attack.
func (o *target) settles(t *testing.T, files, goroutines int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		f, g := o.files(), o.goroutines()
		if f <= files && g <= goroutines {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("descriptors %d, afterwards %d; goroutines %d, afterwards %d", files, f, goroutines, g)
			return
		}
	}
}

// Who does not go on, in a handshake, in a request, or at all, is cut off; who is only quiet is not.
func TestSlowAreCutOff(t *testing.T) {
	t.Setenv(impatient, "1")
	o := newTarget(t)
	quiet := o.dial(o.mallory)
	job, err := quiet.Start(t.Context(), sh("sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() { _, err := quiet.Wait(t.Context(), job.Id); waits <- err }()
	silent := o.tcp(1)[0].(net.Conn)
	noHTTP, err := tls.Dial("tcp", o.addr, o.tls)
	if err != nil {
		t.Fatal(err)
	}
	gone := o.h2()
	gone.out.Flush()
	unfinished := o.h2()
	unfinished.closed = make(chan struct{})
	unfinished.call(1, "Start", false)
	unfinished.WriteData(1, false, message(1000, nil))
	unfinished.out.Flush()
	go func() { // this one is there, and answers pings
		for {
			frame, err := unfinished.ReadFrame()
			if err != nil {
				close(unfinished.closed)
				return
			}
			if ping, ok := frame.(*http2.PingFrame); ok {
				unfinished.WritePing(true, ping.Data)
				unfinished.out.Flush()
			}
		}
	}()
	for name, conn := range map[string]net.Conn{"TCP alone": silent, "TLS alone": noHTTP, "no answer to a ping": gone.Conn} {
		begin := time.Now()
		conn.SetReadDeadline(begin.Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: still open after %s", name, time.Since(begin))
		}
		conn.Close()
	}
	select {
	case <-unfinished.closed:
	case <-time.After(10 * time.Second):
		t.Error("no end of a request: still open")
	}
	unfinished.Close()
	if _, err := quiet.Stop(t.Context(), job.Id, "KILL", 0); err != nil {
		t.Error(err)
	}
	if err := <-waits; err != nil {
		t.Errorf("a quiet client was cut off: %v", err)
	}
}

// A client that calls too often hears when to try again; others do not notice.
func TestRate(t *testing.T) {
	c, _ := serve(t, Command{MaxRate: 50})
	var refused error
	calls := 0
	for ; refused == nil && calls < 10000; calls++ {
		_, refused = c.List(t.Context(), client.ListOptions{})
	}
	var retry *errdetails.RetryInfo
	for _, detail := range status.Convert(refused).Details() {
		retry, _ = detail.(*errdetails.RetryInfo)
	}
	if status.Code(refused) != codes.ResourceExhausted || retry == nil || calls < 100 {
		t.Fatalf("after %d calls: %v", calls, refused)
	}
	time.Sleep(retry.RetryDelay.AsDuration()) // what it said is what is tested
	if _, err := c.List(t.Context(), client.ListOptions{}); err != nil {
		t.Errorf("after the wait: %v", err)
	}
}

// Absurd requests get an answer that says what is wrong and is short.
func TestAbsurdRequests(t *testing.T) {
	c, _ := serve(t, Command{})
	long := strings.Repeat("x", 1<<20)
	job := start(t, c, sh("sleep 1000"))
	spec := func(change func(*telev1.JobSpec)) func() error {
		s := sh("true")
		change(s)
		return func() error { _, err := c.Start(t.Context(), s); return err }
	}
	for name, test := range map[string]struct {
		call func() error
		code codes.Code
	}{
		"a megabyte of program":        {spec(func(s *telev1.JobSpec) { s.Command = []string{long} }), codes.InvalidArgument},
		"more than a request":          {spec(func(s *telev1.JobSpec) { s.Command = []string{long, long} }), codes.ResourceExhausted},
		"a long argument with a NUL":   {spec(func(s *telev1.JobSpec) { s.Command = append(s.Command, long[:100000]+"\x00") }), codes.InvalidArgument},
		"a long variable":              {spec(func(s *telev1.JobSpec) { s.Env = map[string]string{long: long[:10]} }), codes.InvalidArgument},
		"a long directory":             {spec(func(s *telev1.JobSpec) { s.Cwd = "/" + long }), codes.InvalidArgument},
		"a long limit":                 {spec(func(s *telev1.JobSpec) { s.Limits = &telev1.Limits{Memory: long} }), codes.InvalidArgument},
		"a limit beyond numbers":       {spec(func(s *telev1.JobSpec) { s.Limits = &telev1.Limits{Memory: "99999999999999999999T"} }), codes.InvalidArgument},
		"an unknown network":           {spec(func(s *telev1.JobSpec) { s.Network = 77 }), codes.InvalidArgument},
		"a timeout of ages":            {spec(func(s *telev1.JobSpec) { s.Timeout = &durationpb.Duration{Seconds: 1 << 62} }), codes.InvalidArgument},
		"a timeout whose parts differ": {spec(func(s *telev1.JobSpec) { s.Timeout = &durationpb.Duration{Seconds: 1, Nanos: -1} }), codes.InvalidArgument},
		"not UTF-8":                    {spec(func(s *telev1.JobSpec) { s.Command = []string{"echo", "\xff"} }), codes.InvalidArgument}, // the client says so
		"a long id":                    {func() error { _, err := c.Get(t.Context(), long); return err }, codes.NotFound},
		"a long signal":                {func() error { _, err := c.Stop(t.Context(), job.Id, long, 0); return err }, codes.InvalidArgument},
		"a signal beyond numbers":      {func() error { _, err := c.Stop(t.Context(), job.Id, "99999999999999999999", 0); return err }, codes.InvalidArgument},
		"a grace of ages":              {func() error { _, err := c.Stop(t.Context(), job.Id, "", 1<<63-1); return err }, codes.InvalidArgument},
		"a negative grace":             {func() error { _, err := c.Stop(t.Context(), job.Id, "", -1); return err }, codes.InvalidArgument},
		"an offset beyond numbers": {func() error {
			_, err := c.Output(t.Context(), job.Id, client.OutputOptions{Offset: 1<<64 - 1}, io.Discard, io.Discard)
			return err
		}, codes.OutOfRange},
		"an unknown stream": {func() error {
			_, err := c.Output(t.Context(), job.Id, client.OutputOptions{Stream: 256}, io.Discard, io.Discard)
			return err
		}, codes.InvalidArgument},
		"statuses": {func() error {
			_, err := c.List(t.Context(), client.ListOptions{Statuses: make([]telev1.JobStatus, 100000)})
			return err
		}, codes.InvalidArgument},
		"lines": {func() error {
			_, err := c.Output(t.Context(), job.Id, client.OutputOptions{Tail: 1<<32 - 1}, io.Discard, io.Discard)
			return err
		}, codes.OK},
	} {
		err := test.call()
		if text := status.Convert(err).Message(); status.Code(err) != test.code || len(text) > maxMessage+10 {
			t.Errorf("%s: got %s with %d bytes, %.300q; want %s", name, status.Code(err), len(text), text, test.code)
		}
	}
	jobs, err := c.List(t.Context(), client.ListOptions{})
	if err != nil || len(jobs) != 1 {
		t.Errorf("jobs: %v, %v; want the first alone", jobs, err)
	}
}

// As much as is allowed is possible.
func TestLargestRequest(t *testing.T) {
	c, _ := serve(t, Command{})
	spec := sh("echo $# ${#1}")
	for range 8 {
		spec.Command = append(spec.Command, strings.Repeat("x", 128<<10-200))
	}
	var out bytes.Buffer
	job := start(t, c, spec)
	if _, err := c.Output(t.Context(), job.Id, client.OutputOptions{Follow: true}, &out, &out); err != nil || out.String() != "7 130872\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// What the server keeps is its owner's alone, and what it logs at its most talkative has no key, no
// certificate, and nothing of what jobs are given.
func TestStateIsPrivate(t *testing.T) {
	o := newTarget(t)
	c := o.dial(client.Options{Addr: o.addr, StateDir: o.state})
	spec := sh("umask 0; echo secret-output; echo > file; mkdir dir")
	spec.Env = map[string]string{"TOKEN": "secret-value"}
	job, err := c.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(t.Context(), job.Id); err != nil {
		t.Fatal(err)
	}
	for _, call := range []func(){func() { noise(o) }, func() { noiseInside(o) }} {
		call()
	}
	checkModes(t, o.state)
	o.stop()
	secrets := []string{"secret-value", "secret-output", "BEGIN", "PRIVATE KEY"}
	keys, err := filepath.Glob(filepath.Join(o.state, "certs", "*"))
	if err != nil || len(keys) == 0 {
		t.Fatalf("no certificates: %v", err)
	}
	for _, path := range keys {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "is a directory") {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			if len(line) >= 20 {
				secrets = append(secrets, line)
			}
		}
	}
	if o.log.Len() == 0 {
		t.Error("nothing was logged")
	}
	for _, secret := range secrets {
		if strings.Contains(o.log.String(), secret) {
			t.Errorf("the log has %q in it:\n%s", secret, o.log)
		}
	}
}

// checkModes looks at everything in the state directory. The job's own files are behind a directory
// that only the server may enter; the socket is for its group as well (access.ListenUnix).
func checkModes(t *testing.T, state string) {
	seen := 0
	err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == state {
			return err // a test's directory is made by the test
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "work" {
			return fs.SkipDir
		}
		seen++
		mode, want := info.Mode().Perm(), fs.FileMode(0o077)
		if info.Mode().Type() == fs.ModeSocket {
			want = 0o007
		}
		if mode&want != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return nil
	})
	if err != nil || seen < 10 {
		t.Errorf("%d files, %v", seen, err)
	}
}
