package main

import (
	"context"
	"slices"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// judgeEvents checks that what happened to a job was told once, from its start to its end. The end may be told a
// little later where the disk was full.
func (l *life) judgeEvents(job *telev1.Job) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var kinds []telev1.EventKind
	var last *telev1.Event
	for m, err := range l.world.witness.Watch(ctx, client.WatchOptions{Since: time.Unix(0, 0), Follow: true, Jobs: []string{job.Id}}) {
		if err != nil {
			l.wrong("its events, after %v: %v", kinds, err)
			return
		}
		if m.Event == nil {
			continue
		}
		last = m.Event
		if kinds = append(kinds, last.Kind); last.Kind == telev1.EventKind_EVENT_KIND_ENDED {
			break
		}
	}
	again := slices.Contains(kinds[1:], telev1.EventKind_EVENT_KIND_STARTED)
	for i, kind := range kinds[1:] { // pauses and resumes take turns, limits change any number of times
		again = again || kind == kinds[i] && kind != telev1.EventKind_EVENT_KIND_UPDATED
	}
	if kinds[0] != telev1.EventKind_EVENT_KIND_STARTED || again || last.Message != job.Message {
		l.wrong("its events are %v, the last %q", kinds, last.Message)
	}
	l.world.figures.add("events compared", int64(len(kinds)))
}
