package client

import (
	"bytes"
	"errors"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What is kept comes whole, however often the server is lost on the way.
func TestKeptFiles(t *testing.T) {
	path, addr := unixAddr(t)
	files, calls := []byte("the files of a job"), 0
	serve(t, listen(t, "unix", path), &fake{files: func(r *telev1.StreamFilesRequest, s grpc.ServerStreamingServer[telev1.StreamFilesResponse]) error {
		calls++
		rest := files[r.Offset:]
		if len(rest) == 0 {
			return nil
		}
		if err := s.Send(&telev1.StreamFilesResponse{Data: rest[:min(len(rest), 5)]}); err != nil {
			return err
		}
		return status.Error(codes.Unavailable, "restarting")
	}})
	var out bytes.Buffer
	err := dial(t, Options{Addr: addr, Reconnect: time.Minute}).KeptFiles(within(t), jobID, &out)
	if err != nil || !bytes.Equal(out.Bytes(), files) || calls != 5 {
		t.Errorf("got %q, %v, by %d calls", &out, err, calls)
	}
	var write *WriteError
	if err := dial(t, Options{Addr: addr}).KeptFiles(within(t), jobID, broken{}); !errors.As(err, &write) {
		t.Errorf("got %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no room") }
