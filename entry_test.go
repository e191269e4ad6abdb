package main

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// roots are where the kernel enters an init that starts before the Go runtime: the entry, the signal
// handler, and the end of that. What has no package here is in initproc.
var roots = []string{"_tele_entry", "handle", "leave"}

// reachable are the functions that such an init may run beside: no other may be called, jumped to, or
// have its address taken. Whoever adds a line makes sure that it needs no Go runtime: see the head of
// interp.go.
var reachable = []string{
	"beInit", "sys", "onChild", "restorer", "handle", "leave",
	"failed", "errno", "at", "exit", "startedByServer", "closeInherited", "takeSignals",
	"(*machine).begin", "(*machine).beforeWait", "(*machine).afterWait",
	"(*machine).run", "(*machine).receive", "(*machine).accept", "(*machine).receivePiece",
	"(*machine).check", "(*machine).relocate", "(*machine).step", "(*machine).call", "(*machine).arg",
	"(*machine).tolerate", "(*machine).fork", "(*machine).supervise", "(*machine).signal", "(*machine).signalBeside",
	"(*machine).reap", "(*machine).killRest", "(*machine).tell", "(*machine).say",
	"(*machine).report", "(*machine).supervised", "(*machine).place", "(*machine).reaped", "(*machine).takeFiles", "(*machine).sayBeside", "(*machine).begun", "(*machine).forget",
	"(*machine).fail", "(*machine).refuse",
	"one", // data: the number that the signal handler writes
}

const initPackage = "github.com/telerun/tele/initproc."

// TestEntryReachesTheInterpreterAlone looks at the machine code: of this program as make builds it,
// and of a small one with the same package for the other architecture.
func TestEntryReachesTheInterpreterAlone(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			code := disassemble(t, buildForEntry(t, arch), arch)
			from := map[string]string{}
			for _, root := range roots {
				from[root] = ""
			}
			for todo := roots; len(todo) > 0; todo = todo[1:] {
				name := todo[0]
				if code[name] == nil {
					t.Errorf("%s is not in the disassembly", path(from, name))
				}
				for _, to := range slices.Sorted(maps.Keys(code[name])) {
					if _, seen := from[to]; seen {
						continue
					}
					from[to] = name
					switch {
					case name == "_tele_entry" && strings.HasPrefix(to, "_rt0_"): // not an init
					case to == "one":
					case !slices.Contains(reachable, to):
						t.Errorf("an init that starts before the Go runtime can get to %s", path(from, to))
					default:
						todo = append(todo, to)
					}
				}
			}
			if len(from) < 20 {
				t.Errorf("only %d functions were found", len(from))
			}
		})
	}
}

// path is how one gets from the entry to name.
func path(from map[string]string, name string) string {
	for by := from[name]; by != ""; by = from[by] {
		name = by + " -> " + name
	}
	return name
}

// buildForEntry builds with the flags of the Makefile and returns the program's path.
func buildForEntry(t testing.TB, arch string) string {
	t.Helper()
	for _, tool := range []string{"go", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool + " to build the program")
		}
	}
	if os.Getenv("TELE_TEST_SLOW") != "" {
		t.Skip("TELE_TEST_SLOW is set: needs a machine on which a build takes seconds")
	}
	recipe, err := exec.Command("make", "--no-print-directory", "-n", "build", "VERSION=test").Output()
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(recipe), "\n")
	command, found := strings.CutSuffix(line, "-o bin/tele .")
	if !found {
		t.Fatalf("the first command of make build is %q", line)
	}
	dir := t.TempDir()
	program, source := filepath.Join(dir, "tele"), "."
	if arch != runtime.GOARCH { // all of it for another architecture would take a minute
		source = filepath.Join(dir, "main.go")
		text := "package main\n\nimport \"github.com/telerun/tele/initproc\"\n\nfunc main() { println(initproc.EarlyEntry()) }\n"
		if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("sh", "-c", command+" -o "+program+" "+source)
	build.Env = append(os.Environ(), "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	return program
}

var (
	functionLine    = regexp.MustCompile(`^TEXT (.*)\(SB\) `)
	instructionLine = regexp.MustCompile(`^\s+\S+:\d+\s+0x([0-9a-f]+)\s+[0-9a-f]+\s+(\S.*?)\s*$`)
	// Compilers' names of the same function for callers in Go and in assembler, and of a static one.
	decoration = regexp.MustCompile(`(<[0-9]*>)?(\.abi0|\.abiinternal)?$`)

	symbols = regexp.MustCompile(`([^\s,]+?)(\+\d+)?\(SB\)`)
	// Of what goes somewhere else, all that does not say where.
	transfers = map[string]*regexp.Regexp{
		"amd64": regexp.MustCompile(`^(CALL|J[A-Z]+) (.*)$`),
		"arm64": regexp.MustCompile(`^(CALL|JMP|B(?:EQ|NE|[CHV]S|[CV]C|LO|MI|PL|HI|L[ST]|G[ET]|LE)|CBN?ZW?|TBN?Z) (?:.*, )?(.*)$`),
	}
	absolute = regexp.MustCompile(`^0x([0-9a-f]+)$`)
	relative = regexp.MustCompile(`^(-?\d+)\(PC\)$`)
)

// disassemble returns, for each function of initproc and the entry, the symbols that it mentions.
// What can lead anywhere counts as a symbol, too: by a register, into the midst of another function.
func disassemble(t *testing.T, program, arch string) map[string]map[string]bool {
	t.Helper()
	out, err := exec.Command("go", "tool", "objdump", "-s", `^(_tele_entry|`+regexp.QuoteMeta(initPackage)+`.*)$`, program).Output()
	if err != nil {
		t.Fatalf("go tool objdump: %v", err)
	}
	code := map[string]map[string]bool{}
	for text := range bytes.SplitSeq(out, []byte("\n\n")) {
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		head := functionLine.FindStringSubmatch(lines[0])
		if head == nil {
			continue
		}
		mentioned := mentions(lines[1:], arch)
		name := short(head[1])
		if code[name] == nil {
			code[name] = map[string]bool{}
		}
		maps.Copy(code[name], mentioned)
	}
	return code
}

func short(symbol string) string {
	return decoration.ReplaceAllString(strings.TrimPrefix(symbol, initPackage), "")
}

// mentions are the symbols in a function's instructions.
func mentions(lines []string, arch string) map[string]bool {
	own := map[uint64]bool{} // its addresses
	for _, line := range lines {
		if m := instructionLine.FindStringSubmatch(line); m != nil {
			address, _ := strconv.ParseUint(m[1], 16, 64) // hexadecimal, or it would not match
			own[address] = true
		}
	}
	to := map[string]bool{}
	for _, line := range lines {
		m := instructionLine.FindStringSubmatch(line)
		if m == nil {
			to["what objdump cannot read: "+strings.TrimSpace(line)] = true
			continue
		}
		for _, symbol := range symbols.FindAllStringSubmatch(m[2], -1) {
			to[short(symbol[1])] = true
		}
		transfer := transfers[arch].FindStringSubmatch(m[2])
		if transfer == nil || symbols.MatchString(transfer[2]) {
			continue
		}
		address, _ := strconv.ParseUint(m[1], 16, 64)
		if !own[target(address, transfer[2])] {
			to["what a register or an address says: "+m[2]] = true
		}
	}
	return to
}

// target is where a jump at an address leads, 0 for one that depends.
func target(address uint64, operand string) uint64 {
	if m := absolute.FindStringSubmatch(operand); m != nil {
		to, _ := strconv.ParseUint(m[1], 16, 64)
		return to
	}
	if m := relative.FindStringSubmatch(operand); m != nil {
		n, _ := strconv.ParseInt(m[1], 10, 64)
		return address + uint64(4*n)
	}
	return 0
}

// TestEntryByName calls the program as make builds it by names that do make it an init, and by those
// that do not.
func TestEntryByName(t *testing.T) {
	program := buildForEntry(t, runtime.GOARCH)
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"tele", "version"}, 0, "\ninit: early entry\n"},
		{[]string{"", "version"}, 0, "\ninit: early entry\n"},
		{[]string{"tele-version"}, 0, "\ninit: early entry\n"},
		{[]string{"tele-init"}, 125, "is started by the server alone"},
		{[]string{"tele-init", "version"}, 125, "is started by the server alone"},
		{[]string{"tele-inits"}, 125, "unexpected argument inits"},
		{[]string{"tele-ini"}, 125, "unexpected argument ini"},
		{[]string{"/tele-init"}, 125, "unexpected argument init"},
	} {
		cmd := exec.Command(program)
		cmd.Args = test.args
		out, err := cmd.CombinedOutput()
		if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != test.code || !strings.Contains(string(out), test.says) {
			t.Errorf("%q: code %d, want %d with %q:\n%s", test.args, code, test.code, test.says, out)
		}
	}
}
