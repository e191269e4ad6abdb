package output

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxSplice = 1 << 20
	// smallIndex is how large an index may be however low the log's limit is.
	smallIndex = 1 << 20
)

// SetLimit sets how many bytes of both streams together are kept, 0 for any number. Drain stops
// exactly there. An index that is larger than the limit (and than 1 MiB) counts as reached, too: a
// job that writes single bytes has a record for each, of 24 bytes.
func (l *Log) SetLimit(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = bytes
}

// SetSpace makes the log take its room from s, beginning with what it has. It is called before the
// first Drain.
func (l *Log) SetSpace(s *Space) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.space = s
	l.accountLocked()
}

// Drain moves what is in the pipe into the log and returns how much that was: with no error when
// the pipe is empty for now, with io.EOF when nobody has it open for writing any more. It moves at
// most 1 MiB at a time into one index record, and never through this process's memory: splice(2)
// either moved bytes or did not, so a server killed in the middle neither loses nor repeats one.
// The pipe must be non-blocking.
//
// ErrLimit and ErrFull say that the pipe has bytes and the log may or can not have them; nothing is
// lost, and calling Drain again goes on as soon as there is room. A full disk can leave up to 1 MiB
// that was moved without its record, unseen by readers; the next call begins with that. After any
// other error, too, the log is as good as before.
func (l *Log) Drain(s Stream, pipe int) (total int64, err error) {
	l.drain[s].Lock()
	defer l.drain[s].Unlock()
	done, err := l.use(pipe)
	if err == unix.EAGAIN {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer done()
	for {
		n, err := l.splice(s, pipe)
		total += n
		if err == unix.EAGAIN {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// use opens the files for a drain, or makes them, if it is going to need them, and writes what is missing in the index.
func (l *Log) use(pipe int) (done func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (l.users == 0 || !l.made) && !l.behindLocked() {
		if _, err := waiting(pipe); err != nil {
			return nil, err
		}
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	err = l.makeLocked()
	if err == nil {
		err = l.indexLocked()
	}
	if err != nil {
		l.releaseLocked()
		return nil, err
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.releaseLocked()
	}, nil
}

// splice moves bytes once. What it may move is reserved before, so that the two streams, and all
// logs of a Space, can be drained at the same time and stop exactly at the limit. It is never more
// than what the pipe has, or one stream would see the other's limit reached too early.
func (l *Log) splice(s Stream, pipe int) (int64, error) {
	n, err := waiting(pipe)
	if err != nil {
		return 0, err
	}
	if n, err = l.reserve(s, min(n, maxSplice)); err != nil {
		return 0, err
	}
	l.mu.Lock()
	file, offset := l.files[s], l.written[s]
	l.mu.Unlock()
	// At ENOSPC the kernel moves what fits and returns that, then moves nothing and returns ENOSPC;
	// what was not written is still in the pipe.
	n, err = move(pipe, int(file.Fd()), &offset, n)
	if wroteErr := l.wrote(s, n); wroteErr != nil {
		return n, wroteErr // n is not 0, so splice had no error
	}
	if err != nil && err != unix.EAGAIN && err != io.EOF {
		err = noRoom(&os.PathError{Op: "splice output into", Path: file.Name(), Err: err})
	}
	return n, err
}

// waiting is how many bytes are in the pipe: EAGAIN for none, io.EOF for none and no writer.
func waiting(pipe int) (int64, error) {
	for range 2 {
		n, err := unix.IoctlGetUint32(pipe, unix.TIOCINQ)
		if err != nil {
			return 0, os.NewSyscallError("ioctl output pipe", err)
		}
		if n > 0 {
			return int64(n), nil
		}
		fds := []unix.PollFd{{Fd: int32(pipe), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 0); err != nil && err != unix.EINTR {
			return 0, os.NewSyscallError("poll output pipe", err)
		}
		switch {
		case fds[0].Revents&unix.POLLIN != 0: // came just now
		case fds[0].Revents&unix.POLLHUP != 0:
			return 0, io.EOF
		default:
			return 0, unix.EAGAIN
		}
	}
	return 1, nil // a buffer without bytes, if there is such a thing; splice takes it away
}

// move splices up to n bytes once.
func move(pipe, to int, offset *int64, n int64) (int64, error) {
	for {
		n, err := unix.Splice(pipe, nil, to, offset, int(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// reserve returns how many of n bytes there is room for.
func (l *Log) reserve(s Stream, n int64) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit > 0 {
		kept := l.written[Stdout] + l.written[Stderr] + max(l.reserved[Stdout]-recordSize, 0) +
			max(l.reserved[Stderr]-recordSize, 0)
		n = min(n, l.limit-kept)
		if n <= 0 || l.records*recordSize >= max(l.limit, smallIndex) {
			return 0, fmt.Errorf("%w of %d bytes", ErrLimit, l.limit)
		}
	}
	if l.space != nil {
		got, err := l.space.take(l.dir, recordSize+1, recordSize+n)
		if err != nil {
			return 0, err
		}
		n = got - recordSize
	}
	l.reserved[s] = recordSize + n
	return n, nil
}

// wrote takes n new bytes into account, writes their record and wakes the readers.
func (l *Log) wrote(s Stream, n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.accountLocked()
	l.reserved[s] = 0
	if n == 0 {
		return nil
	}
	l.written[s] += n
	l.arrived[s] = time.Now()
	return l.indexLocked()
}

// accountLocked tells the space how much room this log takes.
func (l *Log) accountLocked() {
	if l.space == nil {
		return
	}
	size := l.records * recordSize
	for _, s := range []Stream{Stdout, Stderr} {
		size += l.written[s] + l.reserved[s]
		if l.written[s] > l.last.ends[s] {
			size += recordSize
		}
	}
	l.space.Set(l.dir, size)
}

// Discard moves what is in the pipe to nowhere, so that a job whose output may or can not be kept
// can end. It returns as Drain does. It, too, never moves a byte through this process's memory.
func (l *Log) Discard(pipe int) (total int64, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	defer func() { l.dropped.Add(total) }()
	for {
		n, err := move(pipe, int(null.Fd()), nil, maxSplice)
		total += n
		switch {
		case err == unix.EAGAIN:
			return total, nil
		case err == io.EOF:
			return total, err
		case err != nil:
			return total, &os.PathError{Op: "splice output into", Path: null.Name(), Err: err}
		}
	}
}

// Dropped is how many bytes Discard took, in this process.
func (l *Log) Dropped() int64 { return l.dropped.Load() }

// noRoom marks the errors that are gone when the disk has room again.
func noRoom(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
