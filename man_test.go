package main

import (
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/telerun/tele/client/cli"
	"github.com/telerun/tele/docs/man"
	"github.com/telerun/tele/server"
)

// manSections are what the manual pages have and --help has not.
var manSections = map[string][]man.Section{
	"tele": {
		{Title: "ENVIRONMENT", Text: `Variables that stand for a flag are named with it, like TELE_ADDR with --addr. A variable that is empty is
as good as none. Beside them:

LOG_LEVEL is how much the server logs: trace, debug, info, warn, error.

NO_COLOR, when it is set, keeps tables on a terminal without colours; COLUMNS is how wide help is.`},
		{Title: "FILES", Text: `/var/lib/tele, or ~/.local/state/tele for who is not root: the server's state, with its jobs, their
output, its certificates, and the socket tele.sock.

$XDG_CONFIG_HOME/tele/contexts.json, or ~/.config/tele/contexts.json: the user's contexts.`},
	},
}

// model is a grammar as kong sees it, the same on every machine and for every user.
func model(t *testing.T, name string, grammar any) *kong.Application {
	t.Helper()
	parser, err := kong.New(grammar, kong.Name(name), kong.Description(description), kong.Vars{"hide": server.DefaultHide,
		"uid_range": server.DefaultUIDRange, "state_dir": "/var/lib/tele as root, else ~/.local/state/tele"})
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model
}

// TestManPages: the pages in docs/man are what the commands' help says; `make man` writes them anew.
func TestManPages(t *testing.T) {
	pages := map[string]string{"teleworker.1": ".so man1/tele-serve.1\n"}
	topics := []string{}
	for _, name := range cli.TopicNames {
		pages["tele-"+name+".7"] = man.Topic("tele-"+name, cli.Topic(name))
		topics = append(topics, "tele-"+name+"(7)")
	}
	maps.Copy(pages, man.Pages(model(t, "tele", &commandLine{}), manSections, topics...))
	maps.Copy(pages, man.Pages(model(t, "telerun", &cli.Telerun{}), nil, "tele(1)"))
	there, err := filepath.Glob("docs/man/*.[0-9]")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		if _, wanted := pages[filepath.Base(path)]; wanted {
			continue
		}
		if !*update {
			t.Errorf("%s is the page of no command: make man", path)
		} else if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
	for name, want := range pages {
		path := filepath.Join("docs/man", name)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Error(err)
			}
			continue
		}
		got, _ := os.ReadFile(path) // one that is not there differs
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s is out of date: make man (-wanted +there):\n%s", path, diff)
		}
		if strings.Contains(string(got), "tele-init") {
			t.Errorf("%s shows the init", path)
		}
	}
}

// TestEveryCommand: testdata/help.txt has each command, and so 80 columns are enough for it; and each has a link
// but the one that makes them.
func TestEveryCommand(t *testing.T) {
	script := read(t, "testdata/help.txt")
	dir := t.TempDir()
	if err := (&cli.Links{Dir: dir}).Run(cli.Streams{Out: io.Discard}); err != nil {
		t.Fatal(err)
	}
	for _, node := range model(t, "tele", &commandLine{}).Children {
		if !strings.Contains(script, "\nhelp tele "+node.Name+"\n") {
			t.Errorf("testdata/help.txt lacks %s", node.Name)
		}
		for _, child := range node.Children {
			if !strings.Contains(script, "\nhelp tele "+node.Name+" "+child.Name+"\n") {
				t.Errorf("testdata/help.txt lacks %s %s", node.Name, child.Name)
			}
		}
		if _, err := os.Lstat(filepath.Join(dir, "tele-"+node.Name)); (err == nil) == (node.Name == "links") {
			t.Errorf("link for %s: %v", node.Name, err)
		}
	}
}

// TestSandboxTopic: what it says is empty is what the server hides.
func TestSandboxTopic(t *testing.T) {
	_, text, _ := strings.Cut(cli.Topic("sandbox"), "private places are empty:")
	text, _, found := strings.Cut(text, "and others")
	if !found {
		t.Fatal(text)
	}
	for _, path := range strings.Fields(text) {
		if !slices.Contains(append(strings.Split(server.DefaultHide, ","), "/home"), path) {
			t.Errorf("%s is not hidden", path)
		}
	}
}

// TestManPagesAreRoff: groff has nothing to warn of, and breaks no line at more than 80 columns.
func TestManPagesAreRoff(t *testing.T) {
	if _, err := exec.LookPath("groff"); err != nil {
		if strings.Contains(os.Getenv("TELE_REQUIRE"), "groff") {
			t.Fatal(err)
		}
		t.Skip("needs groff")
	}
	paths, err := filepath.Glob("docs/man/*.[0-9]")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		if filepath.Base(path) == "teleworker.1" {
			continue // a link, to where pages are installed
		}
		cmd := exec.Command("groff", "-man", "-Tascii", "-P-cbou", "-ww", path)
		var warnings strings.Builder
		cmd.Stderr = &warnings
		text, err := cmd.Output()
		if err != nil || warnings.Len() > 0 {
			t.Errorf("%s: %v\n%s", path, err, &warnings)
		}
		for line := range strings.Lines(string(text)) {
			if len(strings.TrimSuffix(line, "\n")) > 80 {
				t.Errorf("%s: a line of more than 80 columns: %s", path, line)
			}
		}
	}
}
