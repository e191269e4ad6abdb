package server

import (
	"context"
	"errors"
	"io"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/job"
	"google.golang.org/grpc"
)

type inputStream = grpc.BidiStreamingServer[telev1.WriteInputRequest, telev1.WriteInputResponse]

// maxInput is how much one message may bring.
const maxInput = 128 << 10

func (s *service) WriteInput(stream inputStream) error {
	ctx, cancel := s.table.With(stream.Context())
	defer cancel()
	first, err := stream.Recv()
	if err == io.EOF {
		return toStatus(&job.BadRequest{Field: "job_id", Why: "is empty: nothing was sent"})
	}
	if err != nil {
		return err
	}
	j, err := s.controlled(ctx, first.JobId, "write its input")
	if err != nil {
		return err
	}
	leave, err := s.takeStream(ctx)
	if err != nil {
		return err
	}
	defer leave()
	w, have, err := j.InputWriter(first.Writer)
	if errors.Is(err, job.ErrInputClosed) {
		return stream.Send(&telev1.WriteInputResponse{Accepted: uint64(have), Closed: true})
	}
	if err != nil {
		return toStatus(err)
	}
	if len(first.Data) == 0 && !first.End {
		if err := stream.Send(&telev1.WriteInputResponse{Accepted: uint64(have)}); err != nil {
			return err
		}
	} else if more, err := take(ctx, stream, w, first); !more || err != nil {
		return err
	}
	return takeAll(ctx, stream, w)
}

// takeAll takes what the client sends, until it or the job wants no more.
func takeAll(ctx context.Context, stream inputStream, w *job.InputWriter) error {
	messages := make(chan *telev1.WriteInputRequest)
	ended := make(chan error, 1)
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case messages <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case m := <-messages:
			if more, err := take(ctx, stream, w, m); !more || err != nil {
				return err
			}
		case err := <-ended:
			if err == io.EOF {
				return nil
			}
			return err
		case <-w.Closed():
			_, err := take(ctx, stream, w, &telev1.WriteInputRequest{})
			return err
		case <-ctx.Done():
			return toStatus(context.Cause(ctx))
		}
	}
}

// take takes one message, answers it, and tells whether the job wants more.
func take(ctx context.Context, stream inputStream, w *job.InputWriter, m *telev1.WriteInputRequest) (more bool, err error) {
	if len(m.Data) > maxInput {
		return false, toStatus(&job.BadRequest{Field: "data", Why: "is longer than 128 KiB"})
	}
	have, err := w.Write(ctx, int64(m.Offset), m.Data, m.End)
	closed := errors.Is(err, job.ErrInputClosed)
	if err != nil && !closed {
		return false, toStatus(err)
	}
	closed = closed || m.End
	return !closed, stream.Send(&telev1.WriteInputResponse{Accepted: uint64(have), Closed: closed})
}
