package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/telerun/tele/client/cli"
)

// An example is a command of the README's session and what the README says that it prints.
type example struct{ command, want string }

// String is the example as the README has it.
func (e example) String() string {
	text := "    $ " + e.command + "\n"
	for line := range strings.Lines(e.want) {
		text += "    " + line
	}
	return text
}

// session returns the examples: a line that begins with "$ ", and the lines below it.
func session(text string) []example {
	var list []example
	for line := range strings.Lines(text) {
		line, indented := strings.CutPrefix(line, "    ")
		switch command, isCommand := strings.CutPrefix(line, "$ "); {
		case !indented:
		case isCommand:
			list = append(list, example{command: strings.TrimSpace(command)})
		case len(list) > 0:
			list[len(list)-1].want += line
		}
	}
	return list
}

// writeExample is `example DOCUMENT FILE`: writes the file as the document has it, in a block that begins with
// its name behind a #.
func writeExample(ts *testscript.TestScript, _ bool, args []string) {
	text, err := os.ReadFile(args[0])
	ts.Check(err)
	_, block, found := strings.Cut(string(text), "\n    # "+args[1])
	if !found {
		ts.Fatalf("%s has no %s", args[0], args[1])
	}
	var file strings.Builder
	for line := range strings.Lines("    # " + block) {
		line, indented := strings.CutPrefix(line, "    ")
		if !indented {
			break
		}
		file.WriteString(line)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(file.String()), 0o644))
}

// noDisk is what a job is told on a machine whose state directory is on no disk.
var noDisk = regexp.MustCompile(`(?m)^tele: warning: limit io_.*\n`)

// shape replaces what differs from one run to the next: ids, ages, and how wide a table is.
func shape(text string) string {
	for _, r := range []struct{ pattern, to string }{
		{`\b[a-z2-7]{12}\b`, "ID"},
		{`\b[0-9]+s\b`, "AGE"},
		{` {2,}`, "  "},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.to)
	}
	return text
}

// readme returns the part of the README below a heading.
func readme(ts *testscript.TestScript, heading string) string {
	text, err := os.ReadFile("README.md")
	ts.Check(err)
	_, part, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		ts.Fatalf("the README has no heading %q", heading)
	}
	part, _, _ = strings.Cut(part, "\n## ")
	return part
}

// checkSession is `readme-session`: types what the README's session types, and compares what is
// printed, or with -update writes it there. The script has made what comes before: the program and the
// server. As in the README, the client finds that server by itself.
func checkSession(ts *testscript.TestScript, _ bool, _ []string) {
	part := readme(ts, "A session")
	now := part
	for _, e := range session(part) {
		if strings.HasPrefix(e.command, "make build") || strings.HasPrefix(e.command, "tele serve ") {
			continue
		}
		out, err := command(ts, []string{"sh", "-c", "unset TELE_ADDR; " + e.command}).CombinedOutput()
		ts.Logf("$ %s\n%s", e.command, out)
		if err != nil {
			ts.Fatalf("%v", err)
		}
		got := string(noDisk.ReplaceAll(out, nil))
		switch {
		case shape(got) == shape(e.want):
		case *update:
			now = strings.Replace(now, e.String(), example{e.command, got}.String(), 1)
		default:
			ts.Fatalf("prints\n%s\nand the README says\n%s\n(go test . -run TestScripts/readme -update writes it anew)", got, e.want)
		}
	}
	for line := range strings.Lines(now) {
		line, indented := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "    ")
		if indented && utf8.RuneCountInString(line) > 80 {
			ts.Fatalf("the README's session has a line of more than 80 columns: %s", line)
		}
	}
	if now != part {
		text, err := os.ReadFile("README.md")
		ts.Check(err)
		ts.Check(os.WriteFile("README.md", []byte(strings.Replace(string(text), part, now, 1)), 0o644))
	}
	if strings.Count(now, "    $ tele run ") < 3 {
		ts.Fatalf("the README's session runs hardly anything")
	}
}

// exitCodes has commands for each row of the README's table, and how they end.
var exitCodes = map[string]map[string]int{
	"0–124": {"run -- true": 0, "run -- sh -c 'exit 124'": 124},
	"125":   {"run --memory 12X -- true": 125, "run --addr 127.0.0.1:1 -- true": 125, "logs zzzz": 125},
	"126":   {"run -- /etc/passwd": 126},
	"127":   {"run -- no-such-program": 127},
	"128+n": {"run -- sh -c 'kill -KILL $$'": 128 + 9, "run --timeout 50ms -- sleep 1000": 128 + 15},
}

// checkExitCodes is `readme-exit-codes`: the README's table has just the rows that are tested, `tele help
// exit-codes` has the same, and from 125 on tele says on stderr why.
func checkExitCodes(ts *testscript.TestScript, _ bool, _ []string) {
	rows := regexp.MustCompile(`(?m)^\| ([0-9]\S*) \| (.*) \|$`).FindAllStringSubmatch(readme(ts, "Exit codes"), -1)
	topic := strings.Join(strings.Fields(cli.Topic("exit-codes")), " ")
	if len(rows) != len(exitCodes) {
		ts.Fatalf("the README's table has %d rows, and %d are tested", len(rows), len(exitCodes))
	}
	for _, row := range rows {
		if !strings.Contains(topic, " "+row[1]+" "+row[2]+" ") {
			ts.Fatalf("tele help exit-codes has no row %q %q", row[1], row[2])
		}
		if len(exitCodes[row[1]]) == 0 {
			ts.Fatalf("the row %q is not tested", row[1])
		}
		for line, want := range exitCodes[row[1]] {
			cmd := command(ts, []string{"sh", "-c", "tele " + line})
			out, _ := cmd.CombinedOutput() // the code is looked at
			ts.Logf("$ tele %s\n%s", line, out)
			if got := cmd.ProcessState.ExitCode(); got != want {
				ts.Fatalf("exit code %d, want %d", got, want)
			}
			if says := bytes.HasPrefix(noDisk.ReplaceAll(out, nil), []byte("tele: ")); says != (want >= 125) {
				ts.Fatalf("a message of tele's own: %t", says)
			}
		}
	}
}
