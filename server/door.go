package server

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/telerun/tele/proto/codec"
	"github.com/telerun/tele/server/access"
	"github.com/telerun/tele/server/job"
	"github.com/telerun/tele/server/output"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// What comes in from the network is bounded before anybody has said who they are, and for each
// client afterwards. This file has all of these bounds but those of package access (intake.go) and
// of the requests themselves (server/job/check.go).
const (
	// maxStrangers is how many connections may be in it at a time.
	maxStrangers = 512
	// maxHeaderList is the size of a call's headers. Those of tele's own client take some 300 bytes.
	maxHeaderList = 16 << 10
	// maxRequest is the size of a request: a command, an environment and secrets as large as they may be,
	// what protobuf adds to them, and the rest.
	maxRequest = job.MaxStrings + job.MaxSecrets + 64<<10
	// window is how much of an incomplete request lies in memory before it is asked for; HTTP/2
	// allows no less. It does not grow: requests are small, and output flows the other way.
	window = 64 << 10
	// otherCalls is how many calls beside output streams, such as Wait, one connection may have open.
	otherCalls = 1000
)

// How long the slow may take; shorter in tests.
var (
	handshakeTime = 10 * time.Second // TCP, TLS and the first frames of HTTP/2 together
	requestTime   = 20 * time.Second // from a request's first byte to its last
	// A connection on which nothing came for pingAfter is asked, and closed when there is no answer in
	// pingTime: a client that is gone, or that does not even read what HTTP/2 itself has to say.
	pingAfter = 30 * time.Second
	pingTime  = 10 * time.Second
)

// descriptors is how many descriptors the process may have.
func descriptors() int {
	var files unix.Rlimit // Go's runtime has raised the soft limit to the hard one
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) != nil {
		return 1024
	}
	return int(min(files.Cur, math.MaxInt32))
}

// connectionFiles are the descriptors that are kept for connections: without them nobody could even
// stop a job.
func connectionFiles() int { return max(64, descriptors()/8) }

// jobFiles are those for jobs: what connections, the output of jobs that write, and the server itself
// leave. It is less in tests.
var jobFiles = func() int {
	all := descriptors()
	return max(64, all-connectionFiles()-output.HeldFiles()-min(all/8, 256))
}

// newDoor bounds connections.
func (c *Command) newDoor() *access.Door {
	total := connectionFiles()
	return access.NewDoor(access.DoorOptions{Connections: total, Strangers: min(maxStrangers, total/2),
		PerClient:   c.MaxConnections,
		RequestTime: requestTime})
}

// doorOptions bound what goes on in one connection.
func (c *Command) doorOptions() []grpc.ServerOption {
	streams := c.MaxStreams
	if streams <= 0 { // no limit
		streams = 10000
	}
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec.Codec{}),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.MaxRecvMsgSize(maxRequest),
		// Also how many calls may still be ending that a client has reset (CVE-2023-44487).
		grpc.MaxConcurrentStreams(uint32(min(streams, math.MaxInt32-otherCalls)) + otherCalls),
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTime}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}

// maxMessage is the size of an error's text. It travels in the headers, of which a client takes only
// so many, and often quotes the request.
const maxMessage = 2000

// shorten cuts an error's text; the details go with the rest, for they have the same in them.
func shorten(err error) error {
	s, ok := status.FromError(err)
	if !ok || len(s.Message()) <= maxMessage {
		return err
	}
	return status.Error(s.Code(), strings.ToValidUTF8(s.Message()[:maxMessage], "")+"…")
}

func shortenUnary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	response, err := next(ctx, request)
	return response, shorten(err)
}

func shortenStream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return shorten(next(server, stream))
}
