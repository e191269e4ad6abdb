package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/telerun/tele/client"
	"github.com/telerun/tele/proto/files"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/status"
)

// This file is the files that a job is to begin with: --upload.

// places are where they go, and sources what they are here: looked at before anything is started.
func (s *Spec) places() (sources []string, places []*telev1.FilePlace, err error) {
	for _, text := range s.Upload {
		source, path, err := parseUpload(text)
		if err != nil {
			return nil, nil, fmt.Errorf("--upload %s: %w", quoted(text), err)
		}
		sources = append(sources, source)
		places = append(places, &telev1.FilePlace{Path: path, Name: files.Name(source)})
	}
	return sources, places, nil
}

// parseUpload reads SRC[:DST]. What is there by the whole text is meant, and else what is before its last colon.
func parseUpload(text string) (source, path string, err error) {
	source, path = text, "."
	info, err := os.Lstat(source)
	if colon := strings.LastIndex(text, ":"); err != nil && colon >= 0 {
		source = text[:colon]
		if text[colon+1:] != "" {
			path = text[colon+1:]
		}
		info, err = os.Lstat(source)
	}
	switch {
	case source == "":
		return "", "", errors.New("no file is named; write it like FILE, DIR/. or FILE:PATH")
	case err != nil:
		return "", "", fmt.Errorf("read %s: %w", quoted(source), errors.Unwrap(err))
	case info.Mode()&(os.ModeDevice|os.ModeNamedPipe|os.ModeSocket|os.ModeIrregular) != 0:
		return "", "", fmt.Errorf("%s is neither a file, a directory nor a link", quoted(source))
	}
	return source, path, nil
}

// An upload is such files on their way.
type upload struct {
	bar      *bar
	err      io.Writer
	archives []*archive
	left     files.LeftOut // by whichever archive is being packed
	packed   int           // how many archives there are no more bytes of; one is read at a time

	mu     sync.Mutex
	failed error // why one could not be packed, or sent
}

// newUpload is about sending these; nil for none. The caller closes it.
func newUpload(sources []string, streams Streams) *upload {
	if len(sources) == 0 {
		return nil
	}
	u := &upload{bar: newBar(streams.Err, false), err: streams.Err, left: files.LeftOut{Most: maxLeftOut}}
	for _, source := range sources {
		if u.bar.shown() {
			u.bar.total += files.Size(source)
		}
		read, write := io.Pipe()
		u.archives = append(u.archives, &archive{upload: u, source: source, read: read, write: write})
	}
	return u
}

// close lets who packs go.
func (u *upload) close() {
	if u == nil {
		return
	}
	for _, a := range u.archives {
		_ = a.read.CloseWithError(errGivenUp) // it never fails
	}
	u.bar.end()
}

// fail notes the first failure.
func (u *upload) fail(why error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failed == nil {
		u.failed = why
	}
}

// failure is why the job has not all of its files, which it ends of.
func (u *upload) failure() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.failed
}

// ended takes note that there are no more bytes of an archive. Behind the last one the command begins, which has
// the terminal for itself: nothing is shown any more before anybody knows.
func (u *upload) ended(err error) {
	if err != io.EOF {
		u.fail(err)
	}
	if u.packed++; u.packed == len(u.archives) || err != io.EOF {
		u.bar.end()
		for _, text := range u.left.All() {
			fmt.Fprintln(u.err, "tele: warning:", printable(text))
		}
	}
}

// An archive is one of them, packed from its first Read on.
type archive struct {
	*upload
	source string
	read   *io.PipeReader
	write  *io.PipeWriter
	begun  bool
	over   bool
}

func (a *archive) Read(p []byte) (int, error) {
	if !a.begun {
		a.begun = true
		go func() { _ = a.write.CloseWithError(files.Pack(a.write, a.source, a.left.Add)) }() // it never fails
	}
	n, err := a.read.Read(p)
	a.bar.add(n)
	if err != nil && err != io.ErrClosedPipe && !a.over { // closed: nobody is told any more
		a.over = true
		a.ended(err)
	}
	return n, err
}

// above is a writer of what is shown beside the bar.
func (u *upload) above(w io.Writer) io.Writer {
	if u == nil || !u.bar.shown() {
		return w
	}
	return aboveBar{w, u.bar}
}

// supply sends the session's job its files, and then what is in stdin; nil is nothing. It returns nil when
// the failure of the upload says why.
func (s *session) supply(stdin io.Reader) error {
	u := s.upload
	var archives []io.Reader
	for _, a := range u.archives {
		archives = append(archives, a)
	}
	err := s.client.Upload(s.ctx, s.id, archives, stdin)
	var lost *client.LostError
	var read *client.ReadError // of stdin
	switch {
	case u.failure() != nil: // the job was told
		return nil
	case err == nil, errors.Is(err, client.ErrInputClosed), errors.As(err, &lost), errors.As(err, &read), s.ctx.Err() != nil:
		return err
	}
	// Nobody else would give it its files. Why is there before its end is.
	u.fail(fmt.Errorf("%s (the job was stopped, for it has not all of its files)", status.Convert(err).Message()))
	if _, stopErr := s.client.Stop(s.ctx, s.id, "", 0); stopErr != nil && reasonOf(stopErr) != "ENDED" {
		return fmt.Errorf("%w (the job waits for its files; end it: tele stop %s)", stopErr, s.id)
	}
	return nil
}

// leaveSupplied leaves a job to itself once the server has all its files.
func (s *session) leaveSupplied(job *telev1.Job) error {
	err := s.supply(nil)
	s.upload.bar.end()
	switch why := context.Cause(s.ctx); {
	case s.upload.failure() != nil:
		return s.upload.failure()
	case why != nil:
		return fmt.Errorf("%w before the job had its files; it may wait for them (end it: tele stop %s)", why, s.id)
	case errors.Is(err, client.ErrInputClosed):
		return fmt.Errorf("the job ended before it had its files (see: tele logs %s)", s.id)
	case err != nil:
		return err
	}
	fmt.Fprintln(s.streams.Out, job.Id)
	return nil
}
