package cli

import (
	"strings"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestParseRestart(t *testing.T) {
	for text, want := range map[string]*telev1.Restart{
		"": nil, "on-failure": {MaxRetries: 3}, "on-failure:7": {MaxRetries: 7}, "on-failure:0": {},
		"on-failure:2@1m30s": {MaxRetries: 2, Backoff: durationpb.New(90 * time.Second)},
	} {
		if got, err := parseRestart(text); err != nil || !proto.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"always", "no", "on-failure:", "on-failure:x", "on-failure:-1", "on-failure:1@", "on-failure:1@soon", "on-failure@1s", ":3"} {
		if _, err := parseRestart(text); err == nil || !strings.HasPrefix(err.Error(), "--restart "+text+": write it like") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPrintTries(t *testing.T) {
	job := jobs()[0]
	var out strings.Builder
	if printTries(&out, job); out.Len() != 0 {
		t.Errorf("got %q", out.String())
	}
	at := timestamppb.New(now)
	job.Status, job.StartedAt, job.Message = telev1.JobStatus_JOB_STATUS_SUBMITTED, at, "try 3 of 4 begins soon"
	job.Tries = []*telev1.Try{{StartedAt: at, EndedAt: timestamppb.New(now.Add(1500 * time.Millisecond)), Message: "exited with code 1"},
		{EndedAt: at, Message: "could not be\x1bstarted"}}
	printTries(&out, job)
	if got := out.String(); !strings.Contains(got, "  1.5s       exited with code 1\n  2  -                    -          could not be started\ntry 3 of 4 begins soon\n") {
		t.Errorf("got %q", got)
	}
}
