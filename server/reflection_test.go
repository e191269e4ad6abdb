package server

import (
	"net"
	"path/filepath"
	"slices"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// described is a connection to a server with all of tele's services.
func described(t *testing.T) *grpc.ClientConn {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	telev1.RegisterJobServiceServer(server, &telev1.UnimplementedJobServiceServer{})
	healthv1.RegisterHealthServer(server, health.NewServer())
	registerReflection(server)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close() // the server's end is what is looked at
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// A tool asks for the services, and for each for the files that it is made of, in one stream.
func TestReflection(t *testing.T) {
	stream, err := reflectionv1.NewServerReflectionClient(described(t)).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	type (
		file      = reflectionv1.ServerReflectionRequest_FileByFilename
		symbol    = reflectionv1.ServerReflectionRequest_FileContainingSymbol
		numbers   = reflectionv1.ServerReflectionRequest_AllExtensionNumbersOfType
		extension = reflectionv1.ServerReflectionRequest_FileContainingExtension
	)
	ask := func(request *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(response.OriginalRequest, request) {
			t.Errorf("answer to %v, want to %v", response.OriginalRequest, request)
		}
		return response
	}
	var services []string
	list := &reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}
	for _, service := range ask(list).GetListServicesResponse().GetService() {
		services = append(services, service.Name)
	}
	want := []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "tele.v1.JobService"}
	if !slices.Equal(services, want) {
		t.Errorf("services %q, want %q", services, want)
	}
	for _, name := range append(services, "tele.v1.JobSpec.root", "tele.v1.JobService.StreamOutput") {
		answer := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &symbol{FileContainingSymbol: name}})
		checkFiles(t, name, answer.GetFileDescriptorResponse())
	}
	answer := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &file{FileByFilename: "tele/v1/tele.proto"}})
	checkFiles(t, "tele.v1.JobService", answer.GetFileDescriptorResponse())

	for _, unknown := range []*reflectionv1.ServerReflectionRequest{
		{MessageRequest: &symbol{FileContainingSymbol: "tele.v1.Nothing"}},
		{MessageRequest: &file{FileByFilename: "nothing.proto"}},
		{MessageRequest: &numbers{AllExtensionNumbersOfType: "tele.v1.Job"}},
		{MessageRequest: &extension{FileContainingExtension: &reflectionv1.ExtensionRequest{
			ContainingType: "tele.v1.Job", ExtensionNumber: 1000}}},
		{},
	} {
		if got := ask(unknown); got.GetErrorResponse().GetErrorCode() != int32(codes.NotFound) {
			t.Errorf("%v, want an error that it is not found", got)
		}
	}
}

// The older name is the one that many tools ask by first. Its messages are the same on the wire.
func TestReflectionByItsOlderName(t *testing.T) {
	stream, err := described(t).NewStream(t.Context(), &reflectionv1.ServerReflection_ServiceDesc.Streams[0],
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
	if err != nil {
		t.Fatal(err)
	}
	const name = "tele.v1.JobService"
	err = stream.SendMsg(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name}})
	if err != nil {
		t.Fatal(err)
	}
	response := &reflectionv1.ServerReflectionResponse{}
	if err := stream.RecvMsg(response); err != nil {
		t.Fatal(err)
	}
	checkFiles(t, name, response.GetFileDescriptorResponse())
}

// checkFiles fails unless an answer has the file that name is in, as it was compiled in, and all that
// this one imports.
func checkFiles(t *testing.T, name string, answer interface{ GetFileDescriptorProto() [][]byte }) {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	for _, data := range answer.GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(data, file); err != nil {
			t.Fatal(err)
		}
		set.File = append(set.File, file)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatalf("files of %s: %v", name, err)
	}
	got, err := files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		t.Fatal(err)
	}
	want, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		t.Fatal(err)
	}
	gotFile, wantFile := protodesc.ToFileDescriptorProto(got.ParentFile()), protodesc.ToFileDescriptorProto(want.ParentFile())
	if !proto.Equal(gotFile, wantFile) {
		t.Errorf("the file of %s is not the one that was compiled in", name)
	}
}
