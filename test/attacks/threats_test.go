package attacks

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of docs/THREATS.md")

// The tables in docs/THREATS.md are made of the attacks: each row is a test, and each test a row.
func TestThreats(t *testing.T) {
	const path = "../../docs/THREATS.md"
	data, err := os.ReadFile(path)
	mustDo(t, err)
	const begin, end = "<!-- attacks: made by test/attacks -update -->\n", "<!-- end -->\n"
	before, rest, found := strings.Cut(string(data), begin)
	_, after, foundEnd := strings.Cut(rest, end)
	if !found || !foundEnd {
		t.Fatal("no place for the tables")
	}
	want := before + begin + tables(t) + end + after
	if *update {
		mustDo(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	if want != string(data) {
		t.Error("docs/THREATS.md is not what the attacks say: go test ./test/attacks -run Threats -update")
	}
}

func tables(t *testing.T) string {
	var text strings.Builder
	seen := map[string]bool{}
	heading := func(title, tests string) {
		fmt.Fprintf(&text, "\n### %s\n\n%s\n\n| attack | tries to | outcome |\n| --- | --- | --- |\n", title, tests)
	}
	row := func(name, tries, outcome string) {
		if seen[name] || name == "" || tries == "" || outcome == "" {
			t.Errorf("the row %q is there twice, or says nothing", name)
		}
		seen[name] = true
		fmt.Fprintf(&text, "| %s | %s | %s |\n", name, tries, outcome)
	}
	const attackTests = "TestAttacks, TestAttacksWarm, TestAttacksAsRoot, TestAttacksAsSharedRoot"
	for _, part := range []struct {
		title string
		list  []attack
	}{{"Processes", processes}, {"Files and devices", files}, {"Sockets, terminals, shared memory, keys", reach},
		{"The root and its mounts", walls}, {"The kernel", kernel}} {
		heading(part.title, attackTests)
		for _, a := range part.list {
			row(a.name, a.tries, a.outcome)
		}
	}
	heading("The start of a job", "TestTricks, TestTricksWarm, TestTricksAsRoot, TestTricksAsSharedRoot")
	for _, a := range tricks {
		row(a.name, a.tries, a.outcome)
	}
	heading("Floods, and jobs that will not end", "TestFloods, TestFloodsAsRoot: another job is served meanwhile, and nothing is left")
	for _, a := range floods {
		row(a.name, a.tries, a.outcome)
	}
	return text.String() + "\n"
}
