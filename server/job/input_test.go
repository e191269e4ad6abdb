package job

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// reading is a job with an input.
func reading(t *testing.T, table *Table, script string) *Job {
	t.Helper()
	spec := sh(script)
	spec.Stdin = true
	return begin(t, table, spec)
}

func writer(t *testing.T, j *Job, name string) *InputWriter {
	t.Helper()
	w, _, err := j.InputWriter(name)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// write writes, and expects the server to have so many bytes of the writer afterwards, or an error.
func write(t *testing.T, w *InputWriter, offset int64, data string, end bool, want int64, wantErr error) {
	t.Helper()
	if have, err := w.Write(t.Context(), offset, []byte(data), end); have != want || !errors.Is(err, wantErr) {
		t.Errorf("write %q at %d: %d, %v; want %d, %v", data, offset, have, err, want, wantErr)
	}
}

func TestInput(t *testing.T) {
	table := open(t)
	j := reading(t, table, "cat")
	a, b := writer(t, j, "a"), writer(t, j, "b")
	write(t, a, 0, "one ", false, 4, nil)
	write(t, b, 0, "two ", false, 4, nil)
	write(t, a, 2, "e three ", false, 10, nil) // some of it again
	write(t, a, 11, "x", false, 10, ErrInputOffset)
	write(t, a, -1, "x", false, 10, ErrInputOffset)
	write(t, b, 4, "end", true, 7, nil)
	job := wait(t, j)
	if got := read(t, j); got != "one two three end" || job.StdinBytes != 17 {
		t.Errorf("got %q, %d bytes of input", got, job.StdinBytes)
	}
	if _, _, err := j.InputWriter("a"); !errors.Is(err, ErrInputClosed) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := os.Stat(inputPath(j.dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	without := begin(t, table, sh("cat"))
	if _, _, err := without.InputWriter("a"); !errors.Is(err, ErrNoInput) {
		t.Errorf("a job without: %v", err)
	}
}

// A job forgets writers rather than to refuse new ones, and knows the others under the next server.
func TestManyInputWriters(t *testing.T) {
	table := open(t)
	j := reading(t, table, "cat")
	for i := range 2 * maxWriters {
		write(t, writer(t, j, fmt.Sprint(i)), 0, "x", false, 1, nil)
	}
	write(t, writer(t, j, "last"), 0, "end", false, 3, nil)
	table = reopen(t, table)
	j = find(t, table, j.id)
	write(t, writer(t, j, "last"), 3, ".", true, 4, nil)
	wait(t, j)
	if got, want := read(t, j), strings.Repeat("x", 2*maxWriters)+"end."; got != want {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
}

func TestInputWriterNames(t *testing.T) {
	table := open(t)
	j := reading(t, table, "cat")
	var request *BadRequest
	for _, name := range []string{"", strings.Repeat("x", maxWriter+1)} {
		if _, _, err := j.InputWriter(name); !errors.As(err, &request) {
			t.Errorf("%q: %v", name, err)
		}
	}
	write(t, writer(t, j, strings.Repeat("x", maxWriter)), 0, "", true, 0, nil)
	wait(t, j)
}

// A writer waits while the command does not read, and what is kept on the disk meanwhile has a bound.
func TestInputWaits(t *testing.T) {
	table := open(t)
	j := reading(t, table, "echo ready; read line; head -c 40000000 >/dev/null; echo rest; cat")
	firstOutput(t, j)
	w := writer(t, j, "w")
	piece := bytes.Repeat([]byte("0123456789abcde\n"), 4096)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a write that has to wait returns at once
	var at int64
	for {
		have, err := w.Write(ctx, at, piece, false)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if at = have; at > 16<<20 {
			t.Fatal("the server takes input that nobody reads")
		}
	}
	if err := j.Signal(syscall.SIGCONT, telev1.SignalTarget_SIGNAL_TARGET_COMMAND, "me"); err != nil {
		t.Fatal(err)
	}
	for at < 60_000_000 {
		have, err := w.Write(t.Context(), at, piece, false)
		if err != nil {
			t.Fatal(err)
		}
		at = have
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(inputPath(j.dir), &stat); err != nil {
		t.Fatal(err)
	}
	if kept := stat.Blocks * 512; kept > 4*inputBehind {
		t.Errorf("%d bytes of input are kept that was read", kept)
	}
	write(t, w, at, "", true, at, nil)
	wait(t, j)
	if got, want := int64(len(read(t, j))), int64(len("ready\nrest\n"))+at-16-40_000_000; got != want {
		t.Errorf("%d bytes came out, want %d", got, want)
	}
}

// The next server knows what it has of each writer.
func TestInputAcrossServers(t *testing.T) {
	table := open(t)
	alone, shared := reading(t, table, "cat"), reading(t, table, "cat")
	write(t, writer(t, alone, "a"), 0, "one ", false, 4, nil)
	write(t, writer(t, shared, "a"), 0, "one ", false, 4, nil)
	write(t, writer(t, shared, "b"), 0, "two ", false, 4, nil)
	table = reopen(t, table)
	alone, shared = find(t, table, alone.id), find(t, table, shared.id)
	write(t, writer(t, alone, "a"), 0, "one two ", false, 8, nil)
	write(t, writer(t, shared, "a"), 0, "one three ", false, 10, nil)
	table = reopen(t, table)
	alone, shared = find(t, table, alone.id), find(t, table, shared.id)
	write(t, writer(t, shared, "b"), 4, "four ", false, 9, nil)
	write(t, writer(t, shared, "a"), 11, "x", false, 10, ErrInputOffset)
	write(t, writer(t, shared, "c"), 0, "five", true, 4, nil)
	write(t, writer(t, alone, "a"), 8, "", true, 8, nil)
	table = reopen(t, table)
	alone, shared = find(t, table, alone.id), find(t, table, shared.id)
	wait(t, alone)
	wait(t, shared)
	if got := read(t, alone) + "|" + read(t, shared); got != "one two |one two three four five" {
		t.Errorf("got %q", got)
	}
}

// Writers are told when nobody reads any more, also those that wait.
func TestInputIsClosedByTheCommand(t *testing.T) {
	table := open(t)
	j := reading(t, table, "read line; exec <&-; echo closed; sleep 1000")
	w := writer(t, j, "w")
	write(t, w, 0, "line\n", false, 5, nil)
	firstOutput(t, j)
	var at int64 = 5
	for at < 64<<20 {
		have, err := w.Write(t.Context(), at, make([]byte, 1<<20), false)
		if errors.Is(err, ErrInputClosed) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		at = have
	}
	<-w.Closed()
	if err := w.Err(); err != ErrInputClosed {
		t.Error(err)
	}
	if err := j.Signal(syscall.SIGKILL, telev1.SignalTarget_SIGNAL_TARGET_ALL, "me"); err != nil {
		t.Fatal(err)
	}
	job := wait(t, j)
	if job.Reason != telev1.Reason_REASON_STOPPED || !strings.HasSuffix(job.Message, ", which me sent") {
		t.Errorf("got %v", job)
	}
	if err := j.Signal(syscall.SIGKILL, telev1.SignalTarget_SIGNAL_TARGET_ALL, "me"); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
}

// A server that ends lets writers go, to come back to the next.
func TestInputWhenTheServerEnds(t *testing.T) {
	table := open(t)
	j := reading(t, table, "cat")
	w := writer(t, j, "w")
	write(t, w, 0, "text", false, 4, nil)
	table = reopen(t, table)
	<-w.Closed()
	if err := w.Err(); err != ErrClosing {
		t.Errorf("got %v", err)
	}
	write(t, w, 4, "x", false, 4, ErrClosing)
	write(t, writer(t, find(t, table, j.id), "w"), 4, "", true, 4, nil)
	wait(t, find(t, table, j.id))
}
