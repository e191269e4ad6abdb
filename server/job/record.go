package job

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/telerun/tele/initproc"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// recordVersion is the version of the records that this server writes, and the newest that it
// reads.
const recordVersion = 1

// A newerError is a record that a newer server wrote.
type newerError struct {
	path    string
	version uint32
}

func (e *newerError) Error() string {
	return fmt.Sprintf("%s is of version %d and this server knows %d: the job is left alone; use the server that wrote it, or a newer one",
		e.path, e.version, recordVersion)
}

func readRecord(dir string) (*recordv1.Record, error) {
	path := filepath.Join(dir, "record")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r recordv1.Record
	if err := proto.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if r.Version > recordVersion {
		return nil, &newerError{path, r.Version}
	}
	if r.Version == 0 || r.Job.GetId() != filepath.Base(dir) {
		return nil, fmt.Errorf("%s is no record of this job", path)
	}
	return &r, nil
}

// writeRecord replaces the record as a whole: another server, or none, sees the old one or the new.
func writeRecord(dir string, r *recordv1.Record) error {
	data, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	temp := filepath.Join(dir, "record.new")
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, "record"))
}

// initID is the init that a record names.
func initID(r *recordv1.Record) initproc.ID {
	return initproc.ID{Pid: int(r.InitPid), StartTime: r.InitStartTime, BootID: r.BootId}
}

// noSpace tells whether err is for want of room on the disk, which may come back.
func noSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

func now() *timestamppb.Timestamp { return timestamppb.New(time.Now()) }
