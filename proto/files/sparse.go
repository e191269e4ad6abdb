package files

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file writes and reads files with holes in them. The form is an extended header
// whose records say that it is GNU's format, version 1.0, the name and the real size; then a header like any
// other's, and as the file's content first a list of places, padded to a block, then what is in those places.
// archive/tar does not write it, and what it reads is all the zeros: a few bytes would keep a reader busy for years.

// An extent is a place of a file where there is data.
type extent struct{ offset, size int64 }

const (
	blockSize = 512
	// leastHole is what is worth a file's being written so.
	leastHole = 64 << 10
	// mostExtents keeps the list well below the megabyte that archive/tar reads of one.
	mostExtents = 4096
)

// extents are the places of f, lseek(2). A file system that cannot tell says that all is data.
func extents(f *os.File, size int64) ([]extent, error) {
	var list []extent
	hole := int64(0) // none that is smaller counts
	for at := int64(0); at < size; {
		start, err := f.Seek(at, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // there is none behind
			return list, nil
		case errors.Is(err, unix.EINVAL):
			return []extent{{0, size}}, nil
		case err != nil:
			return nil, err
		}
		end, err := f.Seek(start, unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) { // it became shorter, which who reads it will find
			end, err = size, nil
		}
		if err != nil {
			return nil, err
		}
		if start >= size {
			break
		}
		if end == start {
			end += page // it became a hole meanwhile; there may be data behind
		}
		end = min(end, size)
		list = append(list, extent{start, end - start})
		for at = end; len(list) > mostExtents; {
			hole = max(2*hole, leastHole)
			list = merged(list, hole)
		}
	}
	return list, nil
}

// merged is list without holes that are smaller than hole.
func merged(list []extent, hole int64) []extent {
	kept := list[:0]
	for _, e := range list {
		if n := len(kept) - 1; n >= 0 && e.offset-(kept[n].offset+kept[n].size) < hole {
			kept[n].size = e.offset + e.size - kept[n].offset
			continue
		}
		kept = append(kept, e)
	}
	return kept
}

func hasHoles(data []extent, size int64) bool { return size-sum(data) >= leastHole }

func sum(data []extent) (n int64) {
	for _, e := range data {
		n += e.size
	}
	return n
}

func (p *packer) sparse(f *os.File, from, name string, info fs.FileInfo, data []extent) error {
	list := strconv.Itoa(len(data)+1) + "\n"
	for _, e := range append(data, extent{info.Size(), 0}) { // so that it has the size also where it ends in a hole
		list += fmt.Sprintf("%d\n%d\n", e.offset, e.size)
	}
	list += padding(len(list))
	size := int64(len(list)) + sum(data)
	at := info.ModTime()
	records := record("mtime", fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond())) +
		record("size", strconv.FormatInt(size, 10)) +
		record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") +
		record("GNU.sparse.name", name) + record("GNU.sparse.realsize", strconv.FormatInt(info.Size(), 10))
	short := "GNUSparseFile.0/" + path.Base(name) // what those see that do not know the format
	p.entries++
	err := p.tar.Flush()
	for _, text := range []string{
		block(short, 0o644, int64(len(records)), 0, tar.TypeXHeader), records, padding(len(records)),
		block(short, mode(info), size, max(at.Unix(), 0), tar.TypeReg), list,
	} {
		if err == nil {
			_, err = p.out.WriteString(text)
		}
	}
	if err != nil {
		return writeError{err}
	}
	if err := p.content(p.out, f, from, data); err != nil {
		return err
	}
	if _, err := p.out.WriteString(padding(int(size % blockSize))); err != nil {
		return writeError{err}
	}
	return nil
}

// record is a record of an extended header: its own length, counted with the number itself, key and value.
func record(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	size := len(rest) + len(strconv.Itoa(len(rest)))
	if len(strconv.Itoa(size))+len(rest) != size {
		size++
	}
	return strconv.Itoa(size) + rest
}

// padding fills n bytes up to whole blocks.
func padding(n int) string { return strings.Repeat("\x00", (blockSize-n%blockSize)%blockSize) }

// block is a header in the ustar format. What has no room in it is in a record.
func block(name string, mode, size, modified int64, kind byte) string {
	const octal = 1 << 33 // what the eleven digits hold
	if size >= octal {
		size = 0
	}
	if modified >= octal {
		modified = 0
	}
	b := fmt.Sprintf("%-100.100s%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00        %c", name, mode, 0, 0, size, modified, kind)
	b = strings.ReplaceAll(b[:100], " ", "\x00") + b[100:] + strings.Repeat("\x00", 100) + "ustar\x0000"
	b += padding(len(b))
	total := 0
	for i := range len(b) {
		total += int(b[i])
	}
	return b[:148] + fmt.Sprintf("%06o\x00 ", total) + b[156:]
}

// A sparseFile is a member of a stream that is written so.
type sparseFile struct {
	data    []extent
	content io.LimitedReader // what is in them
}

// nextSparse reads the headers and the list of the stream's next member, if it is written so; nothing of
// any other.
func nextSparse(stream *counter) (*tar.Header, *sparseFile, error) {
	pad := int(stream.padding())                // of the member before
	peeked, _ := stream.r.Peek(pad + blockSize) // who reads it will find that it is short
	if len(peeked) < pad+blockSize || peeked[pad+156] != tar.TypeXHeader {
		return nil, nil, nil
	}
	size, err := strconv.ParseInt(strings.Trim(string(peeked[pad+124:pad+136]), " \x00"), 8, 64)
	if err != nil || size < 0 || size > pieceSize/2 {
		return nil, nil, nil
	}
	front := pad + blockSize + int(size) + len(padding(int(size)))
	peeked, _ = stream.r.Peek(front + blockSize)
	if len(peeked) < front+blockSize {
		return nil, nil, nil
	}
	records := parseRecords(string(peeked[pad+blockSize:][:size]))
	if records["GNU.sparse.major"] != "1" || records["GNU.sparse.minor"] != "0" {
		return nil, nil, nil
	}
	h, err := tar.NewReader(bytes.NewReader(peeked[front : front+blockSize])).Next()
	if err != nil {
		return nil, nil, err
	}
	_, _ = io.CopyN(io.Discard, stream, int64(front+blockSize)) // it was seen
	f, err := readList(stream, h, records)
	return h, f, err
}

var errList = errors.New("the list of holes is damaged")

// readList completes h, and reads the places.
func readList(stream *counter, h *tar.Header, records map[string]string) (*sparseFile, error) {
	size := h.Size // in the stream
	var err error
	if text, has := records["size"]; has {
		size, err = strconv.ParseInt(text, 10, 64)
	}
	real, realErr := strconv.ParseInt(records["GNU.sparse.realsize"], 10, 64)
	if err != nil || realErr != nil || size < 0 || real < 0 || h.Typeflag != tar.TypeReg {
		return nil, errList
	}
	h.Name, h.Size, h.PAXRecords = records["GNU.sparse.name"], real, records
	if seconds, err := strconv.ParseFloat(records["mtime"], 64); err == nil {
		whole, fraction, _ := strings.Cut(records["mtime"], ".")
		nanos, _ := strconv.Atoi((fraction + "000000000")[:9]) // 0 for what is none
		sec, err := strconv.ParseInt(whole, 10, 64)
		if err == nil && seconds >= 0 {
			h.ModTime = time.Unix(sec, int64(nanos))
		}
	}
	list := &listReader{stream: stream}
	count := list.number()
	f := &sparseFile{}
	end := int64(0)
	for ; count > 0 && list.err == nil; count-- {
		e := extent{list.number(), list.number()}
		if e.offset < end || e.size > real-e.offset {
			return nil, errList
		}
		end = e.offset + e.size
		f.data = append(f.data, e)
	}
	if list.err != nil {
		return nil, list.err
	}
	if size -= list.read; size != sum(f.data) {
		return nil, errList
	}
	f.content = io.LimitedReader{R: stream, N: size}
	return f, nil
}

// A listReader reads numbers, a line each, in whole blocks.
type listReader struct {
	stream io.Reader
	text   string
	read   int64
	err    error
}

// maxList bounds a list.
const maxList = 1 << 20

// number is the next one, not negative; 0 after an error.
func (l *listReader) number() int64 {
	for l.err == nil && !strings.Contains(l.text, "\n") {
		var next [blockSize]byte
		if _, l.err = io.ReadFull(l.stream, next[:]); l.err == nil {
			l.text += string(next[:])
			l.read += blockSize
		}
		if l.err == io.EOF {
			l.err = io.ErrUnexpectedEOF
		}
		if l.read > maxList || len(l.text) > 2*blockSize {
			l.err = errList
		}
	}
	if l.err != nil {
		return 0
	}
	line, rest, _ := strings.Cut(l.text, "\n")
	l.text = rest
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil || n < 0 {
		l.err = errList
		return 0
	}
	return n
}

// parseRecords are the records of an extended header, as many as are in order.
func parseRecords(text string) map[string]string {
	records := map[string]string{}
	for text != "" {
		length, _, found := strings.Cut(text, " ")
		n, err := strconv.Atoi(length)
		if !found || err != nil || n <= len(length)+1 || n > len(text) || text[n-1] != '\n' {
			break
		}
		key, value, _ := strings.Cut(text[len(length)+1:n-1], "=")
		records[key], text = value, text[n:]
	}
	return records
}
