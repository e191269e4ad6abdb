package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/alecthomas/kong"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// TestMain is the tests, or, called as tele, a client's command line, for tests of a whole process.
func TestMain(m *testing.M) {
	if os.Args[0] == "tele" {
		code, message := execute(context.Background(), Streams{Out: os.Stdout, Err: os.Stderr}, os.Args[1:]...)
		if message != "" {
			_, _ = os.Stderr.WriteString("tele: " + message + "\n") // nowhere else to say it
		}
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

// execute runs a command line as main does.
func execute(ctx context.Context, streams Streams, args ...string) (code int, message string) {
	parser, err := kong.New(&Commands{}, kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(streams))
	if err != nil {
		return exitTele, err.Error()
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return exitTele, err.Error()
	}
	return Exit(parsed.Run(), "the test's server")
}

const jobID = "abcdefghijkl"

// A fake is a JobService of which a test scripts the answers, by the type of the request.
type fake struct {
	telev1.UnimplementedJobServiceServer
	answer func(request any) (any, error)
	stream func(*telev1.StreamOutputRequest, grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error
}

func (f *fake) StreamOutput(r *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
	return f.stream(r, s)
}

// serve serves f on a socket until stop is called or the test ends, and makes it the commands' server.
func serve(t *testing.T, f *fake) (stop func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	t.Setenv("TELE_ADDR", "unix:"+path)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(
		func(_ context.Context, request any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
			return f.answer(request)
		}))
	telev1.RegisterJobServiceServer(s, f)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	stop = sync.OnceFunc(func() {
		s.Stop()
		<-ended
	})
	t.Cleanup(stop)
	return stop
}

// tele runs a command line and returns all that it gave.
func tele(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code, message := execute(t.Context(), Streams{Out: &out, Err: &err}, args...)
	if message != "" {
		err.WriteString("tele: " + message + "\n")
	}
	return code, out.String(), err.String()
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %#v, want %#v", what, got, want)
	}
}

func TestRm(t *testing.T) {
	serve(t, &fake{answer: func(request any) (any, error) {
		switch r := request.(type) {
		case *telev1.GetRequest:
			return &telev1.GetResponse{Job: &telev1.Job{Id: jobID}}, nil
		case *telev1.RemoveRequest:
			if r.JobId == jobID {
				return &telev1.RemoveResponse{Job: &telev1.Job{Id: jobID}}, nil
			}
		}
		return nil, status.Error(codes.FailedPrecondition, "it runs; stop it first")
	}})
	code, stdout, stderr := tele(t, "rm", "zzzzzzzzzzzz", "abc")
	expect(t, "code", code, exitTele)
	expect(t, "stdout", stdout, jobID+" removed\n")
	expect(t, "stderr", stderr, "tele: it runs; stop it first\n")
}

func TestPrune(t *testing.T) {
	var asked string
	serve(t, &fake{answer: func(request any) (any, error) {
		asked = request.(*telev1.PruneRequest).OlderThan.AsDuration().String()
		return &telev1.PruneResponse{JobIds: []string{"one", "two"}, OutputBytes: 12345}, nil
	}})
	code, stdout, stderr := tele(t, "prune", "--older-than", "24h")
	expect(t, "code", code, 0)
	expect(t, "stdout", stdout, "one removed\ntwo removed\n2 jobs, 12345 bytes of output\n")
	expect(t, "stderr", stderr, "")
	expect(t, "asked", asked, "24h0m0s")
	asked = ""
	code, _, stderr = tele(t, "prune", "--older-than=-1h")
	expect(t, "code", code, exitTele)
	expect(t, "stderr", stderr, "tele: --older-than -1h0m0s: must not be negative\n")
	expect(t, "asked", asked, "")
	tele(t, "prune")
	expect(t, "asked", asked, "0s")
}

func TestStatusOutput(t *testing.T) {
	serve(t, &fake{answer: func(any) (any, error) {
		return &telev1.GetResponse{Job: &telev1.Job{Id: jobID, StdoutBytes: 1, StderrBytes: 2, DroppedBytes: 3, OutputRemoved: true}}, nil
	}})
	_, stdout, _ := tele(t, "status", "-o", "json", "abc")
	var got []map[string]any
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || len(got) != 1 {
		t.Fatalf("%v in %s", err, stdout)
	}
	for name, want := range map[string]any{"stdout_bytes": 1.0, "stderr_bytes": 2.0, "dropped_bytes": 3.0, "output_removed": true} {
		expect(t, name, got[0][name], want)
	}
}

// TestOutputLimit: the limit is asked for, and that it was reached is one line between the output.
func TestOutputLimit(t *testing.T) {
	serve(t, &fake{
		answer: func(request any) (any, error) {
			return &telev1.StartResponse{Job: &telev1.Job{Id: jobID, Spec: request.(*telev1.StartRequest).Spec}}, nil
		},
		stream: func(_ *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
			for _, r := range []*telev1.StreamOutputResponse{
				{Stream: telev1.OutputStream_OUTPUT_STREAM_STDERR, Data: []byte("abc\n")},
				{Offset: 4, Event: telev1.OutputEvent_OUTPUT_EVENT_LIMIT_REACHED},
				{Job: &telev1.Job{Id: jobID, Reason: telev1.Reason_REASON_OUTPUT_LIMIT, Message: "wrote too much", ExitCode: proto.Int32(137)}},
			} {
				if err := s.Send(r); err != nil {
					return err
				}
			}
			return nil
		},
	})
	code, _, stderr := tele(t, "run", "--output-limit", "10M", "--", "yes")
	expect(t, "code", code, 137)
	expect(t, "stderr", stderr, "abc\ntele: output limit of 10M reached; what the job writes after it is not kept\n"+
		"tele: job "+jobID+": wrote too much\n")
	_, _, stderr = tele(t, "logs", jobID)
	expect(t, "stderr of logs", stderr, "abc\ntele: output limit reached; what the job writes after it is not kept\n")
}

// TestReconnectFlag: what the user reads when the server goes away for longer than --reconnect, and
// when it goes away with --reconnect 0.
func TestReconnectFlag(t *testing.T) {
	for _, row := range []struct{ reconnect, notice, tried string }{
		{"200ms", "; reconnecting for up to 200ms\n", "; tried to reconnect for 2"}, // and some
		{"0", "", ""},
	} {
		var stop func()
		stopped := make(chan struct{})
		stop = serve(t, &fake{
			answer: func(any) (any, error) {
				return &telev1.StartResponse{Job: &telev1.Job{Id: jobID}}, nil
			},
			stream: func(_ *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
				go func() {
					defer close(stopped)
					stop()
				}()
				<-s.Context().Done()
				return nil
			},
		})
		t.Setenv("TELE_RECONNECT", row.reconnect)
		code, _, stderr := tele(t, "run", "--", "true")
		<-stopped
		expect(t, "code", code, exitTele)
		lines := strings.SplitAfter(strings.TrimSuffix(stderr, "\n"), "\n")
		if row.notice != "" {
			if !strings.HasPrefix(lines[0], "tele: lost the server at unix:") || !strings.HasSuffix(lines[0], row.notice) {
				t.Errorf("notice %q", lines[0])
			}
			lines = lines[1:]
		}
		const want = " (the job goes on; see it again with: tele logs " + jobID + ")"
		if len(lines) != 1 || !strings.HasPrefix(lines[0], "tele: lost the server at unix:") ||
			!strings.HasSuffix(lines[0], want) || !strings.Contains(lines[0], row.tried) {
			t.Errorf("error %q, want one with %q and %q", lines, row.tried, want)
		}
	}
}

// TestBrokenPipe: `tele logs | head` ends by SIGPIPE when head has, as other tools do (141 in a shell).
func TestBrokenPipe(t *testing.T) {
	serve(t, &fake{stream: func(_ *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
		for {
			err := s.Send(&telev1.StreamOutputResponse{Stream: telev1.OutputStream_OUTPUT_STREAM_STDOUT, Data: []byte("y\n")})
			if err != nil {
				return err
			}
		}
	}})
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "logs", jobID)
	cmd.Args[0], cmd.Stdout, cmd.Stderr = "tele", writer, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	if _, err := reader.Read(make([]byte, 2)); err != nil {
		t.Error(err)
	}
	_ = reader.Close()
	err = cmd.Wait()
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() || s.Signal() != syscall.SIGPIPE {
		t.Errorf("ended with %v, stderr %q", err, stderr.String())
	}
}

// TestLinks: there is a link for each command that a user may want one for.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	if err := (&Links{Dir: dir}).Run(Streams{Out: &out}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tele-run", "tele-rm", "tele-prune"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}
