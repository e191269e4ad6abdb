package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A writer writes to a log as a job does.
type writer struct {
	t    *testing.T
	log  *Log
	pipe [2]int
}

func newWriter(t *testing.T) *writer {
	t.Helper()
	l, err := Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{t: t, log: l}
	if err := unix.Pipe2(w.pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = l.Close()
		_ = unix.Close(w.pipe[0])
		_ = unix.Close(w.pipe[1])
	})
	return w
}

func (w *writer) write(s Stream, text string) {
	w.t.Helper()
	if _, err := unix.Write(w.pipe[1], []byte(text)); err != nil {
		w.t.Fatal(err)
	}
	if n, err := w.log.Drain(s, w.pipe[0]); err != nil || n != int64(len(text)) {
		w.t.Fatalf("drained %d of %d: %v", n, len(text), err)
	}
}

func readAll(t *testing.T, l *Log, o ReadOptions, size int) []Chunk {
	t.Helper()
	r, err := l.NewReader(o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var chunks []Chunk
	for {
		c, err := r.Next(t.Context(), make([]byte, size))
		if err == io.EOF {
			return chunks
		}
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, c)
	}
}

func text(chunks []Chunk) string {
	var b strings.Builder
	for _, c := range chunks {
		fmt.Fprintf(&b, "%d@%d:%s ", c.Stream, c.Offset, c.Data)
	}
	return b.String()
}

func joined(chunks []Chunk) string {
	var b strings.Builder
	for _, c := range chunks {
		b.Write(c.Data)
	}
	return b.String()
}

func sample(t *testing.T) *writer {
	w := newWriter(t)
	w.write(Stdout, "ab")
	w.write(Stdout, "cd")
	w.write(Stderr, "X")
	w.write(Stdout, "ef")
	w.write(Stderr, "YZ")
	return w
}

func TestReadOrder(t *testing.T) {
	l := sample(t).log
	for _, test := range []struct {
		o    ReadOptions
		size int
		want string
	}{
		{ReadOptions{}, 100, "1@0:abcd 2@4:X 1@5:ef 2@7:YZ "},
		{ReadOptions{KeepChunks: true}, 100, "1@0:ab 1@2:cd 2@4:X 1@5:ef 2@7:YZ "},
		{ReadOptions{}, 3, "1@0:abc 1@3:d 2@4:X 1@5:ef 2@7:YZ "},
		{ReadOptions{Stream: Stdout}, 100, "1@0:abcdef "},
		{ReadOptions{Stream: Stderr, KeepChunks: true}, 100, "2@0:X 2@1:YZ "},
		{ReadOptions{Stream: Stderr, Offset: 3}, 100, ""},
	} {
		if got := text(readAll(t, l, test.o, test.size)); got != test.want {
			t.Errorf("%+v by %d: got %s, want %s", test.o, test.size, got, test.want)
		}
	}
	if _, err := l.NewReader(ReadOptions{Offset: 10}); !errors.Is(err, ErrOffset) {
		t.Errorf("offset 10: got %v, want ErrOffset", err)
	}
}

func TestEveryOffset(t *testing.T) {
	l := sample(t).log
	for stream, whole := range map[Stream]string{Both: "abcdXefYZ", Stdout: "abcdef", Stderr: "XYZ"} {
		for offset := range len(whole) + 1 {
			for size := 1; size < 10; size++ {
				o := ReadOptions{Stream: stream, Offset: int64(offset), KeepChunks: size%2 == 0}
				if got := joined(readAll(t, l, o, size)); got != whole[offset:] {
					t.Errorf("%+v by %d: got %q, want %q", o, size, got, whole[offset:])
				}
			}
		}
	}
}

func TestTail(t *testing.T) {
	w := newWriter(t)
	w.write(Stdout, "one\ntwo\n")
	w.write(Stderr, "three\n")
	w.write(Stdout, strings.Repeat("x", 60000))
	w.write(Stdout, strings.Repeat("y", 60000)+"\nlast")
	for n, want := range map[int]int64{1: 4, 2: 120005, 3: 120011, 4: 120015, 5: 120019, 6: 120019} {
		if got := int64(len(joined(readAll(t, w.log, ReadOptions{Tail: n}, 1<<16)))); got != want {
			t.Errorf("tail %d: got %d bytes, want %d", n, got, want)
		}
	}
	if got := joined(readAll(t, w.log, ReadOptions{Stream: Stderr, Tail: 9}, 100)); got != "three\n" {
		t.Errorf("tail of stderr: %q", got)
	}
}

func TestMend(t *testing.T) {
	for cut := range int64(5*recordSize + 1) {
		w := sample(t)
		if err := os.Truncate(filepath.Join(w.log.dir, "index"), cut); err != nil {
			t.Fatal(err)
		}
		l, err := Open(w.log.dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := joined(readAll(t, l, ReadOptions{Stream: Stdout}, 9)); got != "abcdef" {
			t.Errorf("cut at %d: stdout %q", cut, got)
		}
		if got := joined(readAll(t, l, ReadOptions{Stream: Stderr}, 9)); got != "XYZ" {
			t.Errorf("cut at %d: stderr %q", cut, got)
		}
		if got := joined(readAll(t, l, ReadOptions{}, 9)); len(got) != 9 {
			t.Errorf("cut at %d: both %q", cut, got)
		}
		_ = l.Close()
	}
}

func TestLostBytes(t *testing.T) { // a power cut: the index is ahead of the files
	w := sample(t)
	if err := os.Truncate(filepath.Join(w.log.dir, "stdout"), 3); err != nil {
		t.Fatal(err)
	}
	l, err := Open(w.log.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := joined(readAll(t, l, ReadOptions{Stream: Stdout}, 9)); got != "abc" {
		t.Errorf("stdout %q", got)
	}
}

func TestFollowers(t *testing.T) {
	w := newWriter(t)
	var want bytes.Buffer
	var all sync.WaitGroup
	for range 50 {
		r, err := w.log.NewReader(ReadOptions{Follow: true, Stream: Stdout})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer r.Close()
			var got bytes.Buffer
			buf := make([]byte, 777)
			for {
				c, err := r.Next(t.Context(), buf)
				if err != nil {
					if err != io.EOF || !r.Complete() || got.String() != want.String() {
						t.Errorf("got %d bytes, %v, want %d", got.Len(), err, want.Len())
					}
					return
				}
				got.Write(c.Data)
			}
		})
	}
	for i := range 1000 {
		line := fmt.Sprintf("line %d \x00\xff\n", i)
		want.WriteString(line)
		w.write(Stdout, line)
		if i%10 == 0 {
			w.write(Stderr, "noise")
		}
	}
	w.log.Finish()
	all.Wait()
}

func TestReaderOutlivesTheWriter(t *testing.T) {
	w := sample(t)
	w.log.Finish()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	if got := joined(readAll(t, w.log, ReadOptions{}, 100)); got != "abcdXefYZ" {
		t.Errorf("got %q", got)
	}
	if w.log.files[0] != nil {
		t.Error("files are open that nobody uses")
	}
	w.log.users = 1 // for the cleanup
}

func TestEOF(t *testing.T) {
	w := newWriter(t)
	_ = unix.Close(w.pipe[1])
	if _, err := w.log.Drain(Stdout, w.pipe[0]); err != io.EOF {
		t.Errorf("got %v, want io.EOF", err)
	}
	w.pipe[1] = -1
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte{}, []byte("abc"), []byte("d"))
	f.Add(bytes.Repeat([]byte{1}, 60), []byte("abc"), []byte("d"))
	f.Fuzz(func(t *testing.T, index, stdout, stderr []byte) {
		dir := t.TempDir()
		for i, data := range [][]byte{index, stdout, stderr} {
			if err := os.WriteFile(filepath.Join(dir, names[i]), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if out, errs := l.Sizes(); out != int64(len(stdout)) || errs != int64(len(stderr)) {
			t.Errorf("sizes %d and %d, want %d and %d", out, errs, len(stdout), len(stderr))
		}
	})
}
