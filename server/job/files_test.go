package job

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/telerun/tele/proto/files"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// transfer carries a copy out: it returns what comes out, and how it ended.
func transfer(t *testing.T, j *Job, f *telev1.FileTransfer, in []byte) ([]byte, error) {
	t.Helper()
	b, err := j.Files(t.Context(), f)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.Stdin != nil {
		_, _ = b.Stdin.Write(in) // who reads no more says why
		_ = b.Stdin.Close()
	}
	out, err := io.ReadAll(b.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(b.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	<-b.Done()
	return out, b.FilesEnd(string(said))
}

func out(path string) *telev1.FileTransfer {
	return &telev1.FileTransfer{Direction: telev1.FileDirection_FILE_DIRECTION_OUT, Path: path}
}

func in(path, name string) *telev1.FileTransfer {
	return &telev1.FileTransfer{Direction: telev1.FileDirection_FILE_DIRECTION_IN, Path: path, Name: name}
}

// localFiles is a directory with these files, and the stream of it.
func localFiles(t *testing.T, texts map[string]string) (dir string, stream []byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	var stored bytes.Buffer
	if err := files.Pack(&stored, dir, func(text string) { t.Error(text) }); err != nil {
		t.Fatal(err)
	}
	return dir, stored.Bytes()
}

// sleeper is a job in which nothing happens but what a test does.
func sleeper(t *testing.T, table *Table, change func(*telev1.JobSpec)) *Job {
	t.Helper()
	spec := sh("echo ready; exec sleep 1000")
	if change != nil {
		change(spec)
	}
	j := begin(t, table, spec)
	firstOutput(t, j)
	return j
}

// Files go in and come out as the job's user, also with a writable root, few processes and little memory, and
// after the server was another.
func TestFiles(t *testing.T) {
	table := open(t)
	_, stream := localFiles(t, map[string]string{"a": "text", "b": strings.Repeat("long", 100_000)})
	for name, change := range map[string]func(*telev1.JobSpec){
		"plain":   nil,
		"overlay": func(s *telev1.JobSpec) { s.Root = RootOverlay },
		"small":   func(s *telev1.JobSpec) { s.Limits = &telev1.Limits{Pids: "12", Memory: "40M"} }, // some are init's where it has a Go runtime
		"cwd":     func(s *telev1.JobSpec) { s.Cwd = "/tmp" },
	} {
		j := sleeper(t, table, change)
		if _, err := transfer(t, j, in(".", "dir"), stream); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, code := runBeside(t, j, `stat -c '%a %u' dir/a; id -u; cat dir/a; cat dir/b | wc -c; ls -A dir`); code != 0 ||
			!strings.HasPrefix(got, "640 ") || !strings.HasSuffix(got, "\ntext400000\na\nb\n") || strings.Fields(got)[1] != strings.Fields(got)[2] {
			t.Errorf("%s: got %q", name, got)
		}
		if name == "plain" {
			table = reopen(t, table)
			j = find(t, table, j.id)
		}
		back, err := transfer(t, j, out("dir"), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		to := t.TempDir()
		if err := files.Unpack(bytes.NewReader(back), files.Place{Path: to, Name: "dir"}, func(text string) { t.Error(text) }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if text, err := os.ReadFile(to + "/dir/a"); string(text) != "text" {
			t.Errorf("%s: got %q, %v", name, text, err)
		}
		if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
			t.Fatal(err)
		}
		wait(t, j)
	}
}

// What cannot be copied is told, and is not there in part.
func TestFilesFail(t *testing.T) {
	table := open(t)
	_, stream := localFiles(t, map[string]string{"a": "text", "b": strings.Repeat("x", 3<<20)})
	j := sleeper(t, table, func(s *telev1.JobSpec) { s.WorkSize = "1M" })
	for _, row := range []struct {
		transfer *telev1.FileTransfer
		stream   []byte
		want     string
	}{
		{out("none"), nil, "read none: no such file or directory"},
		{out("/etc/shadow"), nil, "read /etc/shadow: permission denied"},
		{out("/root/secret"), nil, "read /root/secret: permission denied"},
		{in("/etc", "dir"), stream, "make /etc/dir: read-only file system"},
		{in("/none/x", "dir"), stream, "open /none: no such file"},
		{in(".", "dir"), stream, "write dir/b: no space left on device"},
		{in(".", "cut"), stream[:6000], "cut off before its end"},
		{in(".", ""), []byte("no stream of files, but longer than a block would be" + strings.Repeat(".", 1000)), "read the stream of files"},
	} {
		var failed *FilesError
		if _, err := transfer(t, j, row.transfer, row.stream); !errors.As(err, &failed) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v: %v, want %s", row.transfer, err, row.want)
		}
	}
	if got, _ := runBeside(t, j, "find . -type f | sort"); got != "./cut/a\n./dir/a\n" {
		t.Errorf("there is %q", got)
	}
	for _, f := range []*telev1.FileTransfer{{}, {Direction: 7, Path: "x"}, out(""), out("a\x00b"), out(strings.Repeat("x", maxPath+1)),
		in(".", ".."), in(".", "a/b"), in(".", strings.Repeat("x", maxName+1)), {Direction: telev1.FileDirection_FILE_DIRECTION_OUT, Path: "a", Name: "b"}} {
		var request *BadRequest
		if _, err := j.Files(t.Context(), f); !errors.As(err, &request) {
			t.Errorf("%.100v: %v", f, err)
		}
	}
	if err := j.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Files(t.Context(), out(".")); !errors.Is(err, ErrPaused) {
		t.Error(err)
	}
	if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	wait(t, j)
	if _, err := j.Files(t.Context(), out(".")); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
}

// A job that goes for the agent reaches nothing: not its program, which is the server's, nor its memory.
func TestFilesInAHostileJob(t *testing.T) {
	table := open(t)
	j := begin(t, table, sh(`
		echo ready
		p=2
		while [ ! -e stop ]; do
			[ $p != $$ ] && {
				(echo x >>/proc/$p/exe) 2>/dev/null && echo exe
				grep -q tele-files /proc/$p/cmdline 2>/dev/null && {
					(echo x >>/proc/$p/mem) 2>/dev/null && echo mem
					(: </proc/$p/environ) 2>/dev/null && echo environ
				}
			}
			p=$((p % 40 + 2)) # their own processes come and go among these
		done
		exec sleep 1000`))
	firstOutput(t, j)
	_, stream := localFiles(t, map[string]string{"a": "text"})
	for range 10 {
		if _, err := transfer(t, j, in(".", "dir"), stream); err != nil {
			t.Error(err)
		}
	}
	if got, _ := runBeside(t, j, "touch stop; cat dir/a"); got != "text" {
		t.Errorf("got %q", got)
	}
	if err := j.Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	wait(t, j)
	if got := read(t, j); got != "ready\n" {
		t.Errorf("the job reached %q", got)
	}
}
