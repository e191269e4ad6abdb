package files

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// noWarning fails the test for a warning.
func noWarning(t *testing.T) func(string) {
	return func(text string) { t.Errorf("warned: %s", text) }
}

// packed is what Pack writes.
func packed(t *testing.T, source string) []byte {
	t.Helper()
	var out bytes.Buffer
	must(t, Pack(&out, source, noWarning(t)))
	return out.Bytes()
}

// tree is what is in a directory, a line each.
func tree(t *testing.T, dir string) (lines []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		line := fmt.Sprintf("%s %v", name, info.Mode())
		switch info.Mode().Type() {
		case 0:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %.20q links %d", info.ModTime().UnixNano(), data, info.Sys().(*syscall.Stat_t).Nlink)
		case fs.ModeSymlink:
			target, _ := os.Readlink(path)
			line += " " + target
		case fs.ModeDir:
			line += fmt.Sprint(" ", info.ModTime().UnixNano())
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

// makeTree makes one of everything that is kept.
func makeTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	at := time.Unix(1e9, 123456789)
	for _, name := range []string{"", "empty", "sub", "sub/read-only", strings.Repeat("long", 60)} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	for name, mode := range map[string]os.FileMode{"file": 0o640, "sub/run": 0o755, "sub/read-only/secret": 0o400,
		"sub/ä\nb\xff": 0o644, strings.Repeat("long", 60) + "/" + strings.Repeat("name", 60): 0o600, "nothing": 0o644} {
		path := filepath.Join(dir, name)
		text := "text of " + name
		if name == "nothing" {
			text = ""
		}
		must(t, os.WriteFile(path, []byte(text), 0o600))
		must(t, os.Chmod(path, mode))
		must(t, os.Chtimes(path, at, at))
	}
	must(t, os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "sub/other-name")))
	must(t, os.Symlink("../file", filepath.Join(dir, "sub/link")))
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "outside")))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	must(t, os.Chmod(filepath.Join(dir, "sub/read-only"), 0o555))
	for _, name := range []string{"sub/read-only", "sub", "empty", strings.Repeat("long", 60), ""} {
		must(t, os.Chtimes(filepath.Join(dir, name), at, at))
	}
	return dir
}

// What is packed is what is unpacked.
func TestRoundTrip(t *testing.T) {
	dir := makeTree(t)
	want := tree(t, dir)
	to := t.TempDir()
	whole, contents := packed(t, dir), packed(t, dir+"/.")
	must(t, Unpack(bytes.NewReader(whole), Place{to, "tree"}, noWarning(t)))
	must(t, Unpack(bytes.NewReader(whole), Place{to + "/other", "tree"}, noWarning(t)))
	must(t, Unpack(bytes.NewReader(contents), Place{to + "/contents", ""}, noWarning(t)))
	for _, name := range []string{"tree", "other", "contents"} {
		got := tree(t, filepath.Join(to, name))
		if name == "contents" { // the directory itself is the caller's
			got[0] = want[0]
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	// Over itself there is nothing that was not there.
	must(t, Unpack(bytes.NewReader(whole), Place{to, "tree"}, noWarning(t)))
	if got := tree(t, to+"/tree"); len(got) != len(want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// What other programs read is the same, holes and all.
func TestOtherReader(t *testing.T) {
	dir := makeTree(t)
	makeSparse(t, filepath.Join(dir, "sparse"), 10<<20, 5<<20)
	r := tar.NewReader(bytes.NewReader(packed(t, dir)))
	seen := map[string]int64{}
	for {
		h, err := r.Next()
		if err != nil {
			break
		}
		n, err := new(bytes.Buffer).ReadFrom(r)
		must(t, err)
		seen[h.Name] = n
	}
	if seen["tree/sparse"] != 10<<20 || seen["tree/file"] != 12 || len(seen) != 16 {
		t.Errorf("got %d: %v", len(seen), seen)
	}
}

// members are the names in a stream.
func members(t *testing.T, stream []byte) (names []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(stream))
	for h, err := r.Next(); err != io.EOF; h, err = r.Next() {
		must(t, err)
		names = append(names, h.Name)
	}
	return names
}

func makeSparse(t *testing.T, path string, size int64, data ...int64) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(size))
	for _, at := range data {
		_, err := f.WriteAt([]byte("data"), at)
		must(t, err)
	}
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var stat unix.Stat_t
	must(t, unix.Stat(path, &stat))
	return stat.Blocks * blockSize
}

// Of a file with holes, what is in it is passed on, and there are holes again.
func TestSparse(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]int64{"end": {1 << 30}, "middle": {100 << 20, 200<<20 + 4095}, "begin": {0}, "none": nil} {
		path := filepath.Join(dir, name)
		makeSparse(t, path, 1<<30+5, data...)
		stream := packed(t, path)
		if len(stream) > 64<<10 {
			t.Errorf("%s: the stream has %d bytes", name, len(stream))
		}
		to := filepath.Join(dir, name+"-copy")
		must(t, Unpack(bytes.NewReader(stream), Place{to, name}, noWarning(t)))
		info, err := os.Stat(to)
		must(t, err)
		if info.Size() != 1<<30+5 || blocks(t, to) > 64<<10 {
			t.Errorf("%s: %d bytes, of which %d take room", name, info.Size(), blocks(t, to))
		}
		f, err := os.Open(to)
		must(t, err)
		for _, at := range data {
			buf := make([]byte, 5)
			if _, err := f.ReadAt(buf[:4], at); err != nil || string(buf[:4]) != "data" {
				t.Errorf("%s: at %d is %q, %v", name, at, buf, err)
			}
		}
		must(t, f.Close())
	}
}

// Several in a directory, with other files between them; what other programs write, too.
func TestSparseAmongOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	must(t, os.Mkdir(dir, 0o755))
	for i, name := range []string{"a", "b", "c"} {
		makeSparse(t, filepath.Join(dir, name), int64(1<<20+i*7), 0, int64(1<<20-3))
		must(t, os.WriteFile(filepath.Join(dir, name+name), []byte(name), 0o644))
	}
	want := tree(t, dir)
	streams := map[string][]byte{"own": packed(t, dir)}
	for name, args := range map[string][]string{"1.0": {"--format=posix", "--sparse-version=1.0"}, "0.1": {"--format=posix", "--sparse-version=0.1"}, "gnu": {"--format=gnu"}} {
		out, err := exec.Command("tar", append(args, "-cSC", filepath.Dir(dir), "dir")...).Output()
		must(t, err)
		streams[name] = out
	}
	for name, stream := range streams {
		to := t.TempDir()
		must(t, Unpack(bytes.NewReader(stream), Place{to, "dir"}, noWarning(t)))
		got, want := tree(t, to+"/dir"), slices.Clone(want)
		if name == "gnu" { // it has whole seconds
			times := regexp.MustCompile(` [0-9]{19}`)
			for i := range got {
				got[i] = times.ReplaceAllString(got[i], "")
			}
			for i := range want {
				want[i] = times.ReplaceAllString(want[i], "")
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	// And tar reads ours.
	cmd := exec.Command("tar", "-xC", t.TempDir())
	cmd.Stdin = bytes.NewReader(streams["own"])
	to := cmd.Args[2]
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"a", "b", "c"} {
		a, errA := os.ReadFile(filepath.Join(dir, name))
		b, errB := os.ReadFile(filepath.Join(to, "dir", name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("tar reads another %s: %v, %v", name, errA, errB)
		}
	}
}

// A few bytes that say that there is a file of years are a file at once, or refused.
func TestHugeHoles(t *testing.T) {
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "t") +
		record("GNU.sparse.realsize", "8000000000000000000")
	list := "1\n8000000000000000000\n0\n"
	_ = Unpack(strings.NewReader(block("p", 0, int64(len(records)), 0, tar.TypeXHeader)+records+padding(len(records))+
		block("p", 0o644, blockSize, 0, tar.TypeReg)+list+padding(len(list))+strings.Repeat("\x00", 1024)), Place{t.TempDir(), "t"}, noWarning(t))
	for text, list := range map[string]string{"overlap": "2\n0\n512\n256\n256\n", "beyond": "1\n0\n7000\n", "negative": "1\n-1\n512\n",
		"none": "x\n", "endless": strings.Repeat("1", 600), "more than there is": "1\n0\n4096\n"} {
		records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "t") + record("GNU.sparse.realsize", "5000")
		err := Unpack(strings.NewReader(block("p", 0, int64(len(records)), 0, tar.TypeXHeader)+records+padding(len(records))+
			block("p", 0o644, 2*blockSize, 0, tar.TypeReg)+list+padding(len(list))+strings.Repeat("\x00", 2048)), Place{t.TempDir(), "t"}, noWarning(t))
		if !errors.Is(err, errList) {
			t.Errorf("%s: %v", text, err)
		}
	}
	defer func(was int64) { mostOldSparse = was }(mostOldSparse)
	mostOldSparse = 1 << 20
	path := filepath.Join(t.TempDir(), "file")
	makeSparse(t, path, 2<<20)
	out, err := exec.Command("tar", "-cS", "--format=gnu", "-C", filepath.Dir(path), "file").Output()
	must(t, err)
	if err := Unpack(bytes.NewReader(out), Place{t.TempDir(), "file"}, noWarning(t)); err == nil || !strings.Contains(err.Error(), "old form") {
		t.Error(err)
	}
}

// A file with very many holes has a list that can be read.
func TestManyHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var data []int64
	for i := range int64(3 * mostExtents) {
		data = append(data, i*3*64<<10)
	}
	makeSparse(t, path, data[len(data)-1]+1<<20, data...)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	list, err := extents(f, data[len(data)-1]+1<<20)
	must(t, err)
	if len(list) > mostExtents || len(list) < 100 {
		t.Errorf("%d places", len(list))
	}
	covered := func(at int64) bool {
		return slices.ContainsFunc(list, func(e extent) bool { return e.offset <= at && at+4 <= e.offset+e.size })
	}
	for _, at := range data {
		if !covered(at) {
			t.Fatalf("what is at %d is in none", at)
		}
	}
}

// The rules of cp(1).
func TestPlaces(t *testing.T) {
	source := t.TempDir()
	must(t, os.Mkdir(source+"/dir", 0o755))
	must(t, os.WriteFile(source+"/dir/in", nil, 0o644))
	must(t, os.WriteFile(source+"/file", nil, 0o644))
	must(t, os.Symlink("file", source+"/link"))
	for _, row := range []struct{ from, to, want, fails string }{
		{"file", "new", "new", ""},
		{"file", "there", "there/file", ""},
		{"file", "there/", "there/file", ""},
		{"file", "there/.", "there/file", ""},
		{"file", "old", "old", ""},
		{"file", "to-old", "old", ""},
		{"file", "to-there", "there/file", ""},
		{"file", "new/", "", "no directory"},
		{"file", "no/new", "", "no such file"},
		{"link", "new", "new", ""},
		{"dir", "new", "new/in", ""},
		{"dir", "new/", "new/in", ""},
		{"dir", "there", "there/dir/in", ""},
		{"dir", "old", "", "no directory"},
		{"dir", "no/new", "", "no such file"},
		{"dir/.", "there", "there/in", ""},
		{"dir/.", "new", "new/in", ""},
		{"dir/.", "old", "", "not a directory"},
		{"dir/..", "there", "there/dir/in", ""},
		{"dir", "full", "", "is there that is no directory"},
		{"file", "odd", "", "file exists"},
	} {
		to := t.TempDir()
		for _, dir := range []string{"there", "full", "odd", "odd/file"} {
			must(t, os.Mkdir(filepath.Join(to, dir), 0o755))
		}
		must(t, os.WriteFile(to+"/old", []byte("old"), 0o644))
		must(t, os.WriteFile(to+"/full/dir", nil, 0o644))
		must(t, os.Symlink("old", to+"/to-old"))
		must(t, os.Symlink("there", to+"/to-there"))
		err := Unpack(bytes.NewReader(packed(t, source+"/"+row.from)), Place{to + "/" + row.to, Name(row.from)}, noWarning(t))
		if row.fails != "" {
			if err == nil || !strings.Contains(err.Error(), row.fails) {
				t.Errorf("%s to %s: %v", row.from, row.to, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s to %s: %v", row.from, row.to, err)
			continue
		}
		if info, err := os.Lstat(to + "/" + row.want); err != nil || info.Size() > 4 {
			t.Errorf("%s to %s: %v, %v", row.from, row.to, info, err)
		}
	}
	for path, want := range map[string]string{"a/b": "b", "a/b/": "b", "a/.": "", ".": "", "/": "", "..": "", "a/..": "", "a": "a", "./": ""} {
		if got := Name(path); got != want {
			t.Errorf("Name(%q) is %q, want %q", path, got, want)
		}
	}
}

// What is cut off anywhere is an error, and no file is there in part.
func TestCutOff(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(dir+"/a", make([]byte, 3000), 0o644))
	must(t, os.WriteFile(dir+"/b", bytes.Repeat([]byte("x"), 700), 0o644))
	stream := packed(t, dir)
	for n := 0; n < len(stream); n += 100 {
		to := t.TempDir()
		if err := Unpack(bytes.NewReader(stream[:n]), Place{to, "dir"}, noWarning(t)); !errors.Is(err, ErrShort) {
			t.Errorf("after %d of %d bytes: %v", n, len(stream), err)
		}
		list, _ := os.ReadDir(to + "/dir") // it may not be there yet
		for _, entry := range list {
			info, err := entry.Info()
			must(t, err)
			if entry.Name() == "a" && info.Size() != 3000 || entry.Name() == "b" && info.Size() != 700 || len(entry.Name()) > 1 {
				t.Errorf("after %d bytes there is %s with %d", n, entry.Name(), info.Size())
			}
		}
	}
	must(t, Unpack(bytes.NewReader(append(stream, make([]byte, 9000)...)), Place{t.TempDir(), "dir"}, noWarning(t)))
	if err := Unpack(bytes.NewReader(append(stream, make([]byte, maxRest)...)), Place{t.TempDir(), "dir"}, noWarning(t)); err == nil {
		t.Error("a stream without an end was taken")
	}
}

// What is no file is left out, and what cannot be read is told at the end.
func TestLeftOut(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mkfifo(dir+"/fifo", 0o644))
	must(t, os.WriteFile(dir+"/file", nil, 0o644))
	var warnings []string
	var out bytes.Buffer
	must(t, Pack(&out, dir, func(text string) { warnings = append(warnings, text) }))
	if len(warnings) != 1 || !strings.Contains(warnings[0], "fifo is left out") {
		t.Errorf("%q", warnings)
	}
	for path, want := range map[string]string{dir + "/fifo": "neither a file nor a directory", dir + "/none": "no such file", dir + "/file/x": "not a directory"} {
		if err := Pack(&out, path, func(string) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	must(t, Unpack(bytes.NewReader(out.Bytes()), Place{t.TempDir(), "x"}, noWarning(t)))
}

// While a file is written it has no name: who writes it may be killed, as an agent is when the job's memory is full.
func TestNameless(t *testing.T) {
	dir := t.TempDir()
	data := stream(t, tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("x", 90)})
	read, write := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Unpack(read, Place{Path: dir, Name: "f"}, noWarning(t)) }()
	_, err := write.Write(data[:blockSize+10]) // it returns when that was read
	must(t, err)
	_, err = write.Write(data[blockSize+10 : blockSize+20])
	must(t, err)
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("there are %v, %v", list, err)
	}
	_, err = write.Write(data[blockSize+20:])
	must(t, err)
	must(t, write.Close())
	must(t, <-done)
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 || list[0].Name() != "f" {
		t.Errorf("at the end there are %v, %v", list, err)
	}
}
