package job

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/telerun/tele/initproc"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// runBeside runs a script beside j's command to its end.
func runBeside(t *testing.T, j *Job, script string) (out string, code int) {
	t.Helper()
	b, err := j.Beside(t.Context(), sh(script))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	text, err := io.ReadAll(b.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	<-b.Done()
	status, seen := b.Exit()
	if !seen {
		t.Error("its end was not seen")
	}
	return string(text), status.ExitStatus()
}

// Many commands at once, beside a job of this server and of the one before.
func TestBeside(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh("echo main >/tmp/file; echo ready; exec sleep 1000"))
	firstOutput(t, j)
	for range 2 {
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				out, code := runBeside(t, j, "cat /tmp/file; echo $TELE_JOB_ID; exit 3")
				if out != "main\n"+j.id+"\n" || code != 3 {
					t.Errorf("%d: got %q, %d", i, out, code)
				}
			})
		}
		all.Wait()
		table = reopen(t, table)
		j = find(t, table, j.id)
	}
	var request *BadRequest
	if _, err := j.Beside(t.Context(), sh(strings.Repeat("x", maxString+1))); !errors.As(err, &request) {
		t.Errorf("got %v", err)
	}
	spec := sh("true")
	spec.Command = []string{"no-such-program"}
	var step *initproc.StepError
	if _, err := j.Beside(t.Context(), spec); !errors.As(err, &step) || !step.NotFound() {
		t.Errorf("got %v", err)
	}
	if out, code := runBeside(t, j, "echo still"); out != "still\n" || code != 0 {
		t.Errorf("got %q, %d", out, code)
	}
	if err := j.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Beside(t.Context(), sh("true")); !errors.Is(err, ErrPaused) {
		t.Errorf("got %v", err)
	}
	if err := j.Resume(); err != nil {
		t.Fatal(err)
	}
	// One that nobody waits for any more is ended as soon as it runs.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for err := error(nil); !errors.Is(err, context.Canceled); {
		var b *Beside
		if b, err = j.Beside(gone, sh("exec sleep 999")); err == nil { // it ran sooner
			b.HangUp()
			b.Close()
		}
	}
	for {
		if out, _ := runBeside(t, j, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep [9]99'"); out == "0\n" {
			break
		}
	}
	// It ends with the job.
	b, err := j.Beside(t.Context(), sh("exec sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	wait(t, j)
	<-b.Done()
	if status, seen := b.Exit(); !seen || status.Signal() != unix.SIGKILL {
		t.Errorf("got %v, %v", status, seen)
	}
	if _, err := j.Beside(t.Context(), sh("true")); !errors.Is(err, ErrEnded) {
		t.Errorf("got %v", err)
	}
}

// One that is hung up is told, and a server that leaves lets go of it.
func TestBesideIsLeft(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh("echo ready; exec sleep 1000"))
	firstOutput(t, j)
	b, err := j.Beside(t.Context(), sh("trap 'echo hup; exit 4' HUP; echo ready; while :; do sleep 1000 & wait $!; done"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	buf := make([]byte, 100)
	if n, err := b.Stdout.Read(buf); err != nil || string(buf[:n]) != "ready\n" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	b.HangUp()
	<-b.Done()
	if status, seen := b.Exit(); !seen || status.ExitStatus() != 4 {
		t.Errorf("got %v, %v", status, seen)
	}
	b, err = j.Beside(t.Context(), sh("exec sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	table = reopen(t, table)
	<-b.Done()
	if _, seen := b.Exit(); seen {
		t.Error("an end was seen of what runs on")
	}
	if out, _ := runBeside(t, find(t, table, j.id), "echo again"); out != "again\n" {
		t.Errorf("got %q", out)
	}
}

// A job that stops whatever it can, at any moment, holds up who wants to run something in it, and neither its
// init nor its own end.
func TestBesideInAHostileJob(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh("echo ready; while :; do kill -STOP -1; done"))
	firstOutput(t, j)
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if b, err := j.Beside(ctx, sh("true")); err == nil {
			b.HangUp()
			b.Close()
		}
		cancel()
	}
	began := time.Now()
	if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	if job := wait(t, j); job.Reason != telev1.Reason_REASON_STOPPED {
		t.Errorf("after %v: %v", time.Since(began), job)
	}
}
