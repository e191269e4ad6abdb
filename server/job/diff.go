package job

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// ErrNoOverlay is returned by Diff for a job whose root was not writable, ErrDiffUnknown for one whose
// changes went with its init before the server had looked at them.
var (
	ErrNoOverlay   = errors.New("the job has no root of its own to change; start it with: tele run --root overlay")
	ErrDiffUnknown = errors.New("nobody saw what the job has changed: its init was killed from outside")
)

// The most that is listed, and looked at, of what a job changed: it may change without end.
const (
	mostChanges     = 10_000
	mostChangeBytes = 2 << 20
	mostVisited     = 500_000
	mostDepth       = 256
)

// RootOverlay is the JobSpec.root that is writable.
const RootOverlay = "overlay"

// Diff returns what the job has changed in its root.
func (j *Job) Diff() (*telev1.DiffResponse, error) {
	j.mu.Lock()
	removed, upper := j.outputRemovedLocked(), (*os.File)(nil)
	var err error
	if j.upper != nil {
		upper, err = openDir(j.upper, ".") // this call's own: the job may end meanwhile
	}
	j.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case !j.overlay:
		return nil, ErrNoOverlay
	case removed:
		return nil, ErrOutputRemoved
	case upper != nil:
		defer upper.Close()
		return changesIn(upper)
	}
	data, err := os.ReadFile(filepath.Join(j.dir, "changes"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrDiffUnknown
	}
	if err != nil {
		return nil, err
	}
	var diff telev1.DiffResponse
	return &diff, proto.Unmarshal(data, &diff)
}

// openUpper opens what the job changes, from when it runs.
func (j *Job) openUpper() error {
	if !j.overlay {
		return nil
	}
	upper, err := j.init.Upper()
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.upper = upper
	return nil
}

// closeUpper lets go of it.
func (j *Job) closeUpper() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.upper != nil {
		_ = j.upper.Close() // nothing was written
		j.upper = nil
	}
}

// keepDiff writes down what the job has changed, at its end.
func (j *Job) keepDiff() error {
	if j.upper == nil {
		return nil
	}
	diff, err := j.Diff()
	if err != nil {
		return err
	}
	data, err := proto.Marshal(diff)
	if err != nil {
		return err
	}
	temp := filepath.Join(j.dir, "changes.new")
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(j.dir, "changes"))
}

// A differ compares an overlay's upper layer with the host's tree. The upper layer is the job's, which
// may change it at the same time: every name is looked up by openat2(2) from the directory that it was
// read in, never through a link or a mount, and how much is looked at has an end.
type differ struct {
	diff    telev1.DiffResponse
	bytes   int
	visited int
}

func changesIn(upper *os.File) (*telev1.DiffResponse, error) {
	lower, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer lower.Close()
	top, err := openDir(upper, ".")
	if err != nil {
		return nil, err
	}
	defer top.Close()
	var d differ
	if err := d.walk(top, lower, "/", 0); err != nil {
		return nil, fmt.Errorf("read what the job has changed: %w", err)
	}
	slices.SortStableFunc(d.diff.Changes, func(a, b *telev1.Change) int { return bytes.Compare(a.Path, b.Path) })
	return &d.diff, nil
}

// walk goes through a directory of the upper layer; lower is the host's of the same path, nil for none.
func (d *differ) walk(upper, lower *os.File, path string, depth int) error {
	for {
		names, err := upper.Readdirnames(1000)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if d.visited++; d.visited > mostVisited {
				d.diff.Incomplete = true
				return nil
			}
			if err := d.entry(upper, lower, name, path+name, depth); err != nil {
				return err
			}
		}
	}
}

// entry looks at one name of the upper layer.
func (d *differ) entry(upper, lower *os.File, name, path string, depth int) error {
	var s unix.Stat_t
	err := unix.Fstatat(int(upper.Fd()), name, &s, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT { // just removed
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	was := statIn(lower, name)
	switch isDir := s.Mode&unix.S_IFMT == unix.S_IFDIR; {
	case s.Mode&unix.S_IFMT == unix.S_IFCHR && s.Rdev == 0: // a whiteout
		d.add(telev1.ChangeKind_CHANGE_KIND_DELETED, path)
		return nil
	case !isDir && was == 0:
		d.add(telev1.ChangeKind_CHANGE_KIND_ADDED, path)
		return nil
	case !isDir:
		d.add(telev1.ChangeKind_CHANGE_KIND_CHANGED, path)
		return nil
	}
	dir, err := openDir(upper, name)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP { // it is another one by now
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "openat2", Path: path, Err: err}
	}
	defer dir.Close()
	var below *os.File
	switch {
	case was == 0:
		d.add(telev1.ChangeKind_CHANGE_KIND_ADDED, path)
	case was != unix.S_IFDIR:
		d.add(telev1.ChangeKind_CHANGE_KIND_CHANGED, path)
	case opaque(dir):
		d.add(telev1.ChangeKind_CHANGE_KIND_DELETED, path)
		d.add(telev1.ChangeKind_CHANGE_KIND_ADDED, path)
	default:
		d.add(telev1.ChangeKind_CHANGE_KIND_CHANGED, path)
		if below, err = open2(lower, name, unix.O_PATH|unix.O_DIRECTORY); err == nil {
			defer below.Close()
		}
	}
	if depth == mostDepth {
		d.diff.Incomplete = true
		return nil
	}
	return d.walk(dir, below, path+"/", depth+1)
}

func (d *differ) add(kind telev1.ChangeKind, path string) {
	if d.bytes += len(path) + 16; len(d.diff.Changes) == mostChanges || d.bytes > mostChangeBytes {
		d.diff.More++
		return
	}
	d.diff.Changes = append(d.diff.Changes, &telev1.Change{Kind: kind, Path: []byte(path)})
}

// statIn is what kind of file name is in dir, 0 for none.
func statIn(dir *os.File, name string) uint32 {
	var s unix.Stat_t
	if dir == nil || unix.Fstatat(int(dir.Fd()), name, &s, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return 0
	}
	return s.Mode & unix.S_IFMT
}

// opaque tells whether a directory of the upper layer hides the one below it instead of being joined
// with it.
func opaque(dir *os.File) bool {
	var value [1]byte
	n, err := unix.Fgetxattr(int(dir.Fd()), "trusted.overlay.opaque", value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

func openDir(dir *os.File, name string) (*os.File, error) {
	return open2(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
}

// open2 opens what is in dir, and nothing else.
func open2(dir *os.File, name string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), name, &how)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}
