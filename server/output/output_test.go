package output

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv(crashDir) != "" {
		crashServer()
		return
	}
	goleak.VerifyTestMain(m)
}

// A writer writes to a log as a job does.
type writer struct {
	t    *testing.T
	log  *Log
	pipe [2]int
}

func newWriter(t *testing.T) *writer {
	t.Helper()
	return newWriterIn(t, filepath.Join(t.TempDir(), "log"))
}

func newWriterIn(t *testing.T, dir string) *writer {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := New(dir)
	w := &writer{t: t, log: l}
	if err := unix.Pipe2(w.pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.log.Close()
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

// A log without a byte has no file; whoever reads it sees the first one come.
func TestNothingWritten(t *testing.T) {
	w := newWriter(t)
	files := func() (names []string) {
		entries, err := os.ReadDir(w.log.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if n, err := w.log.Drain(Stdout, w.pipe[0]); n != 0 || err != nil {
		t.Errorf("drained %d, %v", n, err)
	}
	again, err := Open(w.log.dir)
	if err != nil {
		t.Fatal(err)
	}
	w.log = again
	if got := files(); got != nil {
		t.Errorf("there are %q", got)
	}
	r, err := w.log.NewReader(ReadOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.write(Stderr, "x")
	if c, err := r.Next(t.Context(), make([]byte, 10)); err != nil || string(c.Data) != "x" || c.Stream != Stderr {
		t.Errorf("got %+v, %v", c, err)
	}
	if got := files(); len(got) != len(names) {
		t.Errorf("there are %q", got)
	}
	ended := newWriter(t)
	_ = unix.Close(ended.pipe[1])
	ended.pipe[1] = -1
	if _, err := ended.log.Drain(Stdout, ended.pipe[0]); err != io.EOF {
		t.Error(err)
	}
	ended.log.Finish()
	if got := readAll(t, ended.log, ReadOptions{Follow: true, Tail: 3, Since: time.Unix(1, 0)}, 10); got != nil {
		t.Errorf("got %v", got)
	}
}

// What is left of files that were being made is a log without a byte; what is left of those that were being
// removed is none.
func TestSomeFiles(t *testing.T) {
	for _, test := range []struct {
		files string // with a +, not empty
		good  bool
	}{
		{"", true}, {"stdout", true}, {"stdout stderr", true}, {"stdout stderr index", true},
		{"stdout+", false}, {"stdout stderr+", false}, {"index", false}, {"index stdout", false}, {"index+ stderr", false},
	} {
		w := newWriter(t)
		for _, name := range strings.Fields(test.files) {
			name, full := strings.CutSuffix(name, "+")
			if err := os.WriteFile(filepath.Join(w.log.dir, name), make([]byte, map[bool]int{true: recordSize}[full]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l, err := Open(w.log.dir)
		if !test.good {
			if !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%q: %v", test.files, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.files, err)
			continue
		}
		w.log = l
		w.write(Stdout, "x")
		if got := joined(readAll(t, l, ReadOptions{}, 10)); got != "x" {
			t.Errorf("%q: got %q", test.files, got)
		}
		checkFiles(t, l.dir)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
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

// The tail of many blocks and records is what is behind so many newlines from the end.
func TestTailOfMuch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	w := newWriter(t)
	for range 300 {
		data := make([]byte, 1+random.IntN(3000))
		for i := range data {
			data[i] = 'x'
			if random.IntN(300) == 0 {
				data[i] = '\n'
			}
		}
		w.write([]Stream{Stdout, Stderr}[random.IntN(2)], string(data))
	}
	for _, stream := range []Stream{Both, Stdout, Stderr} {
		all := joined(readAll(t, w.log, ReadOptions{Stream: stream}, 1<<16))
		lines := strings.SplitAfter(strings.TrimSuffix(all, "\n"), "\n")
		for _, n := range []int{1, 2, 10, 100, 1000, len(lines) - 1, len(lines), len(lines) + 1} {
			want := all
			if n < len(lines) {
				want = all[len(all)-len(strings.Join(lines[len(lines)-n:], ""))-(len(all)-len(strings.TrimSuffix(all, "\n"))):]
			}
			if got := joined(readAll(t, w.log, ReadOptions{Stream: stream, Tail: n}, 1<<16)); got != want {
				t.Errorf("stream %d, the last %d of %d lines: got %d bytes, want %d", stream, n, len(lines), len(got), len(want))
			}
		}
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
}

// Output that somebody reads is not pulled from under them.
func TestRemovedWhileRead(t *testing.T) {
	w := sample(t)
	w.log.Finish()
	first, err := w.log.NewReader(ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_ = w.log.Close()
	if err := os.RemoveAll(w.log.dir); err != nil {
		t.Fatal(err)
	}
	if got := joined(readAll(t, w.log, ReadOptions{Offset: 4}, 100)); got != "XefYZ" { // a second one
		t.Errorf("got %q", got)
	}
	var got strings.Builder
	for {
		c, err := first.Next(t.Context(), make([]byte, 2))
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Write(c.Data)
	}
	if got.String() != "abcdXefYZ" || !first.Complete() {
		t.Errorf("got %q", got.String())
	}
	_ = first.Close()
	for range 2 {
		_, err := w.log.NewReader(ReadOptions{})
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "the output was removed") {
			t.Errorf("got %v", err)
		}
	}
	if w.log.users != 0 {
		t.Errorf("%d users", w.log.users)
	}
}

// Since is as good as the index: a record's time is that of all its bytes.
func TestSince(t *testing.T) {
	const t0 = 1000
	dir := t.TempDir()
	var index []byte
	for i, ends := range [][2]uint64{{2, 0}, {2, 4}, {4, 4}, {8, 4}} { // at 1000, 1010, 1020, 1030
		index = binary.LittleEndian.AppendUint64(index, uint64(t0+10*i))
		index = binary.LittleEndian.AppendUint64(index, ends[0])
		index = binary.LittleEndian.AppendUint64(index, ends[1])
	}
	for i, data := range []string{string(index), "a\nb\ncc\n\n", "xxx\n"} {
		if err := os.WriteFile(filepath.Join(dir, names[i]), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, row := range []struct {
		o    ReadOptions
		at   int64
		want string
	}{
		{ReadOptions{}, 1, "1@0:a\n 2@2:xxx\n 1@6:b\ncc\n\n "},
		{ReadOptions{}, 1000, "1@0:a\n 2@2:xxx\n 1@6:b\ncc\n\n "},
		{ReadOptions{}, 1001, "2@2:xxx\n 1@6:b\ncc\n\n "},
		{ReadOptions{}, 1010, "2@2:xxx\n 1@6:b\ncc\n\n "},
		{ReadOptions{}, 1020, "1@6:b\ncc\n\n "},
		{ReadOptions{}, 1030, "1@8:cc\n\n "},
		{ReadOptions{}, 1031, ""},
		{ReadOptions{Stream: Stdout}, 1001, "1@2:b\ncc\n\n "},
		{ReadOptions{Stream: Stderr}, 1001, "2@0:xxx\n "},
		{ReadOptions{Stream: Stderr}, 1011, ""},
		{ReadOptions{Tail: 1}, 1020, "1@11:\n "},
		{ReadOptions{Tail: 9}, 1020, "1@6:b\ncc\n\n "},
		{ReadOptions{Offset: 7}, 1020, "1@7:\ncc\n\n "},
		{ReadOptions{Offset: 1}, 1020, "1@6:b\ncc\n\n "},
	} {
		row.o.Since = time.Unix(0, row.at)
		if got := text(readAll(t, l, row.o, 100)); got != row.want {
			t.Errorf("%+v: got %q, want %q", row.o, got, row.want)
		}
	}
}

// Who follows from now on gets what comes.
func TestSinceNow(t *testing.T) {
	w := sample(t)
	r, err := w.log.NewReader(ReadOptions{Since: time.Now().Add(time.Hour), Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.write(Stderr, "new")
	if c, err := r.Next(t.Context(), make([]byte, 100)); err != nil || string(c.Data) != "new" || c.Offset != 9 {
		t.Errorf("got %+v, %v", c, err)
	}
}

// A largeLog has records of step bytes, which arrived a nanosecond a byte after 1970 and are zeros, but for
// what it ends with.
func largeLog(t *testing.T, size, step int64, last string) *Log {
	t.Helper()
	dir := t.TempDir()
	var index []byte
	for end := step; end <= size; end += step {
		index = binary.LittleEndian.AppendUint64(index, uint64(end))
		index = binary.LittleEndian.AppendUint64(index, uint64(end))
		index = binary.LittleEndian.AppendUint64(index, 0)
	}
	for i, data := range [][]byte{index, nil, nil} {
		if err := os.WriteFile(filepath.Join(dir, names[i]), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stdout, err := os.OpenFile(filepath.Join(dir, "stdout"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	if _, err := stdout.WriteAt([]byte(last), size-int64(len(last))); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // that of what was only read
	if l.records != size/step {
		t.Fatalf("%d records", l.records)
	}
	return l
}

// However large a log is, its tail is read from its end, and a time is found by the index: what this process
// reads for it, by the kernel's count, does not grow with the log.
func TestLittleIsReadOfMuch(t *testing.T) {
	last := "\n" + strings.Repeat(strings.Repeat("x", 999)+"\n", 100)
	for _, size := range []int64{1 << 30, 10 << 30} {
		l := largeLog(t, size, 16<<10, last)
		for _, stream := range []Stream{Both, Stdout} {
			for name, o := range map[string]ReadOptions{
				"tail":  {Stream: stream, Tail: 100},
				"since": {Stream: stream, Since: time.Unix(0, size-1<<16)},
			} {
				before := bytesRead(t)
				got := joined(readAll(t, l, o, 1<<16))
				read := bytesRead(t) - before
				want := last[1:]
				if name == "since" {
					want = last[int64(len(last))-(1<<16+16<<10):]
				}
				if got != want {
					t.Errorf("%s: got %d bytes, want %d", name, len(got), len(want))
				}
				t.Logf("%d GiB, %s: read %d bytes for %d", size>>30, name, read, len(got))
				if read > 4*int64(len(last)) {
					t.Errorf("%d GiB, %s: read %d bytes for %d", size>>30, name, read, len(got))
				}
			}
		}
	}
}

func bytesRead(t *testing.T) (n int64) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skipf("needs /proc/self/io: %v", err)
	}
	if _, err := fmt.Sscanf(string(data), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEOF(t *testing.T) {
	w := newWriter(t)
	_ = unix.Close(w.pipe[1])
	if _, err := w.log.Drain(Stdout, w.pipe[0]); err != io.EOF {
		t.Errorf("got %v, want io.EOF", err)
	}
	w.pipe[1] = -1
}

// Whatever is in a log's files, Open makes it one that is consistent and can be read and written.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{}, []byte("abc"), []byte("d"))
	f.Add(bytes.Repeat([]byte{1}, 60), []byte("abc"), []byte("d"))
	for _, ends := range [][]uint64{
		{2, 0, 2, 1, 3, 1},       // good
		{2, 0, 0, 0, 3, 0},       // a page of zeros after a power cut
		{2, 0, 1, 0, 3, 0},       // backwards
		{2, 0, 3, 1},             // both at once
		{2, 0, 2, 1 << 63, 3, 1}, // negative
	} {
		var index []byte
		for i := 0; i < len(ends); i += 2 {
			index = binary.LittleEndian.AppendUint64(index, 5)
			index = binary.LittleEndian.AppendUint64(index, ends[i])
			index = binary.LittleEndian.AppendUint64(index, ends[i+1])
		}
		f.Add(index, []byte("abc"), []byte("d"))
	}
	f.Fuzz(func(t *testing.T, index, stdout, stderr []byte) {
		w := newWriter(t)
		for i, data := range [][]byte{index, stdout, stderr} {
			if err := os.WriteFile(filepath.Join(w.log.dir, names[i]), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w.reopen()
		checkFiles(t, w.log.dir)
		w.write(Stdout, "new")
		checkFiles(t, w.log.dir)
		w.want(Stdout, string(stdout)+"new")
		w.want(Stderr, string(stderr))
		both := joined(readAll(t, w.log, ReadOptions{}, 2))
		if want := len(stdout) + len(stderr) + 3; len(both) != want {
			t.Errorf("both have %d bytes, want %d", len(both), want)
		}
	})
}
