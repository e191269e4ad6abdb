package job

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/telerun/tele/initproc"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// checkPlaces finds what is wrong with the root, the mounts and the user of a request by looking at it
// alone.
func checkPlaces(spec *telev1.JobSpec) error {
	if spec.Root != "" && spec.Root != RootOverlay && (!clean(spec.Root) || spec.Root == "/") {
		return bad("spec.root", "%s is neither %s nor an absolute path without . and .. to another root", Quote(spec.Root), RootOverlay)
	}
	if len(spec.User) > maxName {
		return bad("spec.user", "has %d bytes, the most is %d", len(spec.User), maxName)
	}
	if len(spec.Mounts) > mostMounts {
		return bad("spec.mounts", "are %d, the most is %d", len(spec.Mounts), mostMounts)
	}
	for i, m := range spec.Mounts {
		switch {
		case !clean(m.GetSource()) || !clean(m.GetTarget()):
			return bad("spec.mounts", "%s:%s: both must be absolute paths without . and ..", Quote(m.GetSource()), Quote(m.GetTarget()))
		case under(m.Target, "/proc", "/dev", "/sys") || slices.Contains([]string{"/", "/home", initproc.Home, "/tmp", "/mnt"}, m.Target):
			return bad("spec.mounts", "%s: is the sandbox's own; choose another place, or one below /tmp or %s", m.Target, initproc.Home)
		}
		for _, other := range spec.Mounts[:i] {
			if under(m.Target, other.Target) || under(other.Target, m.Target) {
				return bad("spec.mounts", "%s and %s: one lies in the other", other.Target, m.Target)
			}
		}
	}
	return nil
}

const mostMounts = 64

// clean tells whether p is absolute and written in the one way that its policy is.
func clean(p string) bool {
	return isPath(p) && path.Clean(p) == p
}

// under tells whether p is one of dirs, or below one.
func under(p string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
	})
}

// A User is whom a job runs as.
type User struct {
	Name     string // as the machine calls it; empty when it has no name for it
	UID, GID uint32
	OwnGID   bool // GID is the user's own group, by the machine or, without a name, the same number
}

// FindUser reads NAME or UID, and :GID.
func FindUser(text string) (User, error) {
	who, group, hasGroup := strings.Cut(text, ":")
	var u User
	found, err := user.Lookup(who)
	if id, numeric := parseID(who); numeric {
		u.UID, u.GID, u.OwnGID = id, id, true
		found, err = user.LookupId(who)
	} else if err != nil {
		return u, fmt.Errorf("%q: this machine has no such user, and it is no number", who)
	}
	if err == nil {
		uid, uidOK := parseID(found.Uid)
		gid, gidOK := parseID(found.Gid)
		if !uidOK || !gidOK {
			return u, fmt.Errorf("%q: this machine has no ids for it", who)
		}
		u = User{found.Username, uid, gid, true}
	}
	if !hasGroup {
		return u, nil
	}
	gid, ok := parseID(group)
	if !ok {
		return u, fmt.Errorf("%q: %q is no number of a group", text, group)
	}
	u.GID, u.OwnGID = gid, u.OwnGID && gid == u.GID
	return u, nil
}

// parseID reads a user or group id; the highest stands for none.
func parseID(text string) (uint32, bool) {
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err == nil && id < 1<<32-1 && strconv.FormatUint(id, 10) == text
}

// places is what a request means on this machine.
type places struct {
	user   *User // nil for one of the range
	root   string
	hide   []string // in that root
	mounts []initproc.Mount
}

// findPlaces looks at the machine for what a request names. No symbolic link is followed on the way:
// what was allowed is what is there.
func (t *Table) findPlaces(spec *telev1.JobSpec) (p places, err error) {
	if spec.User == "" && len(spec.Mounts) == 0 && (spec.Root == "" || spec.Root == RootOverlay) {
		return p, nil
	}
	if !t.root {
		return p, bad("spec", "a user, mounts and another root take a server that runs as root")
	}
	if spec.User != "" {
		u, err := FindUser(spec.User)
		if err != nil {
			return p, bad("spec.user", "%v", err)
		}
		p.user = &u
	}
	if spec.Root != "" && spec.Root != RootOverlay {
		if err := t.checkRoot(spec.Root); err != nil {
			return p, err
		}
		p.root = spec.Root
		// Whoever works in such a tree has often mounted the kernel's own file systems in it.
		if isDir, err := t.look(path.Join(spec.Root, "sys")); err == nil && isDir {
			p.hide = []string{"/sys"}
		}
	}
	for _, m := range spec.Mounts {
		isDir, err := t.look(m.Source)
		if err != nil {
			return p, bad("spec.mounts", "%v", err)
		}
		p.mounts = append(p.mounts, initproc.Mount{Source: m.Source, Target: m.Target, Writable: m.Writable, File: !isDir})
	}
	return p, nil
}

// checkRoot finds out whether dir has all that the sandbox mounts on: nothing is made in it.
func (t *Table) checkRoot(dir string) error {
	isDir, err := t.look(dir)
	if err != nil {
		return bad("spec.root", "%v", err)
	}
	if !isDir {
		return bad("spec.root", "%s is no directory", dir)
	}
	for _, name := range []string{"/dev", "/home", "/mnt", "/proc", "/tmp"} {
		if isDir, err := t.look(path.Join(dir, name)); err != nil || !isDir {
			return bad("spec.root", "%s has no directory %s, which the sandbox needs to mount on; make it: mkdir %s",
				dir, name, path.Join(dir, name))
		}
	}
	return nil
}

// look tells whether path is a directory. It refuses one that a link leads to, and one with the
// server's own files in it.
func (t *Table) look(path string) (isDir bool, err error) {
	if under(path, t.ownDir) || under(t.ownDir, path) {
		return false, fmt.Errorf("%s: this server's own files are there", path)
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
	if errors.Is(err, unix.ELOOP) {
		return false, fmt.Errorf("%s: there is a symbolic link on the way; give the path that it leads to", path)
	}
	if err != nil {
		return false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return s.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// whom returns the name and the group of the job's user, whose id is uid.
func (p places) whom(uid uint32) (name string, gid uint32) {
	switch {
	case p.user == nil:
		return "job", uid
	case p.user.Name == "":
		return "job", p.user.GID
	}
	return p.user.Name, p.user.GID
}

// writable are the sources of the mounts that the job may write to.
func (p places) writable() (list []string) {
	for _, m := range p.mounts {
		if m.Writable {
			list = append(list, m.Source)
		}
	}
	return list
}
