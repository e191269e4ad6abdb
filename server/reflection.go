package server

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// A reflection tells tools like grpcurl what the API is. It is not gRPC's own, which makes the answers
// of descriptor.proto's messages: what these set up is a tenth of each start of tele, the client's too.
// The code that is made of a .proto file has the file's descriptor in it, as the bytes that are asked for.
type reflection struct {
	reflectionv1.UnimplementedServerReflectionServer
	server *grpc.Server
}

// olderReflection is the name that the service had at first, and by which tools still ask. The messages
// are the same, but there is no description of it here.
const olderReflection = "grpc.reflection.v1alpha.ServerReflection"

func registerReflection(server *grpc.Server) {
	r := reflection{server: server}
	reflectionv1.RegisterServerReflectionServer(server, r)
	older := reflectionv1.ServerReflection_ServiceDesc
	older.ServiceName = olderReflection
	server.RegisterService(&older, r)
}

func (r reflection) ServerReflectionInfo(stream reflectionv1.ServerReflection_ServerReflectionInfoServer) error {
	for {
		request, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		response := &reflectionv1.ServerReflectionResponse{ValidHost: request.Host, OriginalRequest: request}
		if err := r.answer(response); err != nil {
			response.MessageResponse = &reflectionv1.ServerReflectionResponse_ErrorResponse{
				ErrorResponse: &reflectionv1.ErrorResponse{ErrorCode: int32(codes.NotFound), ErrorMessage: err.Error()}}
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

// answer answers the request that is in the response.
func (r reflection) answer(response *reflectionv1.ServerReflectionResponse) (err error) {
	var found protoreflect.Descriptor
	switch ask := response.OriginalRequest.MessageRequest.(type) {
	case *reflectionv1.ServerReflectionRequest_ListServices:
		response.MessageResponse = &reflectionv1.ServerReflectionResponse_ListServicesResponse{
			ListServicesResponse: r.services()}
		return nil
	case *reflectionv1.ServerReflectionRequest_FileByFilename:
		found, err = protoregistry.GlobalFiles.FindFileByPath(ask.FileByFilename)
	case *reflectionv1.ServerReflectionRequest_FileContainingSymbol:
		found, err = protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(ask.FileContainingSymbol))
	default:
		return errors.New("the API has no extensions, and there is nothing else to ask for")
	}
	if err != nil {
		return err
	}
	files, err := withImports(found.ParentFile(), map[string]bool{})
	response.MessageResponse = &reflectionv1.ServerReflectionResponse_FileDescriptorResponse{
		FileDescriptorResponse: &reflectionv1.FileDescriptorResponse{FileDescriptorProto: files}}
	return err
}

// services are those that can be asked about.
func (r reflection) services() *reflectionv1.ListServiceResponse {
	list := &reflectionv1.ListServiceResponse{}
	for _, name := range slices.Sorted(maps.Keys(r.server.GetServiceInfo())) {
		if name != olderReflection {
			list.Service = append(list.Service, &reflectionv1.ServiceResponse{Name: name})
		}
	}
	return list
}

// withImports are the descriptors of a file and of all that it imports but what was sent, as bytes.
func withImports(file protoreflect.FileDescriptor, sent map[string]bool) (all [][]byte, err error) {
	sent[file.Path()] = true
	own, err := bytesOf(file)
	if err != nil {
		return nil, err
	}
	all = append(all, own)
	for i := range file.Imports().Len() {
		if imported := file.Imports().Get(i).FileDescriptor; !sent[imported.Path()] {
			more, err := withImports(imported, sent)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		}
	}
	return all, nil
}

// bytesOf is a file's descriptor. Every message has it, if in a method that is no longer called for.
func bytesOf(file protoreflect.FileDescriptor) ([]byte, error) {
	if file.Messages().Len() == 0 {
		return nil, fmt.Errorf("%s has no message that has its descriptor", file.Path())
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(file.Messages().Get(0).FullName())
	if err != nil {
		return nil, err
	}
	message, ok := kind.Zero().Interface().(interface{ Descriptor() ([]byte, []int) })
	if !ok {
		return nil, fmt.Errorf("the messages of %s do not have its descriptor", file.Path())
	}
	zipped, _ := message.Descriptor()
	reader, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(reader)
}
