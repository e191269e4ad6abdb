package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestLibrary: what client.Cmd promises, kept by a real server.
func TestLibrary(t *testing.T) {
	c, _ := serve(t, Command{})
	t.Run("input and output", func(t *testing.T) {
		data := make([]byte, 5<<20)
		rand.NewChaCha8([32]byte{1}).Read(data)
		cmd := c.Command("sh", "-c", "tee /dev/stderr | sha256sum | cut -c1-64")
		cmd.Stdin = bytes.NewReader(data)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%x\n", sha256.Sum256(data)); out.String() != want || !bytes.Equal(errs.Bytes(), data) {
			t.Errorf("sum %s of %d bytes, want %s", out.String(), errs.Len(), want)
		}
	})
	t.Run("pipes", func(t *testing.T) {
		cmd := c.Command("sh", "-c", "yes | head -c 3000000 >&2; cat; exit 7")
		stdin, err1 := cmd.StdinPipe()
		stdout, err2 := cmd.StdoutPipe()
		stderr, err3 := cmd.StderrPipe()
		if err := errors.Join(err1, err2, err3, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(stdin, "typed"); err != nil {
			t.Fatal(err)
		}
		if err := stdin.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(stdout); err != nil || string(got) != "typed" {
			t.Errorf("stdout: got %q, %v", got, err)
		}
		if n, err := io.Copy(io.Discard, stderr); err != nil || n != 3000000 {
			t.Errorf("stderr: got %d bytes, %v", n, err)
		}
		var exit *client.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a closed pipe", func(t *testing.T) {
		cmd := c.Command("yes")
		stdout, err := cmd.StdoutPipe()
		if err := errors.Join(err, cmd.Start(), stdout.Close()); err != nil {
			t.Fatal(err)
		}
		var exit *client.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGPIPE) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cmd := c.CommandContext(ctx, "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cancel()
		var exit *client.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Job.Status != telev1.JobStatus_JOB_STATUS_KILLED {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no such command", func(t *testing.T) {
		_, err := c.Command("no-such-command").Output()
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("got %v", err)
		}
	})
}

// TestLibraryOverARestart: a command, its input and its output go on when the server is restarted.
func TestLibraryOverARestart(t *testing.T) {
	needRoot(t)
	state := t.TempDir()
	serve := func(stopJobs bool) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		addr, ended := make(chan string, 1), make(chan error, 1)
		command := Command{Addr: "127.0.0.1:0", StateDir: state, StopJobsOnExit: stopJobs}
		go func() { ended <- command.Serve(ctx, zerolog.New(logWriter{addr})) }()
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-addr:
		}
		return sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	stop := serve(false)
	defer func() { stop() }()
	c, err := client.Dial(client.Options{Addr: "unix:" + state + "/tele.sock", Reconnect: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cmd := c.Command("cat")
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	talk := func(line string) {
		t.Helper()
		if _, err := io.WriteString(stdin, line); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(line))
		if _, err := io.ReadFull(stdout, got); err != nil || string(got) != line {
			t.Fatalf("got %q, %v, want %q", got, err, line)
		}
	}
	talk("one\n")
	stop()
	stop = serve(true)
	talk("two\n")
	if err := stdin.Close(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(stdout); err != nil || len(rest) != 0 {
		t.Errorf("got %q, %v", rest, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
