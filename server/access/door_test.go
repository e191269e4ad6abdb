package access

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// arrive is a connection at the door; closed says whether its other end was closed.
func arrive(t *testing.T, d *Door) (v *visitor, closed func() bool) {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close(); there.Close() })
	v, out := d.enter(here)
	if out != nil {
		out.Close()
	}
	return v, func() bool {
		err := there.SetReadDeadline(time.Unix(1, 0))
		if err == nil {
			_, err = there.Read(make([]byte, 1))
		}
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
}

func TestOldestStrangerGoes(t *testing.T) {
	d := NewDoor(DoorOptions{Connections: 4, Strangers: 2})
	first, firstClosed := arrive(t, d)
	known, knownClosed := arrive(t, d)
	if !d.know(known, "alice") {
		t.Fatal("alice is not let in")
	}
	_, secondClosed := arrive(t, d)
	if firstClosed() || secondClosed() || knownClosed() {
		t.Error("somebody had to go while there was room")
	}
	arrive(t, d) // a third stranger
	if !firstClosed() || secondClosed() || knownClosed() {
		t.Error("it is the oldest stranger who goes, and nobody else")
	}
	if d.know(first, "mallory") {
		t.Error("who had to go became known")
	}
	if d.open != 3 || d.strangers.Len() != 2 {
		t.Errorf("%d open, %d strangers; want 3 and 2", d.open, d.strangers.Len())
	}
}

// When all places are clients', the new one goes; a place that is given back is free again.
func TestFullHouse(t *testing.T) {
	d := NewDoor(DoorOptions{Connections: 2, Strangers: 2})
	var last *visitor
	for range 2 {
		last, _ = arrive(t, d)
		if !d.know(last, "alice") {
			t.Fatal("alice is not let in")
		}
	}
	if v, closed := arrive(t, d); v != nil || !closed() {
		t.Error("a third connection found room for two")
	}
	for range 2 { // once counts
		if err := last.Close(); err != nil {
			t.Error(err)
		}
	}
	v, _ := arrive(t, d)
	if v == nil || d.open != 2 {
		t.Errorf("%d open after one left and one came", d.open)
	}
}

func TestConnectionsOfOneClient(t *testing.T) {
	d := NewDoor(DoorOptions{PerClient: 1})
	first, _ := arrive(t, d)
	second, _ := arrive(t, d)
	other, _ := arrive(t, d)
	if !d.know(first, "alice") || d.know(second, "alice") || !d.know(other, "bob") {
		t.Error("want one of alice and one of bob")
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if !d.know(second, "alice") {
		t.Error("alice may have another when she has closed the first")
	}
	for _, v := range []*visitor{second, other} {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
	if d.open != 0 || len(d.accounts) != 0 || d.strangers.Len() != 0 {
		t.Errorf("left: %d open, %d accounts, %d strangers", d.open, len(d.accounts), d.strangers.Len())
	}
}

// Over both kinds of listener, a client beyond its connections hears why; then there is room.
func TestDoorOfAServer(t *testing.T) {
	state := newPKI(t)
	config, err := ServerTLS(CertDir(state), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := NewDoor(DoorOptions{Connections: 10, Strangers: 5, PerClient: 1})
	s := newServer(d.Credentials(config).Clone(), &Guard{})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, d.Listen(tcp))
	path := t.TempDir() + "/tele.sock"
	local, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, d.Listen(local))
	for _, listener := range []struct {
		target string
		creds  func() credentials.TransportCredentials
	}{
		{tcp.Addr().String(), func() credentials.TransportCredentials { return credentials.NewTLS(asAdmin(t, state)) }},
		{"unix:" + path, insecure.NewCredentials},
	} {
		first := dial(t, listener.target, listener.creds())
		if _, err := who(first); err != nil {
			t.Errorf("%s: %v", listener.target, err)
		}
		if _, err := who(dial(t, listener.target, listener.creds())); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: the second connection: %v", listener.target, err)
		}
	}
}

func TestRate(t *testing.T) {
	r := NewRate(10)
	now := time.Unix(1000, 0)
	for i := range 20 {
		if wait := r.Take("alice", now); wait != 0 {
			t.Fatalf("call %d at once: wait %s", i, wait)
		}
	}
	if wait := r.Take("alice", now); wait != 100*time.Millisecond {
		t.Errorf("call 21: wait %s, want 100ms", wait)
	}
	if wait := r.Take("bob", now); wait != 0 {
		t.Errorf("another client: wait %s", wait)
	}
	now = now.Add(100 * time.Millisecond)
	if first, second := r.Take("alice", now), r.Take("alice", now); first != 0 || second != 100*time.Millisecond {
		t.Errorf("after the wait: %s, then %s", first, second)
	}
	for i := range 10000 {
		now = now.Add(time.Second)
		r.Take(fmt.Sprint(i), now)
	}
	if len(r.paid) > 100 {
		t.Errorf("%d names are kept of clients long gone", len(r.paid))
	}
	for range 10000 {
		if NewRate(0).Take("alice", now) != 0 || (*Rate)(nil).Take("alice", now) != 0 {
			t.Fatal("there is a limit where none was set")
		}
	}
}

// Requests that do not end: so many are read, more wait, and with too many the connection goes.
func TestIntake(t *testing.T) {
	d := NewDoor(DoorOptions{})
	v, closed := arrive(t, d)
	d.know(v, "mallory")
	ctx, cancel := context.WithCancel(peer.NewContext(context.Background(), &peer.Peer{AuthInfo: v}))
	defer cancel()
	handler := d.Intake()
	tags := make(chan context.Context)
	tag := func() { tags <- handler.TagRPC(ctx, &stats.RPCTagInfo{}) }
	for range maxIncomplete {
		go tag()
	}
	var first context.Context
	for range maxReceiving {
		first = <-tags
	}
	for v.account.intake.incomplete.Load() < maxIncomplete { // the others are on their way
		time.Sleep(time.Millisecond)
	}
	select {
	case <-tags:
		t.Error("more are read at a time than may")
	default:
	}
	handler.HandleRPC(first, &stats.InPayload{})
	handler.HandleRPC(first, &stats.InPayload{}) // a stream's second message
	<-tags                                       // another one's turn
	if closed() {
		t.Error("closed within the bounds")
	}
	go tag()
	go tag()
	<-tags // returned at once, refused
	if !closed() {
		t.Error("still open with too many incomplete requests")
	}
	cancel() // the end of a connection ends its calls
	for range maxIncomplete - maxReceiving {
		<-tags
	}
	for v.account != nil && v.account.intake.incomplete.Load() != 0 {
		time.Sleep(time.Millisecond) // context.AfterFunc runs in a goroutine
	}
	if n := len(v.account.intake.receiving); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}
