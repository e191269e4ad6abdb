package access

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// serveUnix runs s on a unix socket and returns its path.
func serveUnix(t *testing.T, s *grpc.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tele.sock")
	listener, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, listener)
	return path
}

func dialUnix(t *testing.T, path string) *grpc.ClientConn {
	return dial(t, "unix:"+path, insecure.NewCredentials())
}

func TestPeerIsTheServersOwnUser(t *testing.T) {
	path := serveUnix(t, newServer(PeerCredentials(), &Guard{}))
	got, err := who(dialUnix(t, path))
	if want := userName(uint32(os.Getuid())) + " (admin)"; got != want || err != nil {
		t.Errorf("taken for %q, %v; want %q", got, err, want)
	}
}

// Another user of this machine is a child of the test that gives up root.
func TestPeerIsAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("becoming another user takes root")
	}
	const known, unknown = 4001, 4002
	path := serveUnix(t, newServer(PeerCredentials(), &Guard{Peers: map[uint32]Role{known: User}}))
	openParents(t, path)
	if out := callInChild(t, known, path); !strings.Contains(out, "permission denied") {
		t.Errorf("the socket's mode let uid %d connect: %s", known, out)
	}
	// The rest is about who may connect and is refused nevertheless.
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if out := callInChild(t, known, path); !strings.HasPrefix(out, userName(known)+" (user)\n") {
		t.Errorf("a configured user: %s", out)
	}
	out := callInChild(t, unknown, path)
	if !strings.Contains(out, "PermissionDenied") || !strings.Contains(out, "(uid 4002) may not use") {
		t.Errorf("a user that is not configured: %s", out)
	}
}

// openParents lets everybody walk down to the socket.
func openParents(t *testing.T, path string) {
	t.Helper()
	top := filepath.Clean(os.TempDir())
	for dir := filepath.Dir(path); dir != top && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func callInChild(t *testing.T, uid int, path string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", asUser, uid, path))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child as uid %d: %v: %s", uid, err, out)
	}
	return string(out)
}

// One server on both kinds of listener tells its callers apart.
func TestOneServerOnBothListeners(t *testing.T) {
	state := newPKI(t)
	config, err := ServerTLS(CertDir(state), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(Credentials(config).Clone(), &Guard{})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s, tcp)
	path := serveUnix(t, s)
	admin := credentials.NewTLS(asAdmin(t, state))
	if name, err := who(dial(t, tcp.Addr().String(), admin)); name != "admin (admin)" {
		t.Errorf("over TCP: %q, %v", name, err)
	}
	if name, err := who(dialUnix(t, path)); name != userName(uint32(os.Getuid()))+" (admin)" {
		t.Errorf("over the unix socket: %q, %v", name, err)
	}
	if name, err := who(dial(t, tcp.Addr().String(), insecure.NewCredentials())); err == nil {
		t.Errorf("over TCP in plain text: let in as %q", name)
	}
}

func TestPeerCredentialsNeedAUnixSocket(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	if _, _, err := PeerCredentials().ServerHandshake(here); err == nil {
		t.Error("a pipe has peer credentials")
	}
	if _, _, err := PeerCredentials().ClientHandshake(t.Context(), "", here); err == nil {
		t.Error("a client has peer credentials")
	}
}

func TestUserName(t *testing.T) {
	if got := userName(0); got != "root" {
		t.Errorf("uid 0 is %q", got)
	}
	const uid = 3999999999
	if _, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		t.Skip("this machine has a user with uid 3999999999")
	}
	if got := userName(uid); got != "uid-3999999999" {
		t.Errorf("a uid without a name is %q", got)
	}
}

func TestListenUnixReplacesAStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tele.sock")
	leaveStale(t, path)
	listener, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v; want 0660", info.Mode(), err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, filepath.Dir(path))
}

// leaveStale makes a socket file as a server leaves it behind that was killed.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind in %s: %v, %v", dir, left, err)
	}
}

func TestListenUnixRefuses(t *testing.T) {
	dir := t.TempDir()
	inUse := filepath.Join(dir, "used.sock")
	listener, err := ListenUnix(inUse)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ path, want string }{
		{inUse, "another server listens there"},
		{file, "is no socket"},
		{dir, "is no socket"},
		{"tele.sock", "absolute path"},
		{"@tele", "absolute path"},
		{"", "absolute path"},
		{"/" + strings.Repeat("x", maxSocketPath), "absolute path"},
		{filepath.Join(dir, "missing", "tele.sock"), "no such file or directory"},
	}
	for _, tt := range tests {
		if _, err := ListenUnix(tt.path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("listen on %q: %v, want %q", tt.path, err, tt.want)
		}
	}
	if text, err := os.ReadFile(file); string(text) != "precious" {
		t.Errorf("the file became %q, %v", text, err)
	}
}

// Of many servers that find the same stale socket, one gets it, and keeps it.
func TestListenUnixAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tele.sock")
	for range 20 {
		leaveStale(t, path)
		listenAtOnce(t, path)
		wantEmpty(t, filepath.Dir(path))
	}
}

func listenAtOnce(t *testing.T, path string) {
	t.Helper()
	var group sync.WaitGroup
	got := make(chan net.Listener, 8)
	for range cap(got) {
		group.Go(func() {
			if listener, err := ListenUnix(path); err == nil {
				got <- listener
			} else if !strings.Contains(err.Error(), "another server listens there") {
				t.Errorf("refused with: %v", err)
			}
		})
	}
	group.Wait()
	close(got)
	if len(got) != 1 {
		t.Errorf("%d listeners, want 1", len(got))
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the listener cannot be reached: %v", err)
	} else {
		conn.Close()
	}
	for listener := range got {
		listener.Close()
	}
}

// Who waited for the lock of one that is done holds a file that is no longer the lock.
func TestLockThatWasRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	create := func() *os.File {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	lock := create()
	if !sameFile(lock, path) {
		t.Error("a lock that is in place is not recognised")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if sameFile(lock, path) {
		t.Error("a removed lock counts")
	}
	if create(); sameFile(lock, path) {
		t.Error("a lock counts that another has taken the place of")
	}
}
