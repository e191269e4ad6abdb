package server

import (
	"context"
	"io"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
)

// filesPiece is how much of a job's files is in one message.
const filesPiece = 64 << 10

func (s *service) StreamFiles(r *telev1.StreamFilesRequest, stream grpc.ServerStreamingServer[telev1.StreamFilesResponse]) error {
	ctx, cancel := s.table.With(stream.Context())
	defer cancel()
	j, err := s.find(ctx, r.JobId)
	if err != nil {
		return err
	}
	leave, err := s.takeStream(ctx)
	if err != nil {
		return err
	}
	defer leave()
	f, err := j.KeptFiles(r.Offset)
	if err != nil {
		return toStatus(err)
	}
	defer f.Close()
	for ctx.Err() == nil {
		data := make([]byte, filesPiece) // gRPC has it until it is written
		n, err := io.ReadFull(f, data)
		if n > 0 {
			if err := stream.Send(&telev1.StreamFilesResponse{Data: data[:n]}); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return nil
		case err != nil:
			return toStatus(err)
		}
	}
	return toStatus(context.Cause(ctx))
}
