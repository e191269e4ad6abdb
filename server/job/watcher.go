package job

import (
	"context"
	"io"
	"slices"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// WatchOptions say which events are wanted, and from where. The zero value is all from now on, of which there
// are none without Follow.
type WatchOptions struct {
	Cursor  string    // behind this one's event
	Since   time.Time // those that are not before; without Cursor, of all that is kept
	Follow  bool      // wait for what is to come
	Jobs    []string  // ids; none is any
	Kinds   []telev1.EventKind
	Labels  []string                // all of these, as in Filter
	Visible func(owner string) bool // whose jobs
}

// A Watcher reads events. It has nothing of them in memory but what it reads just now.
type Watcher struct {
	options WatchOptions
	reader  *journalReader
	begun   bool
}

// Watch returns a watcher. Its first message says where it begins.
func (t *Table) Watch(o WatchOptions) (w *Watcher, err error) {
	w = &Watcher{options: o}
	if err := checkLabels(o.Labels); err != nil {
		return nil, err
	}
	journal := t.events.journal
	switch {
	case o.Cursor != "":
		var c cursor
		if c, err = parseCursor(o.Cursor); err == nil {
			w.reader, err = journal.readBehind(c)
		}
	case !o.Since.IsZero():
		w.reader, err = journal.readAll()
	default:
		w.reader = journal.readNow()
	}
	return w, err
}

// bookmark is after how many events that a watcher is not to see it is told that it has come so far: its cursor
// stays one of what is kept.
const bookmark = 1000

// Next returns the next message, which has no event when there was only news of others. Without Follow, io.EOF
// is the end of what there is. ErrEventsGone says that the watcher was too slow.
func (w *Watcher) Next(ctx context.Context) (*telev1.WatchResponse, error) {
	if !w.begun {
		w.begun = true
		return &telev1.WatchResponse{Cursor: w.reader.behind.String()}, nil
	}
	for range bookmark {
		entry, err := w.reader.next()
		if err == io.EOF && w.options.Follow {
			entry, err = w.reader.await(ctx)
		}
		if err != nil {
			return nil, err
		}
		if event := entry.Event; event == nil { // a file's head
			break
		} else if w.wants(event) {
			return &telev1.WatchResponse{Cursor: w.reader.behind.String(), Event: event}, nil
		}
	}
	return &telev1.WatchResponse{Cursor: w.reader.behind.String()}, nil
}

func (w *Watcher) wants(event *telev1.Event) bool {
	o, job := &w.options, event.GetJob()
	return o.Visible(job.GetUser()) &&
		(len(o.Jobs) == 0 || slices.Contains(o.Jobs, job.GetId())) &&
		(len(o.Kinds) == 0 || slices.Contains(o.Kinds, event.Kind)) &&
		(o.Since.IsZero() || !event.Time.AsTime().Before(o.Since)) &&
		hasLabels(job.GetSpec().GetLabels(), o.Labels)
}
