package server

import (
	"context"
	"testing"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What cannot be done to a running job gets its code, and says why in a word.
func TestControlErrors(t *testing.T) {
	c, _ := serve(t, Command{})
	spec := sh("trap '' TERM; echo ready; while :; do sleep 0.01; done")
	spec.Name = "stubborn"
	stubborn := start(t, c, spec)
	awaitReady(t, c, stubborn.Id)
	stopped := make(chan error, 1)
	go func() {
		_, err := c.Stop(t.Context(), stubborn.Id, "TERM", time.Hour)
		stopped <- err
	}()
	ended, err := c.Run(t.Context(), sh("true"))
	if err != nil {
		t.Fatal(err)
	}
	hog := start(t, c, &telev1.JobSpec{Command: []string{"python3", "-c",
		"import time\nx = bytearray(100 << 20)\nprint('ready', flush=True)\ntime.sleep(1000)"}})
	awaitReady(t, c, hog.Id)
	hour, past := time.Hour, -time.Second
	for name, test := range map[string]struct {
		call func() error
		code codes.Code
		why  string // a reason, or a field
	}{
		"name": {func() error { _, err := c.Start(t.Context(), spec); return err }, codes.AlreadyExists, ""},
		"pause of an ended job": {func() error { _, err := c.Pause(t.Context(), ended.Id); return err },
			codes.FailedPrecondition, "ENDED"},
		"resume of an ended job": {func() error { _, err := c.Resume(t.Context(), ended.Id); return err },
			codes.FailedPrecondition, "ENDED"},
		"update of an ended job": {func() error { _, err := c.Update(t.Context(), ended.Id, nil, &hour); return err },
			codes.FailedPrecondition, "ENDED"},
		"nobody": {func() error { _, err := c.Pause(t.Context(), "nobody"); return err }, codes.NotFound, ""},
		"limit": {func() error {
			_, err := c.Update(t.Context(), "stubborn", &telev1.Limits{Cpu: "many"}, nil)
			return err
		}, codes.InvalidArgument, "limits.cpu"},
		"memory in use": {func() error {
			_, err := c.Update(t.Context(), hog.Id, &telev1.Limits{Memory: "20M"}, nil)
			return err
		}, codes.FailedPrecondition, "LIMIT_NOT_ENFORCEABLE"},
		"timeout": {func() error { _, err := c.Update(t.Context(), "stubborn", nil, &past); return err },
			codes.InvalidArgument, "timeout"},
		"filter": {func() error {
			_, err := c.List(t.Context(), client.ListOptions{Since: -1})
			return err
		}, codes.InvalidArgument, "since"},
	} {
		expectWhy(t, name, test.call(), test.code, test.why)
	}
	// Whether the stop is there already is asked until it is.
	err = nil
	for err == nil {
		_, err = c.Update(t.Context(), stubborn.Id, nil, &hour)
	}
	expectWhy(t, "time for one that is being stopped", err, codes.FailedPrecondition, "STOPPING")
	if _, err := c.Stop(t.Context(), stubborn.Id, "KILL", 0); err != nil {
		t.Error(err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// awaitReady returns when a job has written something.
func awaitReady(t *testing.T, c *client.Client, id string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := client.OutputOptions{Follow: true, Chunk: func(*telev1.StreamOutputResponse) error { cancel(); return nil }}
	if _, err := c.Output(ctx, id, o, nil, nil); status.Code(err) != codes.Canceled {
		t.Fatalf("job %s: %v", id, err)
	}
}

func expectWhy(t *testing.T, name string, err error, code codes.Code, why string) {
	t.Helper()
	got := ""
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			got = detail.Reason
		case *errdetails.BadRequest:
			got = detail.FieldViolations[0].Field
		}
	}
	if status.Code(err) != code || got != why {
		t.Errorf("%s: got %v, %q, want %v, %q", name, err, got, code, why)
	}
}
