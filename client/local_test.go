package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// TestMain has a local server for the tests of Cmd and for the examples, which find it by TELE_ADDR.
func TestMain(m *testing.M) { goleak.VerifyTestMain(withLocal{m}) }

type withLocal struct{ *testing.M }

func (m withLocal) Run() int {
	dir, err := os.MkdirTemp("", "tele")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second}))
	telev1.RegisterJobServiceServer(server, &local{jobs: map[string]*localJob{}})
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	defer func() {
		server.Stop()
		<-ended
	}()
	if err := os.Setenv("TELE_ADDR", "unix:"+socket); err != nil {
		panic(err)
	}
	return m.M.Run()
}

// A local is a JobService that runs commands here, without any sandbox: what a client sees of a server.
type local struct {
	telev1.UnimplementedJobServiceServer
	mu   sync.Mutex
	jobs map[string]*localJob
}

type localJob struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}

	mu      sync.Mutex
	job     *telev1.Job
	output  []*telev1.StreamOutputResponse
	changed chan struct{}
}

func (l *local) find(id string) (*localJob, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j := l.jobs[id]; j != nil {
		return j, nil
	}
	return nil, status.Errorf(codes.NotFound, "no job %q", id)
}

func (l *local) Start(_ context.Context, r *telev1.StartRequest) (*telev1.StartResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cmd := exec.Command(r.Spec.Command[0], r.Spec.Command[1:]...)
	j := &localJob{cmd: cmd, ended: make(chan struct{}), changed: make(chan struct{}),
		job: &telev1.Job{Id: "job" + strings.Repeat("a", 8) + string(rune('a'+len(l.jobs))), Spec: r.Spec, Status: telev1.JobStatus_JOB_STATUS_RUNNING}}
	cmd.Dir, cmd.Env = r.Spec.Cwd, []string{"PATH=" + os.Getenv("PATH")}
	for name, value := range r.Spec.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout = &localWriter{j, telev1.OutputStream_OUTPUT_STREAM_STDOUT}
	cmd.Stderr = &localWriter{j, telev1.OutputStream_OUTPUT_STREAM_STDERR}
	if r.Spec.Stdin {
		var err error
		if j.stdin, err = cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	l.jobs[j.job.Id] = j
	go j.wait()
	return &telev1.StartResponse{Job: j.now()}, nil
}

func (j *localJob) now() *telev1.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return &telev1.Job{Id: j.job.Id, Spec: j.job.Spec, Status: j.job.Status, Reason: j.job.Reason, Message: j.job.Message,
		ExitCode: j.job.ExitCode}
}

func (j *localJob) wait() {
	_ = j.cmd.Wait() // its state is looked at
	state := j.cmd.ProcessState.Sys().(syscall.WaitStatus)
	j.mu.Lock()
	defer j.mu.Unlock()
	code := int32(state.ExitStatus())
	j.job.Message = fmt.Sprintf("exited with %d", code)
	if state.Signaled() {
		code = 128 + int32(state.Signal())
		j.job.Message = fmt.Sprintf("ended by %v", state.Signal())
	}
	j.job.ExitCode, j.job.Status = &code, telev1.JobStatus_JOB_STATUS_SUCCESS
	if code != 0 {
		j.job.Status = telev1.JobStatus_JOB_STATUS_FAILED
	}
	close(j.ended)
	close(j.changed)
}

type localWriter struct {
	j      *localJob
	stream telev1.OutputStream
}

func (w *localWriter) Write(data []byte) (int, error) {
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	w.j.output = append(w.j.output, &telev1.StreamOutputResponse{Stream: w.stream, Data: append([]byte{}, data...)})
	close(w.j.changed)
	w.j.changed = make(chan struct{})
	return len(data), nil
}

func (l *local) StreamOutput(r *telev1.StreamOutputRequest,
	s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
	j, err := l.find(r.JobId)
	if err != nil {
		return err
	}
	for at := 0; ; {
		j.mu.Lock()
		output, changed, ended := j.output[at:], j.changed, j.job.ExitCode != nil
		j.mu.Unlock()
		for _, chunk := range output {
			at++
			if r.Stream != 0 && r.Stream != chunk.Stream {
				continue
			}
			if err := s.Send(chunk); err != nil {
				return err
			}
		}
		if ended {
			return s.Send(&telev1.StreamOutputResponse{Job: j.now()})
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (l *local) WriteInput(s grpc.BidiStreamingServer[telev1.WriteInputRequest, telev1.WriteInputResponse]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	j, err := l.find(first.JobId)
	if err != nil {
		return err
	}
	if err := s.Send(&telev1.WriteInputResponse{}); err != nil {
		return err
	}
	closed := make(chan error, 1)
	go func() {
		for accepted := uint64(0); ; {
			m, err := s.Recv()
			if err != nil {
				closed <- err
				return
			}
			_, err = j.stdin.Write(m.Data)
			if accepted += uint64(len(m.Data)); m.End {
				err = errors.Join(err, j.stdin.Close(), io.EOF)
			}
			if err := s.Send(&telev1.WriteInputResponse{Accepted: accepted, Closed: err != nil}); err != nil || m.End {
				closed <- err
				return
			}
		}
	}()
	select {
	case err := <-closed:
		return err
	case <-j.ended:
		return s.Send(&telev1.WriteInputResponse{Closed: true})
	}
}

func (l *local) Wait(ctx context.Context, r *telev1.WaitRequest) (*telev1.WaitResponse, error) {
	j, err := l.find(r.JobId)
	if err != nil {
		return nil, err
	}
	select {
	case <-j.ended:
		return &telev1.WaitResponse{Job: j.now()}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *local) Signal(_ context.Context, r *telev1.SignalRequest) (*telev1.SignalResponse, error) {
	j, err := l.find(r.JobId)
	if err != nil {
		return nil, err
	}
	if j.now().ExitCode != nil {
		return nil, status.Error(codes.FailedPrecondition, "the job has ended")
	}
	var number syscall.Signal
	if _, err := fmt.Sscan(r.Signal, &number); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &telev1.SignalResponse{Job: j.now()}, syscall.Kill(-j.cmd.Process.Pid, number)
}

func (l *local) Stop(_ context.Context, r *telev1.StopRequest) (*telev1.StopResponse, error) {
	j, err := l.find(r.JobId)
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	if j.job.ExitCode == nil {
		j.job.Reason = telev1.Reason_REASON_STOPPED
		_ = syscall.Kill(-j.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	}
	j.mu.Unlock()
	<-j.ended
	return &telev1.StopResponse{Job: j.now()}, nil
}
