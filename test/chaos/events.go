package main

import (
	"context"
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
	// Pauses and resumes take turns; limits change any number of times, and tries may fail one after another.
	again := false
	for i, kind := range kinds[1:] {
		again = again || kind == kinds[i] && kind != telev1.EventKind_EVENT_KIND_UPDATED && kind != telev1.EventKind_EVENT_KIND_RESTARTING
	}
	if kinds[0] != telev1.EventKind_EVENT_KIND_STARTED || again || !triesTold(job, kinds) || last.Message != job.Message {
		l.wrong("its events are %v, the last %q", kinds, last.Message)
	}
	l.world.figures.add("events compared", int64(len(kinds)))
}

// triesTold tells whether each try was told once. The last one may have failed, with a stop before the next.
func triesTold(job *telev1.Job, kinds []telev1.EventKind) bool {
	count := map[telev1.EventKind]int{}
	for _, kind := range kinds {
		count[kind]++
	}
	begun, failed := 1, max(0, len(job.Tries)-1)
	if len(job.Tries) > 0 {
		begun = 0
	}
	for _, try := range job.Tries {
		if try.StartedAt != nil {
			begun++
		}
	}
	restarting := count[telev1.EventKind_EVENT_KIND_RESTARTING]
	return count[telev1.EventKind_EVENT_KIND_STARTED] == begun && (restarting == failed || restarting == len(job.Tries))
}
