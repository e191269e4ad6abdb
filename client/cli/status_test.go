package cli

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func jobs() []*telev1.Job {
	at := func(ago time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-ago)) }
	return []*telev1.Job{
		{Id: "aaaaaaaaaaaa", Status: telev1.JobStatus_JOB_STATUS_RUNNING, User: "admin", CreatedAt: at(5 * time.Second),
			Spec: &telev1.JobSpec{Command: []string{"sh", "-c", "printf '\x1b[2J\u009b2J\u202e' > /tmp/x && " + strings.Repeat("ü", 100)}}},
		{Id: "bbbbbbbbbbbb", Status: telev1.JobStatus_JOB_STATUS_FAILED, User: "alice", CreatedAt: at(3 * time.Hour),
			ExitCode: proto.Int32(137), Reason: telev1.Reason_REASON_OOM_KILLED, Spec: &telev1.JobSpec{Command: []string{"make"}},
			Limits: []*telev1.LimitStatus{{Name: "cpu", Asked: "1", WhyNot: "no cgroups"}}, Usage: &telev1.Usage{OomKills: proto.Uint64(1)}},
	}
}

func TestTableFitsTheScreen(t *testing.T) {
	for _, s := range []screen{{80, false}, {80, true}, {132, true}, {40, false}} {
		var out bytes.Buffer
		if err := printTable(&out, jobs(), now, s); err != nil {
			t.Fatal(err)
		}
		plain := regexp.MustCompile(`\x1b\[[0-9]+m`).ReplaceAllString(out.String(), "")
		if colored := plain != out.String(); colored != s.color {
			t.Errorf("%+v: colours: %t", s, colored)
		}
		lines := strings.Split(strings.TrimSuffix(plain, "\n"), "\n")
		at := strings.Index(lines[0], "COMMAND")
		for _, line := range lines {
			if !strings.HasPrefix(line[at-2:], "  ") || line[at] == ' ' {
				t.Errorf("%+v: columns are not aligned:\n%s", s, plain)
			}
			if width := utf8.RuneCountInString(line); width > max(s.width, at+leastCommand) {
				t.Errorf("%+v: a line of %d columns: %s", s, width, line)
			}
		}
		if strings.ContainsAny(plain, "\x1b\u009b\u202e") {
			t.Errorf("%+v: a command's own control characters reach the terminal: %q", s, plain)
		}
	}
}

// The names are an interface: none may change, and none may be left out.
func TestJSONNames(t *testing.T) {
	var out bytes.Buffer
	if err := printJSON(&out, jobs()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "> /tmp/x && ") {
		t.Errorf("escaped more than JSON asks for:\n%s", &out)
	}
	var list []map[string]any
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	for i, job := range list {
		names(t, job, "command created_at dropped_bytes ended_at exit_code files job_id labels limits message name output_removed paused reason "+
			"started_at status stderr_bytes stdin_bytes stdout_bytes timeout tries usage user")
		names(t, job["usage"].(map[string]any), "cpu_system_usec cpu_usec cpu_user_usec io_read_bytes io_write_bytes "+
			"largest_process_bytes memory_peak_bytes oom_kills pids_limit_hits pids_peak stall_cpu_usec stall_io_usec "+
			"stall_memory_usec throttled_count throttled_usec wall_usec")
		if i == 1 {
			names(t, job["limits"].(map[string]any)["cpu"].(map[string]any), "applied asked how why_not")
		}
	}
	if list[0]["exit_code"] != nil || list[1]["exit_code"] != 137.0 || list[0]["status"] != "running" || list[1]["reason"] != "oom_killed" {
		t.Errorf("got %v", list)
	}
}

func names(t *testing.T, object map[string]any, want string) {
	t.Helper()
	var got []string
	for name := range object {
		got = append(got, name)
	}
	slices.Sort(got)
	if strings.Join(got, " ") != want {
		t.Errorf("names %q, want %q", got, want)
	}
}
