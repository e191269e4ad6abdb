package client

import (
	"fmt"
	"slices"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestWatchThroughCuts: a watch that is cut goes on behind the last message, and what was asked for is asked for
// again.
func TestWatchThroughCuts(t *testing.T) {
	const events = 10
	since := time.Unix(1000, 0)
	var asked []string
	path, addr := unixAddr(t)
	serve(t, listen(t, "unix", path), &fake{watch: func(r *telev1.WatchRequest, s grpc.ServerStreamingServer[telev1.WatchResponse]) error {
		asked = append(asked, r.Cursor)
		if !r.Since.AsTime().Equal(since) || !r.Follow || !slices.Equal(r.Labels, []string{"team"}) {
			t.Errorf("asked for %v", r)
		}
		n := 0
		if r.Cursor != "" {
			if _, err := fmt.Sscan(r.Cursor, &n); err != nil {
				return err
			}
		}
		if err := s.Send(&telev1.WatchResponse{Cursor: fmt.Sprint(n)}); err != nil {
			return err
		}
		for end := n + 3; n < end; {
			n++
			if err := s.Send(&telev1.WatchResponse{Cursor: fmt.Sprint(n), Event: &telev1.Event{Message: fmt.Sprint(n)}}); err != nil {
				return err
			}
		}
		if n%2 == 0 {
			return nil // a follower's stream does not end by itself
		}
		return status.Error(codes.Unavailable, "cut")
	}})
	c := dial(t, Options{Addr: addr, Reconnect: time.Minute})
	var got []string
	for m, err := range c.Watch(within(t), WatchOptions{Since: since, Follow: true, Labels: []string{"team"}}) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Event == nil {
			continue
		}
		if got = append(got, m.Event.Message); len(got) == events {
			break
		}
	}
	for i, message := range got {
		if message != fmt.Sprint(i+1) {
			t.Fatalf("got %v", got)
		}
	}
	if !slices.Equal(asked, []string{"", "3", "6", "9"}) {
		t.Errorf("asked from %v", asked)
	}
}

// TestWatchEnds: without Follow the end is the end, and an answer that is an error comes last, and once.
func TestWatchEnds(t *testing.T) {
	path, addr := unixAddr(t)
	serve(t, listen(t, "unix", path), &fake{watch: func(r *telev1.WatchRequest, s grpc.ServerStreamingServer[telev1.WatchResponse]) error {
		if r.Cursor != "" {
			return status.Error(codes.OutOfRange, "gone")
		}
		return s.Send(&telev1.WatchResponse{Cursor: "1"})
	}})
	c := dial(t, Options{Addr: addr, Reconnect: time.Minute})
	for cursor, want := range map[string]codes.Code{"": codes.OK, "1": codes.OutOfRange} {
		var messages int
		var last error
		for m, err := range c.Watch(within(t), WatchOptions{Cursor: cursor}) {
			if last != nil {
				t.Errorf("%q: %v after an error", cursor, m)
			}
			messages, last = messages+1, err
		}
		if messages != 1 || status.Code(last) != want {
			t.Errorf("%q: %d messages, %v", cursor, messages, last)
		}
	}
}
