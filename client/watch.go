package client

import (
	"context"
	"io"
	"iter"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// WatchOptions say which events to watch, and from where. The zero value is none: all from now on are those with
// Follow.
type WatchOptions struct {
	Cursor string    // begin behind the message of an earlier Watch that had this cursor
	Since  time.Time // leave out what was before, by the server's clock; without Cursor, begin with what is kept
	Follow bool      // go on with what happens, until the caller breaks or ctx ends
	Jobs   []string  // only events of these jobs
	Kinds  []telev1.EventKind
	Labels []string // only events of jobs with all of these, KEY=VALUE, or KEY for any value
}

// Watch returns the changes of state of jobs, each once, as tele.v1 describes them; an error is the last.
// A message that has no event says that there was none for this watch up to its cursor: the first is such a
// one, and what is listed after it misses nothing. When the connection is lost Watch goes on behind the last
// message.
func (c *Client) Watch(ctx context.Context, o WatchOptions) iter.Seq2[*telev1.WatchResponse, error] {
	return func(yield func(*telev1.WatchResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		request := &telev1.WatchRequest{Cursor: o.Cursor, Follow: o.Follow, JobIds: o.Jobs, Kinds: o.Kinds, Labels: o.Labels}
		if !o.Since.IsZero() {
			request.Since = timestamppb.New(o.Since)
		}
		left := false
		err := c.link.call(ctx, "the jobs go on; watch from now on with: tele events --follow", func(answered func()) error {
			stream, err := c.jobs.Watch(ctx, request)
			if err != nil {
				return err
			}
			for {
				message, err := stream.Recv()
				switch {
				case err == io.EOF && o.Follow:
					return status.Error(codes.Unavailable, "the events ended")
				case err == io.EOF:
					return nil
				case err != nil:
					return err
				}
				answered()
				request.Cursor = message.Cursor
				if left = !yield(message, nil); left {
					return nil
				}
			}
		})
		if err != nil && !left {
			yield(nil, err)
		}
	}
}
