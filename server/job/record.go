package job

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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

// A record's file holds versions of it, each a frame: its size and checksum (CRC-32C), little-endian, and
// the record as protobuf. The last whole one counts. So a change is one write(2) at the end of a file that
// is there; to make a file and rename it takes five times as long, and ext4 longer yet where many were
// removed. What a killed server or a full disk left of a frame is cut off before the next.
const frameHeader = 8

// maxAppended is how large a record may be that is appended; a larger one replaces the file.
const maxAppended = 64 << 10

// checksum is a frame's. The package keeps the table; as a variable here it would be made, in 0.2 ms, at
// each start of tele, the client's too.
func checksum(record []byte) uint32 {
	return crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli))
}

func frame(record []byte) []byte {
	f := make([]byte, frameHeader, frameHeader+len(record))
	binary.LittleEndian.PutUint32(f, uint32(len(record)))
	binary.LittleEndian.PutUint32(f[4:], checksum(record))
	return append(f, record...)
}

// nextFrame is what the first frame of a file holds, nil when that is not whole.
func nextFrame(file []byte) []byte {
	if len(file) < frameHeader {
		return nil
	}
	size := binary.LittleEndian.Uint32(file)
	if size == 0 || uint64(size) > uint64(len(file)-frameHeader) {
		return nil
	}
	next := file[frameHeader : frameHeader+size]
	if checksum(next) != binary.LittleEndian.Uint32(file[4:]) {
		return nil
	}
	return next
}

// lastFrame is the last whole record in a file, nil when there is none, and where it ends.
func lastFrame(file []byte) (record []byte, end int) {
	for {
		next := nextFrame(file[end:])
		if next == nil {
			return record, end
		}
		record, end = next, end+frameHeader+len(next)
	}
}

// unframed is how a file begins that holds one record and no frame, as servers wrote it at first: the
// fields version, 1, and job.
var unframed = []byte{0x08, 0x01, 0x12}

// cutOff tells whether a file without a whole record has the beginning of one: its job never ran, for it
// would have been written whole before.
func cutOff(file []byte) bool {
	return len(file) < frameHeader || uint64(binary.LittleEndian.Uint32(file)) > uint64(len(file)-frameHeader)
}

// readRecord reads a record, and cuts off what is unfinished behind it.
func readRecord(dir string) (*recordv1.Record, error) {
	path := recordPath(dir)
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	data, end := lastFrame(file)
	switch {
	case data == nil && bytes.HasPrefix(file, unframed):
		data = file
		if err := replace(dir, data); err != nil {
			return nil, err
		}
	case data == nil && cutOff(file):
		return nil, &os.PathError{Op: "read", Path: path, Err: os.ErrNotExist}
	case data == nil:
		return nil, fmt.Errorf("%s: no record in it can be read", path)
	case end < len(file):
		if err := os.Truncate(path, int64(end)); err != nil {
			return nil, err
		}
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

func recordPath(dir string) string { return filepath.Join(dir, "record") }

// writeRecord writes a new version of the record: another server, or none, sees the old one or the new.
func writeRecord(dir string, r *recordv1.Record) error {
	data, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	// Between two tries the file is made anew, or it would have all tries in all versions.
	if len(data) > maxAppended || r.AgainAt != nil {
		return replace(dir, data)
	}
	return appendTo(recordPath(dir), frame(data))
}

// replace makes a record's file anew, with this version alone.
func replace(dir string, record []byte) error {
	temp := filepath.Join(dir, "record.new")
	if err := os.WriteFile(temp, frame(record), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, recordPath(dir))
}

// appendTo appends all of data, or nothing. Without package os, which would ask four times what kind of
// file it is.
func appendTo(path string, data []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return writeWhole(fd, path, data)
}

// writeWhole writes all of data at the end of a file, or nothing.
func writeWhole(fd int, path string, data []byte) error {
	n, err := unix.Write(fd, data)
	if n == len(data) {
		return nil
	}
	if err == nil {
		err = unix.ENOSPC // there was room for a part of it
	}
	if n > 0 {
		if size, seekErr := unix.Seek(fd, 0, unix.SEEK_END); seekErr == nil {
			_ = unix.Ftruncate(fd, size-int64(n)) // else the next server does it
		}
	}
	return &os.PathError{Op: "write", Path: path, Err: err}
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
