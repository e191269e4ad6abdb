package access

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"

	"google.golang.org/grpc/credentials"
)

// PeerInfo is what the kernel says about who connected to a unix socket. It is the AuthInfo of
// such a connection.
type PeerInfo struct {
	credentials.CommonAuthInfo
	PID      int32 // as this process sees it; 0 from a PID namespace it cannot see
	UID, GID uint32
	Name     string // the user's name, "uid-1234" for one without
}

// AuthType implements credentials.AuthInfo.
func (PeerInfo) AuthType() string { return "peercred" }

// PeerCredentials returns credentials for unix sockets. There is no handshake on the wire, so a
// client dials with insecure credentials: the kernel says who it is.
func PeerCredentials() credentials.TransportCredentials {
	return peerCredentials{}
}

// Credentials returns credentials for one server that listens on TCP and on unix sockets: config
// on the former, PeerCredentials on the latter.
func Credentials(config *tls.Config) credentials.TransportCredentials {
	return bothCredentials{TransportCredentials: credentials.NewTLS(config)}
}

type bothCredentials struct {
	credentials.TransportCredentials // TLS
}

func (b bothCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	under := conn
	if v, ok := conn.(*visitor); ok {
		under = v.Conn
	}
	if local, ok := under.(*net.UnixConn); ok {
		_, info, err := PeerCredentials().ServerHandshake(local)
		return conn, info, err
	}
	below := &gatherer{Conn: conn}
	conn, info, err := b.TransportCredentials.ServerHandshake(below)
	if err != nil {
		return nil, nil, err
	}
	return gathering{conn, below}, info, nil
}

func (b bothCredentials) Clone() credentials.TransportCredentials {
	return bothCredentials{TransportCredentials: b.TransportCredentials.Clone()}
}

type peerCredentials struct{}

func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	local, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("read peer credentials of a %T: only a unix socket has them", conn)
	}
	cred, err := readPeer(local)
	if err != nil {
		return nil, nil, fmt.Errorf("read peer credentials: %w", err)
	}
	return conn, PeerInfo{
		// What goes through a unix socket stays inside the kernel.
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		PID:            cred.Pid,
		UID:            cred.Uid,
		GID:            cred.Gid,
		Name:           userName(cred.Uid),
	}, nil
}

// readPeer returns the credentials that the peer had when it connected (socket(7), SO_PEERCRED).
func readPeer(conn *net.UnixConn) (*syscall.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *syscall.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		cred, sockErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil {
		return nil, err
	}
	if sockErr != nil {
		return nil, fmt.Errorf("getsockopt SO_PEERCRED: %w", sockErr)
	}
	return cred, nil
}

func userName(uid uint32) string {
	text := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(text); err == nil {
		return u.Username
	}
	return "uid-" + text
}

func (peerCredentials) ClientHandshake(
	context.Context, string, net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials are for servers: dial with insecure ones")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

func (peerCredentials) Clone() credentials.TransportCredentials { return peerCredentials{} }

// OverrideServerName does nothing: there is no name to override.
func (peerCredentials) OverrideServerName(string) error { return nil }
