package files

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// What was split is joined again, whatever comes at a time, and what is behind it is left.
func TestPieces(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 5, pieceSize - 2*lengthSize, pieceSize - lengthSize, pieceSize, 3*pieceSize + 7} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		for name, slow := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "half": iotest.HalfReader, "data with error": iotest.DataErrReader, "bytes": iotest.OneByteReader,
		} {
			if size > 10 && name == "bytes" {
				continue // takes long
			}
			stream, err := io.ReadAll(slow(Split(slow(bytes.NewReader(data)))))
			must(t, err)
			r := slow(bytes.NewReader(append(stream, "behind"...)))
			got, err := io.ReadAll(slow(Join(r)))
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %s: got %d, %v", size, name, len(got), err)
			}
			if rest, err := io.ReadAll(r); string(rest) != "behind" || err != nil {
				t.Errorf("%d bytes, %s: behind it is %q, %v", size, name, rest, err)
			}
		}
	}
}

// The form is that of JobSpec.upload.
func TestFormOfPieces(t *testing.T) {
	got, err := io.ReadAll(io.MultiReader(Split(strings.NewReader("abc")), Split(strings.NewReader(""))))
	if want := "\x00\x00\x00\x03abc\x00\x00\x00\x00\x00\x00\x00\x00"; string(got) != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	broken := errors.New("broken")
	got, err = io.ReadAll(Split(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken))))
	if want := "\x00\x00\x00\x03abc\xff\xff\xff\xff"; string(got) != want || err != broken {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// What is no such stream is an error, and stays one.
func TestBadPieces(t *testing.T) {
	for _, row := range []struct {
		stream, data string
		err          error
	}{
		{"", "", io.ErrUnexpectedEOF},
		{"\x00\x00", "", io.ErrUnexpectedEOF},
		{"\x00\x00\x00\x03ab", "ab", io.ErrUnexpectedEOF},
		{"\x00\x00\x00\x03abc", "abc", io.ErrUnexpectedEOF},
		{"\xff\xff\xff\xfeabc", "abc", io.ErrUnexpectedEOF},
		{"\x00\x00\x00\x03abc\xff\xff\xff\xff\x00\x00\x00\x00", "abc", ErrGivenUp},
	} {
		r := Join(strings.NewReader(row.stream))
		got, err := io.ReadAll(r)
		if string(got) != row.data || err != row.err {
			t.Errorf("%q: got %q, %v", row.stream, got, err)
		}
		if n, err := r.Read(make([]byte, 10)); n != 0 || err != row.err {
			t.Errorf("%q, again: got %d, %v", row.stream, n, err)
		}
	}
}

func FuzzPieces(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03abc\x00\x00\x00\x00rest"))
	f.Add([]byte("\x00\x00\x00\x01a\xff\xff\xff\xff"))
	f.Add([]byte("\xff\xff\xff\xfe"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		data, err := io.ReadAll(Join(r))
		if err != nil {
			return
		}
		// It was taken whole: made again it may have other pieces, and is read to the same.
		again, err := io.ReadAll(Split(bytes.NewReader(data)))
		must(t, err)
		same, err := io.ReadAll(Join(bytes.NewReader(again)))
		if err != nil || !bytes.Equal(same, data) {
			t.Errorf("got %q, %v, want %q", same, err, data)
		}
		// And nothing behind it was read: with something else there it is the same.
		used := len(stream) - r.Len()
		if used < lengthSize || !bytes.Equal(stream[used-lengthSize:used], make([]byte, lengthSize)) {
			t.Errorf("%d bytes of %q were read", used, stream)
		}
	})
}
