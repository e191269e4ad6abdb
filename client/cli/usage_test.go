package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
)

func TestUsageText(t *testing.T) {
	n := proto.Uint64
	for _, test := range []struct {
		usage *telev1.Usage
		want  string
	}{
		{&telev1.Usage{}, ""},
		{&telev1.Usage{CpuUserUsec: n(312_400), CpuSystemUsec: n(0), WallUsec: n(1_000_000)},
			"time  1.000s\ncpu   0.312s user, 0.000s system\n"},
		{&telev1.Usage{WallUsec: n(3_723_400_000), CpuUserUsec: n(360_000_000_000), CpuSystemUsec: n(99_999_999),
			ThrottledUsec: n(800_000), ThrottledCount: n(12), MemoryPeakBytes: n(64<<20 + 1<<19), LargestProcessBytes: n(500 << 20),
			OomKills: n(1), IoReadBytes: n(0), IoWriteBytes: n(8 << 20), PidsPeak: n(12), PidsLimitHits: n(3),
			StallCpuUsec: n(10_000), StallMemoryUsec: n(0), StallIoUsec: n(2_000_000)},
			`time       1h2m3s
cpu        100h0m0s user, 100.000s system, 0.800s held back by the limit (12 times)
memory     64.5M at most, 500M the largest process, 1 killed at the limit
disk       0 read, 8.0M written
processes  12 at most, 3 refused at the limit
waited     0.010s for a cpu, 0.000s for memory, 2.000s for disks
`},
	} {
		if diff := cmp.Diff(test.want, usageText(test.usage)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	for bytes, want := range map[uint64]string{0: "0", 1023: "1023", 1024: "1.0K", 102400: "100K", 1 << 40: "1.0T", 1 << 60: "1048576T"} {
		if got := size(bytes); got != want {
			t.Errorf("%d bytes: %s, want %s", bytes, got, want)
		}
	}
}
