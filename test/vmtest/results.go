package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// mark is what -test.v=test2json puts before each line of the testing package's own, wherever in
// its line a test's output has stopped.
const mark = "\x16"

// results is what the output of a test binary says. Only top-level tests count, as a subtest that
// fails fails its test too.
type results struct {
	passed, failed int
	skips          []string // "Test: reason", of subtests too
}

var (
	eventLine  = regexp.MustCompile(`^=== (RUN|NAME|CONT|PAUSE)\s+(\S*)`)
	resultLine = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(`)
	logLine    = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)`)
)

// readResults reads the output of a test binary, of which ok says whether it exited with 0.
func readResults(output string, ok bool) results {
	var r results
	current := ""
	running := map[string]bool{}
	logged := map[string]string{} // the last line that each test logged: of a skip, its reason
	for line := range strings.Lines(output) {
		_, event, marked := cutLast(line, mark)
		if !marked {
			if log := logLine.FindStringSubmatch(line); log != nil {
				logged[current] = log[1]
			}
			continue
		}
		if m := eventLine.FindStringSubmatch(event); m != nil {
			current = m[2]
			if m[1] == "RUN" {
				running[current] = true
			}
		}
		if m := resultLine.FindStringSubmatch(event); m != nil {
			delete(running, m[2])
			r.add(m[1], m[2], logged[m[2]])
		}
	}
	r.end(running, ok)
	slices.Sort(r.skips) // parallel tests end in any order
	return r
}

func (r *results) add(result, test, log string) {
	topLevel := !strings.Contains(test, "/")
	switch {
	case result == "SKIP":
		r.skips = append(r.skips, test+": "+log)
	case topLevel && result == "PASS":
		r.passed++
	case topLevel && result == "FAIL":
		r.failed++
	}
}

// end counts what has no line: tests that a panic or the time limit cut short, and a binary that
// was not content though no test failed, as with a leak that TestMain found.
func (r *results) end(running map[string]bool, ok bool) {
	if ok {
		return
	}
	for test := range running {
		r.add("FAIL", test, "")
	}
	r.failed = max(r.failed, 1)
}

// print prints a package's line, its skips, and its whole output if it failed.
func (r *results) print(name string, took time.Duration, output string) {
	word := "ok"
	if r.failed > 0 {
		word = "FAIL"
	}
	fmt.Printf("%-4s  %-24s %7.1fs  %d passed, %d failed, %d skipped\n",
		word, name, took.Seconds(), r.passed, r.failed, len(r.skips))
	for _, skip := range r.skips {
		fmt.Printf("      --- SKIP: %s\n", skip)
	}
	if r.failed > 0 {
		fmt.Print(strings.ReplaceAll(output, mark, ""))
	}
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}
