package server

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/access"
	"google.golang.org/grpc/codes"
)

// watchAll returns what is kept.
func watchAll(t *testing.T, c *client.Client, o client.WatchOptions) (messages []*telev1.WatchResponse) {
	t.Helper()
	if o.Cursor == "" {
		o.Since = time.Unix(0, 0)
	}
	for m, err := range c.Watch(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Event != nil {
			messages = append(messages, m)
		}
	}
	return messages
}

func firstError(t *testing.T, c *client.Client, o client.WatchOptions) error {
	t.Helper()
	for _, err := range c.Watch(t.Context(), o) {
		if err != nil {
			return err
		}
	}
	return nil
}

// Whoever may read a job sees its events, and nobody else does.
func TestWatchAccess(t *testing.T) {
	state := t.TempDir()
	c, addr, _ := serveAt(t, Command{StateDir: state})
	clients := map[string]*client.Client{"admin": c}
	for name, role := range map[string]access.Role{"alice": access.User, "bob": access.User, "eve": access.Viewer} {
		issued, err := access.Issue(state, name, role, t.TempDir(), 1)
		if err != nil {
			t.Fatal(err)
		}
		other, err := client.Dial(client.Options{Addr: addr, CA: issued.CA, Cert: issued.Cert, Key: issued.Key})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		clients[name] = other
	}
	job, err := clients["alice"].Run(t.Context(), sh("exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"admin": 2, "alice": 2, "bob": 0, "eve": 2} {
		if got := watchAll(t, clients[name], client.WatchOptions{}); len(got) != want {
			t.Errorf("%s sees %v", name, got)
		}
		// By its whole id, which may be that of a job that is gone, nobody learns that it is there.
		if got := watchAll(t, clients[name], client.WatchOptions{Jobs: []string{job.Id}}); len(got) != want {
			t.Errorf("%s sees of the job %v", name, got)
		}
	}
	expectWhy(t, "a beginning of another's id", firstError(t, clients["bob"], client.WatchOptions{Jobs: []string{job.Id[:11]}}),
		codes.NotFound, "")
}

func TestWatchErrors(t *testing.T) {
	c, _ := serve(t, Command{})
	for name, test := range map[string]struct {
		o    client.WatchOptions
		code codes.Code
		why  string
	}{
		"cursor":        {client.WatchOptions{Cursor: "x"}, codes.InvalidArgument, "cursor"},
		"unknown event": {client.WatchOptions{Cursor: "0-12345678"}, codes.OutOfRange, "EVENTS_GONE"},
		"kind":          {client.WatchOptions{Kinds: []telev1.EventKind{0}}, codes.InvalidArgument, "kinds"},
		"job":           {client.WatchOptions{Jobs: []string{"nobody"}}, codes.NotFound, ""},
		"jobs":          {client.WatchOptions{Jobs: make([]string, 65)}, codes.InvalidArgument, "job_ids"},
		"labels":        {client.WatchOptions{Labels: make([]string, 65)}, codes.InvalidArgument, "labels"},
	} {
		expectWhy(t, name, firstError(t, c, test.o), test.code, test.why)
	}
}

// A watch that is left and taken up again behind its last message, by one server after another, has every event
// once.
func TestWatchGoesOn(t *testing.T) {
	state := t.TempDir()
	var seen []string
	o := client.WatchOptions{Follow: true}
	for server := range 3 {
		c, stop := serve(t, Command{StateDir: state})
		jobs := make(chan error, 1)
		watching := make(chan struct{})
		go func() {
			<-watching
			for i := range 3 {
				if _, err := c.Run(context.Background(), sh(fmt.Sprintf("exit %d", 10*server+i))); err != nil {
					jobs <- err
					return
				}
			}
			jobs <- nil
		}()
		n := 0
		for m, err := range c.Watch(t.Context(), o) {
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				close(watching)
			}
			n++
			o.Cursor = m.Cursor
			if e := m.Event; e.GetKind() == telev1.EventKind_EVENT_KIND_ENDED {
				if seen = append(seen, e.Message); len(seen)%3 == 2 { // one is left for the next server
					break
				}
			}
		}
		if err := <-jobs; err != nil {
			t.Fatal(err)
		}
		stop()
	}
	c, _ := serve(t, Command{StateDir: state})
	o.Follow = false
	for _, m := range watchAll(t, c, o) {
		if m.Event.Kind == telev1.EventKind_EVENT_KIND_ENDED {
			seen = append(seen, m.Event.Message)
		}
	}
	var want []string
	for server := range 3 {
		for i := range 3 {
			want = append(want, fmt.Sprintf("exited with code %d", 10*server+i))
		}
	}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", seen, want)
	}
}
