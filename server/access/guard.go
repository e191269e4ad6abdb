package access

import (
	"context"
	"crypto/x509"
	"os"
	"path"
	"strings"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Guard stands before every method: it finds out who calls, refuses whom the table of rights does
// not let in, and hands the Identity on in the context. The zero Guard works.
type Guard struct {
	// Peers gives roles to local users by uid, on the unix socket. Root and the server's own
	// user are administrators without being named; everybody else not named is refused.
	Peers map[uint32]Role
	// Rate is how often one identity may call; nil is no limit.
	Rate *Rate
}

// Unary is a grpc.UnaryServerInterceptor.
func (g *Guard) Unary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (any, error) {
	ctx, err := g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// Stream is a grpc.StreamServerInterceptor.
func (g *Guard) Stream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler,
) error {
	ctx, err := g.admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return next(srv, knownStream{ServerStream: stream, ctx: ctx})
}

// knownStream is a stream whose context knows the caller. grpc takes a stream's context from the
// stream, so this is the one place that has to keep one.
type knownStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s knownStream) Context() context.Context { return s.ctx }

// admit returns the context with the caller's identity, or a status that says who was refused
// what, why, and what to do.
func (g *Guard) admit(ctx context.Context, method string) (context.Context, error) {
	id, err := g.identify(ctx)
	if err == nil {
		err = checkRoom(ctx)
	}
	if err == nil {
		err = g.checkRate(id)
	}
	if err != nil {
		return nil, err
	}
	needed, listed := rights[method]
	if !listed {
		return nil, status.Errorf(codes.PermissionDenied,
			"%s may not call %s: nobody may, the server has no rule for this method", id, method)
	}
	if !id.Has(needed...) {
		return nil, status.Errorf(codes.PermissionDenied,
			"%s may not call %s: it takes the role %s; ask the server's administrator for it "+
				"(tele certs issue NAME --role %s)",
			id, path.Base(method), joinRoles(needed, " or ", ""), needed[len(needed)-1])
	}
	return NewContext(ctx, id), nil
}

func (g *Guard) identify(ctx context.Context) (Identity, error) {
	caller, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, errUnknown
	}
	info := caller.AuthInfo
	if v, ok := info.(*visitor); ok {
		info = v.AuthInfo
	}
	switch info := info.(type) {
	case credentials.TLSInfo:
		if len(info.State.VerifiedChains) > 0 {
			return fromCert(info.State.VerifiedChains[0][0], time.Now())
		}
	case PeerInfo:
		return g.fromPeer(info)
	}
	return Identity{}, errUnknown
}

// checkRate refuses a call that comes too soon, and says when to try again.
func (g *Guard) checkRate(id Identity) error {
	wait := g.Rate.Take(id.Name, time.Now())
	if wait == 0 {
		return nil
	}
	s := status.Newf(codes.ResourceExhausted, "%s makes more calls than one client may; try again in %s", id, wait)
	if with, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)}); err == nil {
		s = with // it fails for an OK status alone
	}
	return s.Err()
}

var errUnknown = status.Error(codes.Unauthenticated,
	"the connection does not say who calls: use a client certificate (--cert, --key), or the "+
		"server's unix socket")

// fromCert reads an identity from a certificate that TLS has verified. TLS did so when the
// connection was made; a connection may outlive the certificate.
func fromCert(cert *x509.Certificate, now time.Time) (Identity, error) {
	name := cert.Subject.CommonName
	switch {
	case now.After(cert.NotAfter):
		return Identity{}, status.Errorf(codes.Unauthenticated,
			"the certificate of %q expired at %s: ask for a new one (tele certs issue)",
			name, cert.NotAfter.Format(time.RFC3339))
	case name == "" || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return Identity{}, status.Errorf(codes.Unauthenticated,
			"the certificate names nobody: its common name is %q; issue one with a printable name", name)
	}
	return Identity{Name: name, Roles: knownRoles(cert.Subject.Organization)}, nil
}

func (g *Guard) fromPeer(info PeerInfo) (Identity, error) {
	if info.UID == 0 || info.UID == uint32(os.Geteuid()) {
		return Identity{Name: info.Name, Roles: []Role{Admin}}, nil
	}
	if role, listed := g.Peers[info.UID]; listed && role.Known() {
		return Identity{Name: info.Name, Roles: []Role{role}}, nil
	}
	return Identity{}, status.Errorf(codes.PermissionDenied,
		"%s (uid %d) may not use the unix socket: it is for root, the server's own user and the "+
			"users in its configuration; use a client certificate over TCP (--cert, --key)",
		info.Name, info.UID)
}
