package files

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Name is what a copy of a path is called in a directory: its last element. It is empty for a path that ends
// in "." or "..", and for the root: then what is in the directory is meant.
func Name(name string) string {
	switch base := path.Base(strings.TrimRight(name, "/")); {
	case base == "." || base == "..", strings.TrimRight(name, "/") == "":
		return ""
	default:
		if strings.HasSuffix(name, "/.") || strings.HasSuffix(name, "/..") {
			return ""
		}
		return base
	}
}

// Pack writes what is at source: a directory with all that is in it, a file, or a link. What cannot be read
// below a directory is left out, and is an error once the rest is written; what is gone meanwhile, and what
// is no file, is left out with a warning.
func Pack(w io.Writer, source string, warn func(string)) error {
	name := Name(source)
	if name == "" {
		source = strings.TrimRight(source, "/") + "/."
		name = "."
	}
	p := newPacker(w, warn)
	p.one = true
	if err := p.add(source, name); err != nil {
		return err
	}
	if p.entries == 0 {
		return fmt.Errorf("%s is neither a file nor a directory", show(source))
	}
	return p.end()
}

func newPacker(w io.Writer, warn func(string)) *packer {
	out := bufio.NewWriterSize(w, pieceSize)
	return &packer{tar: tar.NewWriter(out), out: out, warn: warn, links: map[inode]string{}, buf: make([]byte, pieceSize)}
}

// An UnreadError is what could not be read, of a stream that has all the rest and is whole.
type UnreadError struct {
	First error
	More  int // how many others
}

func (e *UnreadError) Error() string {
	if e.More == 0 {
		return e.First.Error()
	}
	return fmt.Sprintf("%v (and %d more)", e.First, e.More)
}

// Unwrap returns the cause.
func (e *UnreadError) Unwrap() error { return e.First }

// end ends the stream.
func (p *packer) end() error {
	if err := errors.Join(p.tar.Close(), p.out.Flush()); err != nil {
		return writeError{err}
	}
	if p.unread > 0 {
		return &UnreadError{p.first, p.unread - 1}
	}
	return nil
}

// Size is about how much content Pack will write; what cannot be read counts as nothing.
func Size(source string) (n int64) {
	_ = filepath.WalkDir(source, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			n += min(info.Size(), blockSize*info.Sys().(*syscall.Stat_t).Blocks)
		}
		return nil
	})
	return n
}

// pieceSize is how much is read and written at a time.
const pieceSize = 128 << 10

type packer struct {
	tar     *tar.Writer
	out     *bufio.Writer // what tar writes to
	warn    func(string)
	links   map[inode]string // names of files that have several
	buf     []byte
	one     bool // it is for one thing
	entries int
	unread  int
	first   error // of those that could not be read
}

// An inode is one file, whatever its names.
type inode struct{ dev, ino uint64 }

// A writeError is of the stream's: there is no use in going on.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// add writes what is at the path from, as name. An error ends it all.
func (p *packer) add(from, name string) error {
	err := p.any(from, name)
	var fatal writeError
	switch {
	case err == nil || errors.As(err, &fatal):
		return err
	case p.one && p.entries == 0: // it is all that was asked for
		return err
	case errors.Is(err, fs.ErrNotExist):
		p.warn(show(from) + " is left out: it went while it was to be read")
		return nil
	}
	p.lacks(err)
	return nil
}

// lacks notes what could not be read.
func (p *packer) lacks(err error) {
	if p.unread++; p.first == nil {
		p.first = err
	}
}

func (p *packer) any(from, name string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return failed("read", from, err)
	}
	switch info.Mode().Type() {
	case 0:
		return p.file(from, name)
	case fs.ModeDir:
		return p.directory(from, name, info)
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return failed("read", from, err)
		}
		return p.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}, info)
	}
	p.warn(show(from) + " is left out: it is neither a file, a directory nor a link")
	return nil
}

// header writes the header of an entry.
func (p *packer) header(h *tar.Header, info fs.FileInfo) error {
	h.Mode, h.ModTime, h.Format = mode(info), info.ModTime(), tar.FormatPAX
	p.entries++
	if err := p.tar.WriteHeader(h); err != nil {
		return writeError{fmt.Errorf("%s: %w", show(h.Name), err)}
	}
	return nil
}

func mode(info fs.FileInfo) int64 {
	return int64(info.Sys().(*syscall.Stat_t).Mode & 0o7777)
}

func (p *packer) directory(from, name string, info fs.FileInfo) error {
	list, err := os.ReadDir(from)
	if err != nil {
		return failed("read", from, err)
	}
	if err := p.header(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/"}, info); err != nil {
		return err
	}
	for _, entry := range list {
		if err := p.add(path.Join(from, entry.Name()), name+"/"+entry.Name()); err != nil {
			return err
		}
	}
	return nil
}

// file writes a file. What it was when it was looked at may be another thing by now: it is opened so that
// nothing is waited for, and no link followed.
func (p *packer) file(from, name string) error {
	f, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return failed("read", from, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return failed("read", from, err)
	}
	if !info.Mode().IsRegular() {
		return failed("read", from, errors.New("it became another thing while it was to be read"))
	}
	if stat := info.Sys().(*syscall.Stat_t); stat.Nlink > 1 {
		of := inode{uint64(stat.Dev), stat.Ino}
		if first, known := p.links[of]; known {
			return p.header(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first}, info)
		}
		p.links[of] = name
	}
	data, err := extents(f, info.Size())
	if err != nil {
		return failed("read", from, err)
	}
	if hasHoles(data, info.Size()) {
		return p.sparse(f, from, name, info, data)
	}
	if err := p.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size()}, info); err != nil {
		return err
	}
	return p.content(p.tar, f, from, []extent{{0, info.Size()}})
}

// content writes what is in these places. There is no taking back what was announced: a file that became
// shorter ends the stream.
func (p *packer) content(to io.Writer, f *os.File, from string, data []extent) error {
	for _, part := range data {
		// Not by a writer's ReadFrom, which would not know of the buffer.
		n, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{io.NewSectionReader(f, part.offset, part.size)}, p.buf)
		switch {
		case err != nil:
			return writeError{failed("copy", from, err)}
		case n != part.size:
			return writeError{failed("copy", from, errors.New("it became shorter while it was read; try again"))}
		}
	}
	return nil
}

// failed is an error about a path: the path as it can be shown, and the cause alone.
func failed(do, name string, err error) error {
	var of *fs.PathError
	var link *os.LinkError
	var call *os.SyscallError
	switch {
	case errors.As(err, &of):
		err = of.Err
	case errors.As(err, &link):
		err = link.Err
	case errors.As(err, &call):
		err = call.Err
	}
	return fmt.Errorf("%s %s: %w", do, show(name), err)
}
