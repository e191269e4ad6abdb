package output

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Silent logs beyond a number have no file open, and work as the others do.
func TestMoreLogsThanFiles(t *testing.T) {
	dir := t.TempDir()
	var logs []*Log
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	for i := range cap(heldLogs) + 3 {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		l := New(path)
		defer l.Close()
		if _, err := unix.Write(pipe[1], []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Drain(Stdout, pipe[0]); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	w := newWriter(t)
	open := func() bool { return w.log.files[0] != nil }
	if open() {
		t.Error("files of a silent log are open")
	}
	if n, err := w.log.Drain(Stdout, w.pipe[0]); n != 0 || err != nil || open() {
		t.Errorf("drained %d, %v; files open: %v", n, err, open())
	}
	w.write(Stdout, "abc")
	w.write(Stderr, "de")
	if open() {
		t.Error("files stay open after a drain")
	}
	if got := joined(readAll(t, w.log, ReadOptions{}, 100)); got != "abcde" {
		t.Errorf("got %q", got)
	}
	_ = unix.Close(w.pipe[1])
	w.pipe[1] = -1
	if _, err := w.log.Drain(Stdout, w.pipe[0]); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	w.log.Finish()
	again, err := Open(w.log.dir)
	if err != nil {
		t.Fatal(err)
	}
	if out, errs := again.Sizes(); out != 3 || errs != 2 || again.files[0] != nil {
		t.Errorf("%d and %d bytes", out, errs)
	}
	_ = again.Close()
	// A place that one gives back is the next one's.
	_ = logs[0].Close()
	held := newWriter(t)
	held.write(Stdout, "x")
	if !held.log.held || held.log.files[0] == nil {
		t.Error("a log is not held although there is room")
	}
}
