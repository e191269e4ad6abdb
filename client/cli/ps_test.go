package cli

import (
	"bytes"
	"strings"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestFormat(t *testing.T) {
	code := int32(3)
	jobs := []*telev1.Job{{Id: "a", ExitCode: &code, StdoutBytes: 1<<63 + 1,
		Spec:   &telev1.JobSpec{Command: []string{"sh", "-c", "a && b"}, Labels: map[string]string{"team": "red"}},
		Limits: []*telev1.LimitStatus{{Name: "memory", Applied: "500M"}}}, {Id: "b"}}
	for text, want := range map[string]string{
		"{{.job_id}}":                                          "a\nb\n",
		"{{.job_id}} {{.exit_code}}":                           "a 3\nb <no value>\n",
		"{{join .command \" \"}}|{{.name}}":                    "sh -c a && b|\n|\n",
		"{{json .labels}} {{json .exit_code}}":                 "{\"team\":\"red\"} 3\n{} null\n",
		"{{.stdout_bytes}}":                                    "9223372036854775809\n0\n",
		"{{with index .limits \"memory\"}}{{.applied}}{{end}}": "500M\n\n",
		"{{or .exit_code \"-\"}}":                              "3\n-\n",
	} {
		format, err := parseFormat(text)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := printFormat(&out, jsonOf(jobs), format); err != nil || out.String() != want {
			t.Errorf("%s: got %q, %v, want %q", text, out.String(), err, want)
		}
	}
	if _, err := parseFormat("{{.job_id"); err == nil || !strings.Contains(err.Error(), "write it like") {
		t.Errorf("got %v", err)
	}
	format, err := parseFormat("{{.id}}")
	if err != nil {
		t.Fatal(err)
	}
	err = printFormat(&bytes.Buffer{}, jsonOf(jobs), format)
	if err == nil || !strings.Contains(err.Error(), "names are those of -o json") {
		t.Errorf("a name that is not there: %v", err)
	}
}

func TestSortJobs(t *testing.T) {
	at := func(s int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: s} }
	job := func(id, user, name, command string, status telev1.JobStatus, ended *timestamppb.Timestamp) *telev1.Job {
		return &telev1.Job{Id: id, User: user, Status: status, EndedAt: ended,
			Spec: &telev1.JobSpec{Name: name, Command: []string{command}}}
	}
	newestFirst := []*telev1.Job{
		job("4", "b", "", "y", telev1.JobStatus_JOB_STATUS_RUNNING, nil),
		job("3", "a", "x", "z", telev1.JobStatus_JOB_STATUS_FAILED, at(8)),
		job("2", "b", "w", "y", telev1.JobStatus_JOB_STATUS_SUCCESS, at(9)),
		job("1", "a", "", "x", telev1.JobStatus_JOB_STATUS_RUNNING, nil),
	}
	for by, want := range map[string]string{"newest": "4321", "oldest": "1234", "ended": "4123", "name": "4123",
		"user": "3142", "status": "4123", "command": "1423"} {
		jobs := append([]*telev1.Job{}, newestFirst...)
		sortJobs(jobs, by)
		got := ""
		for _, j := range jobs {
			got += j.Id
		}
		if got != want {
			t.Errorf("by %s: got %s, want %s", by, got, want)
		}
	}
}
