package access

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// cells is what the table has to say, written a second time on purpose: admin, user, viewer, and a
// certificate without any role.
var cells = []struct {
	method                      string
	admin, user, viewer, nobody bool
}{
	{"/tele.v1.JobService/Start", true, true, false, false},
	{"/tele.v1.JobService/Get", true, true, true, false},
	{"/tele.v1.JobService/List", true, true, true, false},
	{"/tele.v1.JobService/Stop", true, true, false, false},
	{"/tele.v1.JobService/Signal", true, true, false, false},
	{"/tele.v1.JobService/Exec", true, true, false, false},
	{"/tele.v1.JobService/Resize", true, true, false, false},
	{"/tele.v1.JobService/Pause", true, true, false, false},
	{"/tele.v1.JobService/Resume", true, true, false, false},
	{"/tele.v1.JobService/Update", true, true, false, false},
	{"/tele.v1.JobService/WriteInput", true, true, false, false},
	{"/tele.v1.JobService/Wait", true, true, true, false},
	{"/tele.v1.JobService/Watch", true, true, true, false},
	{"/tele.v1.JobService/StreamOutput", true, true, true, false},
	{"/tele.v1.JobService/Remove", true, true, false, false},
	{"/tele.v1.JobService/Prune", true, true, false, false},
	{"/tele.v1.JobService/Diff", true, true, true, false},
	{"/tele.v1.JobService/StreamFiles", true, true, true, false},
	{"/tele.v1.JobService/ListTimings", true, false, false, false},
	{"/grpc.health.v1.Health/Check", true, true, true, false},
	{"/grpc.health.v1.Health/List", true, true, true, false},
	{"/grpc.health.v1.Health/Watch", true, true, true, false},
	{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", true, true, true, false},
	{"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", true, true, true, false},
}

// Each cell is a call over mTLS by a client with an issued certificate.
func TestEveryCell(t *testing.T) {
	state := newPKI(t)
	addr := serveTLS(t, state, nil)
	conns := map[string]*grpc.ClientConn{"nobody": dial(t, addr, withoutRole(t, state))}
	for _, role := range []Role{Admin, User, Viewer} {
		conns[string(role)] = dial(t, addr, withRole(t, state, role))
	}
	if len(cells) != len(rights) {
		t.Errorf("%d methods here, %d in the table", len(cells), len(rights))
	}
	for _, c := range cells {
		allowed := map[string]bool{
			"admin": c.admin, "user": c.user, "viewer": c.viewer, "nobody": c.nobody,
		}
		for name, conn := range conns {
			err := call(conn, c.method)
			if got := status.Code(err); (got != codes.PermissionDenied) != allowed[name] {
				t.Errorf("%s calls %s: %v, want allowed %t", name, c.method, err, allowed[name])
			}
			if got := status.Code(err); got == codes.Unavailable || got == codes.Unauthenticated {
				t.Errorf("%s calls %s: did not get there: %v", name, c.method, err)
			}
		}
	}
}

func withRole(t *testing.T, state string, role Role) credentials.TransportCredentials {
	t.Helper()
	issued, err := Issue(state, "some-"+string(role), role, t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	config := trusting(t, state)
	config.Certificates = []tls.Certificate{loadCertificate(t, issued.Cert, issued.Key)}
	return credentials.NewTLS(config)
}

func withoutRole(t *testing.T, state string) credentials.TransportCredentials {
	t.Helper()
	template := clientTemplate("nobody", "janitor", testNow(), day)
	config := trusting(t, state)
	config.Certificates = []tls.Certificate{sneak(t, state, template)}
	return credentials.NewTLS(config)
}

// call makes an empty request and returns the first answer's error: an empty message is a valid
// one of every type, and a stream of one message is what a unary call is on the wire.
func call(conn *grpc.ClientConn, method string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := conn.NewStream(ctx, desc, method)
	if err != nil {
		return err
	}
	// An error of sending is io.EOF; the receiving has the status.
	_ = stream.SendMsg(&emptypb.Empty{})
	_ = stream.CloseSend()
	return stream.RecvMsg(&emptypb.Empty{})
}

// A method that is added to a service has to be added to the table, or nobody can call it.
func TestTableIsComplete(t *testing.T) {
	registered := map[string]bool{}
	for service, info := range newServer(PeerCredentials(), &Guard{}).GetServiceInfo() {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			registered[name] = true
			if _, listed := rights[name]; !listed {
				t.Errorf("%s is not in the table", name)
			}
		}
	}
	for name := range rights {
		if !registered[name] {
			t.Errorf("%s is in the table, but no service has it", name)
		}
	}
}

func TestUnlistedMethodIsDenied(t *testing.T) {
	ran := false
	handler := func(any, grpc.ServerStream) error { ran = true; return nil }
	guard := &Guard{}
	s := grpc.NewServer(grpc.Creds(PeerCredentials()), grpc.ChainStreamInterceptor(guard.Stream))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Unlisted",
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: "Do", Handler: handler, ServerStreams: true}},
	}, struct{}{})
	path := serveUnix(t, s)
	err := call(dialUnix(t, path), "/test.Unlisted/Do")
	if status.Code(err) != codes.PermissionDenied || ran {
		t.Errorf("an administrator calls a method that is not in the table: %v, ran %t", err, ran)
	}
}

func TestIdentityReachesTheMethods(t *testing.T) {
	state := newPKI(t)
	conn := dial(t, serveTLS(t, state, nil), credentials.NewTLS(asAdmin(t, state)))
	if name, err := who(conn); name != "admin (admin)" || err != nil {
		t.Errorf("Get saw %q, %v", name, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stream, err := telev1.NewJobServiceClient(conn).StreamOutput(ctx, &telev1.StreamOutputRequest{})
	if err != nil {
		t.Fatal(err)
	}
	message, err := stream.Recv()
	if string(message.GetData()) != "admin (admin)" || err != nil {
		t.Errorf("StreamOutput saw %q, %v", message.GetData(), err)
	}
}

func TestRefusalSaysWhoWhatAndWhatToDo(t *testing.T) {
	state := newPKI(t)
	addr := serveTLS(t, state, nil)
	tests := []struct {
		creds credentials.TransportCredentials
		want  string
	}{
		{withRole(t, state, Viewer), "some-viewer (viewer) may not call Start: it takes the role " +
			"admin or user; ask the server's administrator for it (tele certs issue NAME --role user)"},
		{withoutRole(t, state), "nobody (no role) may not call Start"},
	}
	for _, tt := range tests {
		err := call(dial(t, addr, tt.creds), telev1.JobService_Start_FullMethodName)
		if message := status.Convert(err).Message(); !strings.HasPrefix(message, tt.want) {
			t.Errorf("refusal %q, want %q", message, tt.want)
		}
	}
}
