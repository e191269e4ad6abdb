package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits/cgroup"
	telev1 "github.com/telerun/tele/proto/tele/v1"
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
	var change *cgroup.ChangeError
	var name *job.NameError
	var files *job.FilesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &request):
		return detailed(codes.InvalidArgument, err.Error(), &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: request.Field, Description: request.Why}}})
	case errors.As(err, &step):
		return detailed(codes.FailedPrecondition, fmt.Sprintf("the sandbox could not be made, step %d: %v", step.Step, step),
			info("SANDBOX_FAILED"))
	case errors.As(err, &files):
		return detailed(codes.FailedPrecondition, err.Error(), info("FILES_FAILED"))
	case errors.As(err, &limit):
		return detailed(codes.FailedPrecondition, err.Error(), info("LIMIT_NOT_ENFORCEABLE"))
	case errors.As(err, &name):
		return status.Error(codes.AlreadyExists, err.Error())
	case errors.As(err, &change):
		return detailed(codes.FailedPrecondition, err.Error(), info("LIMIT_NOT_ENFORCEABLE"))
	case errors.Is(err, job.ErrStopping):
		return detailed(codes.FailedPrecondition, err.Error(), info("STOPPING"))
	case errors.Is(err, job.ErrNoFiles):
		return detailed(codes.FailedPrecondition, err.Error(), info("NO_FILES"))
	case errors.Is(err, job.ErrNotEnded), errors.Is(err, job.ErrFilesLater):
		return detailed(codes.FailedPrecondition, err.Error(), info("NOT_ENDED"))
	case errors.Is(err, job.ErrEnded):
		return detailed(codes.FailedPrecondition, err.Error(), info("ENDED"))
	case errors.Is(err, cgroup.ErrNoFreezer), errors.Is(err, cgroup.ErrNotFrozen):
		return detailed(codes.FailedPrecondition, err.Error(), info("CANNOT_PAUSE"))
	case errors.Is(err, job.ErrBetween):
		return detailed(codes.FailedPrecondition, err.Error(), info("BETWEEN_TRIES"))
	case errors.Is(err, job.ErrPaused):
		return detailed(codes.FailedPrecondition, err.Error(), info("PAUSED"))
	case errors.Is(err, job.ErrNoInput):
		return detailed(codes.FailedPrecondition, err.Error(), info("NO_INPUT"))
	case errors.Is(err, job.ErrNoTerminal):
		return detailed(codes.FailedPrecondition, err.Error(), info("NO_TERMINAL"))
	case errors.Is(err, job.ErrOutputRemoved):
		return detailed(codes.FailedPrecondition, err.Error(), info("OUTPUT_REMOVED"))
	case errors.Is(err, job.ErrNoOverlay):
		return detailed(codes.FailedPrecondition, err.Error(), info("NO_OVERLAY"))
	case errors.Is(err, job.ErrDiffUnknown):
		return detailed(codes.FailedPrecondition, err.Error(), info("DIFF_UNKNOWN"))
	case errors.Is(err, output.ErrFull), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return status.Error(codes.ResourceExhausted, "the server has no room for more jobs: "+err.Error())
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return status.Error(codes.ResourceExhausted, "the server has as many files open as it may; raise LimitNOFILE= of its unit or ulimit -n: "+err.Error())
	case errors.Is(err, job.ErrTooMany), errors.Is(err, job.ErrFiles), errors.Is(err, initproc.ErrBesides):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, job.ErrEventsGone):
		return detailed(codes.OutOfRange, err.Error(), info("EVENTS_GONE"))
	case errors.Is(err, output.ErrOffset), errors.Is(err, job.ErrInputOffset):
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

// toStatusOfStart is toStatus for a job that was to be started. What the caller asked for and the
// sandbox has not is told in the caller's own words.
func toStatusOfStart(err error, spec *telev1.JobSpec) error {
	var step *initproc.StepError
	if !errors.As(err, &step) {
		return toStatus(err)
	}
	const sees = "a job sees this machine's files, but not /root, /home, /run and /tmp"
	precondition := func(reason, text string, args ...any) error {
		return detailed(codes.FailedPrecondition, fmt.Sprintf(text, args...), info(reason))
	}
	switch program := spec.Command[0]; {
	case step.NotFound() && !strings.Contains(program, "/"):
		return precondition("COMMAND_NOT_FOUND", "command not found in the sandbox: %q is in no directory of PATH (%s)", program, sees)
	case step.NotFound():
		return precondition("COMMAND_NOT_FOUND", "command not found in the sandbox: %q, or the interpreter that it needs: %v (%s)",
			program, step.Errno, sees)
	case step.NotExecutable():
		return precondition("COMMAND_NOT_EXECUTABLE", "command cannot be executed: %q: %v (it must be a program, or a script that "+
			"begins with #!, that every user may execute)", program, step.Errno)
	case step.BadMount() != "":
		return precondition("BAD_MOUNT", "mount point cannot be used: %q: %v (it must be there in the job's root, with no symbolic link on the way, or lie below /tmp or /home/job)",
			step.BadMount(), step.Errno)
	case step.BadCwd():
		return precondition("BAD_CWD", "working directory cannot be used by the job: %q: %v (%s)", spec.Cwd, step.Errno, sees)
	}
	return toStatus(err)
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
