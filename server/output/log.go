// Package output keeps what a job writes: stdout and stderr as files of raw bytes, and an index
// that says when which of it arrived.
//
// The writer makes a Log with Create, moves bytes into it with Drain, and says with Finish that no
// more will come. Any number of readers follow it, each a Reader at its own place; a new record in
// the index wakes them all at once, and a slow one holds up nobody. After a crash Open completes
// the index from the sizes of the files.
//
// Bytes are written first and their index record second, and a reader believes the index alone, so
// it never sees a byte that could be taken back. Nothing is kept in memory but where the ends are.
package output

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
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

// ErrOffset is returned for a place behind the end of the output.
var ErrOffset = errors.New("offset is behind the end of the output")

// names are the files in a log's directory; the streams' are in the order of their numbers.
var names = [...]string{"index", "stdout", "stderr"}

const (
	recordSize = 24
	maxSplice  = 1 << 20
)

// A record says that at this time the streams ended there.
type record struct {
	time time.Time
	ends [3]int64 // by stream; ends[Both] is their sum
}

// A Log is the output of one job. All its methods may be called at the same time.
type Log struct {
	dir   string
	drain [3]sync.Mutex // by stream: one drain of it at a time

	mu       sync.Mutex
	users    int         // the writer and the readers: who needs files
	files    [3]*os.File // open while users > 0
	last     record
	records  int64
	finished bool
	changed  chan struct{} // closed at the next change; nil while nobody waits
}

// Create makes the files of a new log in dir, which must exist.
func Create(dir string) (*Log, error) {
	l := &Log{dir: dir}
	if err := l.open(os.O_CREATE | os.O_EXCL); err != nil {
		return nil, err
	}
	return l, nil
}

// Open opens a log that another process wrote, and mends what that one left unfinished: bytes
// without a record get one, a record without its bytes goes.
func Open(dir string) (*Log, error) {
	l := &Log{dir: dir}
	if err := l.open(0); err != nil {
		return nil, err
	}
	if err := l.mend(); err != nil {
		_ = l.Close() // nothing was written
		return nil, err
	}
	return l, nil
}

// open opens the files for one more user.
func (l *Log) open(flags int) error {
	if l.users > 0 {
		l.users++
		return nil
	}
	for i, name := range names {
		f, err := os.OpenFile(filepath.Join(l.dir, name), os.O_RDWR|flags, 0o600)
		if err != nil {
			l.closeFiles()
			return err
		}
		l.files[i] = f
	}
	l.users = 1
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
	l.releaseLocked()
	return nil
}

func (l *Log) releaseLocked() {
	if l.users--; l.users == 0 {
		l.closeFiles()
	}
}

// Drain moves what is in the pipe into the log and returns how much that was: with no error when
// the pipe is empty for now, with io.EOF when nobody has it open for writing any more. It moves at
// most 1 MiB at a time into one index record, and never through this process's memory: splice(2)
// either moved bytes or did not, so a server killed in the middle neither loses nor repeats one.
// The pipe must be non-blocking.
func (l *Log) Drain(s Stream, pipe int) (total int64, err error) {
	l.drain[s].Lock()
	defer l.drain[s].Unlock()
	for {
		n, err := l.splice(s, pipe)
		total += n
		if err == unix.EAGAIN {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func (l *Log) splice(s Stream, pipe int) (int64, error) {
	l.mu.Lock()
	file, offset := l.files[s], l.last.ends[s]
	l.mu.Unlock()
	var n int64
	var err error
	for {
		n, err = unix.Splice(pipe, nil, int(file.Fd()), &offset, maxSplice,
			unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			break
		}
	}
	switch {
	case err == unix.EAGAIN:
		return 0, err
	case err != nil:
		return 0, &os.PathError{Op: "splice output into", Path: file.Name(), Err: err}
	case n == 0:
		return 0, io.EOF
	}
	return n, l.add(s, n)
}

// add writes the record for n new bytes and wakes the readers.
func (l *Log) add(s Stream, n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.last
	next.time = time.Now()
	next.ends[s] += n
	next.ends[Both] += n
	return l.appendLocked(next)
}

func (l *Log) appendLocked(r record) error {
	var p [recordSize]byte
	binary.LittleEndian.PutUint64(p[0:], uint64(r.time.UnixNano()))
	binary.LittleEndian.PutUint64(p[8:], uint64(r.ends[Stdout]))
	binary.LittleEndian.PutUint64(p[16:], uint64(r.ends[Stderr]))
	if _, err := l.files[0].WriteAt(p[:], l.records*recordSize); err != nil {
		return fmt.Errorf("write output index: %w", err)
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
	l.finished = true
	l.wakeLocked()
}

// Sizes are the bytes of each stream so far.
func (l *Log) Sizes() (stdout, stderr int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.ends[Stdout], l.last.ends[Stderr]
}

// record reads index record i; the one before the first is zero.
func (l *Log) record(i int64) (record, error) {
	if i < 0 {
		return record{}, nil
	}
	var p [recordSize]byte
	if _, err := l.files[0].ReadAt(p[:], i*recordSize); err != nil {
		return record{}, fmt.Errorf("read output index, record %d: %w", i, err)
	}
	r := record{time: time.Unix(0, int64(binary.LittleEndian.Uint64(p[0:])))}
	r.ends[Stdout] = int64(binary.LittleEndian.Uint64(p[8:]))
	r.ends[Stderr] = int64(binary.LittleEndian.Uint64(p[16:]))
	r.ends[Both] = r.ends[Stdout] + r.ends[Stderr]
	return r, nil
}

// mend makes index and files agree.
func (l *Log) mend() error {
	var info [3]os.FileInfo
	for i, f := range l.files {
		var err error
		if info[i], err = f.Stat(); err != nil {
			return err
		}
	}
	out, errs := info[Stdout].Size(), info[Stderr].Size()
	for l.records = info[0].Size() / recordSize; l.records > 0; l.records-- {
		r, err := l.record(l.records - 1)
		if err != nil {
			return err
		}
		if r.ends[Stdout] >= 0 && r.ends[Stdout] <= out && r.ends[Stderr] >= 0 && r.ends[Stderr] <= errs {
			l.last = r
			break
		}
	}
	if err := l.files[0].Truncate(l.records * recordSize); err != nil {
		return err
	}
	// One record for each stream, so that a record always advances one.
	for _, s := range []Stream{Stdout, Stderr} {
		if more := info[s].Size() - l.last.ends[s]; more > 0 {
			next := l.last
			next.time = info[s].ModTime()
			next.ends[s] += more
			next.ends[Both] += more
			if err := l.appendLocked(next); err != nil {
				return err
			}
		}
	}
	return nil
}
