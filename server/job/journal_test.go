package job

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

func noHead() *recordv1.EventsHead { return &recordv1.EventsHead{MadeAt: now()} }

func someEvent(n int) *recordv1.Entry {
	return &recordv1.Entry{Event: &telev1.Event{Message: fmt.Sprint(n), Job: &telev1.Job{Id: fmt.Sprintf("job%09d", n)}}}
}

func newJournal(t *testing.T, dir string, most uint64) *journal {
	t.Helper()
	l, err := openJournal(dir, most, func(cursor, *recordv1.Entry) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

func add(t *testing.T, l *journal, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := l.write(someEvent(n), noHead); err != nil {
			t.Fatal(err)
		}
	}
}

// rest reads what there is, without heads.
func rest(t *testing.T, r *journalReader) (messages []string, cursors []cursor) {
	t.Helper()
	for {
		entry, err := r.next()
		if err == io.EOF {
			return messages, cursors
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry.Event != nil {
			messages, cursors = append(messages, entry.Event.Message), append(cursors, r.behind)
		}
	}
}

// expect compares with the numbers from one to another.
func expect(t *testing.T, what string, got []string, from, to int) {
	t.Helper()
	if len(got) != to-from {
		t.Fatalf("%s: %d events, want %d: %v", what, len(got), to-from, got)
	}
	for i, message := range got {
		if message != fmt.Sprint(from+i) {
			t.Fatalf("%s: event %d is %s, want %d", what, i, message, from+i)
		}
	}
}

// Each event is read from every place that there is a cursor for, also when the journal is opened again with
// the beginning of another behind it.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	l := newJournal(t, dir, eventFileSize)
	if got, _ := rest(t, l.readNow()); len(got) != 0 {
		t.Fatalf("an empty journal has %v", got)
	}
	add(t, l, 0, 10)
	l.close()
	if _, err := l.readBehind(cursor{}); err != ErrClosing {
		t.Errorf("a closed journal: %v", err)
	}
	path := l.path(0)
	torn, err := appendFrame(nil, someEvent(100))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tail := range [][]byte{nil, torn[:1], torn[:frameHeader], torn[:len(torn)-1], make([]byte, 100)} {
		if err := os.WriteFile(path, append(file[:len(file):len(file)], tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		l = newJournal(t, dir, eventFileSize)
		add(t, l, 10, 20)
		all, err := l.readAll()
		if err != nil {
			t.Fatal(err)
		}
		messages, cursors := rest(t, all)
		expect(t, "all", messages, 0, 20)
		for i, c := range cursors {
			if parsed, err := parseCursor(c.String()); err != nil || parsed != c {
				t.Fatalf("%s: got %v, %v", c, parsed, err)
			}
			r, err := l.readBehind(c)
			if err != nil {
				t.Fatal(err)
			}
			messages, _ := rest(t, r)
			expect(t, c.String(), messages, i+1, 20)
		}
		l.close()
	}
}

// What is kept is bounded; who is too slow for it, or comes too late, is told, and no other event is taken for
// the one that is meant.
func TestJournalRotates(t *testing.T) {
	dir := t.TempDir()
	l := newJournal(t, dir, 1000)
	add(t, l, 0, 1)
	slow, err := l.readAll()
	if err != nil {
		t.Fatal(err)
	}
	first, err := slow.next()
	if err != nil || first.Event.Message != "0" {
		t.Fatal(first, err)
	}
	early, now := slow.behind, l.readNow()
	add(t, l, 1, 30)
	messages, _ := rest(t, now) // over into another file
	expect(t, "from then on", messages, 1, 30)
	late := now.behind
	add(t, l, 30, 200)
	if _, err := slow.next(); !errors.Is(err, ErrEventsGone) {
		t.Errorf("too slow: %v", err)
	}
	beyond := cursor{l.endLocked(), 1}
	for _, c := range []cursor{early, late, {}, {l.tail.at, l.tail.sum + 1}, {l.tail.at + 1, l.tail.sum}, beyond} {
		if _, err := l.readBehind(c); !errors.Is(err, ErrEventsGone) {
			t.Errorf("%s: %v", c, err)
		}
	}
	for range 2 {
		all, err := l.readAll()
		if err != nil {
			t.Fatal(err)
		}
		messages, _ := rest(t, all)
		expect(t, "what is kept", messages, 200-len(messages), 200)
		if files, err := l.list(); err != nil || len(files) != eventFiles || len(messages) < 20 || len(messages) > 80 {
			t.Errorf("%d events in %x, %v", len(messages), files, err)
		}
		l.close()
		l = newJournal(t, dir, 1000)
	}
}

func TestParseCursor(t *testing.T) {
	for _, text := range []string{"-", "0", "0-0", "0-000000000", "00-00000000", "-1-00000000", "g-00000000", "0-0000000G",
		"0-ABCDEF00", "0-00000000 ", "12345678901234567-00000000"} {
		var request *BadRequest
		if c, err := parseCursor(text); !errors.As(err, &request) || request.Field != "cursor" {
			t.Errorf("%q: got %v, %v", text, c, err)
		}
	}
}

// On a full disk events wait, in their order, and nothing half is left between them.
func TestJournalDiskFull(t *testing.T) {
	needRoot(t)
	mnt := t.TempDir()
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
	})
	fill := filepath.Join(mnt, "fill")
	full := func() {
		t.Helper()
		if err := os.WriteFile(fill, make([]byte, 128<<10), 0o600); !noSpace(err) {
			t.Fatalf("the disk is not full: %v", err)
		}
	}
	full()
	l := newJournal(t, filepath.Join(mnt, "events"), 8000) // which has not even a first file
	defer l.close()
	if err := l.write(someEvent(0), noHead); !noSpace(err) {
		t.Fatalf("got %v", err)
	}
	r := l.readNow()
	n := 1
	for range 3 {
		if err := os.Remove(fill); err != nil {
			t.Fatal(err)
		}
		if err := l.flush(noHead); err != nil {
			t.Fatal(err)
		}
		full()
		var err error
		for err == nil { // what is left of a page has room for some
			err = l.write(someEvent(n), noHead)
			n++
		}
		if !noSpace(err) {
			t.Fatal(err)
		}
		add := l.write(someEvent(n), noHead)
		if n++; !noSpace(add) {
			t.Fatal(add)
		}
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if err := l.flush(noHead); err != nil {
		t.Fatal(err)
	}
	messages, _ := rest(t, r)
	expect(t, "all", messages, 0, n)
}

// Whatever the files hold, what is written behind it is read.
func FuzzJournal(f *testing.F) {
	head, err := appendFrame(nil, &recordv1.Entry{Head: noHead()})
	if err != nil {
		f.Fatal(err)
	}
	event, err := appendFrame(head, someEvent(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, []byte{})
	f.Add(head, event)
	f.Add(event, append(event[:len(event):len(event)], event[len(head):]...))
	f.Fuzz(func(t *testing.T, older, younger []byte) {
		dir := t.TempDir()
		l := &journal{dir: dir}
		for begin, data := range map[uint64][]byte{0: older, uint64(len(older)): younger} {
			if err := os.WriteFile(l.path(begin), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l, err := openJournal(dir, eventFileSize, func(cursor, *recordv1.Entry) {})
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		behind := l.readNow()
		if err := l.write(someEvent(7), noHead); err != nil {
			t.Fatal(err)
		}
		if messages, _ := rest(t, behind); len(messages) != 1 || messages[0] != "7" {
			t.Errorf("got %q", messages)
		}
		all, err := l.readAll()
		if err != nil {
			t.Fatal(err)
		}
		if messages, _ := rest(t, all); len(messages) == 0 || messages[len(messages)-1] != "7" {
			t.Errorf("all: %q", messages)
		}
	})
}
