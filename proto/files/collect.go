package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Collect writes what the patterns fit, relative to the working directory or absolute: each match with all that
// is in it, once, under its path, without a leading slash. A pattern that nothing fits is told as what cannot be
// read is, an *UnreadError, once the rest is written.
func Collect(w io.Writer, patterns []string, warn func(string)) error {
	p := newPacker(w, warn)
	var names []string
	wanted := map[string]bool{}
	for _, pattern := range patterns {
		matches, err := filepath.Glob(goPattern(pattern))
		if err != nil {
			return fmt.Errorf("%s is no pattern: %w", show(pattern), err)
		}
		if len(matches) == 0 {
			p.lacks(noMatch(pattern))
		}
		for _, match := range matches {
			if match = path.Clean(match); !wanted[match] {
				wanted[match] = true
				names = append(names, match)
			}
		}
	}
	for _, match := range names {
		if dir := above(match, wanted); dir != "" {
			p.lacksBehindLink(match, dir)
			continue
		}
		name := strings.TrimLeft(match, "/")
		if name == "" {
			name = "."
		}
		if err := p.add(match, name); err != nil {
			return err
		}
	}
	return p.end()
}

// CheckPattern tells what is wrong with a pattern.
func CheckPattern(pattern string) error {
	_, err := path.Match(goPattern(pattern), "")
	return err
}

// goPattern is a pattern of glob(7) as package path takes it: there, what is not to fit begins with ^, not !.
func goPattern(pattern string) string {
	text := []byte(pattern)
	within := false // brackets
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case within:
			within = text[i] != ']'
		case text[i] == '[':
			within = true
			if i+1 < len(text) && text[i+1] == '!' {
				i++
				text[i] = '^'
			}
		}
	}
	return string(text)
}

// noMatch is why there is nothing that a pattern fits.
func noMatch(pattern string) error {
	if _, err := os.Lstat(pattern); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed("read", pattern, err) // of the directory
	}
	return fmt.Errorf("%s: there is no such file", show(pattern))
}

// above is the nearest of the directories that name is in which is wanted, or "".
func above(name string, wanted map[string]bool) string {
	for dir := name; dir != "." && dir != "/"; {
		if dir = path.Dir(dir); wanted[dir] {
			return dir
		}
	}
	return ""
}

// lacksBehindLink notes that name does not come with dir, which is above it: there is a link on the way, and that
// is what comes.
func (p *packer) lacksBehindLink(name, dir string) {
	for at := path.Dir(name); ; at = path.Dir(at) {
		if info, err := os.Lstat(at); err == nil && info.Mode().Type() == fs.ModeSymlink {
			p.lacks(fmt.Errorf("%s is left out: %s, which another pattern fits, is a link and kept as one", show(name), show(at)))
			return
		}
		if at == dir || at == "." || at == "/" {
			return
		}
	}
}

// What an agent says of what it collects, each in a line of its own: nobody sees its exit code.
const (
	saysWarning = "warning: "
	saysError   = "error: "
	saysWhole   = "whole"
)

// A Collection is what an agent that collects has said.
type Collection struct {
	LeftOut LeftOut
	Error   string
	Whole   bool // the stream is
}

// Hear takes a line of it.
func (c *Collection) Hear(line string) {
	if text, is := strings.CutPrefix(line, saysWarning); is {
		c.LeftOut.Add(text)
	} else if text, is := strings.CutPrefix(line, saysError); is {
		c.Error = text
	} else if line == saysWhole {
		c.Whole = true
	}
}

// collect is Collect as an agent does it.
func collect(w io.Writer, patterns []string, say func(string)) {
	err := Collect(w, patterns, func(text string) { say(saysWarning + text) })
	if err != nil {
		say(saysError + err.Error())
	}
	var unread *UnreadError
	if err == nil || errors.As(err, &unread) {
		say(saysWhole)
	}
}

// A LeftOut is what was left out, a line each, as far as somebody will read it: how much it is, is the stream's to
// say, or the job's.
type LeftOut struct {
	Most  int // bytes that are kept
	texts []string
	size  int
	more  int
}

// Add adds a line.
func (l *LeftOut) Add(text string) {
	if l.size += len(text); l.size > l.Most {
		l.more++
		return
	}
	l.texts = append(l.texts, text)
}

// All are the lines, and how many more there were.
func (l *LeftOut) All() []string {
	if l.more > 0 {
		return append(l.texts, fmt.Sprintf("%d more are left out", l.more))
	}
	return l.texts
}
