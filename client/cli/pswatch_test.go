package cli

import (
	"os"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Terminals with next to no lines show what they can.
func TestWatchOnFewLines(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	v := &psView{Ps: &Ps{}, out: terminal, jobs: map[string]*telev1.Job{}}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		v.jobs[id] = &telev1.Job{Id: id, Spec: &telev1.JobSpec{Command: []string{"x"}}, CreatedAt: &timestamppb.Timestamp{}}
	}
	for rows := range uint16(6) {
		if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: 20}); err != nil {
			t.Fatal(err)
		}
		if err := v.draw(); err != nil {
			t.Errorf("%d lines: %v", rows, err)
		}
	}
}
