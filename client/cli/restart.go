package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// This file is jobs that are tried again, as people see them.

// defaultRetries is how many further tries on-failure alone means.
const defaultRetries = 3

// parseRestart reads --restart; nil is none.
func parseRestart(text string) (*telev1.Restart, error) {
	if text == "" {
		return nil, nil
	}
	policy, rest, limited := strings.Cut(text, ":")
	retries, wait, waits := strings.Cut(rest, "@")
	restart := &telev1.Restart{MaxRetries: defaultRetries}
	n, err := strconv.ParseUint(retries, 10, 32)
	if limited && err == nil {
		restart.MaxRetries = uint32(n)
	}
	if waits && err == nil {
		var d time.Duration
		d, err = time.ParseDuration(wait)
		restart.Backoff = durationpb.New(d)
	}
	if policy != "on-failure" || limited && err != nil {
		return nil, fmt.Errorf("--restart %s: write it like on-failure, on-failure:5 for at most five further tries, or on-failure:5@10s to wait so long before the first of them", text)
	}
	return restart, nil
}

// betweenTries tells whether a job waits for its next try.
func betweenTries(j *telev1.Job) bool {
	return j.Status == telev1.JobStatus_JOB_STATUS_SUBMITTED && j.StartedAt != nil
}

// printTries writes a line for each try of a job that has them, and when the next begins.
func printTries(out io.Writer, j *telev1.Job) {
	if len(j.Tries) == 0 {
		return
	}
	fmt.Fprintf(out, "\ntries of %s:\n", j.Id)
	for i, try := range j.Tries {
		began, took := "-", "-"
		if try.StartedAt != nil {
			began = try.StartedAt.AsTime().Local().Format(time.DateTime)
			if try.EndedAt != nil {
				took = try.EndedAt.AsTime().Sub(try.StartedAt.AsTime()).Round(time.Millisecond).String()
			}
		}
		fmt.Fprintf(out, "%3d  %-19s  %-9s  %s\n", i+1, began, took, cmp.Or(printable(try.Message), "running"))
	}
	if betweenTries(j) {
		fmt.Fprintf(out, "%s\n", printable(j.Message))
	}
}

// A tryJSON is a try as scripts see it.
type tryJSON struct {
	StartedAt    *time.Time `json:"started_at"`
	EndedAt      *time.Time `json:"ended_at"`
	ExitCode     *int32     `json:"exit_code"`
	Reason       string     `json:"reason"`
	Message      string     `json:"message"`
	Usage        usageJSON  `json:"usage"`
	StdoutOffset uint64     `json:"stdout_offset"`
	StderrOffset uint64     `json:"stderr_offset"`
}

func triesOf(j *telev1.Job) []tryJSON {
	list := []tryJSON{}
	for _, try := range j.Tries {
		list = append(list, tryJSON{StartedAt: instant(try.StartedAt), EndedAt: instant(try.EndedAt), ExitCode: try.ExitCode,
			Reason: reasonName(try.Reason), Message: try.Message, Usage: usageOf(try.Usage),
			StdoutOffset: try.StdoutOffset, StderrOffset: try.StderrOffset})
	}
	return list
}
