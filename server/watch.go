package server

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/job"
	"google.golang.org/grpc"
)

// Watch sends events as fast as the client takes them: one that does not is waited for, and costs nothing but
// its place among its streams.
func (s *service) Watch(r *telev1.WatchRequest, stream grpc.ServerStreamingServer[telev1.WatchResponse]) error {
	ctx, cancel := s.table.With(stream.Context())
	defer cancel()
	leave, err := s.takeStream(ctx)
	if err != nil {
		return err
	}
	defer leave()
	options, err := s.watchOptions(ctx, r)
	if err != nil {
		return err
	}
	watcher, err := s.table.Watch(options)
	if err != nil {
		return toStatus(err)
	}
	for {
		message, err := watcher.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return toStatus(err)
		}
		if err := stream.Send(message); err != nil {
			return err
		}
	}
}

// maxWatched is how many jobs a watch may name.
const maxWatched = 64

func (s *service) watchOptions(ctx context.Context, r *telev1.WatchRequest) (o job.WatchOptions, err error) {
	o = job.WatchOptions{Cursor: r.Cursor, Follow: r.Follow, Kinds: r.Kinds, Labels: r.Labels, Visible: caller(ctx).Sees}
	if r.Since != nil {
		if r.Since.CheckValid() != nil {
			return o, toStatus(&job.BadRequest{Field: "since", Why: "is no time"})
		}
		o.Since = r.Since.AsTime()
	}
	if slices.ContainsFunc(r.Kinds, func(kind telev1.EventKind) bool {
		_, known := telev1.EventKind_name[int32(kind)]
		return !known || kind == telev1.EventKind_EVENT_KIND_UNSPECIFIED
	}) {
		return o, toStatus(&job.BadRequest{Field: "kinds", Why: "has one that is unknown"})
	}
	if len(r.JobIds) > maxWatched {
		return o, toStatus(&job.BadRequest{Field: "job_ids", Why: "are more than 64"})
	}
	for _, id := range r.JobIds {
		j, err := s.table.Get(id, caller(ctx).Sees)
		switch {
		case err == nil:
			o.Jobs = append(o.Jobs, j.ID())
		case errors.Is(err, job.ErrNotFound) && isID(id): // it may be gone, and its events not
			o.Jobs = append(o.Jobs, id)
		default:
			return o, toStatusOf(err, id)
		}
	}
	return o, nil
}

// isID tells whether text is a whole id.
func isID(text string) bool {
	return len(text) == 12 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
