// Package client is the Go library for tele: it runs commands on a machine where `tele serve` runs.
//
//	c, err := client.Dial(client.Options{})
//	out, err := c.Command("make", "test").Output()
//
// Cmd is what os/exec's is: a program that runs commands by os/exec runs them on another machine with
// little more than another first line. A command is a job there, and goes on without its client; Client's
// methods, which Cmd is made of, start, list, follow and stop jobs by their ids, also those of others.
//
// Errors are gRPC statuses as tele.v1 documents them; status.Code tells them apart.
//
// The first connection works at once or the call fails. A connection that worked and is lost, because
// the network broke or the server is restarted, is taken up again when Options.Reconnect says so: each
// call goes on as if nothing had happened, Output at the byte where it was, and Start without starting
// a second job. Only when the server stays away longer does the call return a *LostError.
package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// DefaultAddr is where a server listens that was not told otherwise, beside its socket.
const DefaultAddr = "127.0.0.1:50051"

// Options say which server, and as whom. The zero value is the server on this machine, as its
// administrator.
type Options struct {
	// Addr is HOST:PORT or unix:/path; empty is what Address says.
	Addr string
	// CA, Cert and Key are files in PEM: whom to trust, and who one is. Empty ones are taken from
	// StateDir, where a server on this machine has put an administrator's.
	CA, Cert, Key string
	// StateDir is the state directory of a server on this machine; empty is its default.
	StateDir string
	// Reconnect is how long a lost connection may stay lost before calls give up; 0 is not at all.
	Reconnect time.Duration
	// Notice, when it is set, is told once when the connection is lost and tried again, and once when
	// it is back. It must not make calls.
	Notice func(string)
}

// Address is where Dial goes: Addr when it is given. Else it is the socket in the state directory, when
// it is there and this user may connect to it: that is the server of this machine, whatever port it
// listens on, and the kernel vouches for the user, with no certificate and no TLS. Else, and when a
// certificate was named, which a socket would not ask for, it is DefaultAddr.
func (o Options) Address() string {
	if o.Addr != "" {
		return o.Addr
	}
	socket := filepath.Join(o.stateDir(), "tele.sock")
	if o.CA+o.Cert+o.Key == "" && unix.Access(socket, unix.W_OK) == nil {
		return "unix:" + socket
	}
	return DefaultAddr
}

// A Client is a connection to a server, for any number of goroutines; while
// several outputs are read at once there are some more for them.
type Client struct {
	link  *link
	jobs  telev1.JobServiceClient
	lanes *lanes
}

// Dial prepares a connection, which is made with the first call.
func Dial(o Options) (*Client, error) {
	go prepare()
	addr := o.Address()
	var more []grpc.DialOption
	if strings.HasPrefix(addr, "unix:") {
		more = append(more, grpc.WithTransportCredentials(insecure.NewCredentials())) // the kernel tells the server who calls
	} else {
		config, err := o.tls()
		if err != nil {
			return nil, err
		}
		// Of what TLS has decrypted, gRPC takes what it wants without a buffer, and a copy, between.
		more = append(more, grpc.WithTransportCredentials(alerting{credentials.NewTLS(config)}), grpc.WithReadBufferSize(0))
	}
	return o.dial(addr, more...)
}

func (o Options) dial(addr string, more ...grpc.DialOption) (*Client, error) {
	target := addr
	if !strings.HasPrefix(addr, "unix:") {
		target = "dns:" + addr
	}
	more = append(more,
		grpc.WithDisableServiceConfig(), // gRPC would ask the DNS for one, beside the server's address
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 10 * time.Second,
			Backoff: backoff.Config{BaseDelay: delayMin, Multiplier: delayFactor, Jitter: 0.2, MaxDelay: delayMax}}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}))
	lanes, err := openLanes(func() (*grpc.ClientConn, error) { return grpc.NewClient(target, more...) },
		&outage{addr: addr, reconnect: o.Reconnect, notice: o.Notice})
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	return &Client{link: lanes.first.link, jobs: lanes.first.jobs, lanes: lanes}, nil
}

func (o Options) tls() (*tls.Config, error) {
	file := func(given, name string) string {
		if given != "" {
			return given
		}
		return filepath.Join(o.stateDir(), "certs", name)
	}
	ca, cert, key := file(o.CA, "ca.crt"), file(o.Cert, "admin.crt"), file(o.Key, "admin.key")
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, noCertificate(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", ca)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, noCertificate(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}}, nil
}

func noCertificate(err error) error {
	hint := "give --ca, --cert and --key, or name the server's state directory with TELE_STATE_DIR"
	if errors.Is(err, os.ErrNotExist) {
		hint = "no server has run here, or with another state directory: start one with tele serve, or " + hint
	}
	return fmt.Errorf("client certificate: %w (%s)", err, hint)
}

// stateDir is by the server's own rule when it is not given.
func (o Options) stateDir() string {
	if o.StateDir != "" {
		return o.StateDir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/tele"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tele")
	}
	home, _ := os.UserHomeDir() // without one the path is relative, and the error will say so
	return filepath.Join(home, ".local", "state", "tele")
}

// Close ends the connection; jobs go on.
func (c *Client) Close() error { return c.lanes.close() }

// Start starts a job and returns when its command runs. However often it has to ask, it starts one. The
// secrets are files that the command, and nobody else, can read in the directory that TELE_SECRETS names.
func (c *Client) Start(ctx context.Context, spec *telev1.JobSpec, secrets ...*telev1.Secret) (*telev1.Job, error) {
	if err := checkText(spec); err != nil {
		return nil, err
	}
	return c.start(ctx, &telev1.StartRequest{Spec: spec, IdempotencyKey: rand.Text(), Secrets: secrets})
}

// Run is Start and Wait in one call: it returns the job when it has ended.
func (c *Client) Run(ctx context.Context, spec *telev1.JobSpec, secrets ...*telev1.Secret) (*telev1.Job, error) {
	if err := checkText(spec); err != nil {
		return nil, err
	}
	return c.start(ctx, &telev1.StartRequest{Spec: spec, IdempotencyKey: rand.Text(), Wait: true, Secrets: secrets})
}

func (c *Client) start(ctx context.Context, r *telev1.StartRequest) (*telev1.Job, error) {
	response, err := unary(ctx, c.link, "the job may have been started; see: tele status", c.jobs.Start, r)
	return response.GetJob(), err
}

// Plan returns the steps that would make the job's sandbox, for people, and makes nothing. Of secrets they have
// the names and sizes.
func (c *Client) Plan(ctx context.Context, spec *telev1.JobSpec, secrets ...*telev1.Secret) (string, error) {
	if err := checkText(spec); err != nil {
		return "", err
	}
	r, err := unary(ctx, c.link, "try again", c.jobs.Start, &telev1.StartRequest{Spec: spec, DryRun: true, Secrets: secrets})
	return r.GetPlan(), err
}

// checkText says of which string protobuf would only say that there is one it does not take.
func checkText(spec *telev1.JobSpec) error {
	texts := append([]string{spec.GetCwd(), spec.GetName(), spec.GetHostname(), spec.GetStopSignal(), spec.GetWarnSignal()}, spec.GetCommand()...)
	for _, pairs := range []map[string]string{spec.GetEnv(), spec.GetLabels()} {
		for name, value := range pairs {
			texts = append(texts, name, value)
		}
	}
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return status.Errorf(codes.InvalidArgument, "%.100q is not UTF-8, and other bytes cannot be passed to a job; give them in a file", text)
		}
	}
	return nil
}

// Explain returns a job as it is now, and why it is so.
func (c *Client) Explain(ctx context.Context, id string) (*telev1.Job, *telev1.Cause, error) {
	r, err := unary(ctx, c.link, "try again", c.jobs.Get, &telev1.GetRequest{JobId: id, Explain: true})
	return r.GetJob(), r.GetCause(), err
}

// Get returns a job as it is now. Here and below, id may be any unique prefix, or the job's name.
func (c *Client) Get(ctx context.Context, id string) (*telev1.Job, error) {
	r, err := unary(ctx, c.link, "try again", c.jobs.Get, &telev1.GetRequest{JobId: id})
	return r.GetJob(), err
}

// fullID makes an id of a prefix or a name. A call that may have to be made again is made with the full id:
// by then the others could fit another job, or several.
func (c *Client) fullID(ctx context.Context, id string) (string, error) {
	if len(id) == 12 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") == "" {
		return id, nil
	}
	job, err := c.Get(ctx, id)
	return job.GetId(), err
}

// ListOptions say which jobs List returns, and how much of them. The zero value is all of all.
type ListOptions struct {
	Statuses []telev1.JobStatus // only jobs with one of these
	Labels   []string           // only jobs with all of these, KEY=VALUE, or KEY for any value
	Name     string             // only jobs of this name
	User     string             // only jobs of this identity
	Since    time.Duration      // only jobs that were made at most so long ago; 0 is any
	Command  string             // only jobs whose command, the words joined by blanks, has this in it
	Brief    bool               // without limits, usage, and of the spec all but command, name and labels
	Live     bool               // with what running jobs use now, also when brief: see tele.v1, ListRequest.live_usage
	Limit    int                // at most so many, the newest; 0 is no limit
}

// List returns the visible jobs, newest first.
func (c *Client) List(ctx context.Context, o ListOptions) ([]*telev1.Job, error) {
	var all []*telev1.Job
	request := &telev1.ListRequest{Statuses: o.Statuses, PageSize: 1000, Brief: o.Brief, LiveUsage: o.Live,
		Labels: o.Labels, Name: o.Name, User: o.User, Since: durationpb.New(o.Since), Command: o.Command}
	for {
		if left := o.Limit - len(all); o.Limit > 0 && left < 1000 {
			request.PageSize = int32(left)
		}
		r, err := unary(ctx, c.link, "try again", c.jobs.List, request)
		if err != nil {
			return nil, err
		}
		all = append(all, r.Jobs...)
		request.PageToken = r.NextPageToken
		if request.PageToken == "" || o.Limit > 0 && len(all) >= o.Limit {
			return all, nil
		}
	}
}

// Stop signals all processes of a job, kills them after the grace time, and returns when they are
// gone. An empty signal is the job's own, JobSpec.stop_signal. When it has to ask again, the job gets the signal again.
func (c *Client) Stop(ctx context.Context, id, signal string, grace time.Duration) (*telev1.Job, error) {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := unary(ctx, c.link, "the job may go on; see: tele status "+id, c.jobs.Stop,
		&telev1.StopRequest{JobId: id, Signal: signal, Grace: durationpb.New(grace)})
	return r.GetJob(), err
}

// Signal sends a signal to a running job, to its command and what that started in its process group if
// target says nothing else, and returns the job as it was then. When it has to ask again, the job gets the
// signal again.
func (c *Client) Signal(ctx context.Context, id, signal string, target telev1.SignalTarget) (*telev1.Job, error) {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := unary(ctx, c.link, "the job may have got the signal; see: tele status "+id, c.jobs.Signal,
		&telev1.SignalRequest{JobId: id, Signal: signal, Target: target})
	return r.GetJob(), err
}

// Resize changes the size of the terminal of a running job.
func (c *Client) Resize(ctx context.Context, id string, size *telev1.TerminalSize) error {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return err
	}
	_, err = unary(ctx, c.link, "try again", c.jobs.Resize, &telev1.ResizeRequest{JobId: id, Size: size})
	return err
}

// Wait returns a job when it has ended.
func (c *Client) Wait(ctx context.Context, id string) (*telev1.Job, error) {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return nil, err
	}
	r, err := unary(ctx, c.link, goesOn(id), c.jobs.Wait, &telev1.WaitRequest{JobId: id})
	return r.GetJob(), err
}

// Remove removes an ended job with its record and its output, and returns it as it was; when the
// answer was lost on the way, its id alone.
func (c *Client) Remove(ctx context.Context, id string) (*telev1.Job, error) {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return nil, err
	}
	job, again := &telev1.Job{Id: id}, false
	err = c.link.call(ctx, "the job may have been removed; see: tele status", func(func()) error {
		r, err := c.jobs.Remove(ctx, &telev1.RemoveRequest{JobId: id})
		switch {
		case err == nil:
			job = r.GetJob()
		case again && status.Code(err) == codes.NotFound:
			return nil // the request before this one arrived
		}
		again = true
		return err
	})
	if err != nil {
		return nil, err
	}
	return job, nil
}

// Prune removes the caller's ended jobs (an administrator's: all ended jobs) that ended at least
// olderThan ago, and returns their ids and how many bytes of output went with them. When it has to
// ask again, it returns what the last request removed.
func (c *Client) Prune(ctx context.Context, olderThan time.Duration) (ids []string, bytes uint64, err error) {
	r, err := unary(ctx, c.link, "try again", c.jobs.Prune,
		&telev1.PruneRequest{OlderThan: durationpb.New(olderThan)})
	return r.GetJobIds(), r.GetOutputBytes(), err
}

// Diff returns what a job with the root "overlay" has changed in it.
func (c *Client) Diff(ctx context.Context, id string) (*telev1.DiffResponse, error) {
	return unary(ctx, c.link, "try again", c.jobs.Diff, &telev1.DiffRequest{JobId: id})
}

// Timings returns how long the last starts of the server took, step by step; it is for administrators.
func (c *Client) Timings(ctx context.Context) (*telev1.ListTimingsResponse, error) {
	return unary(ctx, c.link, "try again", c.jobs.ListTimings, &telev1.ListTimingsRequest{})
}
