package limits

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name  Name
		text  string
		value int64
		text2 string // as Format writes it
	}{
		{CPU, "1", 1000, "1"},
		{CPU, "1.5", 1500, "1.5"},
		{CPU, "1500m", 1500, "1.5"},
		{CPU, "0.01", 10, "0.01"},
		{CPU, "0.333", 333, "0.333"},
		{CPU, "max", Max, "max"},
		{Memory, "1M", 1 << 20, "1M"},
		{Memory, "1Mi", 1 << 20, "1M"},
		{Memory, "1024K", 1 << 20, "1M"},
		{Memory, "1.5G", 3 << 29, "1536M"},
		{Memory, "2T", 2 << 40, "2T"},
		{Memory, "1048577", 1<<20 + 1, "1048577"},
		{Memory, "max", Max, "max"},
		{Swap, "0", 0, "0"},
		{IORead, "1", 1, "1"},
		{IOWrite, "5M", 5 << 20, "5M"},
		{Pids, "512", 512, "512"},
		{Pids, "1024", 1024, "1024"},
	} {
		value, err := Parse(test.name, test.text)
		if err != nil || value != test.value {
			t.Errorf("Parse(%s, %q) = %d, %v; want %d", test.name, test.text, value, err, test.value)
		}
		if text := Format(test.name, value); text != test.text2 {
			t.Errorf("Format(%s, %d) = %q, want %q", test.name, value, text, test.text2)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct {
		name Name
		text string
		why  string // a part of the message
	}{
		{CPU, "", "number of CPUs"},
		{CPU, "-1", "number of CPUs"},
		{CPU, "1e3", "number of CPUs"},
		{CPU, "1.", "number of CPUs"},
		{CPU, ".5", "number of CPUs"},
		{CPU, "1.5m", "number of CPUs"},
		{CPU, "0", "the least is 0.01"},
		{Memory, "12X", "500M"},
		{Memory, "M", "not a size"},
		{Memory, "i", "not a size"},
		{Memory, "5i", "not a size"},
		{Memory, "1 M", "not a size"},
		{Memory, "0x10", "not a size"},
		{Memory, "1.5", "not a size"},
		{Memory, "9999999T", "not a size"},
		{Memory, "99999999999999999999", "not a size"},
		{Memory, "100K", "the least is 1M"},
		{IORead, "0", "the least is 1"},
		{Pids, "0", "the least is 1"},
		{Pids, "1K", "number of processes"},
		{"speed", "1", "no such limit"},
	} {
		value, err := Parse(test.name, test.text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("Parse(%s, %q) = %d, %v; want an *Error", test.name, test.text, value, err)
			continue
		}
		if e.Name != test.name || e.Text != test.text || !strings.Contains(e.Error(), test.why) {
			t.Errorf("Parse(%s, %q): %v; want %q in it", test.name, test.text, err, test.why)
		}
	}
}

func TestCheckMax(t *testing.T) {
	most := Default()
	if err := Default().CheckMax(most); err != nil {
		t.Errorf("the default against itself: %v", err)
	}
	for _, name := range Names {
		l := Default()
		l.Set(name, Max)
		var e *Error
		if err := l.CheckMax(most); !errors.As(err, &e) || e.Name != name {
			t.Errorf("%s max against the default: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"max", "1.5", "1500m", "500M", "2Gi", "12X", "0.0000001T", "9e9"} {
		for i := range Names {
			f.Add(i, text)
		}
	}
	f.Fuzz(func(t *testing.T, i int, text string) {
		if i < 0 || i >= len(Names) {
			return
		}
		name := Names[i]
		value, err := Parse(name, text)
		if err != nil {
			return
		}
		if value < smallest[name] {
			t.Fatalf("Parse(%s, %q) = %d, less than the least", name, text, value)
		}
		again, err := Parse(name, Format(name, value))
		if err != nil || again != value {
			t.Fatalf("%s %q is %d; written as %q it is %d, %v",
				name, text, value, Format(name, value), again, err)
		}
	})
}
