package client

import (
	"context"
	"errors"
	"sync"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
)

// maxLanes is how many connections a client has at most. What comes in one connection is decrypted
// and taken apart by one goroutine.
const maxLanes = 4

// lanes are the connections of one client. The first is for everything; the others are made when
// several outputs are read at once, and for these alone.
type lanes struct {
	dial   func() (*grpc.ClientConn, error)
	outage *outage

	mu     sync.Mutex
	closed bool
	list   []*lane // the first never changes
}

// A lane is a link with the number of outputs that are read over it.
type lane struct {
	*link
	jobs    telev1.JobServiceClient
	outputs int // guarded by lanes.mu
}

// openLanes makes the first lane.
func openLanes(dial func() (*grpc.ClientConn, error), outage *outage) (*lanes, error) {
	l := &lanes{dial: dial, outage: outage}
	if err := l.addLocked(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *lanes) addLocked() error {
	conn, err := l.dial()
	if err != nil {
		return err
	}
	l.list = append(l.list, &lane{link: &link{conn, l.outage}, jobs: telev1.NewJobServiceClient(conn)})
	return nil
}

// take returns the lane with the fewest outputs, which counts one more until leave. It is the first
// one when the others cannot be had.
func (l *lanes) take(ctx context.Context) *lane {
	first, found := l.pick()
	if found == first || found.await(ctx, connectivity.Ready, connectivity.TransientFailure) == connectivity.Ready {
		return found
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	found.outputs--
	first.outputs++
	return first
}

func (l *lanes) pick() (first, found *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.list[0]
	fewest := func() *lane {
		found := first
		for _, lane := range l.list {
			if lane.outputs < found.outputs {
				found = lane
			}
		}
		return found
	}
	if found = fewest(); found.outputs > 0 && len(l.list) < maxLanes && !l.closed {
		if l.addLocked() == nil { // or those that there are have to do
			found = fewest()
		}
	}
	found.outputs++
	return first, found
}

func (l *lanes) leave(lane *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lane.outputs--
}

// close closes all of them, and says what went wrong with any.
func (l *lanes) close() (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, lane := range l.list {
		err = errors.Join(err, lane.conn.Close())
	}
	return err
}
