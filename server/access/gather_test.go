package access

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
)

// A wire counts the writes to a connection, of which those after the first limit fail.
type wire struct {
	net.Conn
	writes, limit int
	begun         chan struct{} // closed as the next one begins
}

var errWire = errors.New("the wire is cut")

func (w *wire) Write(p []byte) (int, error) {
	if w.writes++; w.limit > 0 && w.writes > w.limit {
		return 0, errWire
	}
	if w.begun != nil {
		close(w.begun)
	}
	return w.Conn.Write(p)
}

// gatheringPair returns a server's connection after its handshake, the wire below it, and the client's end.
func gatheringPair(t *testing.T) (net.Conn, *wire, net.Conn) {
	t.Helper()
	state := newPKI(t)
	config, err := ServerTLS(CertDir(state), nil)
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close(); there.Close() })
	client := tls.Client(there, withH2(asAdmin(t, state)))
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	below := &wire{Conn: here}
	conn, _, err := Credentials(config).ServerHandshake(below)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	return conn, below, client
}

func TestWritesAreGathered(t *testing.T) {
	conn, below, client := gatheringPair(t)
	got := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(client) // what is missing is seen
		got <- all
	}()
	var sent bytes.Buffer
	block := bytes.Repeat([]byte("a block of sixteen bytes that differ\n"), 8<<10) // 296 KiB
	for i, size := range []int{1, 16 << 10, 0, 32 << 10, len(block), 32 << 10, 32<<10 - 1, 9} {
		below.writes = 0
		piece := block[i : i+min(size, len(block)-i)]
		if n, err := conn.Write(piece); n != len(piece) || err != nil {
			t.Fatalf("wrote %d of %d bytes: %v", n, len(piece), err)
		}
		sent.Write(piece)
		if size > 0 && size <= 32<<10 && below.writes != 1 {
			t.Errorf("%d bytes took %d writes", size, below.writes)
		}
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if all := <-got; sha256.Sum256(all) != sha256.Sum256(sent.Bytes()) {
		t.Errorf("%d bytes came, not the %d that were written", len(all), sent.Len())
	}
}

// TLS takes a write that was gathered for one that went well; no other may follow one that did not.
func TestNothingFollowsAFailedWrite(t *testing.T) {
	conn, below, client := gatheringPair(t)
	go func() { _, _ = io.Copy(io.Discard, client) }() // until the test's end
	below.limit = below.writes + 1
	if _, err := conn.Write(make([]byte, 32<<10)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := conn.Write(make([]byte, 32<<10)); !errors.Is(err, errWire) {
			t.Errorf("a write to a cut wire: %v", err)
		}
	}
	if tried := below.writes - below.limit; tried != 1 {
		t.Errorf("%d writes were tried on a cut wire", tried)
	}
}

// Who does not read holds up nobody who closes.
func TestCloseDuringAWrite(t *testing.T) {
	conn, below, _ := gatheringPair(t)
	below.begun = make(chan struct{})
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, 32<<10))
		wrote <- err
	}()
	<-below.begun
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := <-wrote; !errors.Is(err, io.ErrClosedPipe) { // and not a deadline
		t.Errorf("got %v", err)
	}
}
