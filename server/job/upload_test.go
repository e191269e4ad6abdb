package job

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/telerun/tele/proto/files"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// pieces are streams of files as a client sends them.
func pieces(t *testing.T, streams ...[]byte) (all []byte) {
	t.Helper()
	for _, stream := range streams {
		text, err := io.ReadAll(files.Split(bytes.NewReader(stream)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	return all
}

// uploaded is the job of spec, once it has been sent data and its end.
func uploaded(t *testing.T, table *Table, spec *telev1.JobSpec, data []byte, secrets ...*telev1.Secret) (*telev1.Job, string) {
	t.Helper()
	j, err := table.Start(t.Context(), "me", "", spec, secrets...)
	if err != nil {
		t.Fatal(err)
	}
	if j.stdin {
		w, _, err := j.InputWriter("w")
		if err == nil {
			_, err = w.Write(t.Context(), 0, data, true)
		}
		if err != nil && !errors.Is(err, ErrInputClosed) {
			t.Fatal(err)
		}
	}
	return wait(t, j), read(t, j)
}

func at(places ...string) (list []*telev1.FilePlace) {
	for _, p := range places {
		path, name, _ := strings.Cut(p, "=")
		list = append(list, &telev1.FilePlace{Path: path, Name: name})
	}
	return list
}

// looks tells what there is that an agent could have left to its command.
const looks = `ls /proc/self/fd; readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2; { ulimit -a; ulimit -Hn; grep -E '^(Umask|Uid|Gid|Groups|Threads|Sig|Shd|Cap|No|Sec|Cpus_allowed:)' /proc/self/status
cut -d ' ' -f 4-8,18,19 /proc/$$/stat; tr '\0' '\n' </proc/$$/environ
cat /proc/$$/oom_score_adj /proc/$$/coredump_filter /proc/$$/comm; stat -c %u /proc/$$ /proc/$$/fd; pwd; } | sed "s/\b$$\b/PID/g"; cat`

// With files before it, a command finds all as without.
func TestUploadLeavesNothing(t *testing.T) {
	table := open(t)
	_, stream := localFiles(t, map[string]string{"a": "text"})
	own := regexp.MustCompile(`TELE_JOB_ID=.*|pipe:\[\d+\]|1879\d+`)
	for _, stdin := range []bool{true, false} {
		seen := map[bool]string{}
		for _, files := range []bool{false, true} {
			spec := sh(looks)
			spec.Env = map[string]string{"B": "2", "A": "1", "GOMAXPROCS": "1000000", "GODEBUG": "inittrace=1", ".": "."}
			var data []byte
			if spec.Stdin = stdin; files {
				spec.Upload, data = at(".=dir"), pieces(t, stream)
			}
			if stdin {
				data = append(data, "the command's own"...)
			}
			job, out := uploaded(t, table, spec, data)
			if job.GetExitCode() != 0 || strings.HasSuffix(out, "the command's own") != stdin {
				t.Errorf("stdin %v, files %v: %v\n%s", stdin, files, job, out)
			}
			seen[files] = own.ReplaceAllString(out, "…")
		}
		if diff := cmp.Diff(seen[false], seen[true]); diff != "" {
			t.Errorf("stdin %v (-without +with files):\n%s", stdin, diff)
		}
	}
}

// In every kind of sandbox the files are there, and the job's user's.
func TestUpload(t *testing.T) {
	table := openWarm(t, 1)
	_, stream := localFiles(t, map[string]string{"a": "text", "b": strings.Repeat("long", 300_000)})
	image := t.TempDir()
	for _, name := range []string{"dev", "home", "mnt", "proc", "tmp", "usr"} {
		if err := os.Mkdir(filepath.Join(image, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(image, name)); err != nil {
			t.Fatal(err)
		}
	}
	const script = "cat $TELE_SECRETS/token; stat -c '%a' dir/a; [ $(stat -c %u dir/a) = $(id -u) ] && echo mine; cat dir/a; wc -c <dir/b; ls other; cat"
	const want = "known\n640\nmine\ntext1200000\na\nb\nbehind"
	for name, change := range map[string]func(*telev1.JobSpec){
		"warm":    nil,
		"cold":    func(s *telev1.JobSpec) { s.Network = telev1.Network_NETWORK_HOST },
		"cwd":     func(s *telev1.JobSpec) { s.Cwd = "/tmp" },
		"overlay": func(s *telev1.JobSpec) { s.Root = RootOverlay },
		"root": func(s *telev1.JobSpec) {
			s.Root, s.Mounts = image, []*telev1.Mount{{Source: "/usr", Target: "/usr"}}
		},
		"user":  func(s *telev1.JobSpec) { s.User = "nobody" },
		"merge": func(s *telev1.JobSpec) { s.Merge = true },
		"log":   func(s *telev1.JobSpec) { s.SeccompLog = true },
		"small": func(s *telev1.JobSpec) { s.Limits = &telev1.Limits{Pids: "12", Memory: "40M"} }, // some are init's where it has a Go runtime
	} {
		if name == "warm" {
			awaitWarm(t, table, 1)
		}
		spec := sh(script)
		spec.Stdin, spec.Upload = true, at(".=dir", "other")
		if change != nil {
			change(spec)
		}
		job, out := uploaded(t, table, spec, append(pieces(t, stream, stream), "behind"...),
			&telev1.Secret{Name: "token", Data: []byte("known\n")})
		if job.GetExitCode() != 0 || strings.ReplaceAll(out, "dir\n", "a\nb\n") != want {
			t.Errorf("%s: %v\n%q", name, job, out)
		}
	}
}

// The agent's end is the job's.
func TestUploadFails(t *testing.T) {
	table := open(t)
	_, stream := localFiles(t, map[string]string{"a": "text", "big": strings.Repeat("long", 1_000_000)})
	whole := pieces(t, stream)
	for _, row := range []struct {
		what   string
		data   []byte
		change func(*telev1.JobSpec)
		code   int32
		says   string
	}{
		{"no command", whole, func(s *telev1.JobSpec) { s.Command = []string{"no-such-program"} }, 127, "tele: no-such-program: no such file or directory\n"},
		{"no path", whole, func(s *telev1.JobSpec) { s.Command = []string{"./dir/c"} }, 127, "tele: ./dir/c: no such file or directory\n"},
		{"no program", whole, func(s *telev1.JobSpec) { s.Command = []string{"./dir/a"} }, 126, "tele: ./dir/a: permission denied\n"},
		{"no program in PATH", whole, func(s *telev1.JobSpec) { s.Command, s.Env = []string{"a"}, map[string]string{"PATH": "dir:/nothing"} }, 126, "tele: a: permission denied\n"},
		{"cut off", whole[:len(whole)/2], nil, 125, "tele: upload: the stream of files was cut off before its end\n"},
		{"cut off behind the last file", whole[:len(whole)-2], nil, 125, "tele: upload: the stream of files was cut off before its end\n"},
		{"nothing", nil, nil, 125, "tele: upload: the stream of files was cut off before its end\n"},
		{"given up", append(pieces(t, stream[:len(stream)/2])[:len(stream)/2], "\xff\xff\xff\xff"...), nil, 125, ""},
		{"given up at once", []byte("\xff\xff\xff\xff"), nil, 125, "tele: upload: who sends the files has given up\n"},
		{"no archive", []byte("#!/bin/sh\nwhat a command would read, and not in pieces"), nil, 125, "tele: upload: "},
		{"no room", whole, func(s *telev1.JobSpec) { s.WorkSize = "1M" }, 125, "tele: upload: write dir/big: no space left on device\n"},
		{"no place", whole, func(s *telev1.JobSpec) { s.Upload = at("/etc=dir") }, 125, "tele: upload: make /etc/dir: read-only file system\n"},
	} {
		spec := sh("echo never")
		if spec.Upload = at(".=dir"); row.change != nil {
			row.change(spec)
		}
		job, out := uploaded(t, table, spec, row.data)
		if cause := explain(job, time.Now()); !strings.HasPrefix(cause.Title, fmt.Sprintf("it ended with exit code %d, its command's own or: ", row.code)) {
			t.Errorf("%s: %v", row.what, cause)
		}
		if job.GetExitCode() != row.code || job.Reason != telev1.Reason_REASON_EXITED || !strings.HasPrefix(out, row.says) || strings.Contains(out, "never") {
			t.Errorf("%s: %d, %v; %q", row.what, job.GetExitCode(), job.Reason, out)
		}
	}
}

// Whoever sends the files goes on with the next server where he was.
func TestUploadAcrossServers(t *testing.T) {
	table := open(t)
	_, stream := localFiles(t, map[string]string{"a": "text", "big": strings.Repeat("0123456789", 1_000_000)})
	data := append(pieces(t, stream, stream), "behind"...)
	spec := sh("cat dir/a; wc -c <dir/big; wc -c <two/dir/big; cat")
	spec.Stdin, spec.Upload = true, at(".=dir", "two")
	id := begin(t, table, spec).id
	sent := int64(0)
	for _, part := range []int64{1, 2, 3, 5, 7} {
		w := writer(t, find(t, table, id), "w")
		for sent < part*int64(len(data))/8 {
			n, err := w.Write(t.Context(), max(sent-5, 0), data[max(sent-5, 0):][:100_000], false)
			if err != nil {
				t.Fatal(err)
			}
			sent = n
		}
		table = reopen(t, table)
	}
	j := find(t, table, id)
	if n, err := writer(t, j, "w").Write(t.Context(), sent, data[sent:], true); err != nil || n != int64(len(data)) {
		t.Fatal(n, err)
	}
	wait(t, j)
	if got := read(t, j); got != "text10000000\n10000000\nbehind" {
		t.Errorf("got %q", got)
	}
}

// Signals end an agent that waits for files as they end a command, and it shows nothing of itself.
func TestUploadIsStopped(t *testing.T) {
	table := open(t)
	_, stream := localFiles(t, map[string]string{"a": "text"})
	first := pieces(t, stream)
	for _, s := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGALRM, 34} {
		spec := sh("echo never")
		spec.Upload = at("one", "two")
		j := begin(t, table, spec)
		write(t, writer(t, j, "w"), 0, string(first), false, int64(len(first)), nil)
		if _, code := runBeside(t, j, "until [ -e one/dir/a ]; do :; done"); code != 0 { // it runs, and has all it was sent
			t.Fatal(code)
		}
		if err := j.Signal(s, telev1.SignalTarget_SIGNAL_TARGET_GROUP, "me"); err != nil {
			t.Fatal(err)
		}
		if job, out := wait(t, j), read(t, j); job.Reason != telev1.Reason_REASON_STOPPED || job.Signal != int32(s) || out != "" {
			t.Errorf("%v: %v\n%s", s, job, out)
		}
	}
}

func TestUploadRequests(t *testing.T) {
	table := open(t)
	many := make([]string, mostUploads+1)
	for i := range many {
		many[i] = "."
	}
	for _, row := range []struct {
		change func(*telev1.JobSpec)
		field  string
	}{
		{func(s *telev1.JobSpec) { s.Upload = at(many...) }, "spec.upload"},
		{func(s *telev1.JobSpec) { s.Terminal = &telev1.TerminalSize{Rows: 1, Columns: 1} }, "spec.upload"},
		{func(s *telev1.JobSpec) { s.Restart = &telev1.Restart{MaxRetries: 1} }, "spec.restart"},
		{func(s *telev1.JobSpec) { s.Upload = at(".=a/b") }, "spec.upload.name"},
		{func(s *telev1.JobSpec) { s.Upload = at(".=..") }, "spec.upload.name"},
		{func(s *telev1.JobSpec) { s.Upload = at(".=" + strings.Repeat("x", maxName+1)) }, "spec.upload.name"},
		{func(s *telev1.JobSpec) { s.Upload = at(".", "=x") }, "spec.upload.path"},
		{func(s *telev1.JobSpec) { s.Upload = at("a\x00b") }, "spec.upload.path"},
		{func(s *telev1.JobSpec) { s.Env = map[string]string{"A": strings.Repeat("x", maxString-2)} }, "spec.env"},
		{func(s *telev1.JobSpec) { s.Upload = at(strings.Repeat("x", maxPath+1)) }, "spec.upload.path"},
		{func(s *telev1.JobSpec) { s.Limits = &telev1.Limits{Pids: "2"} }, "spec.limits.pids"},
	} {
		spec := sh("true")
		spec.Upload = at(".")
		row.change(spec)
		var request *BadRequest
		if _, err := table.Start(t.Context(), "me", "", spec); !errors.As(err, &request) || request.Field != row.field {
			t.Errorf("%s: got %v", row.field, err)
		}
	}
	// The largest variable that there may be gets there.
	spec := sh(fmt.Sprintf("[ ${#A} = %d ] && echo all", maxString-3))
	spec.Env, spec.Upload = map[string]string{"A": strings.Repeat("x", maxString-3)}, at("one")
	_, stream := localFiles(t, map[string]string{"a": "text"})
	if job, out := uploaded(t, table, spec, pieces(t, stream)); job.GetExitCode() != 0 || out != "all\n" {
		t.Errorf("got %v, %q", job, out)
	}
}

// What else runs in the job, as the same user, sees nothing of an agent that waits for files, and what it does not
// see it cannot open. As soon as it is the command, it is seen as any other.
func TestUploadIsNotSeen(t *testing.T) {
	table := open(t)
	_, stream := localFiles(t, map[string]string{"a": "text"})
	first := pieces(t, stream)
	spec := sh("touch begun; exec sleep 1000")
	spec.Upload = at("one", "two")
	j := begin(t, table, spec)
	w := writer(t, j, "w")
	write(t, w, 0, string(first), false, int64(len(first)), nil)
	const look = "until [ -e %s ]; do :; done; for p in /proc/[0-9]*; do [ $p = /proc/$$ ] || tr '\\0' ' ' <$p/cmdline; done"
	if got, _ := runBeside(t, j, fmt.Sprintf(look, "one/dir/a")); got != "" {
		t.Errorf("there is %q", got)
	}
	write(t, w, int64(len(first)), string(first), true, 2*int64(len(first)), nil)
	if got, _ := runBeside(t, j, fmt.Sprintf(look, "begun")); !strings.Contains(got, "sleep 1000 ") {
		t.Errorf("there is %q", got)
	}
	if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	wait(t, j)
}
