package access

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

func testNow() time.Time { return time.Now() }

func TestFromCert(t *testing.T) {
	now := testNow()
	tests := []struct {
		name string
		cert x509.Certificate
		want string // of the identity, or part of the refusal
	}{
		{"one role", client("alice", now, "user"), "alice (user)"},
		{"two roles", client("alice", now, "user", "viewer"), "alice (user, viewer)"},
		{"a role twice", client("alice", now, "user", "user"), "alice (user)"},
		{"other organisations", client("alice", now, "ACME", "viewer"), "alice (viewer)"},
		{"no organisation", client("alice", now), "alice (no role)"},
		{"a role in capitals", client("alice", now, "ADMIN"), "alice (no role)"},
		{"a foreign CA's habit", client("Alice B. <a@b.example>", now, "user"),
			"Alice B. <a@b.example> (user)"},
		{"no name", client("", now, "admin"), "names nobody"},
		{"a name that steers a terminal", client("a\x1b[2J", now, "admin"), "names nobody"},
		{"ended while connected", client("alice", now.Add(-2*day), "user"), "expired at"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id, err := fromCert(&tt.cert, now)
			got := id.String()
			if err != nil {
				got = err.Error()
				if status.Code(err) != codes.Unauthenticated {
					t.Errorf("code %s, want Unauthenticated", status.Code(err))
				}
			}
			if !strings.Contains(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func client(name string, from time.Time, organisations ...string) x509.Certificate {
	return x509.Certificate{
		Subject:  pkix.Name{CommonName: name, Organization: organisations},
		NotAfter: from.Add(day),
	}
}

// What cannot happen behind Credentials is refused all the same.
func TestUnknownCallerIsRefused(t *testing.T) {
	unverified := credentials.TLSInfo{}
	cert := client("admin", testNow(), "admin")
	unverified.State.PeerCertificates = []*x509.Certificate{&cert}
	base := context.Background()
	for name, ctx := range map[string]context.Context{
		"no peer":                  base,
		"no credentials":           peer.NewContext(base, &peer.Peer{}),
		"certificate not verified": peer.NewContext(base, &peer.Peer{AuthInfo: unverified}),
	} {
		_, err := (&Guard{}).admit(ctx, "/tele.v1.JobService/List")
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v, want Unauthenticated", name, err)
		}
	}
}

func TestFromPeer(t *testing.T) {
	self := uint32(os.Geteuid())
	guard := &Guard{Peers: map[uint32]Role{4001: User, 4002: Viewer, 4003: "king"}}
	tests := []struct {
		uid  uint32
		want string
	}{
		{0, "x (admin)"},
		{self, "x (admin)"},
		{4001, "x (user)"},
		{4002, "x (viewer)"},
		{4003, "x (uid 4003) may not use the unix socket"},
		{4004, "x (uid 4004) may not use the unix socket"},
	}
	for _, tt := range tests {
		id, err := guard.fromPeer(PeerInfo{UID: tt.uid, Name: "x"})
		got := id.String()
		if err != nil {
			got = status.Convert(err).Message()
		}
		if !strings.HasPrefix(got, tt.want) {
			t.Errorf("uid %d: %q, want %q", tt.uid, got, tt.want)
		}
	}
}
