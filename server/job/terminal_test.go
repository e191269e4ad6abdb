package job

import (
	"errors"
	"strconv"
	"strings"
	"syscall"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// typing is a job with a terminal at which somebody types.
func typing(t *testing.T, table *Table, script string) *Job {
	t.Helper()
	spec := sh(script)
	spec.Stdin, spec.Terminal = true, &telev1.TerminalSize{Rows: 24, Columns: 80}
	return begin(t, table, spec)
}

// A job with a terminal goes on under the next server, with what was typed and the size it had; all of its
// output is kept, however it ends.
func TestTerminal(t *testing.T) {
	table := open(t)
	j := typing(t, table, "stty -echo; stty size; read a; stty size; read b; echo $a $b >&2; exit 4")
	firstOutput(t, j)
	if err := j.Resize(&telev1.TerminalSize{Rows: 30, Columns: 100}); err != nil {
		t.Fatal(err)
	}
	write(t, writer(t, j, "a"), 0, "one\ntw", false, 6, nil)
	table = reopen(t, table)
	j = find(t, table, j.id)
	if err := j.Resize(&telev1.TerminalSize{Rows: 40, Columns: 100}); err != nil {
		t.Fatal(err)
	}
	write(t, writer(t, j, "a"), 6, "o\n", true, 8, nil)
	job := wait(t, j)
	got := read(t, j)
	if got != "24 80\r\n30 100\r\none two\r\n" && got != "24 80\r\n40 100\r\none two\r\n" || job.GetExitCode() != 4 {
		t.Errorf("got %q, %v", got, job)
	}
	if job.StderrBytes != 0 || job.StdoutBytes != uint64(len(got)) {
		t.Errorf("got %v", job)
	}
	if err := j.Resize(&telev1.TerminalSize{Rows: 1, Columns: 1}); !errors.Is(err, ErrEnded) {
		t.Errorf("after the end: %v", err)
	}
	without := begin(t, table, sh("true"))
	if err := without.Resize(&telev1.TerminalSize{Rows: 1, Columns: 1}); !errors.Is(err, ErrNoTerminal) {
		t.Errorf("without a terminal: %v", err)
	}
}

// All that is written to a terminal is kept, also what comes last, and while nobody has the terminal open.
func TestTerminalOutput(t *testing.T) {
	table := open(t)
	j := typing(t, table, "stty -onlcr; seq 1 40000; exec >/dev/null 2>&1 </dev/null; seq 1 40000 >/dev/tty")
	wait(t, j)
	var want strings.Builder
	for range 2 {
		for i := range 40000 {
			want.WriteString(strconv.Itoa(i+1) + "\n")
		}
	}
	if got := read(t, j); got != want.String() {
		t.Errorf("%d bytes, want %d", len(got), want.Len())
	}
}

// A terminal whose program reads nothing holds up who types, and not the end.
func TestTerminalThatNobodyReads(t *testing.T) {
	table := open(t)
	j := typing(t, table, "stty -echo -icanon; echo ready; exec sleep 1000")
	firstOutput(t, j)
	w := writer(t, j, "w")
	written := make(chan error)
	go func() {
		for at := int64(0); ; at += 65536 {
			if _, err := w.Write(t.Context(), at, make([]byte, 65536), false); err != nil {
				written <- err
				return
			}
		}
	}()
	if err := j.Signal(syscall.SIGKILL, telev1.SignalTarget_SIGNAL_TARGET_ALL, "me"); err != nil {
		t.Fatal(err)
	}
	wait(t, j)
	if err := <-written; !errors.Is(err, ErrInputClosed) {
		t.Errorf("got %v", err)
	}
}

func TestBadSizes(t *testing.T) {
	table := open(t)
	for _, size := range []*telev1.TerminalSize{{}, {Rows: 1}, {Columns: 1}, {Rows: 1 << 16, Columns: 1}, {Rows: 1, Columns: 1 << 31}} {
		spec := sh("true")
		spec.Terminal = size
		var request *BadRequest
		if _, err := table.Start(t.Context(), "me", "", spec); !errors.As(err, &request) || request.Field != "spec.terminal" {
			t.Errorf("%v: %v", size, err)
		}
	}
}
