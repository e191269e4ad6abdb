package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

// How long to wait before the next try: grpc's rule for connecting, and ours for a server that can be
// reached but says that it is about to end.
const (
	delayMin    = 100 * time.Millisecond
	delayFactor = 1.6
	delayMax    = 5 * time.Second
)

// A LostError says that a connection that had worked was lost and did not come back in time. Its
// status code is UNAVAILABLE.
type LostError struct {
	Addr  string
	Tried time.Duration // how long it was tried to reconnect
	Do    string        // what became of the call, and what to do
	Err   error         // why the last try did not work
}

func (e *LostError) Error() string {
	tried := ""
	if e.Tried > 0 {
		tried = fmt.Sprintf("; tried to reconnect for %v", e.Tried)
	}
	return fmt.Sprintf("lost the server at %s: %s%s (%s)", e.Addr, status.Convert(e.Err).Message(), tried, e.Do)
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

func goesOn(id string) string { return "the job goes on; see it again with: tele logs " + id }

// mayWait is for one whose files were on their way, which nobody else would send.
func mayWait(id string) string { return "the job may wait for its files; end it: tele stop " + id }

// A link is a connection of one client. It is lost when a call is answered with UNAVAILABLE; every
// other code is an answer. It is back when grpc says that the connection is ready again, which grpc
// does not before the server has accepted the certificate and answered.
//
// grpc connects again by itself, with back-off. The calls are made fail-fast, each time the connection
// is ready; WaitForReady would wait as well, but as long as the whole call may take, and what is
// limited here is the outage alone.
type link struct {
	conn *grpc.ClientConn
	*outage
}

// An outage is how it stands with a server, for all links to it: they are lost together in most cases,
// and the user hears of it once.
type outage struct {
	addr      string
	reconnect time.Duration
	notice    func(string)

	mu     sync.Mutex
	up     bool          // it worked once
	losses int           // outages that began
	since  time.Time     // when this outage began; zero when there is none
	delay  time.Duration // how long to leave the server alone in this outage
}

// call runs f, which makes one call, and runs it again each time that the link was lost and is back.
// An f that gets several answers calls answered with the first. When call gives up, the error says do:
// what the user is to know and to do then.
func (l *link) call(ctx context.Context, do string, f func(answered func()) error) error {
	l.connect(ctx)
	for {
		losses := l.begun()
		err := f(func() { l.found(losses) })
		var write *WriteError // of the caller's own, whatever is in it
		if status.Code(err) != codes.Unavailable || errors.As(err, &write) {
			if err == nil {
				l.found(losses)
			}
			return err
		}
		if !l.worked() {
			return err
		}
		if l.reconnect <= 0 {
			return &LostError{Addr: l.addr, Do: do, Err: err}
		}
		since, delay := l.lose(losses, err)
		again := l.wait(ctx, since.Add(l.reconnect), delay)
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		if !again {
			return &LostError{Addr: l.addr, Tried: rounded(time.Since(since)), Do: do, Err: err}
		}
	}
}

// connect makes the first connection. It returns when the connection is ready or could not be made;
// why not, the call that follows says at once.
func (l *link) connect(ctx context.Context) {
	if !l.worked() && l.await(ctx, connectivity.Ready, connectivity.TransientFailure) == connectivity.Ready {
		l.found(l.begun())
	}
}

// wait returns when it is time to make a call again: when the link is ready, after delay when it never
// went away, or when the time is up and the call will say what is wrong with the link. It returns false
// when there is no more to learn: give up.
func (l *link) wait(ctx context.Context, until time.Time, delay time.Duration) bool {
	if !time.Now().Before(until) {
		return false
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	// The connection's state changes a moment after the call has failed.
	short, stop := context.WithTimeout(ctx, delay)
	defer stop()
	if l.conn.GetState() == connectivity.Ready && !l.conn.WaitForStateChange(short, connectivity.Ready) {
		return true
	}
	switch l.await(ctx, connectivity.Ready) {
	case connectivity.Ready:
		l.found(l.begun())
		return true
	case connectivity.TransientFailure, connectivity.Shutdown: // a call fails at once, and says why
		return true
	}
	return false
}

// await drives the connection until it is in one of the states, or closed, or ctx is done, and
// returns the state that it is in.
func (l *link) await(ctx context.Context, states ...connectivity.State) connectivity.State {
	for {
		state := l.conn.GetState()
		if state == connectivity.Shutdown || slices.Contains(states, state) {
			return state
		}
		if state == connectivity.Idle {
			l.conn.Connect()
		}
		if !l.conn.WaitForStateChange(ctx, state) {
			return state
		}
	}
}

// worked says whether the link may be taken up again.
func (l *link) worked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up && l.conn.GetState() != connectivity.Shutdown
}

// begun is how many outages have begun. A call remembers it from before it was made: a loss that it
// meets later may be one that others have met, and that is over.
func (o *outage) begun() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.losses
}

// lose notes that a call made after that many losses has met one, and returns since when the link is
// lost and how long to leave a server alone that can be reached.
func (o *outage) lose(losses int, cause error) (since time.Time, delay time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !o.since.IsZero():
		o.delay = min(time.Duration(float64(o.delay)*delayFactor), delayMax)
	case losses != o.losses:
		return time.Now(), delayMin
	default:
		o.losses++
		o.since, o.delay = time.Now(), delayMin
		o.say("lost the server at %s: %s; reconnecting for up to %v", o.addr, status.Convert(cause).Message(), o.reconnect)
	}
	return o.since, o.delay
}

// found notes that the server has answered a call made after that many losses.
func (o *outage) found(losses int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.up = true
	if o.since.IsZero() || losses != o.losses {
		return
	}
	o.say("the server at %s is back after %v", o.addr, rounded(time.Since(o.since)))
	o.since = time.Time{}
}

func (o *outage) say(format string, args ...any) {
	if o.notice != nil {
		o.notice(fmt.Sprintf(format, args...))
	}
}

// rounded is a time for people.
func rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}

// unary makes a call with one answer.
func unary[Q, R any](ctx context.Context, l *link, do string,
	method func(context.Context, *Q, ...grpc.CallOption) (*R, error), request *Q) (response *R, err error) {
	err = l.call(ctx, do, func(func()) error {
		response, err = method(ctx, request)
		return err
	})
	return response, err
}
