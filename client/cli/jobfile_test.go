package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
)

// whole is a spec with every field, and so is each message in it.
func whole() *telev1.JobSpec {
	spec := &telev1.JobSpec{}
	fill(spec.ProtoReflect())
	return spec
}

func fill(m protoreflect.Message) {
	if d, ok := m.Interface().(*durationpb.Duration); ok {
		d.Seconds, d.Nanos = 90, 500e6
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.IsMap():
			m.Mutable(fd).Map().Set(protoreflect.ValueOfString("A.b/c").MapKey(), protoreflect.ValueOfString("x: \"y\" # \U0001f600/\t\n"))
			m.Mutable(fd).Map().Set(protoreflect.ValueOfString("1").MapKey(), protoreflect.ValueOfString(""))
		case fd.IsList() && fd.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(fd).List().AppendMutable().Message())
		case fd.IsList():
			m.Mutable(fd).List().Append(protoreflect.ValueOfString("-"))
			m.Mutable(fd).List().Append(protoreflect.ValueOfString("true"))
			m.Mutable(fd).List().Append(protoreflect.ValueOfString("<\\>"))
		case fd.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(fd).Message())
		case fd.Kind() == protoreflect.BoolKind:
			m.Set(fd, protoreflect.ValueOfBool(true))
		case fd.Kind() == protoreflect.Uint32Kind:
			m.Set(fd, protoreflect.ValueOfUint32(24))
		case fd.Kind() == protoreflect.EnumKind:
			m.Set(fd, protoreflect.ValueOfEnum(2))
		default:
			m.Set(fd, protoreflect.ValueOfString(fmt.Sprint("text ", i)))
		}
	}
}

// TestJobFileIsJSON: what the API's JSON form can say, of every field, a job file can.
func TestJobFileIsJSON(t *testing.T) {
	want := whole()
	for _, form := range []protojson.MarshalOptions{{}, {UseProtoNames: true}, {Indent: "  "}, {Indent: "\t"}} {
		text, err := form.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseJobFile("job.json", text)
		if err != nil {
			t.Errorf("%v\n%s", err, text)
		} else if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("(-want +got):\n%s\n%s", diff, text)
		}
	}
}

func TestJobFile(t *testing.T) {
	got, err := parseJobFile("job.yaml", []byte(`# a remark
--- # and another
name: nightly
command:
- sh
- -c
- |
  echo "$GREETING"
  sleep 1
env: {GREETING: "hello, world", PORT: 8080, EMPTY: "", 1: on}
limits:
  cpu: 1.50
  memory: 500M
  pids: 100
timeout: 1h30m
warn_before: 90s
warnSignal: USR1
network: NETWORK_NONE
mounts:
- {source: /usr/share, target: /data}
- source: /srv
  target: /srv
  writable: true
cwd: # nothing
terminal: {}
strict: true
...
`))
	want := &telev1.JobSpec{Name: "nightly", Command: []string{"sh", "-c", "echo \"$GREETING\"\nsleep 1\n"},
		Env:     map[string]string{"GREETING": "hello, world", "PORT": "8080", "EMPTY": "", "1": "on"},
		Limits:  &telev1.Limits{Cpu: "1.50", Memory: "500M", Pids: "100"},
		Timeout: durationpb.New(90 * time.Minute), WarnBefore: durationpb.New(90 * time.Second), WarnSignal: "USR1",
		Network: telev1.Network_NETWORK_NONE, Terminal: &telev1.TerminalSize{}, Strict: true,
		Mounts: []*telev1.Mount{{Source: "/usr/share", Target: "/data"}, {Source: "/srv", Target: "/srv", Writable: true}}}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJobFileErrors(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"", "-f job.yaml: the file is empty"},
		{"# nothing\n", "-f job.yaml: the file is empty"},
		{"make", `line 1: wants fields like name: value, not "make"`},
		{"- make", `line 1: wants fields like name: value, not a list`},
		{"name: a\nlimits:\n  memmory: 1G\n", "line 3: limits.memmory: there is no such field; there are cpu, memory, ioRead, ioWrite, pids"},
		{"nam: a", "line 1: nam: there is no such field; there are command, env, "},
		{"cwd: /\n\ncwd: /tmp\n", "line 3: "},
		{"outputLimit: 1M\noutput_limit: 2M\n", "line 2: output_limit: the field is there twice"},
		{"env:\n  A: 1\n  A: 2\n", "line 3: "},
		{"env: {1: a, \"1\": b}", "line 1: mapping key \"1\" already defined"},
		{"command: make test", `line 1: command: wants a list, like [a, b], not "make test"`},
		{"command: [make, [test]]", "line 1: command[1]: wants a text, not a list"},
		{"command: [make, true]", `line 1: command[1]: wants a text, not true; write it in quotes, "true"`},
		{"command: [make, null]", "line 1: command[1]: wants a text, not nothing"},
		{"env: [A=1]", "line 1: env: wants pairs like NAME: value, not a list"},
		{"env:\n  A: no\n  DEBUG: true\n", `line 3: env.DEBUG: wants a text, not true; write it in quotes, "true"`},
		{"strict: yes", `line 1: strict: wants true or false, not "yes"`},
		{"timeout: 90", `line 1: timeout: wants a time like 90s or 1h30m, not "90"`},
		{"timeout: [1]", "line 1: timeout: wants a time like 90s or 1h30m, not a list"},
		{"network: host", `line 1: network: wants one of NETWORK_UNSPECIFIED, NETWORK_NONE, NETWORK_HOST, not "host"`},
		{"terminal: {rows: -1}", `line 1: terminal.rows: wants a whole number, not "-1"`},
		{"terminal: 24", `line 1: terminal: wants fields like name: value, not "24"`},
		{"mounts:\n- source: /a\n- /b\n", `line 3: mounts[1]: wants fields like name: value, not "/b"`},
		{"command: &c [a]\n", "line 1: command: wants a list, like [a, b], not a reference (a job file has none)"},
		{"name: !!str a\n", "line 1: name: wants a text, not a tag (a job file has none)"},
		{"name: a\n---\nname: b\n", "line 3: a second document; a job file has one"},
		{"name: [a\n", "line 1: "},
		{"name: a\n\tcwd: b\n", "line 2: "},
		{"name: \"a\n", "line 1: "},
	} {
		spec, err := parseJobFile("job.yaml", []byte(row.text))
		if err == nil {
			t.Errorf("%q: no error, but %v", row.text, spec)
			continue
		}
		if got := err.Error(); !strings.HasPrefix(got, "-f job.yaml") || !strings.Contains(got, row.want) || strings.Contains(got, "\n") {
			t.Errorf("%q: %q, want %q", row.text, got, row.want)
		}
	}
}

func TestReadJobFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(path, []byte("name: a"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, "-"} {
		spec, err := readJobFile(name, strings.NewReader("name: a"))
		if err != nil || spec.Name != "a" {
			t.Errorf("%s: %v, %v", name, spec, err)
		}
	}
	for name, want := range map[string]string{path + ".gone": "-f: open " + path + ".gone", "/": "-f: read /",
		"/dev/zero": "-f /dev/zero: this is no job file; it has more than 2097152 bytes"} {
		if _, err := readJobFile(name, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestFlagsBesideAJobFile: a flag that is given goes before the file, also where it says what is so by default,
// and one that is not leaves the file's.
func TestFlagsBesideAJobFile(t *testing.T) {
	inFile := func() *telev1.JobSpec {
		spec := whole()
		spec.Upload = nil // by flags alone
		return spec
	}
	text, err := protojson.Marshal(inFile())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, change := range map[string]func(*telev1.JobSpec){
		"":                              func(*telev1.JobSpec) {},
		"--cpu 2":                       func(s *telev1.JobSpec) { s.Limits.Cpu = "2" },
		"--memory=":                     func(s *telev1.JobSpec) { s.Limits.Memory = "" },
		"--io-read 1M --io-write 2M":    func(s *telev1.JobSpec) { s.Limits.IoRead, s.Limits.IoWrite = "1M", "2M" },
		"--pids 3 --output-limit max":   func(s *telev1.JobSpec) { s.Limits.Pids, s.OutputLimit = "3", "max" },
		"--work-size 1M --root-size 2M": func(s *telev1.JobSpec) { s.WorkSize, s.RootSize = "1M", "2M" },
		"--strict=false --merge=false":  func(s *telev1.JobSpec) { s.Strict, s.Merge = false, false },
		"--seccomp-log=false":           func(s *telev1.JobSpec) { s.SeccompLog = false },
		"--cwd= --root= --user=":        func(s *telev1.JobSpec) { s.Cwd, s.Root, s.User = "", "", "" },
		"--name a --hostname b":         func(s *telev1.JobSpec) { s.Name, s.Hostname = "a", "b" },
		"--stop-signal INT":             func(s *telev1.JobSpec) { s.StopSignal = "INT" },
		"--timeout 1m":                  func(s *telev1.JobSpec) { s.Timeout = durationpb.New(time.Minute) },
		"--timeout 0s":                  func(s *telev1.JobSpec) { s.Timeout = nil },
		"--warn INT@2s":                 func(s *telev1.JobSpec) { s.WarnSignal, s.WarnBefore = "INT", durationpb.New(2*time.Second) },
		"--net none":                    func(s *telev1.JobSpec) { s.Network = telev1.Network_NETWORK_UNSPECIFIED },
		"--interactive=false":           func(s *telev1.JobSpec) { s.Stdin = false },
		"-t":                            func(s *telev1.JobSpec) { s.Terminal = terminalSize(os.Stdout, os.Stdin) },
		"--kill-on-disconnect=false":    func(s *telev1.JobSpec) { s.StopWhenLeft = false },
		"--env A.b/c=flag --env B=b":    func(s *telev1.JobSpec) { s.Env["A.b/c"], s.Env["B"] = "flag", "b" },
		"--label 1=flag":                func(s *telev1.JobSpec) { s.Labels["1"] = "flag" },
		"--mount /a:/b":                 func(s *telev1.JobSpec) { s.Mounts = append(s.Mounts, &telev1.Mount{Source: "/a", Target: "/b"}) },
		"-- another --name x":           func(s *telev1.JobSpec) { s.Command = []string{"another", "--name", "x"} },
	} {
		var asked *telev1.StartRequest
		serve(t, &fake{answer: func(request any) (any, error) {
			asked = request.(*telev1.StartRequest)
			return &telev1.StartResponse{Job: &telev1.Job{Id: jobID}}, nil
		}})
		if code, _, stderr := tele(t, append([]string{"run", "-d", "-f", path}, strings.Fields(line)...)...); code != 0 {
			t.Errorf("%s: %s", line, stderr)
			continue
		}
		want := inFile()
		change(want)
		want.Env = terminalEnv(want.Env)
		if diff := cmp.Diff(want, asked.Spec, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}

// FuzzJobFile: no file makes the parser fail in any other way than with an error, and what is JSON in both
// means the same in both.
func FuzzJobFile(f *testing.F) {
	text, err := protojson.Marshal(whole())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, text := range []string{"command: [a, \"b\", 'c', 1, 0x1F]\nenv:\n  A: |\n    b\n", "limits: {cpu: 1.5}\n",
		"timeout: 90s\nmounts:\n- source: /a\n", "? a\n: b\n", "&a *a", "{\"command\":[\"\\ud83d\\ude00\\/\"]}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseJobFile("f", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "-f f") {
				t.Errorf("%q", err)
			}
			return
		}
		want := &telev1.JobSpec{}
		if err := protojson.Unmarshal(text, want); err != nil {
			return // YAML, or a number for a text
		}
		if !proto.Equal(want, got) {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	})
}

// What is nested deeply is refused before the parser sees it, which would take minutes.
func TestJobFileDepth(t *testing.T) {
	var columns strings.Builder
	for i := range 500 {
		columns.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	for name, text := range map[string]string{
		"lists":           "command: " + strings.Repeat("[", 1_000_000),
		"pairs":           "env: " + strings.Repeat("{a: ", 400_000),
		"entries":         strings.Repeat("- ", 500_000),
		"keys":            strings.Repeat("? ", 500_000),
		"columns":         columns.String(),
		"closed":          "command: " + strings.Repeat("[", 500) + strings.Repeat("]", 500),
		"behind a remark": strings.Repeat("# \n", firstLook) + "command: " + strings.Repeat("[", 500),
	} {
		if _, err := parseJobFile("f", []byte(text)); err == nil || !strings.Contains(err.Error(), "more than 64 things are in one another") {
			t.Errorf("%s: %.200v", name, err)
		}
	}
	// Brackets in texts, lists behind lists and keys that become longer are no depth.
	text := "command: [sh, -c, \"" + strings.Repeat("[", 500) + "\"]\nenv:\n"
	for i := range 100 {
		text += "  A" + strings.Repeat("B", i) + ": '{{'\n"
	}
	text += "labels: {a: b}\nmounts:\n" + strings.Repeat("  - {source: /a, target: /b}\n", 100)
	if spec, err := parseJobFile("f", []byte(text)); err != nil || len(spec.Env) != 100 || len(spec.Mounts) != 100 {
		t.Errorf("what is not deep: %v, %v", spec, err)
	}
}

// Some editors begin a file with a byte order mark, and end lines with two bytes.
func TestJobFileByteOrderMark(t *testing.T) {
	spec, err := parseJobFile("f", []byte("\ufeffcommand: [echo, hi]\r\nname: web\r\n"))
	if err != nil || spec.Name != "web" || len(spec.Command) != 2 {
		t.Errorf("%v, %v", spec, err)
	}
}
