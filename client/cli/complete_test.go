package cli

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// complete is what Complete says that the last word can be.
func complete(t *testing.T, grammar any, words ...string) (kind string, list []string) {
	t.Helper()
	parser, err := kong.New(grammar, kong.Name("tele"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	Complete(t.Context(), parser.Model.Node, words, &out)
	kind, rest, _ := strings.Cut(out.String(), "\n")
	for line := range strings.Lines(rest) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		list = append(list, word)
	}
	return kind, list
}

func TestComplete(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	if err := (&ContextAdd{Name: "prod", Addr: "127.0.0.1:1"}).Run(Streams{Out: &bytes.Buffer{}}); err != nil {
		t.Fatal(err)
	}
	var asked *telev1.ListRequest
	serve(t, &fake{answer: func(request any) (any, error) {
		asked = request.(*telev1.ListRequest)
		return &telev1.ListResponse{Jobs: []*telev1.Job{
			{Id: "bcdefghijklm", Status: telev1.JobStatus_JOB_STATUS_RUNNING, Spec: &telev1.JobSpec{Command: []string{"sleep", "1\n"}}},
			{Id: jobID, Spec: &telev1.JobSpec{Name: "nightly"}},
		}}, nil
	}})
	for _, row := range []struct{ line, kind, want string }{
		{"sta", "words", "start status"},
		{"context ", "words", "add list use show rm"},
		{"context use ", "words", "default prod"},
		{"context rm p", "words", "prod"},
		{"status --context p", "words", "prod"},
		{"status --context=p", "words", "--context=prod"},
		{"why --ou", "words", "--output"},
		{"why -o json --ou", "words", ""}, // was given
		{"run --en", "words", "--env --env-file"},
		{"run --env A=b --en", "words", "--env --env-file"}, // may be repeated
		{"why --output ", "words", "text json"},
		{"why -o ", "words", "text json"},
		{"why --output=j", "words", "--output=json"},
		{"why --bogus=j", "words", ""},
		{"kill --signal T", "words", "TERM TSTP"},
		{"run --ca ", "files", ""},
		{"run --ca=x", "files", ""},
		{"run -f ", "files", ""},
		{"run --upload ", "files", ""},
		{"run --state-dir ", "dirs", ""},
		{"run --memory ", "words", ""},
		{"run ", "commands", ""},
		{"run -- ", "commands", ""},
		{"run -d -- --he", "commands", ""},
		{"run --memory 1G ls ", "files", ""},
		{"run ls --mem", "files", ""}, // the other command's flag
		{"run -di --mem", "words", "--memory"},
		{"logs ", "words", "bcdefghijklm " + jobID + " nightly"},
		{"logs n", "words", "nightly"},
		{"logs b", "words", "bcdefghijklm"},
		{"attach " + jobID + " ", "words", ""}, // takes one
		{"wait " + jobID + " ", "words", "bcdefghijklm"},
		{"wait -- b", "words", "bcdefghijklm"},
		{"cp b", "words", "bcdefghijklm:"},
		{"cp file n", "words", "nightly:"},
		{"cp ./f", "files", ""},
		{"cp nightly:x ", "words", "bcdefghijklm: " + jobID + ": nightly:"},
		{"nothing ", "words", ""},
	} {
		kind, list := complete(t, &Commands{}, strings.Split(row.line, " ")...)
		if got := strings.Join(list, " "); kind != row.kind || got != row.want {
			t.Errorf("%q: %s %q, want %s %q", row.line, kind, got, row.kind, row.want)
		}
	}
	for command, want := range map[string]string{"logs": "[]", "stop": "[JOB_STATUS_SUBMITTED JOB_STATUS_RUNNING]",
		"rm": "[JOB_STATUS_SUCCESS JOB_STATUS_FAILED JOB_STATUS_KILLED]"} {
		complete(t, &Commands{}, command, "")
		if fmt.Sprint(asked.Statuses) != want || !asked.Brief || asked.PageSize != 1000 {
			t.Errorf("%s asks for %v", command, asked)
		}
	}
	if _, list := complete(t, &Telerun{}, "stop", "b"); !slices.Equal(list, []string{"bcdefghijklm"}) {
		t.Errorf("telerun stop: %q", list)
	}
	parser, err := kong.New(&Commands{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	Complete(t.Context(), parser.Model.Node, []string{"stop", ""}, &out)
	expect(t, "with meanings", out.String(), "words\nbcdefghijklm\trunning  sleep 1\n"+jobID+"\nnightly\t"+jobID+"\n")
}

// TestCompleteInSilence: whatever is wrong, the answer is that there is nothing.
func TestCompleteInSilence(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	nowhere := "unix:" + filepath.Join(t.TempDir(), "nobody")
	serve(t, &fake{answer: func(any) (any, error) { return nil, status.Error(codes.PermissionDenied, "no") }})
	for _, words := range [][]string{{"stop", ""}, {"stop", "--addr", nowhere, ""}, {"stop", "--context=none", ""},
		{"stop", "--reconnect=soon", ""}, {"stop", "--addr", "127.0.0.1:1", "--ca", "/none", ""}} {
		if kind, list := complete(t, &Commands{}, words...); kind != "words" || len(list) > 0 {
			t.Errorf("%q: %s %q", words, kind, list)
		}
	}
	// A server that does not answer is left after a second.
	serve(t, &fake{answer: func(any) (any, error) {
		<-t.Context().Done()
		return nil, nil
	}})
	if kind, list := complete(t, &Commands{}, "stop", ""); kind != "words" || len(list) > 0 {
		t.Errorf("a silent server: %s %q", kind, list)
	}
}
