package client

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync/atomic"

	"github.com/telerun/tele/proto/files"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// This file copies files into running jobs and out of them, and into jobs that wait for them, as tar streams. Package
// github.com/telerun/tele/proto/files packs and unpacks them as tele cp does: sparse, without a link being
// followed, and no file half.

// PutFiles unpacks the tar stream in to at path in a running job, relative to the directory that its command
// started in. With a name, path is to be a copy of the one thing that is in the stream, or when path is a
// directory, that copy gets this name in it; else everything goes into the directory path. It returns what was
// left out, a line each. When it fails, also because the job, the connection or ctx ends, what was whole by
// then is in the job, and no part of a file.
func (c *Client) PutFiles(ctx context.Context, id, path, name string, in io.Reader) (warnings []string, err error) {
	read := &reading{Reader: in}
	warnings, err = c.copyFiles(ctx, id, &telev1.FileTransfer{Direction: telev1.FileDirection_FILE_DIRECTION_IN,
		Path: path, Name: name}, ExecOptions{Stdin: read})
	if why := read.failed.Load(); why != nil && err != nil {
		err = why
	}
	return warnings, err
}

// A reading remembers why it ended: the server will only say that it did too early.
type reading struct {
	io.Reader
	failed atomic.Pointer[ReadError]
}

func (r *reading) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		r.failed.Store(&ReadError{err})
	}
	return n, err
}

// GetFiles writes what is at path in a running job, a file or a directory with all that is in it, to out as a
// tar stream. It returns what was left out, a line each. When it fails the stream lacks its end, unless all
// that failed is that something below the directory could not be read. What it has is the job's to say, and is
// not to be trusted.
func (c *Client) GetFiles(ctx context.Context, id, path string, out io.Writer) (warnings []string, err error) {
	return c.copyFiles(ctx, id, &telev1.FileTransfer{Direction: telev1.FileDirection_FILE_DIRECTION_OUT, Path: path},
		ExecOptions{Stdout: out})
}

func (c *Client) copyFiles(ctx context.Context, id string, t *telev1.FileTransfer, o ExecOptions) ([]string, error) {
	var said remarks
	o.Stderr = &said
	e, err := c.Exec(ctx, &telev1.ExecStart{JobId: id, Files: t}, o)
	if err != nil {
		return nil, err
	}
	_, err = e.Wait()
	return strings.FieldsFunc(said.String(), func(r rune) bool { return r == '\n' }), err
}

// remarks are what a copy left out. A server sends a tenth of maxRemarks at most; what is behind that is dropped.
type remarks struct{ bytes.Buffer }

const maxRemarks = 1 << 20

func (r *remarks) Write(p []byte) (int, error) {
	_, _ = r.Buffer.Write(p[:min(len(p), maxRemarks-r.Len())]) // it never fails
	return len(p), nil
}

// Upload gives a job with JobSpec.upload its files: archives are tar streams, as many as it names places, and in
// their order. What is in stdin then is the command's input, of a job with JobSpec.stdin; nil is none. It returns
// when the server has all of it, and otherwise as Input does: the connection may be lost meanwhile, and the server
// restarted. An archive that cannot be read, a *ReadError, makes the job fail before its command runs, with exit
// code 125. With ErrInputClosed the job has ended, has failed to unpack what came, or reads no more of stdin.
//
// Whoever goes away before leaves a job that waits for its files.
func (c *Client) Upload(ctx context.Context, id string, archives []io.Reader, stdin io.Reader) error {
	var all []io.Reader
	var reads []*reading
	for _, archive := range archives {
		r := &reading{Reader: archive}
		reads, all = append(reads, r), append(all, files.Split(r))
	}
	if stdin != nil {
		all = append(all, stdin)
	}
	err := c.input(ctx, id, io.MultiReader(all...), mayWait)
	for _, r := range reads {
		if why := r.failed.Load(); why != nil && err != nil { // the job may have ended of it before
			return why
		}
	}
	return err
}
