package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/server/job"
	"github.com/telerun/tele/server/output"
	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// toStatus is the one table from this server's errors to gRPC's.
func toStatus(err error) error {
	var request *job.BadRequest
	var step *initproc.StepError
	var limit *job.LimitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &request):
		return detailed(codes.InvalidArgument, err.Error(), &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: request.Field, Description: request.Why}}})
	case errors.As(err, &step):
		reason, text := explain(step)
		return detailed(codes.FailedPrecondition, text, info(reason))
	case errors.As(err, &limit):
		return detailed(codes.FailedPrecondition, err.Error(), info("LIMIT_NOT_ENFORCEABLE"))
	case errors.Is(err, job.ErrNotEnded):
		return detailed(codes.FailedPrecondition, err.Error(), info("NOT_ENDED"))
	case errors.Is(err, job.ErrOutputRemoved):
		return detailed(codes.FailedPrecondition, err.Error(), info("OUTPUT_REMOVED"))
	case errors.Is(err, output.ErrFull), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return status.Error(codes.ResourceExhausted, "the server has no room for more jobs: "+err.Error())
	case errors.Is(err, job.ErrTooMany):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, output.ErrOffset):
		return status.Error(codes.OutOfRange, err.Error())
	case errors.Is(err, job.ErrClosing):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

// toStatusOf is toStatus for an id that was looked up.
func toStatusOf(err error, id string) error {
	switch {
	case errors.Is(err, job.ErrNotFound):
		return status.Errorf(codes.NotFound, "no job %q; tele status lists those there are", id)
	case errors.Is(err, job.ErrAmbiguous):
		return toStatus(&job.BadRequest{Field: "job_id", Why: fmt.Sprintf("%q: %v", id, err)})
	}
	return toStatus(err)
}

func explain(e *initproc.StepError) (reason, text string) {
	switch {
	case e.NotFound():
		return "COMMAND_NOT_FOUND", "command not found in the sandbox: " + e.Error()
	case e.NotExecutable():
		return "COMMAND_NOT_EXECUTABLE", "command cannot be executed: " + e.Error()
	case e.BadCwd():
		return "BAD_CWD", "working directory cannot be used by the job: " + e.Error()
	}
	return "SANDBOX_FAILED", fmt.Sprintf("the sandbox could not be made, step %d: %v", e.Step, e)
}

func info(reason string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: reason, Domain: "tele"}
}

func detailed(code codes.Code, text string, detail protoadapt.MessageV1) error {
	s := status.New(code, text)
	if with, err := s.WithDetails(detail); err == nil { // fails for an OK status alone
		s = with
	}
	return s.Err()
}
