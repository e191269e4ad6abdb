package job

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	"google.golang.org/protobuf/proto"
)

// A journal is the last events on disk, DIR/events: two files at most, of frames as those of a record
// (record.go). An event is one write(2) at the end of the younger file; when that is large enough another is
// begun, and the oldest goes.
//
// All files that there ever were count as one: a file's name says where in it that one begins, in hexadecimal.
// So a place is a number, for who reads as well; nothing of what is kept is in memory.
type journal struct {
	dir  string
	most uint64 // how large a file gets

	mu        sync.Mutex
	files     []*eventFile // oldest first; none before there was room for one
	unwritten []byte       // frames for which there was no room
	last      int          // where in unwritten the last one begins
	tail      cursor       // of the last frame that was written
	news      chan struct{}
	closed    bool
}

const (
	eventFiles    = 2
	eventFileSize = 8 << 20 // some 40,000 events
)

// An eventFile is a part of the journal, from begin to end.
type eventFile struct {
	file       *os.File
	begin, end uint64
}

// A cursor names a frame: where it is, and its checksum, so that it is not taken for another that is there in
// a journal which was begun anew.
type cursor struct {
	at  uint64
	sum uint32
}

func (c cursor) String() string { return fmt.Sprintf("%x-%08x", c.at, c.sum) }

func parseCursor(text string) (c cursor, err error) {
	at, sum, _ := strings.Cut(text, "-")
	c.at, err = strconv.ParseUint(at, 16, 64)
	n, sumErr := strconv.ParseUint(sum, 16, 32)
	c.sum = uint32(n)
	if err != nil || sumErr != nil || c.String() != text {
		return cursor{}, bad("cursor", "%s is not from an earlier watch", Quote(text))
	}
	return c, nil
}

// openJournal opens the journal in a directory, hands out what is in it, and cuts off what a killed server or a
// full disk left behind the last whole frame.
func openJournal(dir string, most uint64, each func(cursor, *recordv1.Entry)) (_ *journal, err error) {
	l := &journal{dir: dir, most: most}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	begins, err := l.list()
	if err != nil {
		return nil, err
	}
	for ; len(begins) > eventFiles; begins = begins[1:] { // a server was killed before it did that
		if err := os.Remove(l.path(begins[0])); err != nil {
			return nil, err
		}
	}
	for _, begin := range begins {
		if err := l.load(begin, each); err != nil {
			return nil, err
		}
	}
	if len(l.files) == 0 {
		if err := l.beginFileLocked(&recordv1.EventsHead{MadeAt: now()}); err != nil && !noSpace(err) {
			return nil, err
		}
	}
	return l, nil
}

func (l *journal) path(begin uint64) string { return filepath.Join(l.dir, fmt.Sprintf("%016x", begin)) }

// list returns where the files begin that are there, in order.
func (l *journal) list() (begins []uint64, err error) {
	entries, err := os.ReadDir(l.dir) // sorted
	for _, e := range entries {
		begin, err := strconv.ParseUint(e.Name(), 16, 64)
		if err == nil && filepath.Base(l.path(begin)) == e.Name() {
			begins = append(begins, begin)
		}
	}
	return begins, err
}

// load reads a file. One without a head is the beginning of one, and goes.
func (l *journal) load(begin uint64, each func(cursor, *recordv1.Entry)) error {
	path := l.path(begin)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	end := 0
	for {
		frame := nextFrame(data[end:])
		var entry recordv1.Entry
		if frame == nil || proto.Unmarshal(frame, &entry) != nil ||
			end == 0 && (entry.Head == nil || entry.Head.Begin != begin) {
			break
		}
		c := cursor{begin + uint64(end), checksum(frame)}
		each(c, &entry)
		l.tail = c
		end += frameHeader + len(frame)
	}
	if end == 0 {
		return os.Remove(path)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	l.files = append(l.files, &eventFile{file, begin, begin + uint64(end)})
	if end == len(data) {
		return nil
	}
	return file.Truncate(int64(end))
}

// close ends the journal. Who reads it gets ErrClosing.
func (l *journal) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, f := range l.files {
		_ = f.file.Close() // what was written is written
	}
	l.wakeLocked()
}

// write appends an entry, behind those for which there was no room. An error says that there is none still: the
// entry is kept, and flush writes it. head is that of the next file, should one be begun.
func (l *journal) write(entry *recordv1.Entry, head func() *recordv1.EventsHead) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	begin := len(l.unwritten)
	frames, err := appendFrame(l.unwritten, entry)
	if err != nil {
		return err
	}
	l.unwritten, l.last = frames, begin
	return l.flushLocked(head)
}

func (l *journal) flush(head func() *recordv1.EventsHead) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flushLocked(head)
}

func (l *journal) flushLocked(head func() *recordv1.EventsHead) error {
	if l.closed {
		return ErrClosing
	}
	if len(l.unwritten) == 0 {
		return nil
	}
	if len(l.files) == 0 {
		if err := l.beginFileLocked(&recordv1.EventsHead{MadeAt: now()}); err != nil {
			return err
		}
	}
	f := l.files[len(l.files)-1]
	if err := writeWhole(int(f.file.Fd()), f.file.Name(), l.unwritten); err != nil {
		return err
	}
	l.tail = cursor{f.end + uint64(l.last), frameSum(l.unwritten[l.last:])}
	f.end += uint64(len(l.unwritten))
	l.unwritten = l.unwritten[:0]
	if cap(l.unwritten) > maxAppended {
		l.unwritten = nil
	}
	l.wakeLocked()
	if f.end-f.begin < l.most {
		return nil
	}
	// Only now, when all is written, is what the head says of it true. Where there is no room for another
	// file, this one takes what comes.
	if err := l.beginFileLocked(head()); err != nil && !noSpace(err) {
		return err
	}
	return nil
}

// beginFileLocked begins the next file, and lets go of the oldest.
func (l *journal) beginFileLocked(head *recordv1.EventsHead) error {
	if len(l.files) > 0 {
		head.Begin = l.files[len(l.files)-1].end
	}
	frame, err := appendFrame(nil, &recordv1.Entry{Head: head})
	if err != nil {
		return err
	}
	path := l.path(head.Begin)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := writeWhole(int(file.Fd()), path, frame); err != nil {
		_ = file.Close() // nothing is in it
		return errors.Join(err, os.Remove(path))
	}
	l.files = append(l.files, &eventFile{file, head.Begin, head.Begin + uint64(len(frame))})
	l.tail = cursor{head.Begin, frameSum(frame)}
	for len(l.files) > eventFiles {
		oldest := l.files[0]
		l.files = slices.Delete(l.files, 0, 1)
		_ = oldest.file.Close() // it was written long ago; who reads in it is told
		if err := os.Remove(oldest.file.Name()); err != nil {
			return err
		}
	}
	return nil
}

// changed returns a channel that is closed when there is more than up to at.
func (l *journal) changed(at uint64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || at < l.endLocked() {
		return over
	}
	if l.news == nil {
		l.news = make(chan struct{})
	}
	return l.news
}

func (l *journal) wakeLocked() {
	if l.news != nil {
		close(l.news)
		l.news = nil
	}
}

func (l *journal) endLocked() uint64 {
	if len(l.files) == 0 {
		return 0
	}
	return l.files[len(l.files)-1].end
}

// appendFrame appends an entry's frame.
func appendFrame(to []byte, entry *recordv1.Entry) ([]byte, error) {
	begin := len(to)
	to, err := proto.MarshalOptions{}.MarshalAppend(append(to, make([]byte, frameHeader)...), entry)
	if err != nil {
		return nil, err
	}
	data := to[begin+frameHeader:]
	binary.LittleEndian.PutUint32(to[begin:], uint32(len(data)))
	binary.LittleEndian.PutUint32(to[begin+4:], checksum(data))
	return to, nil
}

// frameSum is the checksum that a frame begins with.
func frameSum(frame []byte) uint32 { return binary.LittleEndian.Uint32(frame[4:]) }

// ErrEventsGone is returned for a place in the journal that is not kept any more, or never was.
var ErrEventsGone = errors.New("the events behind that cursor are not kept any more: see how the jobs are now " +
	"(tele ps), and begin without a cursor")

// A journalReader reads entries from a place on, at its own pace.
type journalReader struct {
	journal *journal
	at      uint64 // where the next entry is
	behind  cursor // the entry before it
	data    []byte // what was read from at on
	buffer  []byte
}

// readNow returns a reader of what is to come.
func (l *journal) readNow() *journalReader {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &journalReader{journal: l, at: l.endLocked(), behind: l.tail}
}

// readAll returns a reader of all that is kept.
func (l *journal) readAll() (*journalReader, error) {
	l.mu.Lock()
	r := &journalReader{journal: l}
	if len(l.files) > 0 {
		r.at = l.files[0].begin
	}
	l.mu.Unlock()
	if _, err := r.next(); err != nil && err != io.EOF { // the head
		return nil, err
	}
	return r, nil
}

// readBehind returns a reader of what comes behind an entry.
func (l *journal) readBehind(c cursor) (*journalReader, error) {
	r := &journalReader{journal: l, at: c.at}
	_, err := r.next()
	if err == ErrClosing {
		return nil, err
	}
	if err != nil || r.behind != c {
		return nil, ErrEventsGone
	}
	return r, nil
}

// await returns the next entry as soon as there is one.
func (r *journalReader) await(ctx context.Context) (*recordv1.Entry, error) {
	for {
		entry, err := r.next()
		if err != io.EOF {
			return entry, err
		}
		r.data, r.buffer = nil, nil // it may take long
		select {
		case <-r.journal.changed(r.at):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// readSize is how much is read at a time, of which most entries take a twentieth.
const readSize = 4096

// next returns the next entry, or io.EOF.
func (r *journalReader) next() (*recordv1.Entry, error) {
	frame := nextFrame(r.data)
	for want := readSize; frame == nil; {
		left, err := r.fill(want)
		if err != nil {
			return nil, err
		}
		if frame = nextFrame(r.data); frame != nil {
			break
		}
		if len(r.data) >= frameHeader {
			want = frameHeader + int(binary.LittleEndian.Uint32(r.data))
		}
		if want <= len(r.data) || uint64(want) > left {
			return nil, fmt.Errorf("the event at %x cannot be read: it is damaged, or not at that place", r.at)
		}
	}
	entry := &recordv1.Entry{}
	if err := proto.Unmarshal(frame, entry); err != nil {
		return nil, fmt.Errorf("the event at %x: %w", r.at, err)
	}
	r.behind = cursor{r.at, frameSum(r.data)}
	r.at += uint64(frameHeader + len(frame))
	r.data = r.data[frameHeader+len(frame):]
	return entry, nil
}

// fill reads what is there from at on, up to want bytes, and returns how much there is in this file.
func (r *journalReader) fill(want int) (left uint64, err error) {
	f, left, err := r.find()
	if err != nil {
		return 0, err
	}
	if len(r.buffer) < want {
		r.buffer = make([]byte, want)
	}
	n, err := f.file.ReadAt(r.buffer[:min(uint64(want), left)], int64(r.at-f.begin))
	if errors.Is(err, os.ErrClosed) { // meanwhile
		return 0, r.gone()
	}
	r.data = r.buffer[:n]
	return left, err
}

// find returns the file that has the next entry.
func (r *journalReader) find() (f *eventFile, left uint64, err error) {
	l := r.journal
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, 0, ErrClosing
	case len(l.files) == 0:
		return nil, 0, io.EOF
	case r.at < l.files[0].begin:
		return nil, 0, ErrEventsGone
	}
	for _, f := range l.files {
		r.at = max(r.at, f.begin) // after a power cut the file before it may have lost its end
		if r.at < f.end {
			return f, f.end - r.at, nil
		}
	}
	return nil, 0, io.EOF
}

func (r *journalReader) gone() error {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	if r.journal.closed {
		return ErrClosing
	}
	return ErrEventsGone
}
