package files

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Each match comes once, with all that is in it, by its own path; what nothing fits is told.
func TestCollect(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"a/1", "a/2/3", "b/1", "c"} {
		must(t, os.MkdirAll(strings.TrimSuffix("./"+name, "/"+name[strings.LastIndex(name, "/")+1:]), 0o755))
		must(t, os.WriteFile(name, []byte(name), 0o600))
	}
	must(t, unix.Mkfifo("fifo", 0o644))
	must(t, os.Symlink("a", "link"))
	absolute := strings.TrimLeft(dir, "/")
	for _, test := range []struct {
		patterns string
		names    []string
		want     string // the error
	}{
		{"a", []string{"a/", "a/1", "a/2/", "a/2/3"}, ""},
		{"a/* a/2/3 ./a/1", []string{"a/1", "a/2/", "a/2/3"}, ""},
		{"?/1", []string{"a/1", "b/1"}, ""},
		{dir + "/c c", []string{absolute + "/c", "c"}, ""},
		{"b . a", []string{"./", "./a/", "./a/1", "./a/2/", "./a/2/3", "./b/", "./b/1", "./c", "./link"}, ""},
		{"none c no*", []string{"c"}, "none: there is no such file (and 1 more)"},
		{"none", nil, "none: there is no such file"},
		{"fifo", nil, ""},
		{"c/x", nil, "read c/x: not a directory"},
		{"a/1 a", []string{"a/", "a/1", "a/2/", "a/2/3"}, ""},
		{"[!ac] c", []string{"b/", "b/1", "c"}, ""},
		{"link/1", []string{"link/1"}, ""},
		{"link/1 l*", []string{"link"}, "link/1 is left out: link, which another pattern fits, is a link and kept as one"},
	} {
		var out bytes.Buffer
		var warnings []string
		err := Collect(&out, strings.Fields(test.patterns), func(text string) { warnings = append(warnings, text) })
		var unread *UnreadError
		if fmt.Sprint(err) != test.want && (err != nil || test.want != "") || err != nil && !errors.As(err, &unread) {
			t.Errorf("%s: %v", test.patterns, err)
		}
		if got := members(t, out.Bytes()); !slices.Equal(got, test.names) {
			t.Errorf("%s: got %q", test.patterns, got)
		}
		to := t.TempDir()
		must(t, Unpack(bytes.NewReader(out.Bytes()), Place{Path: to}, noWarning(t)))
		if hasFIFO := strings.Contains(test.patterns, ".") && strings.Contains(test.patterns, "b ") || test.patterns == "fifo"; hasFIFO != (len(warnings) == 1) {
			t.Errorf("%s: warned of %q", test.patterns, warnings)
		}
	}
}

func TestGoPattern(t *testing.T) {
	for pattern, want := range map[string]string{
		"a!": "a!", "[!a]": "[^a]", "x[!a-c]*[!b]": "x[^a-c]*[^b]", "[a!]": "[a!]", `\[!a]`: `\[!a]`, `[\][!a]`: `[\][!a]`, "[": "[", "[!": "[^", `\`: `\`,
	} {
		if got := goPattern(pattern); got != want {
			t.Errorf("%s: got %s, want %s", pattern, got, want)
		}
	}
}

// What an agent says is heard by its server, whatever files are called.
func TestCollection(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, unix.Mkfifo("error: x\nwhole", 0o644))
	for _, test := range []struct {
		patterns []string
		whole    bool
		failed   string
		leftOut  int
	}{
		{[]string{"e*"}, true, "", 1},
		{[]string{"none"}, true, "none: there is no such file", 0},
		{[]string{"["}, false, "[ is no pattern: syntax error in pattern", 0},
	} {
		c := Collection{LeftOut: LeftOut{Most: 1000}}
		collect(new(bytes.Buffer), test.patterns, func(text string) {
			for line := range strings.Lines(text) {
				c.Hear(line)
			}
		})
		if c.Whole != test.whole || c.Error != test.failed || len(c.LeftOut.All()) != test.leftOut {
			t.Errorf("%q: %+v", test.patterns, c)
		}
	}
	c := Collection{LeftOut: LeftOut{Most: 10}}
	collect(failing{}, []string{"."}, c.Hear)
	if c.Whole || c.Error == "" {
		t.Errorf("nobody reads: %+v", c)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("nobody reads") }

// A stream of things that are left out takes no more memory the longer it is.
func TestLeftOutIsBounded(t *testing.T) {
	left := LeftOut{Most: 1000}
	for range 100 {
		left.Add(strings.Repeat("x", 100))
	}
	if all := left.All(); len(all) != 11 || all[10] != "90 more are left out" {
		t.Errorf("%d lines, the last %.100q", len(all), all[len(all)-1])
	}
}
