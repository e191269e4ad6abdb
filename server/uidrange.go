package server

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/telerun/tele/server/job"
)

// DefaultUIDRange is the range of users that jobs run as when nothing else is said.
var DefaultUIDRange = fmt.Sprintf("%d:%d", uint32(job.DefaultFirstUID), job.DefaultUIDs)

// parseUIDRange reads FIRST:COUNT. It refuses a range in which this machine has users or groups of its
// own, or that it has given to somebody for containers: a job must not be one of them.
func parseUIDRange(text string) (first, count uint32, err error) {
	if text == "" {
		text = DefaultUIDRange
	}
	a, b, _ := strings.Cut(text, ":")
	f, errFirst := strconv.ParseUint(a, 10, 32)
	n, errCount := strconv.ParseUint(b, 10, 32)
	switch {
	case errFirst != nil || errCount != nil || n == 0:
		return 0, 0, fmt.Errorf("--uid-range %q: write it like %s, the first id and how many", text, DefaultUIDRange)
	case f == 0:
		return 0, 0, fmt.Errorf("--uid-range %s: begins with root; jobs must not be root", text)
	case f+n > math.MaxUint32: // the highest stands for no id
		return 0, 0, fmt.Errorf("--uid-range %s: ends past the highest id, %d", text, uint32(math.MaxUint32-1))
	}
	for _, source := range []struct {
		path    string
		id, len int // which fields
	}{{"/etc/passwd", 2, -1}, {"/etc/group", 2, -1}, {"/etc/subuid", 1, 2}, {"/etc/subgid", 1, 2}} {
		data, err := os.ReadFile(source.path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, 0, fmt.Errorf("--uid-range: %w", err)
		}
		if line := overlap(string(data), source.id, source.len, f, n); line != "" {
			return 0, 0, fmt.Errorf("--uid-range %s: overlaps with %s: %s (choose a range that is nobody's)", text, source.path, line)
		}
	}
	return uint32(f), uint32(n), nil
}

// overlap returns the first line with an id, or a range of ids, in the range.
func overlap(text string, id, length int, first, count uint64) string {
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) <= max(id, length) {
			continue
		}
		from, err := strconv.ParseUint(fields[id], 10, 32)
		n := uint64(1)
		if length >= 0 && err == nil {
			n, err = strconv.ParseUint(fields[length], 10, 32)
		}
		if err == nil && from < first+count && first < from+n {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
