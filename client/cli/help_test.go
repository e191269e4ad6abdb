package cli

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// TestTopics: each file is a topic, and its lines fit: 80 columns, and with a manual page's margin a table's, too.
func TestTopics(t *testing.T) {
	files, err := filepath.Glob("topics/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		names = append(names, name)
		if !strings.HasPrefix(Topic(name), "# ") {
			t.Errorf("%s says not what it is about: %.20q", name, Topic(name))
		}
		for line := range strings.Lines(Topic(name)) {
			columns := utf8.RuneCountInString(strings.TrimSuffix(line, "\n"))
			if columns > 80 || strings.HasPrefix(line, " ") && columns > 72 {
				t.Errorf("%s: %d columns: %s", name, columns, line)
			}
		}
	}
	if !slices.Equal(names, TopicNames) {
		t.Errorf("files for %q, names %q", names, TopicNames)
	}
}

// TestLimitsTopic: the text on limits has just the flags that there are, with the defaults that they name.
func TestLimitsTopic(t *testing.T) {
	parser, err := kong.New(&Spec{})
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(Topic("limits")) {
		if flag, isRow := strings.CutPrefix(line, "  --"); isRow {
			name, rest, _ := strings.Cut(flag, " ")
			rows[name] = rest
		}
	}
	for _, flag := range parser.Model.Flags {
		if flag.Group == nil || flag.Group.Title != "Limits" {
			continue
		}
		row, there := rows[flag.Name]
		if !there {
			t.Errorf("no row for --%s", flag.Name)
		}
		delete(rows, flag.Name)
		_, value, hasDefault := strings.Cut(flag.Help, "(default: ")
		value = strings.TrimSuffix(value, ").")
		words := strings.Fields(row)
		if hasDefault && !strings.Contains(value, " ") && !slices.Contains(words, value) {
			t.Errorf("--%s: the default is %s, and the row is %s", flag.Name, value, row)
		}
	}
	for name := range rows {
		t.Errorf("--%s is no flag", name)
	}
}
