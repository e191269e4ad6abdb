package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Place is where a stream is unpacked to.
type Place struct {
	Path string
	// Name is that of what Pack was given, Name(source), and then Path is to be a copy of it; when Path is a
	// directory, it gets its copy below Path, by that name. When it is empty, all that is in the stream goes
	// into the directory Path by the names that it has there, and Path is made if need be.
	Name string
}

// check refuses a name that leads elsewhere.
func (p Place) check() error {
	if p.Path == "" {
		return errors.New("no path is named")
	}
	if p.Name == "." || p.Name == ".." || strings.Contains(p.Name, "/") {
		return fmt.Errorf("%s is no name of a file", show(p.Name))
	}
	return nil
}

// copyAt is the directory and the name in it that the copy of one thing gets.
func (p Place) copyAt() (dir, base string, err error) {
	info, err := os.Stat(p.Path)
	switch {
	case err == nil && info.IsDir():
		return p.Path, p.Name, nil
	case err == nil:
		// A link to a file is followed, as cp(1) does.
		at, err := filepath.EvalSymlinks(p.Path)
		if err != nil {
			return "", "", failed("look at", p.Path, err)
		}
		return filepath.Dir(at), filepath.Base(at), nil
	case errors.Is(err, fs.ErrNotExist):
		at := filepath.Clean(p.Path)
		return filepath.Dir(at), filepath.Base(at), nil
	}
	return "", "", failed("look at", p.Path, err)
}

// memberName is a name of a stream, clean: "." or below the place.
func memberName(name string) (string, error) {
	clean := filepath.Clean(name)
	if name == "" || strings.Contains(name, "\x00") || !filepath.IsLocal(clean) {
		return "", fmt.Errorf("the name %s is refused: it leads out of the place that it is to be put in", show(name))
	}
	return clean, nil
}

// show is a name as it can be shown: in quotes where it could end the line or move the cursor.
func show(name string) string {
	if name != "" && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return name
	}
	return strconv.Quote(name)
}
