package client

import (
	"context"
	"errors"
	"slices"
	"sync"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
)

// maxLanes is how many connections a client has at most. What comes in one connection is decrypted
// and taken apart by one goroutine.
const maxLanes = 4

// lanes are the connections of one client. The first is for everything; the others are there while
// several outputs are read at once, and for these alone.
type lanes struct {
	dial   func() (*grpc.ClientConn, error)
	outage *outage
	first  *lane

	mu     sync.Mutex
	closed bool
	more   []*lane
}

// A lane is a link with the number of outputs that are read over it.
type lane struct {
	*link
	jobs    telev1.JobServiceClient
	outputs int // guarded by lanes.mu
}

// openLanes makes the first lane.
func openLanes(dial func() (*grpc.ClientConn, error), outage *outage) (l *lanes, err error) {
	l = &lanes{dial: dial, outage: outage}
	l.first, err = l.open()
	return l, err
}

func (l *lanes) open() (*lane, error) {
	conn, err := l.dial()
	if err != nil {
		return nil, err
	}
	return &lane{link: &link{conn, l.outage}, jobs: telev1.NewJobServiceClient(conn)}, nil
}

// take returns the lane with the fewest outputs, which counts one more until leave. It is the first
// one when the others cannot be had.
func (l *lanes) take(ctx context.Context) *lane {
	found := l.pick()
	if found == l.first || found.await(ctx, connectivity.Ready, connectivity.TransientFailure) == connectivity.Ready {
		return found
	}
	l.leave(found)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first.outputs++
	return l.first
}

func (l *lanes) pick() *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := l.first
	for _, lane := range l.more {
		if lane.outputs < found.outputs {
			found = lane
		}
	}
	if found.outputs > 0 && len(l.more) < maxLanes-1 && !l.closed {
		if lane, err := l.open(); err == nil { // or those that there are have to do
			l.more = append(l.more, lane)
			found = lane
		}
	}
	found.outputs++
	return found
}

// leave ends one use of a lane, and with the last one the lane, but for the first.
func (l *lanes) leave(lane *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lane.outputs--; lane.outputs > 0 || lane == l.first || l.closed {
		return
	}
	at := slices.Index(l.more, lane)
	l.more = slices.Delete(l.more, at, at+1)
	_ = lane.conn.Close() // nobody uses it
}

// close closes all of them, and says what went wrong with any.
func (l *lanes) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	err := l.first.conn.Close()
	for _, lane := range l.more {
		err = errors.Join(err, lane.conn.Close())
	}
	return err
}
