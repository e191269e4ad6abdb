package cli

import (
	"bytes"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Each limit that does not hold is said in a line of its own, with the reason; the others are not.
func TestWarn(t *testing.T) {
	var err bytes.Buffer
	warn(Streams{Err: &err}, &telev1.Job{Limits: []*telev1.LimitStatus{
		{Name: "cpu", Asked: "1", Applied: "1", How: "cpu.max 100000 100000"},
		{Name: "memory", Asked: "500M", WhyNot: "no cgroup"},
		{Name: "io_read", Asked: "5M", WhyNot: "tmpfs"},
	}})
	want := "tele: warning: limit memory 500M is not enforced: no cgroup\n" +
		"tele: warning: limit io_read 5M is not enforced: tmpfs\n"
	if err.String() != want {
		t.Errorf("got %q", err.String())
	}
}
