package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// listenNotify is the service manager's end.
func listenNotify(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // it was only read
	t.Setenv("NOTIFY_SOCKET", name)
	return l
}

func readNotify(t *testing.T, l *net.UnixConn) string {
	t.Helper()
	message := make([]byte, 4096)
	n, err := l.Read(message)
	if err != nil {
		t.Fatal(err)
	}
	return string(message[:n])
}

func TestNotify(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "s"), fmt.Sprintf("@tele-test-%d", os.Getpid())} {
		l := listenNotify(t, name)
		n := takeNotifier()
		if err := n.ready("listening"); err != nil {
			t.Fatal(err)
		}
		if got, want := readNotify(t, l), "READY=1\nSTATUS=listening\n"; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		if _, set := os.LookupEnv("NOTIFY_SOCKET"); set {
			t.Error("NOTIFY_SOCKET is still set")
		}
	}
}

func TestNotifyNobody(t *testing.T) {
	if err := (notifier{}).ready("listening"); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
	gone := notifier{filepath.Join(t.TempDir(), "gone")}
	if err := gone.ready("listening"); err == nil || !strings.Contains(err.Error(), "READY=1") {
		t.Errorf("with one that has gone: %v", err)
	}
}

// A server says that it is ready once it listens, and that it stops.
func TestServeNotifies(t *testing.T) {
	l := listenNotify(t, filepath.Join(t.TempDir(), "s"))
	ctx, cancel := context.WithCancel(t.Context())
	state := t.TempDir()
	ended := make(chan error, 1)
	go func() {
		c := &Command{Addr: "127.0.0.1:0", StateDir: state, MaxJobs: 1, MaxStreams: 1}
		ended <- c.Serve(ctx, zerolog.Nop())
	}()
	if got := readNotify(t, l); !strings.HasPrefix(got, "READY=1\nSTATUS=listening on 127.0.0.1:") {
		t.Errorf("first message %q", got)
	}
	if conn, err := net.Dial("unix", filepath.Join(state, "tele.sock")); err != nil {
		t.Errorf("connect when ready: %v", err)
	} else {
		_ = conn.Close() // nothing was said
	}
	cancel()
	if got := readNotify(t, l); !strings.HasPrefix(got, "STOPPING=1\n") {
		t.Errorf("second message %q", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
}
