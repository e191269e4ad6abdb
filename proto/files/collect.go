package files

import (
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
)

// Collect writes what the patterns fit, relative to the working directory or absolute: each match with all that
// is in it, under its path, without a leading slash. A pattern that nothing fits is told as what cannot be read
// is, an *UnreadError, once the rest is written.
func Collect(w io.Writer, patterns []string, warn func(string)) error {
	p := newPacker(w, warn)
	taken := map[string]bool{}
	for _, pattern := range patterns {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("%s is no pattern: %w", show(pattern), err)
		}
		if len(matches) == 0 {
			p.lacks(fmt.Errorf("%s: there is no such file", show(pattern)))
		}
		for _, match := range matches {
			match = path.Clean(match)
			if within(taken, match) {
				continue
			}
			taken[match] = true
			name := strings.TrimLeft(match, "/")
			if name == "" {
				name = "."
			}
			if err := p.add(match, name); err != nil {
				return err
			}
		}
	}
	return p.end()
}

// within tells whether name, or a directory that it is in, is one of those.
func within(taken map[string]bool, name string) bool {
	for !taken[name] {
		if name == "." || name == "/" {
			return false
		}
		name = path.Dir(name)
	}
	return true
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
