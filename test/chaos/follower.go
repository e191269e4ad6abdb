package main

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A follower is a client of the library that reads a job's output from some place on, and may be cut
// off and go on there.
type follower struct {
	stream telev1.OutputStream
	from   uint64
	all    bytes.Buffer // what it read, in its order
	parts  [3]bytes.Buffer
	ended  *telev1.Job
}

// A part writes to one stream's bytes and to all of them.
type part struct {
	f      *follower
	stream telev1.OutputStream
}

func (p part) Write(data []byte) (int, error) {
	p.f.all.Write(data)
	return p.f.parts[p.stream].Write(data)
}

// follow lets one client more follow the job: of the library, or a process.
func (l *life) follow(trouble context.Context, clients *sync.WaitGroup) {
	if l.chance.in(25) {
		args := []string{"logs", l.id}
		if l.chance.in(40) {
			args = append(args, "--stdout")
		}
		l.process(trouble, clients, false, args...)
		return
	}
	f := &follower{stream: telev1.OutputStream(l.chance.IntN(3))}
	c := l.remote()
	own := newChance(l.chance.Uint64(), "follower")
	if job, err := c.Get(context.Background(), l.id); err != nil {
		l.wrong("get: %v", err)
	} else if own.in(40) {
		f.from = own.Uint64N(1 + f.size(job))
	}
	l.readers = append(l.readers, f)
	l.world.figures.add("followers", 1)
	clients.Go(func() { f.read(l, c, own) })
}

// size is how much there is of what it follows.
func (f *follower) size(job *telev1.Job) uint64 {
	switch f.stream {
	case telev1.OutputStream_OUTPUT_STREAM_STDOUT:
		return job.StdoutBytes
	case telev1.OutputStream_OUTPUT_STREAM_STDERR:
		return job.StderrBytes
	}
	return job.StdoutBytes + job.StderrBytes
}

// read reads to the end, over as many calls as it takes: it cuts some of them off itself.
func (f *follower) read(l *life, c *client.Client, own chance) {
	chunks := own.in(50)
	for cuts := own.between(0, 2) * own.between(0, 2); ; cuts-- {
		ctx, cancel := context.WithCancel(context.Background())
		if cuts > 0 {
			time.AfterFunc(own.ms(0, 1000), cancel)
		}
		o := client.OutputOptions{Stream: f.stream, Offset: f.from + uint64(f.all.Len()), Follow: true}
		if chunks {
			o.Chunk = func(r *telev1.StreamOutputResponse) error {
				if want := f.from + uint64(f.all.Len()); r.Offset != want {
					l.wrong("a follower got offset %d, it is at %d", r.Offset, want)
				}
				_, err := part{f, r.Stream}.Write(r.Data)
				return err
			}
		}
		ended, err := c.Output(ctx, l.id, o, part{f, telev1.OutputStream_OUTPUT_STREAM_STDOUT},
			part{f, telev1.OutputStream_OUTPUT_STREAM_STDERR})
		cut := ctx.Err() != nil
		cancel()
		switch {
		case err == nil:
			f.ended = ended
			return
		case cut && status.Code(err) == codes.Canceled:
			l.world.figures.add("followers resumed", 1)
		default:
			l.wrong("a follower of stream %d from %d, at %d: %v", f.stream, f.from, f.from+uint64(f.all.Len()), err)
			return
		}
	}
}
