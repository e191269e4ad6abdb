// Package client is the Go library for tele: it runs commands on a machine where `tele serve` runs.
//
//	c, err := client.Dial(client.Options{})
//	job, err := c.Start(ctx, &telev1.JobSpec{Command: []string{"make", "test"}})
//	job, err = c.Output(ctx, job.Id, client.OutputOptions{Follow: true}, os.Stdout, os.Stderr)
//	os.Exit(int(job.GetExitCode()))
//
// Errors are gRPC statuses as tele.v1 documents them; status.Code tells them apart.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/durationpb"
)

// DefaultAddr is where a server listens that was not told otherwise.
const DefaultAddr = "127.0.0.1:50051"

// Options say which server, and as whom. The zero value is the server on this machine, as its
// administrator.
type Options struct {
	// Addr is HOST:PORT or unix:/path; empty is DefaultAddr.
	Addr string
	// CA, Cert and Key are files in PEM: whom to trust, and who one is. Empty ones are taken from
	// StateDir, where a server on this machine has put an administrator's.
	CA, Cert, Key string
	// StateDir is the state directory of a server on this machine; empty is its default.
	StateDir string
}

// A Client is a connection to a server, for any number of goroutines.
type Client struct {
	conn *grpc.ClientConn
	jobs telev1.JobServiceClient
}

// Dial prepares a connection, which is made with the first call.
func Dial(o Options) (*Client, error) {
	addr := o.Addr
	if addr == "" {
		addr = DefaultAddr
	}
	var creds credentials.TransportCredentials
	if strings.HasPrefix(addr, "unix:") {
		creds = insecure.NewCredentials() // the kernel tells the server who calls
	} else {
		config, err := o.tls()
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(config)
		addr = "dns:" + addr
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}))
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", o.Addr, err)
	}
	return &Client{conn: conn, jobs: telev1.NewJobServiceClient(conn)}, nil
}

func (o Options) tls() (*tls.Config, error) {
	state := o.StateDir
	if state == "" {
		state = defaultStateDir()
	}
	file := func(given, name string) string {
		if given != "" {
			return given
		}
		return filepath.Join(state, "certs", name)
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

// defaultStateDir is the server's own rule.
func defaultStateDir() string {
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
func (c *Client) Close() error { return c.conn.Close() }

// Start starts a job and returns when its command runs.
func (c *Client) Start(ctx context.Context, spec *telev1.JobSpec) (*telev1.Job, error) {
	r, err := c.jobs.Start(ctx, &telev1.StartRequest{Spec: spec}, grpc.WaitForReady(false))
	return r.GetJob(), err
}

// Plan returns the steps that would make the job's sandbox, for people, and makes nothing.
func (c *Client) Plan(ctx context.Context, spec *telev1.JobSpec) (string, error) {
	r, err := c.jobs.Start(ctx, &telev1.StartRequest{Spec: spec, DryRun: true})
	return r.GetPlan(), err
}

// Get returns a job as it is now. Here and below, id may be any unique prefix.
func (c *Client) Get(ctx context.Context, id string) (*telev1.Job, error) {
	r, err := c.jobs.Get(ctx, &telev1.GetRequest{JobId: id})
	return r.GetJob(), err
}

// List returns all visible jobs with one of the statuses (none: any), newest first.
func (c *Client) List(ctx context.Context, statuses ...telev1.JobStatus) ([]*telev1.Job, error) {
	var all []*telev1.Job
	request := &telev1.ListRequest{Statuses: statuses, PageSize: 1000}
	for {
		r, err := c.jobs.List(ctx, request)
		if err != nil {
			return nil, err
		}
		all = append(all, r.Jobs...)
		if request.PageToken = r.NextPageToken; request.PageToken == "" {
			return all, nil
		}
	}
}

// Stop signals all processes of a job, kills them after the grace time, and returns when they are
// gone. An empty signal is TERM.
func (c *Client) Stop(ctx context.Context, id, signal string, grace time.Duration) (*telev1.Job, error) {
	r, err := c.jobs.Stop(ctx, &telev1.StopRequest{JobId: id, Signal: signal, Grace: durationpb.New(grace)})
	return r.GetJob(), err
}

// Wait returns a job when it has ended.
func (c *Client) Wait(ctx context.Context, id string) (*telev1.Job, error) {
	r, err := c.jobs.Wait(ctx, &telev1.WaitRequest{JobId: id})
	return r.GetJob(), err
}

// OutputOptions say what to read of a job's output. The zero value is all there is now.
type OutputOptions struct {
	Stream telev1.OutputStream // one alone; unspecified is both
	Offset uint64
	Tail   int // begin this many lines before the end, when positive
	Follow bool
	// Chunk, when it is set, is called for each piece as it arrived, instead of writing it.
	Chunk func(*telev1.StreamOutputResponse) error
}

// Output copies a job's output to stdout and stderr. With Follow it returns the job when it has
// ended and everything was copied; without, the job is nil when it still runs.
func (c *Client) Output(ctx context.Context, id string, o OutputOptions, stdout, stderr io.Writer) (*telev1.Job, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &telev1.StreamOutputRequest{JobId: id, Stream: o.Stream, Offset: o.Offset, Follow: o.Follow,
		KeepChunks: o.Chunk != nil}
	if o.Tail > 0 {
		lines := uint32(o.Tail)
		request.TailLines = &lines
	}
	stream, err := c.jobs.StreamOutput(ctx, request)
	if err != nil {
		return nil, err
	}
	for {
		r, err := stream.Recv()
		switch {
		case err == io.EOF:
			return nil, nil
		case err != nil:
			return nil, err
		case r.Job != nil:
			return r.Job, nil
		case o.Chunk != nil:
			err = o.Chunk(r)
		case r.Stream == telev1.OutputStream_OUTPUT_STREAM_STDERR:
			_, err = stderr.Write(r.Data)
		default:
			_, err = stdout.Write(r.Data)
		}
		if err != nil {
			return nil, fmt.Errorf("write output: %w", err)
		}
	}
}
