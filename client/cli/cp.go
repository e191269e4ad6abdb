package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/telerun/tele/client"
	"github.com/telerun/tele/proto/files"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"
)

// Cp is `tele cp`.
type Cp struct {
	Connection
	Quiet bool   `short:"q" help:"No progress on a terminal, and no warnings."`
	From  string `arg:"" name:"from" help:"What to copy: a path of this machine, JOB:PATH, or - for a tar stream that tele reads."`
	To    string `arg:"" name:"to" help:"Where to: JOB:PATH, a path of this machine, or - for a tar stream that tele writes."`
}

// Help is the long help of `tele cp`.
func (*Cp) Help() string {
	return `Of the two, one is a path in a running job, relative to the directory that its command started in, and JOB its
id, a unique beginning of that, or its name. A path of this machine that has a colon is written like ./a:b.

As with cp -a, a directory is copied with all that is in it; a copy goes into a directory that is there, by its own
name, and DIR/. is what is in DIR. Modes, times, links and holes are kept. Files are read and written as the
job's user, in its sandbox and within its limits; no part of a file is left when a copy ends too early.

  tele cp config.yaml nightly:

  tele cp nightly:out/report.html .

  tar c src | tele cp - nightly:src`
}

// jobPath is JOB:PATH; without a path it is the directory that the job's command started in.
func jobPath(text string) (id, name string, is bool) {
	id, name, is = strings.Cut(text, ":")
	if !is || id == "" || strings.ContainsFunc(id, func(r rune) bool { return !isJobRune(r) }) || id[0] == '.' {
		return "", "", false
	}
	if name == "" {
		name = "."
	}
	return id, name, true
}

// isJobRune: what ids and names of jobs are made of.
func isJobRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-", r)
}

// Run copies.
func (c *Cp) Run(ctx context.Context, streams Streams) error {
	fromID, from, fromJob := jobPath(c.From)
	toID, to, toJob := jobPath(c.To)
	switch {
	case fromJob && toJob:
		return fmt.Errorf("%s and %s are both in jobs; copy in two steps: tele cp %s - | tele cp - %s", c.From, c.To, c.From, c.To)
	case !fromJob && !toJob:
		return fmt.Errorf("neither %s nor %s is in a job; write JOB:PATH for the one that is", c.From, c.To)
	case c.From == "" || c.To == "":
		return errors.New("a path is empty")
	case c.To == "-" && sizeOf(streams.Out) != nil:
		return errors.New("a tar stream is not for a terminal; redirect it: tele cp " + c.From + " - >FILE.tar")
	}
	server, err := c.dial(ctx, streams)
	if err != nil {
		return err
	}
	// What is half-written goes before tele does.
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	t := &transfer{client: server, ctx: ctx, streams: streams, quiet: c.Quiet, bar: newBar(streams.Err, c.Quiet)}
	if fromJob {
		err = t.out(fromID, from, c.To)
	} else {
		err = t.in(c.From, toID, to)
	}
	t.bar.end()
	t.tell()
	switch {
	case ctx.Err() != nil && err != nil:
		return errors.New("interrupted; files that were whole are there")
	case reasonOf(err) == "ENDED":
		return fmt.Errorf("%s, and what was in its sandbox is gone; files are copied while a job runs", status.Convert(err).Message())
	case reasonOf(err) == "FILES_FAILED":
		return fmt.Errorf("in the job: %s", status.Convert(err).Message())
	}
	return err
}

// A transfer is one copy.
type transfer struct {
	client   *client.Client
	ctx      context.Context
	streams  Streams
	quiet    bool
	bar      *bar
	warnings []string
}

// tell tells what was left out, once nothing else is shown.
func (t *transfer) tell() {
	if t.quiet {
		return
	}
	for _, text := range t.warnings {
		fmt.Fprintln(t.streams.Err, "tele: warning:", printable(text))
	}
}

// in copies into a job.
func (t *transfer) in(from, id, to string) error {
	if from == "-" {
		return t.put(id, to, "", t.bar.reader(t.streams.In))
	}
	info, err := os.Lstat(from)
	if err != nil {
		return fmt.Errorf("read %s: %w", quoted(from), errors.Unwrap(err))
	}
	if info.Mode().IsRegular() {
		t.bar.total = info.Size()
	} else if info.IsDir() && t.bar.shown() {
		t.bar.total = files.Size(from)
	}
	packed, packing := io.Pipe()
	done := make(chan error, 1)
	left := files.LeftOut{Most: maxLeftOut}
	go func() {
		err := files.Pack(packing, from, left.Add)
		_ = packing.CloseWithError(err) // it never fails
		done <- err
	}()
	err = t.put(id, to, files.Name(from), t.bar.reader(packed))
	_ = packed.CloseWithError(errGivenUp) // the same
	packErr := <-done
	t.warnings = append(left.All(), t.warnings...)
	if packErr != nil && !errors.Is(packErr, errGivenUp) {
		return packErr // the reason, or all that is wrong
	}
	return err
}

// maxLeftOut is how many bytes are told of what was left out.
const maxLeftOut = 256 << 10

var errGivenUp = errors.New("the other side has ended the copy")

func (t *transfer) put(id, to, name string, in io.Reader) error {
	warnings, err := t.client.PutFiles(t.ctx, id, to, name, in)
	t.warnings = append(t.warnings, warnings...)
	return err
}

// out copies out of a job.
func (t *transfer) out(id, from, to string) error {
	return t.unpack(to, files.Place{Path: to, Name: files.Name(from)}, func(w io.Writer) ([]string, error) {
		return t.client.GetFiles(t.ctx, id, from, w)
	})
}

// unpack puts what get writes there, or with "-" writes it to standard output.
func (t *transfer) unpack(to string, there files.Place, get func(io.Writer) (warnings []string, err error)) error {
	if to == "-" {
		warnings, err := get(t.bar.writer(untilDone{t.ctx, t.streams.Out}))
		t.warnings = append(t.warnings, warnings...)
		return err
	}
	packed, unpacking := io.Pipe()
	done := make(chan error, 1)
	left := files.LeftOut{Most: maxLeftOut}
	go func() {
		err := files.Unpack(packed, there, left.Add)
		_ = packed.CloseWithError(errors.Join(err, errGivenUp)) // it never fails
		done <- err
	}()
	warnings, err := get(t.bar.writer(unpacking))
	_ = unpacking.Close() // the same
	unpackErr := <-done
	t.warnings = append(append(t.warnings, warnings...), left.All()...)
	var write *client.WriteError
	switch {
	case unpackErr == nil, errors.Is(unpackErr, files.ErrShort) && err != nil && !errors.As(err, &write):
		return err // the job's side says why
	}
	return unpackErr
}

// An untilDone gives up a write that takes longer than its context: one to a pipe that nobody reads is
// interrupted by nothing. Its goroutine then ends with the process, as tele's does.
type untilDone struct {
	ctx context.Context
	io.Writer
}

func (w untilDone) Write(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := w.Writer.Write(p)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-w.ctx.Done():
		return 0, w.ctx.Err()
	}
}
