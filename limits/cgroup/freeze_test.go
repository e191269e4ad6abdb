package cgroup

import (
	"errors"
	"testing"
)

// Without a version 2 tree there is nothing to freeze with, and nothing to thaw.
func TestFreezeNeedsVersion2(t *testing.T) {
	g := &Group{m: &Manager{by: map[string]*tree{}}}
	if err := g.Freeze(t.Context(), 1); !errors.Is(err, ErrNoFreezer) {
		t.Errorf("got %v", err)
	}
	if err := g.Thaw(); err != nil {
		t.Error(err)
	}
}

// A group that has gone is no failure to freeze: its job has ended.
func TestFreezeOfEnded(t *testing.T) {
	m := open1(t)
	if m.unified == nil {
		t.Skip("needs a version 2 tree")
	}
	g, err := m.Create("job", Request{})
	if err != nil {
		t.Fatal(err)
	}
	g.CloseStartFiles()
	if err := g.Freeze(t.Context(), 1); err != nil { // nobody is in it
		t.Error(err)
	}
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(g.Freeze(t.Context(), 1), g.Thaw()); err != nil {
		t.Error(err)
	}
	if ids := m.List(); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
}
