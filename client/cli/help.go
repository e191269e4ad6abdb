package cli

import (
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Help is `tele help`.
type Help struct {
	Words []string `arg:"" name:"topic" optional:"" help:"A command, or one of the topics."`
}

// Help is the long help of `tele help`.
func (*Help) Help() string { return "Topics:\n\n" + topicList() }

// The texts are for 80 columns, 72 in tables; the first line is what they are about. docs/man makes manual
// pages of them.
//
//go:embed topics/*.txt
var topicFiles embed.FS

// TopicNames are what `tele help` has a text on.
var TopicNames = []string{"exit-codes", "limits", "sandbox"}

// Topic is the text on a topic, and empty when there is none.
func Topic(name string) string {
	text, _ := topicFiles.ReadFile("topics/" + name + ".txt") // there is only one way to fail
	return string(text)
}

func topicList() string {
	var text strings.Builder
	for _, name := range TopicNames {
		fmt.Fprintf(&text, "  %-12s  %s\n", name, topicAbout(name))
	}
	return text.String()
}

func topicAbout(name string) string {
	about, _, _ := strings.Cut(strings.TrimPrefix(Topic(name), "# "), "\n")
	return about
}

// Run shows a topic's text, or what --help of a command says; without words that of tele, and the topics.
func (h *Help) Run(ctx *kong.Context, streams Streams) error {
	if len(h.Words) == 1 && slices.Contains(TopicNames, h.Words[0]) {
		_, err := io.WriteString(streams.Out, strings.ReplaceAll(Topic(h.Words[0]), "# ", ""))
		return err
	}
	traced, err := kong.Trace(ctx.Kong, h.Words)
	if err != nil {
		return err
	}
	if traced.Error != nil || traced.Empty() != (len(h.Words) == 0) {
		return fmt.Errorf("no command and no topic %q (tele help lists them)", strings.Join(h.Words, " "))
	}
	if err := traced.PrintUsage(false); err != nil || len(h.Words) > 0 {
		return err
	}
	_, err = fmt.Fprintf(streams.Out, "\nTopics, for \"tele help TOPIC\":\n%s", topicList())
	return err
}
