package server

import (
	"context"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// This file has the methods that change a running job, but for those that end it.

func (s *service) Pause(ctx context.Context, r *telev1.PauseRequest) (*telev1.PauseResponse, error) {
	j, err := s.controlled(ctx, r.JobId, "pause it")
	if err != nil {
		return nil, err
	}
	if err := j.Pause(ctx); err != nil {
		return nil, toStatus(err)
	}
	return &telev1.PauseResponse{Job: j.Snapshot()}, nil
}

func (s *service) Resume(ctx context.Context, r *telev1.ResumeRequest) (*telev1.ResumeResponse, error) {
	j, err := s.controlled(ctx, r.JobId, "resume it")
	if err != nil {
		return nil, err
	}
	if err := j.Resume(); err != nil {
		return nil, toStatus(err)
	}
	return &telev1.ResumeResponse{Job: j.Snapshot()}, nil
}

func (s *service) Update(ctx context.Context, r *telev1.UpdateRequest) (*telev1.UpdateResponse, error) {
	j, err := s.controlled(ctx, r.JobId, "change it")
	if err != nil {
		return nil, err
	}
	if err := j.Update(r.Limits, r.Timeout); err != nil {
		return nil, toStatus(err)
	}
	return &telev1.UpdateResponse{Job: j.Snapshot()}, nil
}
