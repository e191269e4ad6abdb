package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"

	"github.com/telerun/tele/client"
	"github.com/telerun/tele/proto/files"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// Download is `tele download`.
type Download struct {
	Connection
	Quiet bool   `short:"q" help:"Show neither how far it is nor what was left out."`
	ID    string `arg:"" help:"The job: its id, a unique beginning of that, or its name."`
	To    string `arg:"" optional:"" help:"Where to put the files, each under its path; - writes a tar stream." default:"." type:"path"`
}

// Run waits for the job's end, and gets its files.
func (d *Download) Run(ctx context.Context, streams Streams) error {
	if d.To == "-" && sizeOf(streams.Out) != nil {
		return errors.New("a tar stream is not for a terminal; redirect it: tele download " + d.ID + " - >FILE.tar")
	}
	c, err := d.dial(ctx, streams)
	if err != nil {
		return err
	}
	job, err := c.Wait(ctx, d.ID)
	if err != nil {
		return err
	}
	return download(ctx, c, streams, job, d.To, d.Quiet)
}

// download gets what is kept of an ended job's files.
func download(ctx context.Context, c *client.Client, streams Streams, job *telev1.Job, to string, quiet bool) error {
	if job.Files == nil {
		return fmt.Errorf("of job %s no files are kept; start it with: tele run --download PATTERN", job.Id)
	}
	// What is half-written goes before tele does.
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	t := &transfer{client: c, ctx: ctx, streams: streams, quiet: quiet, bar: newBar(streams.Err, quiet), warnings: job.Files.Warnings}
	t.bar.total = int64(job.Files.Bytes)
	err := error(nil)
	if job.Files.Bytes > 0 {
		err = t.unpack(to, files.Place{Path: to}, func(w io.Writer) ([]string, error) { return nil, c.KeptFiles(ctx, job.Id, w) })
	}
	t.bar.end()
	t.tell()
	switch {
	case ctx.Err() != nil && err != nil:
		return fmt.Errorf("interrupted; files that were whole are there, and all of them come with: tele download %s", job.Id)
	case err != nil:
		return fmt.Errorf("%w (the job has ended; try again with: tele download %s)", err, job.Id)
	case job.Files.Error != "" && job.Files.Bytes > 0:
		return fmt.Errorf("not all files of job %s are kept: %s", job.Id, job.Files.Error)
	case job.Files.Error != "":
		return fmt.Errorf("no files of job %s are kept: %s", job.Id, job.Files.Error)
	}
	return nil
}
