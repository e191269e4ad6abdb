package access

import (
	"context"
	"sync"
	"testing"
)

func TestSeesAndControls(t *testing.T) {
	tests := []struct {
		roles         []Role
		owner         string
		sees, control bool
	}{
		{[]Role{Admin}, "alice", true, true},
		{[]Role{Admin}, "bob", true, true},
		{[]Role{User}, "alice", true, true},
		{[]Role{User}, "bob", false, false},
		{[]Role{User}, "Alice", false, false},
		{[]Role{User}, "", false, false},
		{[]Role{Viewer}, "alice", true, false},
		{[]Role{Viewer}, "bob", true, false},
		{[]Role{User, Viewer}, "alice", true, true},
		{[]Role{User, Viewer}, "bob", true, false},
		{nil, "alice", false, false},
	}
	for _, tt := range tests {
		id := Identity{Name: "alice", Roles: tt.roles}
		if got := id.Sees(tt.owner); got != tt.sees {
			t.Errorf("%s sees a job of %q: %t, want %t", id, tt.owner, got, tt.sees)
		}
		if got := id.Controls(tt.owner); got != tt.control {
			t.Errorf("%s controls a job of %q: %t, want %t", id, tt.owner, got, tt.control)
		}
	}
	if id := (Identity{Roles: []Role{User}}); id.Sees("") || id.Controls("") {
		t.Error("an identity without a name owns what nobody owns")
	}
}

func TestContext(t *testing.T) {
	if id, ok := FromContext(context.Background()); ok {
		t.Errorf("a context that no guard has seen has the identity %s", id)
	}
	want := Identity{Name: "alice", Roles: []Role{User}}
	id, ok := FromContext(NewContext(context.Background(), want))
	if !ok || id.String() != "alice (user)" {
		t.Errorf("identity %s, %t; want %s", id, ok, want)
	}
}

func TestCounter(t *testing.T) {
	c := NewCounter(2)
	first, ok1 := c.Acquire("alice")
	second, ok2 := c.Acquire("alice")
	third, ok3 := c.Acquire("alice")
	other, ok4 := c.Acquire("bob")
	if !ok1 || !ok2 || ok3 || !ok4 {
		t.Fatalf("two for each name: alice %t %t %t, bob %t", ok1, ok2, ok3, ok4)
	}
	third() // was refused and gives nothing back
	if _, ok := c.Acquire("alice"); ok {
		t.Error("a refused one gave something back")
	}
	first()
	first() // counts once
	again, ok := c.Acquire("alice")
	if _, more := c.Acquire("alice"); !ok || more {
		t.Errorf("after one was given back: %t, one more: %t", ok, more)
	}
	for _, release := range []func(){second, other, again} {
		release()
	}
	if len(c.used) != 0 {
		t.Errorf("names are kept that hold nothing: %v", c.used)
	}
}

func TestCounterWithoutLimit(t *testing.T) {
	c := NewCounter(0)
	for range 1000 {
		if _, ok := c.Acquire("alice"); !ok {
			t.Fatal("refused")
		}
	}
}

func TestCounterAtOnce(t *testing.T) {
	const max, callers = 5, 50
	c := NewCounter(max)
	var group sync.WaitGroup
	granted := make(chan func(), callers)
	for range callers {
		group.Go(func() {
			if release, ok := c.Acquire("alice"); ok {
				granted <- release
			}
		})
	}
	group.Wait()
	close(granted)
	if len(granted) != max {
		t.Errorf("%d granted at once, want %d", len(granted), max)
	}
	for release := range granted {
		group.Go(release)
	}
	group.Wait()
	if len(c.used) != 0 {
		t.Errorf("still held: %v", c.used)
	}
}

func TestDefaultStateDir(t *testing.T) {
	tests := []struct {
		uid       int
		xdg, home string
		want      string
	}{
		{0, "", "/root", "/var/lib/tele"},
		{0, "/x", "/root", "/var/lib/tele"},
		{1000, "", "/home/a", "/home/a/.local/state/tele"},
		{1000, "/x", "/home/a", "/x/tele"},
		{1000, "relative", "/home/a", "/home/a/.local/state/tele"},
		{1000, "", "", "/var/lib/tele"},
	}
	for _, tt := range tests {
		if got := stateDirFor(tt.uid, tt.xdg, tt.home); got != tt.want {
			t.Errorf("uid %d, XDG_STATE_HOME %q, home %q: %s, want %s",
				tt.uid, tt.xdg, tt.home, got, tt.want)
		}
	}
	if DefaultStateDir() == "" {
		t.Error("no default here")
	}
}
