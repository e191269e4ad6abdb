package server

import (
	"fmt"
	"strings"
	"testing"
)

// However much is said, how it began and what came last are kept, in whole lines and no more than that.
func TestSaid(t *testing.T) {
	s := &said{}
	for i := range 50_000 {
		s.take([]byte(fmt.Sprintf("warning %d\n", i)))
	}
	s.take([]byte("why it ended\n"))
	all := s.all()
	lines := strings.Split(strings.TrimSpace(all), "\n")
	if len(all) > maxSaid+maxSaidEnd+100 || lines[0] != "warning 0" || lines[len(lines)-1] != "why it ended" {
		t.Errorf("%d bytes, from %q to %q", len(all), lines[0], lines[len(lines)-1])
	}
	for _, line := range lines[:len(lines)-1] {
		if !strings.HasPrefix(line, "warning ") && line != "(more was said than is kept)" {
			t.Errorf("no whole line: %q", line)
		}
	}
	if s := (&said{}); s.all() != "" {
		t.Errorf("nothing said: %q", s.all())
	}
}
