package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How tele exits, in this file alone:
//
//	0–124    the command's own
//	125      tele's own error: bad arguments, no server, no permission, no such job;
//	         or a job that failed although its command exited with 0, whose end nobody saw, or which
//	         tele left running
//	126      the command cannot be executed
//	127      the command is not there
//	128+n    the command was ended by signal n
const (
	exitTele          = 125
	exitNotExecutable = 126
	exitNotFound      = 127
)

// An exitError ends tele with a code and says nothing more: the command said it all.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exitOf is how tele ends for a job that has. A job can fail without an exit code that says so:
// nobody saw its end, or it took the signal at its timeout or output limit for a reason to exit
// with 0.
func exitOf(job *telev1.Job) error {
	switch {
	case job.GetExitCode() != 0:
		return exitError(job.GetExitCode())
	case job.GetStatus() == telev1.JobStatus_JOB_STATUS_FAILED:
		return exitError(exitTele)
	}
	return nil
}

// Exit returns the exit code for what a command's Run returned, and what to tell the user.
func Exit(err error, addr string) (code int, message string) {
	var exit exitError
	switch {
	case err == nil:
		return 0, ""
	case errors.As(err, &exit):
		return int(exit), ""
	}
	var lost *client.LostError
	if errors.As(err, &lost) {
		return exitTele, err.Error()
	}
	var answer interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &answer) {
		return exitTele, err.Error()
	}
	s := answer.GRPCStatus()
	switch reason(s) {
	case "COMMAND_NOT_FOUND":
		return exitNotFound, s.Message()
	case "COMMAND_NOT_EXECUTABLE":
		return exitNotExecutable, s.Message()
	}
	switch s.Code() {
	case codes.Unavailable:
		return exitTele, unavailable(s.Message(), addr)
	case codes.PermissionDenied, codes.Unauthenticated:
		return exitTele, "not permitted: " + s.Message()
	}
	return exitTele, s.Message()
}

// unavailable says what kept a call from the server: nobody is there, one of the two does not trust
// the other, or it ended.
func unavailable(text, addr string) string {
	const whereElse = "(is tele serve running there? --addr HOST:PORT, TELE_ADDR or --context names another)"
	if strings.HasPrefix(text, "name resolver error: ") {
		return fmt.Sprintf("cannot reach the server at %s: the name has no address %s", addr, whereElse)
	}
	// gRPC wraps and quotes what it had from the network and from TLS, but for what came late.
	_, quoted, connecting := strings.Cut(text, "connection error: desc = ")
	cause, err := strconv.Unquote(quoted)
	if err != nil {
		cause = text
	}
	if _, why, found := strings.Cut(cause, "remote error: tls: "); found {
		return fmt.Sprintf("the server at %s refused the client certificate: %s (it takes one for clients, of its "+
			"own CA, not expired: make one with tele certs issue NAME, give it with --cert and --key)", addr, why)
	}
	if !connecting {
		return fmt.Sprintf("no answer from the server at %s: %s (try again, and see what it logged)", addr, text)
	}
	if _, why, found := strings.Cut(cause, "authentication handshake failed: "); found {
		return fmt.Sprintf("no trust in the server at %s: %s (is it a tele server, and --ca, or TELE_CA, the "+
			"ca.crt of that one?)", addr, strings.TrimPrefix(why, "tls: "))
	}
	return fmt.Sprintf("cannot reach the server at %s: %s %s", addr,
		strings.TrimPrefix(cause, "transport: Error while dialing: "), whereElse)
}

// reasonOf is the reason in an answer of the server, like ENDED; empty when there is none.
func reasonOf(err error) string { return reason(status.Convert(err)) }

func reason(s *status.Status) string {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}
