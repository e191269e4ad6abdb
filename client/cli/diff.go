package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Diff is `tele diff`.
type Diff struct {
	Connection
	Output string `short:"o" help:"text or json." enum:"text,json" default:"text"`
	ID     string `arg:"" help:"The job: its id, a unique beginning of that, or its name."`
}

// kinds are the letters of docker diff.
var kinds = map[telev1.ChangeKind]string{
	telev1.ChangeKind_CHANGE_KIND_ADDED: "A", telev1.ChangeKind_CHANGE_KIND_CHANGED: "C", telev1.ChangeKind_CHANGE_KIND_DELETED: "D",
}

// A diffJSON is what a job changed, as scripts see it.
type diffJSON struct {
	Changes    []changeJSON `json:"changes"`
	More       uint64       `json:"more"`
	Incomplete bool         `json:"incomplete"`
}

type changeJSON struct {
	Kind string `json:"kind"`
	Path string `json:"path"` // what is not UTF-8 in it is lost
}

// Run lists the changes.
func (d *Diff) Run(ctx context.Context, streams Streams) error {
	c, err := d.dial(ctx, streams)
	if err != nil {
		return err
	}
	diff, err := c.Diff(ctx, d.ID)
	if err != nil {
		return err
	}
	if d.Output == "json" {
		all := diffJSON{Changes: []changeJSON{}, More: diff.More, Incomplete: diff.Incomplete}
		for _, change := range diff.Changes {
			all.Changes = append(all.Changes, changeJSON{kinds[change.Kind], string(change.Path)})
		}
		encoder := json.NewEncoder(streams.Out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(all)
	}
	out := bufio.NewWriter(streams.Out)
	for _, change := range diff.Changes {
		fmt.Fprintln(out, kinds[change.Kind], quoted(string(change.Path)))
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if diff.More > 0 || diff.Incomplete {
		least := ""
		if diff.Incomplete {
			least = "at least "
		}
		fmt.Fprintf(streams.Err, "tele: and %s%d more\n", least, diff.More)
	}
	return nil
}

// quoted is a path as it is, or quoted where it could end the line or move the cursor: the job chose it.
func quoted(path string) string {
	if utf8.ValidString(path) && !strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return path
	}
	return strconv.Quote(path)
}
