package output

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sort"
	"time"
)

// ReadOptions say what a Reader reads, and from where. The zero value is both streams as they are
// now, from the first byte.
type ReadOptions struct {
	Stream Stream
	// Offset is the first byte, counted in the stream that is read.
	Offset int64
	// Tail, when it is positive, begins that many lines before the end instead. What follows the
	// last newline is a line too.
	Tail int
	// Since, when it is set, leaves out what arrived before, as the index says: of a clock that was set back
	// meanwhile, some of it. It goes together with the others: the last of the places counts.
	Since time.Time
	// Follow goes on until the log is finished.
	Follow bool
	// KeepChunks returns each piece as it arrived, instead of joining neighbours.
	KeepChunks bool
}

// A Chunk is a piece of output of one stream.
type Chunk struct {
	Stream Stream
	Offset int64     // of its first byte, as in ReadOptions
	Time   time.Time // when its first byte arrived
	Data   []byte
}

// A Reader reads a log from some place on. It is for one goroutine.
type Reader struct {
	log      *Log
	options  ReadOptions
	cursor   int64
	at       int64 // the record that the cursor is in, or one before that
	complete bool
	window   []byte // records of the index, as they are there
	first    int64  // the first of them
}

// windowSize is how much of the index is read at a time: a job that writes single lines has a record
// for each, and thousands of them go into one chunk.
const windowSize = 170 * recordSize

// NewReader returns a reader, which must be closed. ErrOffset: the log does not reach that far.
//
// Whoever has a reader can read on when the files are removed from their directory. Without any
// other reader or writer left, NewReader's error is then os.ErrNotExist.
func (l *Log) NewReader(o ReadOptions) (*Reader, error) {
	l.mu.Lock()
	if err := l.open(); err != nil {
		l.mu.Unlock()
		return nil, err
	}
	_ = l.indexLocked() // what could not be indexed stays unseen
	end, records := l.last.ends[o.Stream], l.records
	l.mu.Unlock()
	r := &Reader{log: l, options: o, cursor: o.Offset}
	if o.Offset < 0 || o.Offset > end {
		_ = r.Close()
		return nil, ErrOffset
	}
	if o.Tail > 0 {
		// Without the lock: this reads as much as the lines have, and the job's output must go on.
		if err := r.seekTail(end, records); err != nil {
			_ = r.Close()
			return nil, err
		}
	}
	if !o.Since.IsZero() {
		if err := r.seekTime(records); err != nil {
			_ = r.Close()
			return nil, err
		}
	}
	return r, nil
}

// Close ends the use of the reader.
func (r *Reader) Close() error {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.releaseLocked()
	return nil
}

// Complete tells, after io.EOF, that everything of a finished log was read.
func (r *Reader) Complete() bool { return r.complete }

// Offset is the place of the next byte, as in ReadOptions.
func (r *Reader) Offset() int64 { return r.cursor }

// Next returns the next piece of output, in buf, or io.EOF.
func (r *Reader) Next(ctx context.Context, buf []byte) (Chunk, error) {
	end, records, err := r.await(ctx)
	if err != nil {
		return Chunk{}, err
	}
	return r.read(buf, end, records)
}

// Await returns when Next will not wait, and about how much output there is: who has many readers
// need not have a buffer for each that has nothing to read. Its errors are those of Next.
func (r *Reader) Await(ctx context.Context) (int64, error) {
	end, _, err := r.await(ctx)
	return end - r.cursor, err
}

func (r *Reader) await(ctx context.Context) (end, records int64, err error) {
	for {
		end, records, finished, changed := r.state()
		if r.cursor < end {
			return end, records, nil
		}
		if finished || !r.options.Follow {
			r.complete = finished
			return end, records, io.EOF
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return end, records, context.Cause(ctx)
		}
	}
}

// state is how far the log reaches, and when there is nothing to read, what tells of more.
func (r *Reader) state() (end, records int64, finished bool, changed <-chan struct{}) {
	l := r.log
	l.mu.Lock()
	defer l.mu.Unlock()
	end = l.last.ends[r.options.Stream]
	if r.cursor == end && !l.finished && r.options.Follow {
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed = l.changed
	}
	return end, l.records, l.finished, changed
}

// read returns the piece at the cursor; the log has the given records and reaches to end, behind
// the cursor.
func (r *Reader) read(buf []byte, end, records int64) (Chunk, error) {
	before, found, err := r.find(records)
	if err != nil {
		return Chunk{}, err
	}
	stream := r.options.Stream
	if stream == Both {
		stream = Stdout
		if found.ends[Stderr] > before.ends[Stderr] {
			stream = Stderr
		}
	}
	chunk := Chunk{Stream: stream, Offset: r.cursor, Time: found.time}
	offset := r.cursor
	if r.options.Stream == Both {
		offset = before.ends[stream] + r.cursor - before.ends[Both]
	}
	size := found.ends[r.options.Stream] - r.cursor
	if !r.options.KeepChunks {
		if size, err = r.join(stream, size, int64(len(buf)), end, records); err != nil {
			return Chunk{}, err
		}
	}
	n, err := r.log.files[stream].ReadAt(buf[:min(size, int64(len(buf)))], offset)
	if err != nil && (err != io.EOF || n == 0) {
		return Chunk{}, err
	}
	chunk.Data = buf[:n]
	r.cursor += int64(n)
	return chunk, nil
}

// join returns how many bytes from the cursor on belong to stream without a break, at most most.
func (r *Reader) join(stream Stream, size, most, end, records int64) (int64, error) {
	if r.options.Stream != Both {
		return min(end-r.cursor, most), nil
	}
	before, err := r.record(r.at, records)
	for i := r.at + 1; size < most && i < records && err == nil; i++ {
		var next record
		if next, err = r.record(i, records); err != nil || next.ends[stream] == before.ends[stream] {
			break
		}
		size += next.ends[Both] - before.ends[Both]
		before = next
	}
	return min(size, most), err
}

// find moves r.at to the record that holds the byte at the cursor, and returns it with the one
// before it.
func (r *Reader) find(records int64) (before, found record, err error) {
	holds := func(i int64) bool {
		rec, recErr := r.record(i, records)
		if recErr != nil {
			err = recErr
		}
		return rec.ends[r.options.Stream] > r.cursor
	}
	for step := int64(1); r.at < records && !holds(r.at); step *= 2 { // near in most cases
		if r.at+step >= records || holds(r.at+step) {
			base, n := r.at+1, min(r.at+step, records-1)-r.at
			r.at = base + int64(sort.Search(int(n), func(i int) bool { return holds(base + int64(i)) }))
			break
		}
		r.at += step
	}
	if err != nil {
		return before, found, err
	}
	if before, err = r.record(r.at-1, records); err != nil {
		return before, found, err
	}
	found, err = r.record(r.at, records)
	return before, found, err
}

// record reads record i of an index that has the given number of them; the one before the first is
// zero. Those that are there do not change any more.
func (r *Reader) record(i, records int64) (record, error) {
	if i < 0 {
		return record{}, nil
	}
	if at := (i - r.first) * recordSize; i >= r.first && at < int64(len(r.window)) {
		return decode(r.window[at:]), nil
	}
	first := max(i-1, 0) // that one is often asked for next
	size := min((records-first)*recordSize, windowSize)
	if int64(cap(r.window)) < size {
		r.window = make([]byte, size)
	}
	r.window, r.first = r.window[:size], first
	if _, err := r.log.files[0].ReadAt(r.window, first*recordSize); err != nil {
		r.window = r.window[:0]
		return record{}, fmt.Errorf("read output index, record %d: %w", i, err)
	}
	return decode(r.window[(i-first)*recordSize:]), nil
}

// seekTime moves the cursor on to what arrived at ReadOptions.Since or later.
func (r *Reader) seekTime(records int64) error {
	var err error
	at := sort.Search(int(records), func(i int) bool {
		rec, recErr := r.record(int64(i), records)
		if recErr != nil {
			err = recErr
		}
		return !rec.time.Before(r.options.Since)
	})
	if err != nil {
		return err
	}
	before, err := r.record(int64(at)-1, records)
	if place := before.ends[r.options.Stream]; err == nil && place > r.cursor {
		r.cursor, r.at = place, int64(at)
	}
	return err
}

// seekTail puts the cursor at the beginning of the last lines, reading backwards from end.
func (r *Reader) seekTail(end, records int64) error {
	lines := r.options.Tail
	var window [64 << 10]byte
	r.at = max(records-1, 0)
	for to := end; to > 0; {
		from := max(to-int64(len(window)), 0)
		block := window[:to-from]
		if err := r.fill(block, from, end, records); err != nil {
			return err
		}
		if to == end && block[len(block)-1] == '\n' {
			block = block[:len(block)-1]
		}
		for len(block) > 0 {
			newline := bytes.LastIndexByte(block, '\n')
			if newline < 0 {
				break
			}
			if lines--; lines == 0 {
				return r.back(from+int64(newline)+1, records)
			}
			block = block[:newline]
		}
		to = from
	}
	r.cursor, r.at = 0, 0
	return nil
}

// fill reads len(block) bytes from the place from on, which is before the cursor's last one.
func (r *Reader) fill(block []byte, from, end, records int64) error {
	if err := r.back(from, records); err != nil {
		return err
	}
	for n := 0; n < len(block); {
		chunk, err := r.read(block[n:], end, records)
		if err != nil {
			return err
		}
		n += len(chunk.Data)
	}
	return nil
}

// back moves the cursor back to a place, and r.at to its record or one before.
func (r *Reader) back(to, records int64) error {
	r.cursor = to
	for step := int64(1); r.at > 0; step *= 2 {
		before, err := r.record(r.at-1, records)
		if err != nil {
			return err
		}
		if before.ends[r.options.Stream] <= to {
			return nil
		}
		r.at = max(r.at-step, 0)
	}
	return nil
}
