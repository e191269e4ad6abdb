package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// timing is a start whose steps were done after so many ms.
func timing(id, cold string, template bool, after ...int) *telev1.Timing {
	names := []string{"request checked", "limits set", "command running"}
	t := &telev1.Timing{JobId: id, BeganAt: timestamppb.New(now.Add(-90 * time.Second)), Cold: cold, Template: template}
	for i, a := range after {
		t.Marks = append(t.Marks, &telev1.Mark{Step: names[i], After: durationpb.New(time.Duration(a) * time.Millisecond)})
	}
	return t
}

// Each way has its own table of what each step took by itself, and the hints are those of this server.
func TestTimingsText(t *testing.T) {
	r := &telev1.ListTimingsResponse{Warm: 4, WarmReady: 2, EarlyEntry: true}
	for i := range 100 {
		r.Timings = append(r.Timings, timing("aaaaaaaaaaaa", "", true, 1, 3, 4+i))
	}
	r.Timings = append(r.Timings, timing("bbbbbbbbbbbb", "none_ready", true, 1, 901, 910),
		timing("cccccccccccc", "asks_more", false, 100, 200, 250))
	want := `102 starts, the first 1m ago; ms

warm: 100 starts
  STEP                  COUNT      P50      P90      P99      MAX
  request checked         100     1.00     1.00     1.00     1.00
  limits set              100     2.00     2.00     2.00     2.00
  command running         100    50.00    90.00    99.00   100.00
  all of it               100    53.00    93.00   102.00   103.00

cold: 1 start
  STEP                  COUNT      P50      P90      P99      MAX
  request checked           1     1.00     1.00     1.00     1.00
  limits set                1   900.00   900.00   900.00   900.00
  command running           1     9.00     9.00     9.00     9.00
  all of it                 1   910.00   910.00   910.00   910.00

cold, no template: 1 start
  STEP                  COUNT      P50      P90      P99      MAX
  request checked           1   100.00   100.00   100.00   100.00
  limits set                1   100.00   100.00   100.00   100.00
  command running           1    50.00    50.00    50.00    50.00
  all of it                 1   250.00   250.00   250.00   250.00

the slowest
  JOB           AGE  WAY                    ALL  SLOWEST STEP
  bbbbbbbbbbbb   1m  cold                910.00  900.00 limits set
  cccccccccccc   1m  cold, no template   250.00  100.00 request checked
  aaaaaaaaaaaa   1m  warm                103.00  100.00 command running
  aaaaaaaaaaaa   1m  warm                102.00  99.00 command running
  aaaaaaaaaaaa   1m  warm                101.00  98.00 command running

- 1 start found no sandbox ready: they came faster than those are made,
  or memory is short; 2 of 4 are ready now (tele serve --warm N)
- 1 start asked for what sandboxes that are ready have not: a root,
  mounts, a user or this machine's network
`
	if diff := cmp.Diff(want, timingsText(r, now)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What is off is said, in 80 columns; what somebody else's server says moves no cursor.
func TestTimingHints(t *testing.T) {
	far := timing("bbbbbbbbbbbb", "none_ready", true, 1, 901, 99_999)
	far.Marks[1].Step = "\x1b[2J" + strings.Repeat("long", 30)
	for _, test := range []struct {
		name string
		r    *telev1.ListTimingsResponse
		want []string // each in a hint of its own
	}{
		{"nothing yet", &telev1.ListTimingsResponse{Warm: 4, EarlyEntry: true}, nil},
		{"all well", &telev1.ListTimingsResponse{Warm: 4, EarlyEntry: true,
			Timings: []*telev1.Timing{timing("a", "", true, 1)}}, nil},
		{"all wrong", &telev1.ListTimingsResponse{Timings: []*telev1.Timing{timing("a", "unable", false, 1),
			timing("b", "off", false, 1), timing("b", "none_ready", false), far, timing("c", "asks_more", true, 1),
			timing("d", "something new", true, 1)}},
			[]string{"package hook", "--warm N keeps N", "1 start found no sandbox ready", "1 start asked for", "2 starts had no template"}},
	} {
		hints := timingHints(test.r)
		if len(hints) != len(test.want) {
			t.Fatalf("%s: %q", test.name, hints)
		}
		for i, want := range test.want {
			if !strings.Contains(hints[i], want) {
				t.Errorf("%s: %q, want %q in it", test.name, hints[i], want)
			}
		}
		text := timingsText(test.r, now)
		for line := range strings.Lines(text) {
			if width := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); width > 80 {
				t.Errorf("%s: %d columns: %s", test.name, width, line)
			}
		}
		if strings.Contains(text, "\x1b") {
			t.Errorf("%s: a control character: %q", test.name, text)
		}
	}
}

func TestTimingsJSON(t *testing.T) {
	var out bytes.Buffer
	err := printTimingsJSON(&out, &telev1.ListTimingsResponse{EarlyEntry: true, Warm: 4, WarmReady: 3,
		Timings: []*telev1.Timing{timing("aaaaaaaaaaaa", "off", true, 1, 3)}})
	var got any
	if err != nil || json.Unmarshal(out.Bytes(), &got) != nil {
		t.Fatal(err, out.String())
	}
	mark := func(step string, usec float64) any { return map[string]any{"step": step, "after_usec": usec} }
	want := map[string]any{"early_entry": true, "warm": 4.0, "warm_ready": 3.0, "starts": []any{map[string]any{
		"job_id": "aaaaaaaaaaaa", "began_at": "2026-01-02T03:02:35Z", "cold": "off", "template": true,
		"marks": []any{mark("request checked", 1000), mark("limits set", 3000)}}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTimingsOfAnOlderServer(t *testing.T) {
	var err error
	serve(t, &fake{answer: func(any) (any, error) { return nil, err }})
	timings := &Timings{Connection: Connection{Addr: os.Getenv("TELE_ADDR")}, Output: "text"}
	for code, want := range map[codes.Code]string{codes.Unimplemented: "this server is older", codes.PermissionDenied: "not permitted: no"} {
		err = status.Error(code, "no")
		var out bytes.Buffer
		exit, message := Exit(timings.ShowTimings(t.Context(), Streams{Out: &out, Err: &out}), "there")
		if exit != exitTele || !strings.HasPrefix(message, want) || out.Len() > 0 {
			t.Errorf("%v: %d %q %q", code, exit, message, &out)
		}
	}
}
