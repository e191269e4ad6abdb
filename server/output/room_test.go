package output

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// checkFiles checks what must be true of every log that is not written just now: each record of the
// index advances one stream, and the last says where the files end.
func checkFiles(t *testing.T, dir string) {
	t.Helper()
	index, err := os.ReadFile(filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	if len(index)%recordSize != 0 {
		t.Errorf("the index has %d bytes, no whole number of records", len(index))
	}
	var out, errs uint64
	for i := 0; i+recordSize <= len(index); i += recordSize {
		o, e := binary.LittleEndian.Uint64(index[i+8:]), binary.LittleEndian.Uint64(index[i+16:])
		if (o > out) == (e > errs) || o < out || e < errs {
			t.Fatalf("record %d goes from %d and %d to %d and %d", i/recordSize, out, errs, o, e)
		}
		out, errs = o, e
	}
	for name, want := range map[string]uint64{"stdout": out, "stderr": errs} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if uint64(info.Size()) != want {
			t.Errorf("%s has %d bytes, the index says %d", name, info.Size(), want)
		}
	}
}

// put writes as much as the pipe takes and returns how much that was.
func (w *writer) put(data []byte) int {
	w.t.Helper()
	total := 0
	for total < len(data) {
		n, err := unix.Write(w.pipe[1], data[total:])
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			w.t.Fatal(err)
		}
		total += n
	}
	return total
}

func (w *writer) inPipe() int {
	w.t.Helper()
	n, err := unix.IoctlGetUint32(w.pipe[0], unix.TIOCINQ)
	if err != nil {
		w.t.Fatal(err)
	}
	return int(n)
}

// reopen does what the next server does.
func (w *writer) reopen() {
	w.t.Helper()
	_ = w.log.Close()
	l, err := Open(w.log.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	l.SetLimit(w.log.limit)
	if w.log.space != nil {
		l.SetSpace(w.log.space)
	}
	w.log = l
}

func (w *writer) want(s Stream, want string) {
	w.t.Helper()
	if got := joined(readAll(w.t, w.log, ReadOptions{Stream: s}, 1<<16)); got != want {
		w.t.Errorf("stream %d: got %.60q (%d bytes), want %.60q (%d bytes)", s, got, len(got), want, len(want))
	}
}

func lines(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.Bytes()[:n]
}

// failIndex lets records be written nowhere until the returned function is called.
func (w *writer) failIndex(path string) (restore func()) {
	w.t.Helper()
	flags := os.O_RDONLY
	if path == "/dev/full" {
		flags = os.O_RDWR
	}
	bad, err := os.OpenFile(path, flags, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	good := w.log.files[0]
	w.log.files[0] = bad
	return func() {
		w.log.files[0] = good
		_ = bad.Close()
	}
}

func TestIndexFull(t *testing.T) {
	w := newWriter(t)
	w.write(Stdout, "one\n")
	follower, err := w.log.NewReader(ReadOptions{Offset: 4, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close()
	restore := w.failIndex("/dev/full")
	w.put([]byte("two\n"))
	if n, err := w.log.Drain(Stdout, w.pipe[0]); n != 4 || !errors.Is(err, ErrFull) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("drained %d, %v", n, err)
	}
	w.put([]byte("three\n"))
	for _, s := range []Stream{Stdout, Stderr} {
		if n, err := w.log.Drain(s, w.pipe[0]); n != 0 || !errors.Is(err, ErrFull) {
			t.Errorf("drained %d, %v", n, err)
		}
	}
	if out, _ := w.log.Sizes(); out != 4 || w.inPipe() != 6 {
		t.Errorf("readers see %d, the pipe has %d bytes", out, w.inPipe())
	}
	if out, _ := w.log.Written(); out != 8 {
		t.Errorf("written are %d bytes", out)
	}
	restore()
	if n, err := w.log.Drain(Stdout, w.pipe[0]); n != 6 || err != nil {
		t.Errorf("drained %d, %v", n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if c, err := follower.Next(ctx, make([]byte, 99)); string(c.Data) != "two\nthree\n" {
		t.Errorf("the follower got %q, %v", c.Data, err)
	}
	w.want(Stdout, "one\ntwo\nthree\n")
	checkFiles(t, w.log.dir)
}

// Whatever fails, and however often the server is another one, no byte is lost or doubled.
func TestRandomFailures(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWriter(t)
	var want [3]bytes.Buffer
	var seen bytes.Buffer // by one who follows both and comes back after each end of the server
	w.write(Stdout, "the files are there\n")
	want[Stdout].WriteString("the files are there\n")
	for i := range 5000 {
		s := Stream(1 + random.IntN(2))
		line := fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", random.IntN(99)))
		want[s].WriteString(line)
		w.put([]byte(line))
		fail := ""
		switch random.IntN(4) {
		case 0:
			fail = "/dev/full"
		case 1:
			fail = os.DevNull // for reading only: EBADF
		}
		restore := func() {}
		if fail != "" {
			restore = w.failIndex(fail)
		}
		_, err := w.log.Drain(s, w.pipe[0])
		if (err != nil) != (fail != "") || errors.Is(err, ErrFull) != (fail == "/dev/full") {
			t.Fatalf("index %q: %v", fail, err)
		}
		restore()
		if w.inPipe() > 0 {
			if _, err := w.log.Drain(s, w.pipe[0]); err != nil {
				t.Fatal(err)
			}
		}
		if random.IntN(20) == 0 {
			w.reopen()
		}
		if random.IntN(20) == 0 {
			seen.WriteString(joined(readAll(t, w.log, ReadOptions{Offset: int64(seen.Len())}, 500)))
		}
	}
	w.reopen()
	w.want(Stdout, want[Stdout].String())
	w.want(Stderr, want[Stderr].String())
	seen.WriteString(joined(readAll(t, w.log, ReadOptions{Offset: int64(seen.Len())}, 500)))
	w.want(Both, seen.String())
	checkFiles(t, w.log.dir)
}

func TestLimit(t *testing.T) {
	for _, limit := range []int64{1, 1000, 65536, 100001} {
		w := newWriter(t)
		w.log.SetLimit(limit)
		data := lines(1 << 17)
		rest, kept := data, int64(0)
		var last error
		for i := 0; last == nil; i++ {
			rest = rest[w.put(rest[:min(len(rest), 1+i*777)]):]
			n, err := w.log.Drain(Stream(1+i%2), w.pipe[0])
			kept, last = kept+n, err
		}
		if !errors.Is(last, ErrLimit) || kept != limit {
			t.Fatalf("limit %d: kept %d, %v", limit, kept, last)
		}
		if got := joined(readAll(t, w.log, ReadOptions{}, 1<<16)); got != string(data[:limit]) {
			t.Errorf("limit %d: it is not the first bytes that were kept", limit)
		}
		w.reopen()
		left := w.inPipe()
		for _, s := range []Stream{Stdout, Stderr} {
			if n, err := w.log.Drain(s, w.pipe[0]); n != 0 || !errors.Is(err, ErrLimit) {
				t.Errorf("limit %d, after Open: drained %d, %v", limit, n, err)
			}
		}
		if n, err := w.log.Discard(w.pipe[0]); n != int64(left) || err != nil || w.log.Dropped() != n {
			t.Errorf("limit %d: discarded %d of %d (%d), %v", limit, n, left, w.log.Dropped(), err)
		}
		if n, err := w.log.Drain(Stdout, w.pipe[0]); n != 0 || err != nil { // nothing in the pipe
			t.Errorf("limit %d, empty pipe: drained %d, %v", limit, n, err)
		}
		_ = unix.Close(w.pipe[1])
		w.pipe[1] = -1
		if _, err := w.log.Drain(Stdout, w.pipe[0]); err != io.EOF {
			t.Errorf("limit %d, at the end: %v", limit, err)
		}
		if _, err := w.log.Discard(w.pipe[0]); err != io.EOF {
			t.Errorf("limit %d, at the end: %v", limit, err)
		}
		checkFiles(t, w.log.dir)
	}
}

// While one stream's splice is under way, the other's may take what is left and no more.
func TestLimitOfTwoStreams(t *testing.T) {
	w := newWriter(t)
	w.log.SetLimit(150)
	w.log.SetSpace(NewSpace(1000))
	for _, test := range []struct {
		s    Stream
		want int64
	}{{Stdout, 100}, {Stderr, 50}} {
		if n, err := w.log.reserve(test.s, 100); n != test.want || err != nil {
			t.Fatalf("stream %d: reserved %d, %v, want %d", test.s, n, err, test.want)
		}
	}
	if used := w.log.space.Used(); used != 150+2*recordSize {
		t.Errorf("used %d", used)
	}
	if err := w.log.wrote(Stderr, 0); err != nil { // its splice failed
		t.Fatal(err)
	}
	if used := w.log.space.Used(); used != 100+recordSize {
		t.Errorf("used %d", used)
	}
	if n, err := w.log.reserve(Stderr, 100); n != 50 || err != nil {
		t.Errorf("reserved %d, %v", n, err)
	}
}

// Single bytes make a large index, and that ends too.
func TestLimitOfTheIndex(t *testing.T) {
	w := newWriter(t)
	w.log.SetLimit(1 << 19)
	for i := 0; ; i++ {
		w.put([]byte("x"))
		if _, err := w.log.Drain(Stream(1+i%2), w.pipe[0]); err != nil {
			if !errors.Is(err, ErrLimit) || i != smallIndex/recordSize+1 {
				t.Errorf("after %d bytes: %v", i, err)
			}
			return
		}
	}
}

// Two streams of each of four logs, and never more than the limit of each or of all.
func TestSpaceShared(t *testing.T) {
	const most, limit = 5 << 20, 3 << 19 // 4 limits are more than the space
	space := NewSpace(most)
	var all sync.WaitGroup
	var logs []*Log
	for range 4 {
		l := New(t.TempDir())
		defer l.Close()
		l.SetLimit(limit)
		l.SetSpace(space)
		logs = append(logs, l)
		for _, s := range []Stream{Stdout, Stderr} {
			w := newWriter(t)
			all.Go(func() {
				for i := 0; ; i++ {
					w.put(make([]byte, 1+i*97%9000))
					_, err := l.Drain(s, w.pipe[0])
					if err != nil && !errors.Is(err, ErrLimit) && !errors.Is(err, ErrFull) {
						t.Error(err)
					}
					if used := space.Used(); used > most {
						t.Errorf("%d bytes are used", used)
					}
					out, errs := l.Sizes()
					if out+errs > limit {
						t.Errorf("a log has %d bytes", out+errs)
					}
					if err != nil {
						return
					}
				}
			})
		}
	}
	all.Wait()
	var kept, index int64
	for _, l := range logs {
		out, errs := l.Sizes()
		kept, index = kept+out+errs, index+l.records*recordSize
	}
	if used := space.Used(); used != kept+index || used < most-1<<20 {
		t.Errorf("used %d, kept %d and an index of %d", used, kept, index)
	}
}

func TestSpaceFreed(t *testing.T) {
	old := sample(t) // 9 bytes, 5 records
	space := NewSpace(9 + 5*recordSize + recordSize + 3)
	for range 2 { // counted once
		if err := space.Add(old.log.dir); err != nil {
			t.Fatal(err)
		}
	}
	w := newWriter(t)
	w.log.SetSpace(space)
	if err := space.Check(); err != nil {
		t.Error(err)
	}
	w.put([]byte("abcde"))
	for _, want := range []int64{3, 0} {
		if n, err := w.log.Drain(Stdout, w.pipe[0]); n != want || !errors.Is(err, ErrFull) {
			t.Errorf("drained %d, %v, want %d and ErrFull", n, err, want)
		}
	}
	if err := space.Check(); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	start := time.Now()
	<-space.Freed()
	if took := time.Since(start); took < 900*time.Millisecond {
		t.Errorf("told of room that was not there, after %s", took)
	}
	freed := space.Freed()
	space.Remove(old.log.dir)
	select {
	case <-freed:
	default:
		t.Error("not told of room")
	}
	w.reopen()
	if n, err := w.log.Drain(Stdout, w.pipe[0]); n != 2 || err != nil {
		t.Errorf("drained %d, %v", n, err)
	}
	w.want(Stdout, "abcde")
	if used := space.Used(); used != 5+2*recordSize {
		t.Errorf("used %d", used)
	}
	space.Remove(w.log.dir)
	if used := space.Used(); used != 0 {
		t.Errorf("used %d", used)
	}
}

// needs skips, or fails where TELE_REQUIRE names word.
func needs(t *testing.T, word, lacks string) {
	t.Helper()
	if strings.Contains(os.Getenv("TELE_REQUIRE"), word) {
		t.Fatalf("TELE_REQUIRE names %s, but %s", word, lacks)
	}
	t.Skip(lacks)
}

// smallDisk mounts a file system of 8 MiB that only this goroutine's thread has, which ends with
// the test.
func smallDisk(t *testing.T, kind string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		needs(t, "root", "this is not root, who may mount")
	}
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if kind == "tmpfs" {
		if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=8m,nr_inodes=200"); err != nil {
			t.Fatal(err)
		}
	} else {
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, 8<<20); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"mkfs." + kind, "-q", "-m", "0", image},
			{"mount", "-t", kind, "-o", "loop", image, mnt}, // in this thread's namespace, like every child of it
		} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				needs(t, "loop", fmt.Sprintf("%q: %v %s", args, err, out))
			}
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) }) // files can be open still
	return mnt
}

// fill makes files until nothing goes on the disk, and returns a function that removes them.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			size /= 2
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDiskFull(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			mnt := smallDisk(t, kind)
			testFilesFull(t, mnt) // no t.Run: that is another goroutine
			testBytesFull(t, mnt)
			testIndexFull(t, mnt)
		})
	}
}

// Files that cannot be made are made when there is room.
func testFilesFull(t *testing.T, mnt string) {
	w := newWriterIn(t, filepath.Join(mnt, "files"))
	var more []string // until there are no inodes either
	for i := 0; ; i++ {
		path := filepath.Join(mnt, fmt.Sprint("inode", i))
		f, err := os.Create(path)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		more = append(more, path)
	}
	w.put([]byte("x"))
	for n := range 3 { // of the files, this many can be made
		if moved, err := w.log.Drain(Stdout, w.pipe[0]); moved != 0 || !errors.Is(err, ErrFull) {
			t.Errorf("with %d files: drained %d, %v", n, moved, err)
		}
		if err := os.Remove(more[n]); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range more[3:] {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if moved, err := w.log.Drain(Stdout, w.pipe[0]); moved != 1 || err != nil {
		t.Errorf("with room: drained %d, %v", moved, err)
	}
	w.want(Stdout, "x")
	checkFiles(t, w.log.dir)
}

// A splice that meets the end of the disk moves a part, and all the rest when there is room.
func testBytesFull(t *testing.T, mnt string) {
	w := newWriterIn(t, filepath.Join(mnt, "bytes"))
	if _, err := unix.FcntlInt(uintptr(w.pipe[1]), unix.F_SETPIPE_SZ, 1<<20); err != nil {
		t.Fatal(err)
	}
	w.log.SetSpace(NewSpace(1 << 30))
	w.write(Stdout, "first\n")
	free := fill(t, mnt)
	give, err := os.OpenFile(filepath.Join(mnt, "ballast"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer give.Close()
	info, err := give.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := give.Truncate(info.Size() - 300<<10); err != nil { // room for a part of what comes
		t.Fatal(err)
	}
	data := lines(1 << 19)
	want := "first\n" + string(data)
	if n := w.put(data); n != len(data) {
		t.Fatalf("the pipe took %d", n)
	}
	moved, err := w.log.Drain(Stdout, w.pipe[0])
	if !errors.Is(err, ErrFull) || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), w.log.dir) {
		t.Fatalf("drained %d, %v", moved, err)
	}
	if moved == 0 || moved == int64(len(data)) || w.inPipe() != len(data)-int(moved) {
		t.Errorf("moved %d of %d, %d are in the pipe", moved, len(data), w.inPipe())
	}
	t.Logf("moved %d of %d: %v", moved, len(data), err)
	w.want(Stdout, want[:6+moved])
	if used := w.log.space.Used(); used != 6+moved+w.log.records*recordSize {
		t.Errorf("the space counts %d", used)
	}
	w.reopen() // the next server comes while the disk is full
	if n, err := w.log.Drain(Stdout, w.pipe[0]); n != 0 || !errors.Is(err, ErrFull) {
		t.Errorf("drained %d, %v", n, err)
	}
	w.want(Stdout, want[:6+moved])
	free()
	_ = give.Close()
	if n, err := w.log.Drain(Stdout, w.pipe[0]); n != int64(len(data))-moved || err != nil {
		t.Errorf("drained %d, %v", n, err)
	}
	w.want(Stdout, want)
	checkFiles(t, w.log.dir)
}

// Single bytes fill the index first, in the middle of a record.
func testIndexFull(t *testing.T, mnt string) {
	w := newWriterIn(t, filepath.Join(mnt, "index"))
	w.write(Stderr, "e")
	w.write(Stdout, "o")
	free := fill(t, mnt)
	want := "o"
	for i := 0; ; i++ {
		letter := string(rune('a' + i%26))
		want += letter
		w.put([]byte(letter))
		n, err := w.log.Drain(Stdout, w.pipe[0])
		if err == nil {
			continue
		}
		if n != 1 || !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "index") {
			t.Fatalf("byte %d: drained %d, %v", i, n, err)
		}
		break
	}
	info, err := os.Stat(filepath.Join(w.log.dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the index is full at %d bytes, that is record %.1f", info.Size(), float64(info.Size())/recordSize)
	for range 2 {
		w.put([]byte("Z"))
		if n, err := w.log.Drain(Stdout, w.pipe[0]); n != 0 || !errors.Is(err, ErrFull) {
			t.Errorf("drained %d, %v", n, err)
		}
		w.want(Stdout, want[:len(want)-1])
		w.reopen()
		w.want(Stdout, want[:len(want)-1])
	}
	w.log.Finish()
	w.want(Stdout, want[:len(want)-1])
	free()
	w.want(Stdout, want) // a reader alone brings it
	if n, err := w.log.Drain(Stdout, w.pipe[0]); n != 2 || err != nil {
		t.Errorf("drained %d, %v", n, err)
	}
	w.want(Stdout, want+"ZZ")
	checkFiles(t, w.log.dir)
}

func TestNoRoom(t *testing.T) {
	if err := noRoom(&os.PathError{Op: "open", Path: "x", Err: unix.EDQUOT}); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if err := noRoom(unix.EIO); errors.Is(err, ErrFull) {
		t.Error(err)
	}
}
