package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/telerun/tele/initproc"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	"golang.org/x/sys/unix"
)

// This file is the standard input of a job that has one. What clients send is appended to the file "stdin"
// in the job's directory, and moved from there into the pipe that the command reads (initproc/input.go). Its
// size is how much the server has, its position how much the command was given: a server that is killed
// leaves both behind, and no byte is lost or comes twice. What the command has read is cut out of it.

const (
	// inputAhead is how much the server takes that the pipe has no room for yet.
	inputAhead = 1 << 20
	// inputBehind is how much that was read is kept, to give it back in large pieces.
	inputBehind = 8 << 20
	// maxWriter is how long the name of a writer may be.
	maxWriter = 64
	// maxWriters is how many a job remembers; of one that was forgotten the server has nothing, for all it knows.
	maxWriters = 256
)

var (
	// ErrNoInput is returned for a job that was started without.
	ErrNoInput = errors.New("the job has no standard input; it must be started with one: tele run -i")
	// ErrInputClosed is returned when nobody will read what is written.
	ErrInputClosed = errors.New("the job reads no more input")
	// ErrInputOffset is returned for input that does not follow what the server has.
	ErrInputOffset = errors.New("bytes of this input are missing before these")
)

// An input is a running job's.
type input struct {
	job  *Job
	ends *initproc.Input
	file *os.File // for appending

	accepted atomic.Int64  // changed under mu
	closed   chan struct{} // closed when nobody reads any more

	mu        sync.Mutex
	delivered int64
	cut       int64            // how much of the beginning is given back
	writers   map[string]int64 // how many bytes each has written
	writing   string           // who has written the last ones
	ended     bool             // by a writer
	shut      error            // why closed is closed
	moving    bool             // a goroutine moves what there is
	moved     chan struct{}
}

func inputPath(dir string) string { return filepath.Join(dir, "stdin") }

// makeInput makes the input of a job that is being started, and returns what its init is to have; nil for
// one without.
func (j *Job) makeInput() (*initproc.Input, error) {
	if !j.stdin {
		return nil, nil
	}
	file, err := os.OpenFile(inputPath(j.dir), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	ends, err := initproc.NewInput(file.Name(), !j.terminal)
	if err != nil {
		_ = file.Close() // nothing is in it
		return nil, err
	}
	j.setInput(&input{file: file, ends: ends, writers: map[string]int64{}})
	return ends, nil
}

func (j *Job) setInput(in *input) {
	in.job, in.closed, in.moved = j, make(chan struct{}), make(chan struct{})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.input = in
}

// openInput takes over the input of a job of an earlier server, and goes on with it.
func (j *Job) openInput() error {
	if !j.stdin {
		return nil
	}
	ends, err := j.init.Input(!j.terminal)
	if err != nil {
		return err
	}
	if ends != nil && j.terminal {
		ends.TypeAt(j.screen)
	}
	in := &input{ends: ends, writers: map[string]int64{}}
	j.setInput(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	if ends == nil {
		in.shutLocked(ErrInputClosed)
		return nil
	}
	in.file, err = os.OpenFile(inputPath(j.dir), os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) { // it was being closed
		in.shutLocked(ErrInputClosed)
		return nil
	}
	if err != nil {
		return err
	}
	info, err := in.file.Stat()
	if err != nil {
		return err
	}
	in.accepted.Store(info.Size())
	if in.delivered, err = ends.Spool.Seek(0, io.SeekCurrent); err != nil {
		return err
	}
	record := j.record // nobody else has the job yet
	in.ended, in.writing = record.InputEnded, record.InputWriter
	others := int64(0)
	for name, n := range record.InputWriters {
		if in.writers[name] = n; name != in.writing {
			others += n
		}
	}
	if in.writing != "" {
		in.writers[in.writing] = info.Size() - others
	}
	in.moveLocked()
	return nil
}

// An InputWriter writes to the standard input of a job.
type InputWriter struct {
	in   *input
	name string
}

// InputWriter returns the writer of that name, and how many bytes the server has of it.
func (j *Job) InputWriter(name string) (*InputWriter, int64, error) {
	if len(name) == 0 || len(name) > maxWriter {
		return nil, 0, bad("writer", "has %d bytes, at least 1 and at most %d are taken", len(name), maxWriter)
	}
	j.mu.Lock()
	in, ended := j.input, j.endedLocked() || j.ending
	j.mu.Unlock()
	switch {
	case !j.stdin:
		return nil, 0, ErrNoInput
	case ended || in == nil:
		return nil, 0, ErrInputClosed
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return &InputWriter{in, name}, in.writers[name], nil
}

// Closed is closed when no more can be written; Err says why.
func (w *InputWriter) Closed() <-chan struct{} { return w.in.closed }

// Err is ErrInputClosed or ErrClosing once nothing more can be written.
func (w *InputWriter) Err() error { return w.in.err() }

// Write appends data, of which it leaves out what the server has already of this writer, and with end, ends
// the input. It waits while the command does not read, and returns how many bytes the server has of this
// writer. What it has is not lost when the server is killed.
func (w *InputWriter) Write(ctx context.Context, offset int64, data []byte, end bool) (int64, error) {
	in := w.in
	in.mu.Lock()
	defer in.mu.Unlock()
	have := in.writers[w.name]
	switch {
	case in.shut != nil:
		return have, in.shut
	case offset < 0 || offset > have:
		return have, fmt.Errorf("%w: the server has %d, and these come after %d", ErrInputOffset, have, offset)
	}
	data = data[min(int64(len(data)), have-offset):]
	for in.accepted.Load()-in.delivered >= inputAhead && in.shut == nil && len(data) > 0 {
		if err := in.waitLocked(ctx, in.moved); err != nil {
			return in.writers[w.name], err
		}
	}
	for len(data) > 0 {
		if err := in.turnLocked(ctx, w.name); err != nil {
			return in.writers[w.name], err
		}
		if in.shut != nil {
			return in.writers[w.name], in.shut
		}
		if in.ended {
			return in.writers[w.name], ErrInputClosed
		}
		n, err := in.file.WriteAt(data, in.accepted.Load())
		in.accepted.Add(int64(n))
		in.writers[w.name] += int64(n)
		data = data[n:]
		in.moveLocked()
		if err != nil && !noSpace(err) {
			return in.writers[w.name], err
		}
		if err != nil {
			if err := in.waitLocked(ctx, in.job.table.space.Freed()); err != nil {
				return in.writers[w.name], err
			}
		}
	}
	if end && !in.ended {
		if err := in.amendLocked(ctx, func(r *recordv1.Record) bool { r.InputEnded = true; return true }); err != nil {
			return in.writers[w.name], err
		}
		in.ended = true
		in.moveLocked()
	}
	return in.writers[w.name], nil
}

// turnLocked notes that another writer writes now: all that the file has beyond is his.
func (in *input) turnLocked(ctx context.Context, name string) error {
	for in.writing != name {
		in.forgetLocked()
		writers := maps.Clone(in.writers)
		writers[name] += 0
		total := in.accepted.Load()
		err := in.amendLocked(ctx, func(r *recordv1.Record) bool {
			r.InputWriters, r.InputWriter = writers, name
			return true
		})
		if err != nil {
			return err
		}
		if total == in.accepted.Load() { // nobody wrote while this waited for room
			in.writing = name
		}
	}
	return nil
}

// forgetLocked makes room for another writer. What was forgotten is counted under no name.
func (in *input) forgetLocked() {
	for name, n := range in.writers {
		if len(in.writers) < maxWriters {
			return
		}
		if name != "" && name != in.writing {
			delete(in.writers, name)
			in.writers[""] += n
		}
	}
}

// amendLocked changes the job's record, as soon as there is room for it.
func (in *input) amendLocked(ctx context.Context, change func(*recordv1.Record) bool) error {
	for {
		in.job.mu.Lock()
		err := in.job.amendLocked(change)
		in.job.mu.Unlock()
		switch {
		case errors.Is(err, ErrEnded):
			return ErrInputClosed
		case !noSpace(err):
			return err
		}
		if err := in.waitLocked(ctx, in.job.table.space.Freed()); err != nil {
			return err
		}
	}
}

func (in *input) err() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.shut
}

// waitLocked waits for event, or the end of ctx or of the input, without mu.
func (in *input) waitLocked(ctx context.Context, event <-chan struct{}) error {
	in.mu.Unlock()
	defer in.mu.Lock()
	select {
	case <-event:
		return nil
	case <-in.closed:
		return in.err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// moveLocked sees to it that what there is gets moved.
func (in *input) moveLocked() {
	if !in.moving && in.shut == nil && (in.accepted.Load() > in.delivered || in.ended) {
		in.moving = true
		go in.move()
	}
}

// move moves all there is, and closes the input when that was all there will be, or nobody reads it.
func (in *input) move() {
	in.mu.Lock()
	defer in.mu.Unlock()
	defer func() { in.moving = false }()
	for in.shut == nil {
		left := in.accepted.Load() - in.delivered
		if left == 0 {
			if in.ended {
				in.mu.Unlock()
				_ = in.ends.End() // a terminal that is gone has nobody who would see it
				in.mu.Lock()
				in.closeLocked()
			}
			return
		}
		in.mu.Unlock()
		n, err := in.ends.Move(left)
		in.mu.Lock()
		switch {
		case in.shut != nil:
		case errors.Is(err, unix.EPIPE):
			in.closeLocked()
		case err != nil || n == 0:
			in.job.table.options.Log.Error().Err(err).Str("job", in.job.id).Msg("move input to the job, which gets no more of it")
			in.closeLocked()
		default:
			in.delivered += n
			in.cutLocked()
			close(in.moved)
			in.moved = make(chan struct{})
		}
	}
}

// cutLocked gives back what the command has read. Not what is in the pipe: that are the file's own pages.
func (in *input) cutLocked() {
	if in.delivered-in.cut < 2*inputBehind {
		return
	}
	read, err := in.ends.Read()
	if end := read &^ 4095; err == nil && end-in.cut >= inputBehind {
		// A file system that cannot do it keeps all until the job ends.
		_ = unix.Fallocate(int(in.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, in.cut, end-in.cut)
		in.cut = end
	}
}

// closeLocked lets the command see the end of its input, behind what is in the pipe.
func (in *input) closeLocked() {
	_ = in.job.init.CloseInput() // an init that is gone has closed it
	in.shutLocked(ErrInputClosed)
	_ = os.Remove(inputPath(in.job.dir)) // it goes with the job otherwise
}

// shutLocked lets go of it.
func (in *input) shutLocked(why error) {
	if in.shut != nil {
		return
	}
	in.shut = why
	close(in.closed)
	if in.ends != nil {
		in.ends.Close()
	}
	if in.file != nil {
		_ = in.file.Close() // what was written is in it, or was an error
	}
}

// closeInput ends the input of a job that has ended, and returns how many bytes there were.
func (j *Job) closeInput() uint64 {
	in := j.shutInput(ErrInputClosed)
	if in == nil {
		return 0
	}
	_ = os.Remove(inputPath(j.dir)) // it goes with the job otherwise
	return uint64(in.accepted.Load())
}

// shutInput lets go of the job's input, if it has one.
func (j *Job) shutInput(why error) *input {
	j.mu.Lock()
	in := j.input
	j.mu.Unlock()
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.shutLocked(why)
	return in
}
