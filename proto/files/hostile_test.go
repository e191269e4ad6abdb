package files

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// stream is a stream with these entries; a file's content is its name.
func stream(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range entries {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		must(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := w.Write([]byte(h.Name))
			must(t, err)
		}
	}
	must(t, w.Close())
	return out.Bytes()
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
func dir(name string) tar.Header  { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }
func symlink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}
func hardlink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

// Streams that mean harm, for either kind of place: nothing outside of it is changed.
func TestHostileStreams(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"absolute name":          {file("/victim")},
		"dots":                   {dir("t"), file("t/../../victim")},
		"dots first":             {file("../victim")},
		"another top":            {dir("t"), file("victim")},
		"link to outside":        {dir("t"), symlink("t/a", ".."), file("t/a/victim")},
		"absolute link":          {dir("t"), symlink("t/a", "OUTSIDE"), file("t/a/victim")},
		"link by link":           {dir("t"), dir("t/d"), symlink("t/d/a", ".."), symlink("t/b", "d/a/.."), file("t/b/victim")},
		"link for the thing":     {symlink("t", ".."), file("t/victim")},
		"link over a directory":  {dir("t"), dir("t/d"), symlink("t/d", ".."), file("t/d/victim")},
		"hard link to outside":   {dir("t"), hardlink("t/a", "../victim"), file("t/a")},
		"hard link to a root":    {dir("t"), hardlink("t/a", "/etc/passwd")},
		"hard link by a link":    {dir("t"), symlink("t/a", ".."), hardlink("t/b", "t/a/victim"), file("t/b")},
		"hard link to the top":   {hardlink("t", "victim")},
		"hard link of no file":   {dir("t"), hardlink("t/a", "t/none")},
		"below a file":           {file("t"), file("t/victim")},
		"device":                 {dir("t"), {Typeflag: tar.TypeChar, Name: "t/victim", Devmajor: 1, Devminor: 3}},
		"link over what is kept": {dir("t"), symlink("t/kept", "../victim"), file("t/kept")},
		"empty name":             {dir("t"), file("t//./../t/../victim")},
		"dot":                    {dir("."), file("../victim")},
	} {
		for _, into := range []bool{false, true} {
			outside := t.TempDir()
			must(t, os.WriteFile(outside+"/victim", []byte("untouched"), 0o640))
			must(t, os.MkdirAll(outside+"/place/t", 0o755))
			must(t, os.WriteFile(outside+"/place/t/kept", nil, 0o644))
			must(t, os.WriteFile(outside+"/place/neighbour", []byte("untouched"), 0o640))
			for i := range entries {
				entries[i].Linkname = strings.ReplaceAll(entries[i].Linkname, "OUTSIDE", outside)
			}
			place := Place{Path: outside + "/place", Name: "t"}
			if into {
				place = Place{Path: outside + "/place/t"}
			}
			err := Unpack(bytes.NewReader(stream(t, entries...)), place, func(string) {})
			for _, name := range []string{"/victim", "/place/neighbour"} {
				data, readErr := os.ReadFile(outside + name)
				info, _ := os.Lstat(outside + name)
				if readErr != nil || string(data) != "untouched" || info.Mode() != 0o640 {
					t.Errorf("%s, into %v: %s has %q, %v; %v", name, into, name, data, readErr, err)
				}
			}
			list, readErr := os.ReadDir(outside)
			inPlace, placeErr := os.ReadDir(outside + "/place")
			if readErr != nil || placeErr != nil || len(list) != 2 || len(inPlace) != 2 {
				t.Errorf("%s, into %v: there are %v, %v", name, into, list, inPlace)
			}
		}
	}
}

// A program that runs as its owner does not come out of a stream as one, and a directory that is there keeps
// its mode.
func TestModes(t *testing.T) {
	to := t.TempDir()
	must(t, os.Chmod(to, 0o700))
	must(t, Unpack(bytes.NewReader(stream(t, tar.Header{Typeflag: tar.TypeDir, Name: ".", Mode: 0o777}, tar.Header{Typeflag: tar.TypeReg, Name: "run", Mode: 0o6755},
		tar.Header{Typeflag: tar.TypeDir, Name: "open", Mode: 0o3777})), Place{Path: to}, noWarning(t)))
	for name, want := range map[string]string{"": "drwx------", "run": "-rwxr-xr-x", "open": "dtrwxrwxrwx"} {
		if info, err := os.Stat(filepath.Join(to, name)); err != nil || info.Mode().String() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// Somebody makes a directory a link to the outside and a directory again while it is unpacked into.
func TestLinkRace(t *testing.T) {
	outside := t.TempDir()
	place := filepath.Join(outside, "place")
	must(t, os.MkdirAll(place+"/real", 0o755))
	must(t, os.Mkdir(outside+"/target", 0o755))
	must(t, os.Symlink("real", place+"/d"))
	must(t, os.Symlink(outside+"/target", place+"/e"))
	var done atomic.Bool
	var racer sync.WaitGroup
	racer.Go(func() {
		for !done.Load() {
			_ = unix.Renameat2(unix.AT_FDCWD, place+"/d", unix.AT_FDCWD, place+"/e", unix.RENAME_EXCHANGE) // it is what is tried
		}
	})
	data := stream(t, file("d/a"), file("d/b"), file("d/c"))
	for range 300 {
		_ = Unpack(bytes.NewReader(data), Place{Path: place}, func(string) {}) // refused or not
	}
	done.Store(true)
	racer.Wait()
	if list, err := os.ReadDir(outside + "/target"); err != nil || len(list) != 0 {
		t.Errorf("outside are %v, %v", list, err)
	}
}

func FuzzUnpack(f *testing.F) {
	mostOldSparse = 1 << 20
	f.Add(stream(f, dir("t"), file("t/a"), symlink("t/l", ".."), hardlink("t/h", "t/a")), "t")
	f.Add(stream(f, file("../x")), "")
	f.Add([]byte(block("x", 0o644, 3, 0, tar.TypeReg)+"abc"+padding(3)), "x")
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "t") + record("GNU.sparse.realsize", "5000")
	f.Add([]byte(block("p", 0, int64(len(records)), 0, tar.TypeXHeader)+records+padding(len(records))+
		block("p", 0o644, 512, 0, tar.TypeReg)+"1\n5000\n0\n"+padding(9)+strings.Repeat("\x00", 1024)), "t")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		outside := t.TempDir()
		must(t, os.Mkdir(outside+"/place", 0o755))
		must(t, os.WriteFile(outside+"/victim", []byte("untouched"), 0o640))
		_ = Unpack(bytes.NewReader(data), Place{outside + "/place", name}, func(string) {}) // refused or not
		list, err := os.ReadDir(outside)
		victim, readErr := os.ReadFile(outside + "/victim")
		if err != nil || len(list) != 2 || readErr != nil || string(victim) != "untouched" {
			t.Errorf("outside are %v, %v; %q, %v", list, err, victim, readErr)
		}
	})
}
