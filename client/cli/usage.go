package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// usageText is what a job used, for people: a line for each thing that was counted.
func usageText(u *telev1.Usage) string {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	line := func(name string, parts ...string) {
		var known []string
		for _, part := range parts {
			if part != "" {
				known = append(known, part)
			}
		}
		if len(known) > 0 {
			fmt.Fprintf(table, "%s\t%s\n", name, strings.Join(known, ", "))
		}
	}
	line("time", show(u.WallUsec, span, "%s"))
	line("cpu", show(u.CpuUserUsec, span, "%s user"), show(u.CpuSystemUsec, span, "%s system"),
		show(u.ThrottledUsec, span, "%s held back by the limit")+show(u.ThrottledCount, count, " (%s times)"))
	line("memory", show(u.MemoryPeakBytes, size, "%s at most"), show(u.LargestProcessBytes, size, "%s the largest process"),
		show(u.OomKills, count, "%s killed at the limit"))
	line("disk", show(u.IoReadBytes, size, "%s read"), show(u.IoWriteBytes, size, "%s written"))
	line("processes", show(u.PidsPeak, count, "%s at most"), show(u.PidsLimitHits, count, "%s refused at the limit"))
	line("waited", show(u.StallCpuUsec, span, "%s for a cpu"), show(u.StallMemoryUsec, span, "%s for memory"),
		show(u.StallIoUsec, span, "%s for disks"))
	_ = table.Flush() // into memory
	return text.String()
}

// show writes a figure in a text, or nothing when it is not known.
func show(value *uint64, write func(uint64) string, format string) string {
	if value == nil {
		return ""
	}
	return fmt.Sprintf(format, write(*value))
}

func count(n uint64) string { return fmt.Sprint(n) }

// span writes microseconds as seconds, or a longer time as people do.
func span(usec uint64) string {
	if usec < 100e6 {
		return fmt.Sprintf("%.3fs", float64(usec)/1e6)
	}
	return (time.Duration(min(usec, 1<<53)) * time.Microsecond).Round(time.Second).String()
}

// size writes bytes in the powers of 1024 that limits are given in.
func size(bytes uint64) string {
	unit, value := "", float64(bytes)
	for _, next := range []string{"K", "M", "G", "T"} {
		if value < 1024 {
			break
		}
		unit, value = next, value/1024
	}
	if unit == "" || value >= 100 {
		return fmt.Sprintf("%.0f%s", value, unit)
	}
	return fmt.Sprintf("%.1f%s", value, unit)
}
