// Package output keeps what a job writes: stdout and stderr as files of raw bytes, and an index
// that says when which of it arrived.
//
// The writer makes a Log with New, moves bytes into it with Drain, and says with Finish that no
// more will come. Any number of readers follow it, each a Reader at its own place; a new record in
// the index wakes them all at once, and a slow one holds up nobody. After a crash Open completes
// the index from the sizes of the files, and the next writer goes on where they end.
//
// The files are made for the first byte: many jobs print nothing, and to make a file takes ext4 long
// where many were removed of late, for it passes over their inodes one by one.
//
// Bytes are written first and their index record second, and a reader believes the index alone, so
// it never sees a byte that could be taken back. Nothing is kept in memory but where the ends are.
//
// Where there is no room, Drain moves nothing and says so: ErrLimit when the log has all that
// SetLimit lets it have, ErrFull when the disk or the Space that logs share has no more. The bytes
// stay in the pipe and their writer waits; calling Drain again goes on. A writer that shall end
// nevertheless is let go with Discard.
package output

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Stream names one of a job's output streams.
type Stream uint8

// The streams. Both is the two together in the order of their arrival.
const (
	Both Stream = iota
	Stdout
	Stderr
)

// ErrOffset is returned for a place behind the end of the output, ErrLimit when a log has as much
// as it may, ErrFull when the disk or the Space has no more room for any log.
var (
	ErrOffset = errors.New("offset is behind the end of the output")
	ErrLimit  = errors.New("the output has reached its limit")
	ErrFull   = errors.New("no room for output")
)

// names are the files in a log's directory; the streams' are in the order of their numbers.
var names = [...]string{"index", "stdout", "stderr"}

const recordSize = 24

// A record says that at this time the streams ended there.
type record struct {
	time time.Time
	ends [3]int64 // by stream; ends[Both] is their sum
}

// A Log is the output of one job. All its methods may be called at the same time.
type Log struct {
	dir     string
	drain   [3]sync.Mutex // by stream: one drain of it at a time
	dropped atomic.Int64

	mu       sync.Mutex
	made     bool        // the files are there
	users    int         // who needs them: readers, drains under way, and the writer if it is held
	files    [3]*os.File // open while users > 0, if they are made
	held     bool        // the writer keeps files open between drains
	last     record      // the newest in the index
	records  int64       // in the index
	written  [3]int64    // by stream: the file's size, ahead of last while the index is behind
	arrived  [3]time.Time
	reserved [3]int64 // by stream: what a splice under way may take, with its record
	limit    int64    // of both streams together; 0 is none
	space    *Space   // nil is none
	finished bool
	changed  chan struct{} // closed at the next change; nil while nobody waits
}

// heldLogs has a place for each log whose writer keeps its files open while nothing is written. The
// others open them again for each burst, which takes some 20 µs: a process may have only so many
// descriptors, and thousands of jobs are mostly silent.
var heldLogs = make(chan struct{}, HeldFiles()/len(names))

// HeldFiles is how many descriptors all logs together may have open while nothing is written or read.
func HeldFiles() int {
	var files unix.Rlimit // the hard limit: Go's runtime raises the soft one to it
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) != nil {
		files.Max = 1024
	}
	return int(min(files.Max/32, 256)) * len(names)
}

// New is a new log in dir, a directory that has none.
func New(dir string) *Log { return &Log{dir: dir} }

// holdLocked makes the writer one more user of the files that are open, if there is a place.
func (l *Log) holdLocked() {
	select {
	case heldLogs <- struct{}{}:
		l.held = true
		l.users++
	default:
	}
}

// Open opens a log that another process wrote, and mends what that one left unfinished: bytes
// without a record get one, a record without its bytes goes. The other process must have ended,
// and not only its last line of code: a splice(2) that was under way moves bytes until the kernel
// has ended its thread. A lock on a file (flock) or a pidfd of it says when that is so.
//
// Bytes may wait in the pipe meanwhile. Where the disk is too full for the missing records, Open
// succeeds and Drain writes them later. A directory that is there without files is a log without a byte.
func Open(dir string) (*Log, error) {
	l := New(dir)
	if l.empty() {
		return l, nil
	}
	l.made = true
	if err := l.open(); err != nil {
		return nil, err
	}
	defer l.releaseLocked()
	if err := l.mend(); err != nil {
		return nil, err
	}
	l.holdLocked()
	return l, nil
}

// empty tells whether the directory is there, but not, or not all, the files of a log with any byte. The index is
// made last.
func (l *Log) empty() bool {
	for i, name := range names {
		info, err := os.Stat(filepath.Join(l.dir, name))
		if !errors.Is(err, os.ErrNotExist) && (err != nil || i == 0 || info.Size() > 0) {
			return false
		}
	}
	_, err := os.Stat(l.dir)
	return err == nil
}

// open opens the files for one more user, if they are made.
func (l *Log) open() error {
	if l.made && l.users == 0 {
		err := l.openFiles(0)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the output was removed: %w", err)
		}
		if err != nil {
			return err
		}
	}
	l.users++
	return nil
}

// makeLocked makes the files of a log that has none yet, for those who use it and the writer.
func (l *Log) makeLocked() error {
	if l.made {
		return nil
	}
	if err := l.openFiles(os.O_CREATE); err != nil { // some may be there: a server was killed here, or the disk was full
		return noRoom(err)
	}
	l.made = true
	l.holdLocked()
	return nil
}

// openFiles opens all of them, the index last.
func (l *Log) openFiles(flags int) (err error) {
	for _, i := range []Stream{Stdout, Stderr, Both} {
		if l.files[i], err = os.OpenFile(filepath.Join(l.dir, names[i]), os.O_RDWR|flags, 0o600); err != nil {
			l.closeFiles()
			return err
		}
	}
	return nil
}

func (l *Log) closeFiles() {
	for i, f := range l.files {
		if f != nil {
			_ = f.Close() // what write(2) took is kept, close(2) adds nothing to it
		}
		l.files[i] = nil
	}
}

// Close is for the writer, when it needs the log no more. Readers go on, and new ones may come.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held {
		l.held = false
		<-heldLogs
		l.releaseLocked()
	}
	return nil
}

func (l *Log) releaseLocked() {
	if l.users--; l.users == 0 {
		l.closeFiles()
	}
}

// behindLocked tells whether records are missing.
func (l *Log) behindLocked() bool {
	return l.written[Stdout] > l.last.ends[Stdout] || l.written[Stderr] > l.last.ends[Stderr]
}

// indexLocked writes the records that are missing: one for each stream whose file is ahead of the
// index, so that a record always advances one stream. What cannot be written now stays missing, and
// its bytes unseen, until the next call; no other bytes of that stream come in between.
func (l *Log) indexLocked() error {
	for _, s := range []Stream{Stdout, Stderr} {
		more := l.written[s] - l.last.ends[s]
		if more == 0 {
			continue
		}
		next := l.last
		next.time = l.arrived[s]
		next.ends[s] += more
		next.ends[Both] += more
		if err := l.appendLocked(next); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) appendLocked(r record) error {
	var p [recordSize]byte
	binary.LittleEndian.PutUint64(p[0:], uint64(r.time.UnixNano()))
	binary.LittleEndian.PutUint64(p[8:], uint64(r.ends[Stdout]))
	binary.LittleEndian.PutUint64(p[16:], uint64(r.ends[Stderr]))
	if _, err := l.files[0].WriteAt(p[:], l.records*recordSize); err != nil {
		return noRoom(err) // a part of a record that is there now is written over next time
	}
	l.last = r
	l.records++
	l.wakeLocked()
	return nil
}

func (l *Log) wakeLocked() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Finish says that no more output comes: readers that follow come to their end.
func (l *Log) Finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.behindLocked() && l.open() == nil {
		_ = l.indexLocked() // Drain has told of it; Open or a reader tries again
		l.releaseLocked()
	}
	l.finished = true
	l.wakeLocked()
}

// Sizes are the bytes of each stream that readers can have so far.
func (l *Log) Sizes() (stdout, stderr int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.ends[Stdout], l.last.ends[Stderr]
}

// Written are Sizes with the bytes that have no record yet for want of room: readers get them later.
func (l *Log) Written() (stdout, stderr int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written[Stdout], l.written[Stderr]
}

func decode(p []byte) record {
	r := record{time: time.Unix(0, int64(binary.LittleEndian.Uint64(p[0:])))}
	r.ends[Stdout] = int64(binary.LittleEndian.Uint64(p[8:]))
	r.ends[Stderr] = int64(binary.LittleEndian.Uint64(p[16:]))
	r.ends[Both] = r.ends[Stdout] + r.ends[Stderr]
	return r
}

// follows tells whether r can be the record after before: it advances exactly one stream.
func (r record) follows(before record) bool {
	out, errs := r.ends[Stdout]-before.ends[Stdout], r.ends[Stderr]-before.ends[Stderr]
	return out > 0 && errs == 0 || out == 0 && errs > 0
}

// mend makes index and files agree. Files are right and the index follows them: its good beginning
// stays, what follows the first record that cannot be goes. A killed server leaves at most the last
// record in pieces; but after a power cut any part can be old or zero, so all of it is read, about
// 1 s for a GiB.
func (l *Log) mend() error {
	for _, s := range []Stream{Stdout, Stderr} {
		info, err := l.files[s].Stat()
		if err != nil {
			return err
		}
		l.written[s], l.arrived[s] = info.Size(), info.ModTime()
	}
	info, err := l.files[0].Stat()
	if err != nil {
		return err
	}
	var p [recordSize]byte
	index := bufio.NewReaderSize(io.NewSectionReader(l.files[0], 0, info.Size()), 64<<10)
	for range info.Size() / recordSize {
		if _, err := io.ReadFull(index, p[:]); err != nil {
			return fmt.Errorf("read output index, record %d: %w", l.records, err)
		}
		r := decode(p[:])
		if !r.follows(l.last) || r.ends[Stdout] > l.written[Stdout] || r.ends[Stderr] > l.written[Stderr] {
			break
		}
		l.last = r
		l.records++
	}
	if size := l.records * recordSize; size < info.Size() {
		if err := l.files[0].Truncate(size); err != nil {
			return err
		}
	}
	if err := l.indexLocked(); err != nil && !errors.Is(err, ErrFull) {
		return err
	}
	return nil
}
