package cli

import (
	"os"
	"strings"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestParseUpload(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"file", "a:b", "a:b:c"} {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", "link"); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"file": "file .", "file:": "file .", "file:x": "file x", "file:/x/": "file /x/", "./file:x": "./file x",
		".": ". .", "./.:x": "./. x", "link": "link .", "link:x": "link x",
		"a:b": "a:b .", "a:b:x": "a:b x", "a:b:c": "a:b:c .", "a:b:c:": "a:b:c .",
		"": "no file is named", ":x": "no file is named", "none": "read none: no such file", "none:x": "read none: no such file",
		"file/x": "read file/x: not a directory", "file:x:y": "read file:x: no such file", "/dev/null": "/dev/null is neither a file",
	} {
		source, path, err := parseUpload(text)
		got := source + " " + path
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.HasPrefix(got, want)) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// A job whose files the server does not take is not left waiting for them.
func TestUploadIsRefused(t *testing.T) {
	stopped := make(chan bool, 2)
	serve(t, &fake{
		answer: func(request any) (any, error) {
			job := &telev1.Job{Id: jobID, Status: telev1.JobStatus_JOB_STATUS_RUNNING}
			switch r := request.(type) {
			case *telev1.StartRequest:
				job.Spec = r.Spec
				return &telev1.StartResponse{Job: job}, nil
			case *telev1.StopRequest:
				stopped <- true
			}
			return &telev1.StopResponse{Job: job}, nil
		},
		stream: func(_ *telev1.StreamOutputRequest, s grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
			select {
			case <-stopped:
			case <-time.After(30 * time.Second):
				t.Error("the job was not stopped")
			}
			return s.Send(&telev1.StreamOutputResponse{Job: &telev1.Job{Id: jobID, Status: telev1.JobStatus_JOB_STATUS_KILLED,
				Reason: telev1.Reason_REASON_STOPPED, ExitCode: new(int32(143)), Signal: 15, EndedAt: timestamppb.Now()}})
		},
	})
	dir := t.TempDir()
	code, out, errs := tele(t, "run", "--upload", dir, "--", "true")
	if code != 125 || out != "" || !strings.Contains(errs, "not implemented (the job was stopped, for it has not all of its files)") {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
	code, out, errs = tele(t, "start", "--upload", dir, "--", "true")
	if code != 125 || out != "" || !strings.Contains(errs, "not implemented (the job was stopped, for it has not all of its files)") || len(stopped) != 1 {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
}
