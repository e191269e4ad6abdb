package job

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/proto/files"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
)

// This file keeps files of a job beyond its end, those that JobSpec.download asks for. The agent that copies
// files (proto/files) collects them when the command has ended and nothing else is left of the job, in the
// sandbox that is there still, as one tar stream; the server keeps that beside the output. The end is recorded
// afterwards: a server that is killed meanwhile leaves init with the news, and the next one begins again.

const (
	mostPatterns = 64
	// collectTime is how long it may take.
	collectTime = 10 * time.Minute
	// mostKeptWarnings is how many bytes of warnings are kept.
	mostKeptWarnings = 16 << 10
)

// ErrNoFiles is returned for a job that was started without download.
var ErrNoFiles = errors.New("of this job no files are kept; start it with: tele run --download PATTERN")

// ErrFilesLater is returned for one that has not ended.
var ErrFilesLater = errors.New("the job has not ended, and its files are kept when it has; wait for it: tele wait ID, or copy them now: tele cp ID:PATH DIR")

func checkDownload(spec *telev1.JobSpec) error {
	if len(spec.Download) > mostPatterns {
		return bad("spec.download", "has %d patterns, the most is %d", len(spec.Download), mostPatterns)
	}
	for _, pattern := range spec.Download {
		switch err := files.CheckPattern(pattern); {
		case pattern == "" || len(pattern) > maxPath || strings.Contains(pattern, "\x00") || !utf8.ValidString(pattern):
			return bad("spec.download", "%s is no path of at most %d bytes", Quote(pattern), maxPath)
		case slices.Contains(strings.Split(pattern, "/"), ".."):
			return bad("spec.download", "%s leads upwards; name what is below the working directory, or an absolute path", Quote(pattern))
		case err != nil:
			return bad("spec.download", "%s is no pattern of glob(7): %v", Quote(pattern), err)
		}
	}
	return nil
}

func filesPath(dir string) string { return filepath.Join(dir, "files.tar") }

// keepFiles collects what the job has to leave, until ctx ends. It fails with ErrClosing alone, when the server
// ends before.
func (j *Job) keepFiles(ctx context.Context, record *recordv1.Record, waitErr error) error {
	job := record.Job
	if len(job.Spec.GetDownload()) == 0 {
		return nil
	}
	if waitErr != nil {
		noFiles(job, sandboxGone)
		return nil
	}
	// This may take long, and nobody waits for the start of a process meanwhile.
	j.table.warm.end()
	defer j.table.warm.begin()
	ctx, stop := context.WithTimeoutCause(ctx, collectTime, fmt.Errorf("they were not collected within %v", collectTime))
	defer stop()
	kept, err := j.collect(ctx, record)
	if j.table.life.Err() != nil {
		return ErrClosing
	}
	if err != nil {
		kept.Bytes, kept.Error = 0, err.Error()
		j.dropFiles()
	}
	job.Files = kept
	j.table.at("files collected")
	return nil
}

const sandboxGone = "they went with the sandbox, which was killed from outside"

// noFiles says why nothing is kept of a job that was asked for something.
func noFiles(job *telev1.Job, why string) {
	if len(job.Spec.GetDownload()) > 0 && job.Files == nil {
		job.Files = &telev1.KeptFiles{Error: why}
	}
}

// dropFiles removes what was collected of a stream that is not whole.
func (j *Job) dropFiles() {
	name := filesPath(j.dir)
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		j.table.options.Log.Err(err).Str("job", j.id).Msg("remove files that were not collected to the end")
	}
	j.table.space.Remove(name)
}

// collect has an agent collect files. With an error there is no whole stream of them.
func (j *Job) collect(ctx context.Context, record *recordv1.Record) (*telev1.KeptFiles, error) {
	kept, spec := &telev1.KeptFiles{}, record.Job.Spec
	s, err := j.sandboxOf(record, &telev1.JobSpec{})
	if err != nil {
		return kept, err
	}
	s.Agent, s.Env, s.Command = true, files.AgentEnv, files.CollectCommand(spec.Download)
	plan, err := initproc.NewBesidePlan(s)
	if err != nil {
		return kept, err
	}
	if err := j.thaw(); err != nil {
		return kept, err
	}
	b, err := j.init.RunAfter(plan, s)
	if err != nil {
		return kept, err
	}
	defer b.Close()
	j.table.at("files begun")
	if err := b.Executed(ctx, plan); err != nil {
		return kept, err
	}
	end := func() { _, _ = b.Stdout.Close(), b.Stderr.Close() } // ends the reads, and the agent with its next write
	defer context.AfterFunc(ctx, end)()
	heard := make(chan *files.Collection, 1)
	go func() { heard <- hearCollection(b.Stderr) }()
	limit, _ := j.table.outputLimit(spec.OutputLimit) // was looked at before
	n, err := j.storeFiles(ctx, b.Stdout, limit)
	if err != nil {
		end()
	}
	said := <-heard
	kept.Bytes, kept.Warnings, kept.Error = uint64(n), said.LeftOut.All(), said.Error
	switch {
	case ctx.Err() != nil && noRoom(err):
		return kept, fmt.Errorf("%w: %w", context.Cause(ctx), err)
	case ctx.Err() != nil:
		return kept, context.Cause(ctx)
	case err != nil:
		return kept, err
	case !said.Whole && said.Error != "":
		return kept, errors.New(said.Error)
	case !said.Whole:
		return kept, errors.New("what collects files in the sandbox was ended: it takes 4 of the processes that the job may have, and some 8M of its memory, of which files in memory take their part")
	}
	return kept, nil
}

// thaw lets init go on, which a pause froze that was cut off by the job's end, or with its server.
func (j *Job) thaw() error {
	j.control.Lock()
	defer j.control.Unlock()
	return j.group.Thaw()
}

// hearCollection hears an agent to its end, and what it says may be as much as it likes.
func hearCollection(r io.Reader) *files.Collection {
	c := &files.Collection{LeftOut: files.LeftOut{Most: mostKeptWarnings}}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		c.Hear(Printable(lines.Text()))
	}
	_, _ = io.Copy(io.Discard, r) // what is behind a line that is longer than any path
	return c
}

// storeFiles writes the stream to the disk, at most limit bytes.
func (j *Job) storeFiles(ctx context.Context, r io.Reader, limit int64) (n int64, err error) {
	name := filesPath(j.dir)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 256<<10)
	told := false
	for {
		read, readErr := r.Read(buf)
		if n+int64(read) > limit {
			return n, fmt.Errorf("they are more than the output limit, %s; raise it with --output-limit, or name fewer", limits.Format(limits.Output, limit))
		}
		for piece := buf[:read]; len(piece) > 0; {
			wrote, err := j.storePiece(f, n, piece)
			piece, n = piece[wrote:], n+int64(wrote)
			switch {
			case err == nil:
				continue
			case !noRoom(err) || j.table.options.StopWhenFull:
				return n, err
			case !told:
				j.table.options.Log.Warn().Err(err).Str("job", j.id).Msg("files cannot be kept, the job's end waits")
				told = true
			}
			j.table.tidyUp()
			select {
			case <-j.table.space.Freed():
			case <-ctx.Done():
				return n, err
			}
		}
		if readErr == io.EOF {
			return n, nil
		}
		if readErr != nil {
			return n, readErr
		}
	}
}

func noRoom(err error) bool { return noSpace(err) || errors.Is(err, output.ErrFull) }

// storePiece writes as much as there is room for behind the n bytes that are there.
func (j *Job) storePiece(f *os.File, n int64, piece []byte) (wrote int, err error) {
	if err := j.table.space.Take(f.Name(), int64(len(piece))); err != nil {
		return 0, err
	}
	wrote, err = f.Write(piece)
	j.table.space.Set(f.Name(), n+int64(wrote))
	return wrote, err
}

// KeptFiles opens what is kept of the job's files. The caller closes it.
func (j *Job) KeptFiles(offset uint64) (*os.File, error) {
	job := j.Snapshot()
	switch {
	case len(job.Spec.GetDownload()) == 0:
		return nil, ErrNoFiles
	case job.EndedAt == nil:
		return nil, ErrFilesLater
	case job.OutputRemoved:
		return nil, ErrOutputRemoved
	case job.Files.GetBytes() == 0:
		return nil, &FilesError{job.Files.GetError()}
	case offset > job.Files.Bytes:
		return nil, output.ErrOffset
	}
	f, err := os.Open(filesPath(j.dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrOutputRemoved
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != int64(job.Files.Bytes) { // nothing waits for the disk
		err = &FilesError{fmt.Sprintf("of the %d bytes that were kept %d are on the disk; did the server's machine lose power?", job.Files.Bytes, info.Size())}
	}
	if err == nil {
		_, err = f.Seek(int64(offset), io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
