package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Why is `tele why`.
type Why struct {
	Connection
	Output string `short:"o" help:"text or json." enum:"text,json" default:"text"`
	ID     string `arg:"" help:"The job: its id, a unique beginning of that, or its name."`
}

// Run shows the cause, which the server found.
func (w *Why) Run(ctx context.Context, streams Streams) error {
	c, err := w.dial(ctx, streams)
	if err != nil {
		return err
	}
	job, cause, err := c.Explain(ctx, w.ID)
	if err != nil {
		return err
	}
	if cause == nil {
		return errors.New("this server is older and does not explain; see tele status -o json " + job.Id)
	}
	if w.Output == "json" {
		return printCauseJSON(streams.Out, job, cause)
	}
	_, err = io.WriteString(streams.Out, causeText(job, cause))
	return err
}

// causeText is the cause, a line for each piece of evidence, and the advice.
func causeText(job *telev1.Job, cause *telev1.Cause) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s  %s\n", job.Id, printable(cause.Title))
	for _, line := range cause.Evidence {
		fmt.Fprintf(&text, "  - %s\n", printable(line))
	}
	if cause.Advice != "" {
		fmt.Fprintf(&text, "%s\n", printable(cause.Advice))
	}
	return text.String()
}

// A causeJSON is a cause as scripts see it. Names stay as they are, and all are always there.
type causeJSON struct {
	JobID    string   `json:"job_id"`
	Kind     string   `json:"kind"`
	Title    string   `json:"title"`
	Evidence []string `json:"evidence"`
	Advice   string   `json:"advice"`
}

func printCauseJSON(out io.Writer, job *telev1.Job, cause *telev1.Cause) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(causeJSON{job.Id, cause.Kind, cause.Title, append([]string{}, cause.Evidence...), cause.Advice})
}
