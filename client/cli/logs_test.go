package cli

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// A placeOfLines is written to by several prefixers, each Write whole lines.
type placeOfLines struct {
	t    *testing.T
	text bytes.Buffer
}

func (p *placeOfLines) Write(data []byte) (int, error) {
	if !bytes.HasSuffix(data, []byte("\n")) {
		p.t.Errorf("wrote %q", data)
	}
	return p.text.Write(data)
}

// However the output of jobs comes in pieces, their lines come out whole.
func TestPrefixer(t *testing.T) {
	const count = 500
	var mu sync.Mutex
	place := &placeOfLines{t: t}
	var jobs sync.WaitGroup
	for i, name := range []string{"a", "b", "c"} {
		jobs.Go(func() {
			p := &prefixer{mu: &mu, to: place, prefix: name + ": "}
			rest := strings.Repeat("one\n\ntwo\n", count) + "end"
			for rest != "" {
				n := min(i*2+1, len(rest))
				if written, err := p.Write([]byte(rest[:n])); written != n || err != nil {
					t.Errorf("wrote %d of %d, %v", written, n, err)
				}
				rest = rest[n:]
			}
			if err := p.end(); err != nil {
				t.Error(err)
			}
		})
	}
	jobs.Wait()
	got := map[string]int{}
	for line := range strings.Lines(place.text.String()) {
		got[line]++
	}
	for _, name := range []string{"a", "b", "c"} {
		for line, want := range map[string]int{"one": count, "": count, "two": count, "end": 1} {
			expect(t, name+" "+line, got[name+": "+line+"\n"], want)
		}
	}
	expect(t, "different lines", len(got), 12)
}

// A line without an end does not take memory without one.
func TestPrefixerOfOneLine(t *testing.T) {
	place := &placeOfLines{t: t}
	p := &prefixer{mu: new(sync.Mutex), to: place, prefix: "a: "}
	data := bytes.Repeat([]byte("x"), 3*longestLine/2)
	for range 2 {
		if _, err := p.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	expect(t, "text", place.text.String(), strings.Repeat("a: "+strings.Repeat("x", longestLine)+"\n", 3))
}

func TestParseSince(t *testing.T) {
	zone := time.FixedZone("there", 2*3600)
	now := time.Date(2026, 5, 31, 15, 4, 5, 6, zone)
	for text, want := range map[string]string{
		"0s":                          "2026-05-31T15:04:05.000000006+02:00",
		"1h30m":                       "2026-05-31T13:34:05.000000006+02:00",
		"14:30":                       "2026-05-31T14:30:00+02:00",
		"14:30:15.5":                  "2026-05-31T14:30:15.5+02:00",
		"2026-05-30":                  "2026-05-30T00:00:00+02:00",
		"2026-05-30 01:02":            "2026-05-30T01:02:00+02:00",
		"2026-05-30T01:02:03":         "2026-05-30T01:02:03+02:00",
		"2026-05-30T01:02:03.000004Z": "2026-05-30T01:02:03.000004Z", // as -t shows it
		"2026-05-30T01:02:03-05:00":   "2026-05-30T01:02:03-05:00",
	} {
		if got, err := parseSince(text, now); err != nil || got.Format(time.RFC3339Nano) != want {
			t.Errorf("%s: got %v, %v, want %s", text, got, err, want)
		}
	}
	if got, err := parseSince("", now); err != nil || !got.IsZero() {
		t.Errorf("none: got %v, %v", got, err)
	}
	for _, text := range []string{"-1s", "soon", "2026-13-01", "25:00"} {
		if got, err := parseSince(text, now); err == nil {
			t.Errorf("%s: got %v", text, got)
		}
	}
}
