package files

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrShort says that a stream ended before its end. What was whole by then is there.
var ErrShort = errors.New("the stream of files was cut off before its end")

// Unpack makes what is in a stream. Each file is written under a name of its own beside its place, and takes
// that place when it is whole; what was there before is gone then. A directory that is there already stays as
// it is. After an error there is no part of a file, but there may be files that came before.
func Unpack(r io.Reader, to Place, warn func(string)) (err error) {
	if err := to.check(); err != nil {
		return err
	}
	stream := &counter{r: bufio.NewReaderSize(r, pieceSize)}
	u := &unpacker{to: to, stream: stream, tar: tar.NewReader(stream), warn: warn, buf: make([]byte, pieceSize)}
	defer u.close()
	if to.Name == "" {
		if err := u.into(); err != nil {
			return err
		}
	}
	err = u.all()
	if err == nil && to.Name != "" && u.top == "" {
		err = errors.New("there is nothing in the stream of files")
	}
	if finishErr := u.finish(); err == nil {
		err = finishErr
	}
	return err
}

type unpacker struct {
	to     Place
	stream *counter
	tar    *tar.Reader
	warn   func(string)
	buf    []byte
	root   *os.Root    // what nothing is written outside of
	where  string      // its path, for errors
	holes  *sparseFile // the member that is made, when it is one
	top    string      // with Place.Name, what the one thing is called in the stream
	base   string      // and its name in root; empty when it is a directory, which then is root
	made   []directory
}

// A directory gets its mode and its time when all that is in it is there.
type directory struct {
	name string
	mode fs.FileMode
	time time.Time
}

// A counter counts what is read, and looks whether it ended in zeros.
type counter struct {
	r     *bufio.Reader
	total int64
	n     int64
	last  [2 * blockSize]byte
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.total += int64(n)
	c.n += int64(n)
	if n >= len(c.last) {
		copy(c.last[:], p[n-len(c.last):n])
	} else {
		copy(c.last[:], c.last[n:])
		copy(c.last[len(c.last)-n:], p[:n])
	}
	return n, err
}

// padding is how much is left of a block.
func (c *counter) padding() int64 { return -c.total & (blockSize - 1) }

// ended tells whether two blocks of zeros were read since n was 0: archive/tar takes a stream that was cut
// off between two files for one that has ended.
func (c *counter) ended() bool { return c.n >= int64(len(c.last)) && c.last == [2 * blockSize]byte{} }

// into opens the directory that all goes into.
func (u *unpacker) into() error {
	err := os.Mkdir(u.to.Path, 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return failed("make", u.to.Path, err)
	}
	u.where = u.to.Path
	if u.root, err = os.OpenRoot(u.to.Path); err != nil {
		return failed("open", u.to.Path, err)
	}
	return nil
}

func (u *unpacker) close() {
	if u.root != nil {
		_ = u.root.Close() // nothing is written through it
	}
}

// all makes everything, and reads the stream to its end.
func (u *unpacker) all() error {
	for {
		u.stream.n = 0
		h, err := u.next()
		switch {
		case err == io.EOF && u.stream.ended():
			return u.rest()
		case err != nil:
			return u.cut(err)
		}
		if err := u.member(h); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, u.content()); err != nil { // what was left out
			return u.cut(err)
		}
	}
}

// next is the next member, by archive/tar but for one with holes.
func (u *unpacker) next() (*tar.Header, error) {
	if u.holes != nil {
		// A reader has nothing from one member that it needs for the next, but its padding.
		_, _ = io.CopyN(io.Discard, u.stream, u.stream.padding()) // who reads on finds the end
		u.holes, u.tar = nil, tar.NewReader(u.stream)
	}
	h, holes, err := nextSparse(u.stream)
	if h != nil || err != nil {
		u.holes = holes
		return h, err
	}
	if h, err = u.tar.Next(); err != nil {
		return nil, err
	}
	if _, old := h.PAXRecords["GNU.sparse.realsize"]; old || h.Typeflag == tar.TypeGNUSparse || h.PAXRecords["GNU.sparse.size"] != "" {
		if h.Size > mostOldSparse { // of which archive/tar makes all the zeros
			return nil, fmt.Errorf("%s has holes in an old form, which is read up to 64G; have it written by tar --sparse-version=1.0 --format=posix",
				show(h.Name))
		}
	}
	return h, nil
}

var mostOldSparse int64 = 64 << 30 // a test lowers it

// content is what there is of the member's content in the stream.
func (u *unpacker) content() io.Reader {
	if u.holes != nil {
		return &u.holes.content
	}
	return u.tar
}

// maxRest is how much may come behind the end: tar(1) fills its last record.
const maxRest = 1 << 20

func (u *unpacker) rest() error {
	n, err := io.CopyN(io.Discard, u.stream, maxRest)
	switch {
	case err == io.EOF:
		return nil
	case err == nil && n == maxRest:
		return errors.New("more than 1 MiB comes behind the end of the stream of files")
	}
	return u.cut(err)
}

// cut is the error of a read in the middle.
func (u *unpacker) cut(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrShort
	}
	return fmt.Errorf("read the stream of files: %w", err)
}

// member makes one thing.
func (u *unpacker) member(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := memberName(h.Name)
	if err != nil {
		return err
	}
	if u.to.Name != "" {
		if name, err = u.place(name, h); err != nil || name == "" {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.put(name, func(temporary string) error { return u.file(temporary, name, h) })
	case tar.TypeDir:
		return u.directory(name, h)
	case tar.TypeSymlink:
		return u.put(name, func(temporary string) error { return u.root.Symlink(h.Linkname, temporary) })
	case tar.TypeLink:
		return u.link(name, h)
	}
	u.warn(fmt.Sprintf("%s is left out: it is neither a file, a directory nor a link", show(h.Name)))
	return nil
}

// place is where a member goes of a stream with one thing in it, whatever that is called there: its name in
// root, or nothing when it is root itself.
func (u *unpacker) place(name string, h *tar.Header) (string, error) {
	top, below, isBelow := strings.Cut(name, "/")
	if u.top == "" {
		if isBelow {
			return "", fmt.Errorf("the stream of files begins with %s, and not with what that is in", show(name))
		}
		u.top = top
		return u.first(h)
	}
	switch {
	case top != u.top:
		return "", fmt.Errorf("the name %s is refused: it is not below %s, which was asked for", show(name), show(u.top))
	case !isBelow && u.base == "":
		return "", nil // the directory once more
	case !isBelow:
		return u.base, nil
	case u.base != "":
		return "", fmt.Errorf("the name %s is refused: %s is no directory", show(name), show(u.top))
	}
	return below, nil
}

// first opens root for the one thing: it, when it is a directory, or the directory that it is put in.
func (u *unpacker) first(h *tar.Header) (string, error) {
	dir, base, err := u.to.copyAt()
	if err != nil {
		return "", err
	}
	if h.Typeflag != tar.TypeDir && strings.HasSuffix(u.to.Path, "/") && dir != u.to.Path {
		return "", fmt.Errorf("%s is no directory that there is", show(u.to.Path))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", failed("open", dir, err)
	}
	u.where = dir
	if h.Typeflag != tar.TypeDir {
		u.root, u.base = root, base
		return base, nil
	}
	defer root.Close()
	made, err := u.makeIn(root, base)
	if err != nil {
		return "", err
	}
	u.where = path.Join(dir, base)
	if u.root, err = root.OpenRoot(base); err != nil {
		return "", u.failed("open", ".", err)
	}
	if made {
		u.made = append(u.made, directory{".", permissions(h), h.ModTime})
	}
	return "", nil
}

// directory makes a directory.
func (u *unpacker) directory(name string, h *tar.Header) error {
	if err := u.parents(name); err != nil {
		return err
	}
	made, err := u.makeIn(u.root, name)
	if made {
		u.made = append(u.made, directory{name, permissions(h), h.ModTime})
	}
	return err
}

// makeIn makes a directory that only its owner has until it is finished, or finds one there.
func (u *unpacker) makeIn(root *os.Root, name string) (made bool, err error) {
	err = root.Mkdir(name, 0o700)
	if err == nil {
		return true, nil
	}
	if info, statErr := root.Lstat(name); statErr == nil {
		if info.IsDir() {
			return false, nil
		}
		err = errors.New("something is there that is no directory")
	}
	return false, u.failed("make", name, err)
}

// failed is an error about a name in root.
func (u *unpacker) failed(do, name string, err error) error {
	return failed(do, path.Join(u.where, name), err)
}

// parents makes the directories on the way, which a stream need not name.
func (u *unpacker) parents(name string) error {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	if _, err := u.root.Stat(dir); err == nil {
		return nil
	}
	if err := u.root.MkdirAll(dir, 0o755); err != nil {
		return u.failed("make", dir, err)
	}
	return nil
}

// permissions leaves out that a program runs as its owner or group: that is somebody else now.
func permissions(h *tar.Header) fs.FileMode {
	mode := fs.FileMode(h.Mode & 0o777)
	if h.Mode&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

// put has make make something under another name beside its place, and puts it there.
func (u *unpacker) put(name string, make func(temporary string) error) error {
	if err := u.parents(name); err != nil {
		return err
	}
	temporary := filepath.Join(path.Dir(name), ".tele-"+rand.Text())
	err := make(temporary)
	if err == nil {
		err = u.root.Rename(temporary, name)
	}
	// It is gone but after an error, or when both are names of the same file, rename(2).
	_ = u.root.Remove(temporary)
	if err != nil && !errors.Is(err, ErrShort) {
		return u.failed("write", name, err)
	}
	return err
}

func (u *unpacker) file(temporary, name string, h *tar.Header) error {
	dir := path.Dir(temporary)
	// A file without a name goes with whoever writes it, also by SIGKILL. Not every file system has them.
	f, err := u.root.OpenFile(dir, unix.O_TMPFILE|os.O_WRONLY, 0o600)
	nameless := err == nil
	if !nameless {
		f, err = u.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := u.fill(f, h.Size); err != nil {
		return err
	}
	if err := f.Chmod(permissions(h)); err != nil {
		return err
	}
	if nameless {
		if err := u.name(f, dir, path.Base(temporary)); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return u.root.Chtimes(temporary, time.Time{}, h.ModTime)
}

// name gives a file that has none a name, open(2).
func (u *unpacker) name(f *os.File, dir, base string) error {
	in, err := u.root.Open(dir)
	if err != nil {
		return err
	}
	defer in.Close()
	self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	return os.NewSyscallError("linkat", unix.Linkat(unix.AT_FDCWD, self, int(in.Fd()), base, unix.AT_SYMLINK_FOLLOW))
}

// page is what a hole is made of.
const page = 4096

// fill writes the file. Pages of zeros are left out, and are holes.
func (u *unpacker) fill(f *os.File, size int64) error {
	data := []extent{{0, size}}
	if u.holes != nil {
		data = u.holes.data
	}
	for _, part := range data {
		for at, end := part.offset, part.offset+part.size; at < end; {
			n, err := io.ReadFull(u.content(), u.buf[:min(int64(len(u.buf)), end-at)])
			if err != nil {
				return u.cut(err)
			}
			if err := writeData(f, u.buf[:n], at); err != nil {
				return err
			}
			at += int64(n)
		}
	}
	return f.Truncate(size)
}

var zeros [page]byte

// writeData writes runs of pages that are not zeros.
func writeData(f *os.File, data []byte, at int64) error {
	for start := 0; start < len(data); {
		end := start
		for end < len(data) && !isZero(data[end:min(end+page, len(data))]) {
			end = min(end+page, len(data))
		}
		if end > start {
			if _, err := f.WriteAt(data[start:end], at+int64(start)); err != nil {
				return err
			}
		}
		start = end + page
	}
	return nil
}

func isZero(data []byte) bool { return bytes.Equal(data, zeros[:len(data)]) }

// link makes another name of a file of this stream.
func (u *unpacker) link(name string, h *tar.Header) error {
	old, err := memberName(h.Linkname)
	if err != nil {
		return err
	}
	if u.to.Name != "" {
		top, below, isBelow := strings.Cut(old, "/")
		if top != u.top || !isBelow || u.base != "" {
			return fmt.Errorf("the link from %s to %s is refused: it is not below %s, which was asked for", show(name), show(old), show(u.top))
		}
		old = below
	}
	return u.put(name, func(temporary string) error { return u.root.Link(old, temporary) })
}

// finish gives directories what they are to have, those within others first.
func (u *unpacker) finish() error {
	for _, d := range slices.Backward(u.made) {
		if err := errors.Join(u.root.Chmod(d.name, d.mode), u.root.Chtimes(d.name, time.Time{}, d.time)); err != nil {
			return u.failed("finish", d.name, err)
		}
	}
	return nil
}
