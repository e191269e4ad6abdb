package man

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// What a model has is on its pages, as roff takes it; what is hidden is not.
func TestPages(t *testing.T) {
	var grammar struct {
		Go struct {
			Fast   bool   `short:"f" help:"At once."`
			Where  string `help:".hidden\\place's \"end\"." placeholder:"DIR" env:"WHERE" group:"Places"`
			Secret bool   `hidden:"" help:"Not told."`
			ID     string `arg:"" help:"Who."`
		} `cmd:"" help:"Go somewhere."`
		Inner struct {
			Deep struct{} `cmd:"" help:"Go deep."`
			Flat struct{} `cmd:"" help:"Stay flat."`
		} `cmd:"" help:"More."`
		Ghost struct{} `cmd:"" hidden:"" help:"Not seen."`
	}
	parser, err := kong.New(&grammar, kong.Name("it"), kong.Description("Do it."))
	if err != nil {
		t.Fatal(err)
	}
	pages := Pages(parser.Model, map[string][]Section{"it-go": {{"FILES", "one\n\n  two\n  three"}}}, "more(7)")
	for name, wants := range map[string][]string{
		"it.1": {`.TH "IT" "1"`, `it \- do it`, "\\fBit\\-go\\fR(1)\nGo somewhere.", `\fBit\-inner\-deep\fR(1)`, "more(7)"},
		"it-go.1": {`it go <id> [flags]`, "\\fB\\-f\\fR, \\fB\\-\\-fast\\fR\nAt once.", ".SS \"Places\"\n",
			"\\fB\\-\\-where\\fR=\\fIDIR\\fR\n\\&.hidden\\eplace\\(aqs \\(dqend\\(dq ($WHERE).", "\\fI<id>\\fR\nWho.",
			".SH \"FILES\"\none\n.PP\n.nf\n  two\n  three\n.fi\n", `.SH "SEE ALSO"` + "\nit(1), more(7)"},
		"it-inner.1":      {`it inner <command>`, "Go deep."},
		"it-inner-deep.1": {`it\-inner(1), it\-inner\-flat(1), more(7)`},
		"it-inner-flat.1": nil,
	} {
		text, there := pages[name]
		if !there {
			t.Errorf("no page %s", name)
		}
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q:\n%s", name, want, text)
			}
		}
		for _, word := range []string{"Not told", "Not seen", "ghost"} {
			if strings.Contains(text, word) {
				t.Errorf("%s shows what is hidden, %q:\n%s", name, word, text)
			}
		}
	}
	if len(pages) != 5 {
		t.Errorf("%d pages", len(pages))
	}
}

func TestTopic(t *testing.T) {
	const want = ".SH \"NAME\"\nit\\-colours \\- what red is\n.SH \"DESCRIPTION\"\nA colour.\n.SS \"Blue\"\n.PP\n.nf\n  as it\n    is\n.fi\n"
	if text := Topic("it-colours", "# What red is\n\nA colour.\n\n# Blue\n\n  as it\n    is\n"); !strings.HasSuffix(text, want) {
		t.Errorf("got %s", text)
	}
}
