package client

import (
	"context"
	"io"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// KeptFiles writes what is kept of an ended job's files, those that JobSpec.Download asked for, to out as a tar
// stream. Job.Files says whether that is all of them. A connection that is lost on the way is taken up again
// where it was cut. What is in the stream is the job's to say, and is not to be trusted;
// github.com/telerun/tele/proto/files unpacks it.
func (c *Client) KeptFiles(ctx context.Context, id string, out io.Writer) error {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := &telev1.StreamFilesRequest{JobId: id}
	return c.link.call(ctx, "get them again with: tele download "+id, func(answered func()) error {
		stream, err := c.jobs.StreamFiles(ctx, next)
		if err != nil {
			return err
		}
		for {
			r, err := stream.Recv()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			answered()
			if _, err := out.Write(r.Data); err != nil {
				return &WriteError{err}
			}
			next.Offset += uint64(len(r.Data))
		}
	})
}
