package access

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/stats"
)

// Requests lie in memory until they are complete, and HTTP/2 lets a client begin thousands of them
// at once. So of one client, over all its connections,
//
//   - maxIncomplete may be incomplete at a time; a connection that begins more is closed. Each
//     holds up to one flow control window (64 KiB).
//   - maxReceiving of these may be read, up to the largest message; the others wait for one of
//     them.
//   - none may be incomplete for longer than DoorOptions.RequestTime; the connection is closed.
//
// A client of good will is far below: its request is complete when the server looks at it.
const (
	maxIncomplete = 1024
	maxReceiving  = 32
)

// An intake is the incomplete requests of one client.
type intake struct {
	incomplete atomic.Int32
	receiving  chan struct{}
}

func newIntake() intake { return intake{receiving: make(chan struct{}, maxReceiving)} }

// Intake is for grpc.StatsHandler: it alone is called between a request's first byte and its last.
func (d *Door) Intake() stats.Handler { return intakeHandler{} }

type intakeHandler struct{}

type intakeKey struct{}

// TagRPC is called in a call's own goroutine before its request is read, and may wait.
func (intakeHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	v := visitorOf(ctx)
	if v == nil {
		return ctx
	}
	c := v.owner()
	if c == nil {
		return ctx // too many connections, and soon closed
	}
	if c.intake.incomplete.Add(1) > maxIncomplete {
		c.intake.incomplete.Add(-1)
		_ = v.Close() // the calls on it end with it
		return ctx
	}
	stop := func() bool { return true }
	if limit := v.door.options.RequestTime; limit > 0 {
		stop = time.AfterFunc(limit, func() { _ = v.Close() }).Stop // the same
	}
	var received bool
	done := sync.OnceFunc(func() {
		stop()
		c.intake.incomplete.Add(-1)
		if received {
			<-c.intake.receiving
		}
	})
	select {
	case c.intake.receiving <- struct{}{}:
		received = true
	case <-ctx.Done():
	}
	context.AfterFunc(ctx, done) // a call may end without its request
	return context.WithValue(ctx, intakeKey{}, done)
}

// HandleRPC hears that a request, or the first message of one that streams, is complete.
func (intakeHandler) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, complete := s.(*stats.InPayload); complete {
		if done, ok := ctx.Value(intakeKey{}).(func()); ok {
			done()
		}
	}
}

// TagConn does nothing.
func (intakeHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn does nothing.
func (intakeHandler) HandleConn(context.Context, stats.ConnStats) {}
