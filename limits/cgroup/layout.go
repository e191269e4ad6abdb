package cgroup

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A mount is one line of /proc/PID/mountinfo, proc_pid_mountinfo(5).
type mount struct {
	id      int
	root    string // the folder of the file system that is mounted
	point   string
	kind    string // the file system's type
	source  string
	options string // the file system's own
}

// parseMountinfo reads the text of mountinfo; lines that it does not understand are left out.
func parseMountinfo(text string) []mount {
	var mounts []mount
	for line := range strings.Lines(text) {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
		// with any number of words between the sixth and the dash.
		before, after, found := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !found || len(left) < 6 || len(right) < 3 {
			continue
		}
		id, err := strconv.Atoi(left[0])
		if err != nil {
			continue
		}
		mounts = append(mounts, mount{
			id:      id,
			root:    unescape(left[3]),
			point:   unescape(left[4]),
			kind:    right[0],
			source:  unescape(right[1]),
			options: right[2],
		})
	}
	return mounts
}

// unescape undoes mountinfo's octal escapes of blank, tab, newline and backslash.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if c, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// A hierarchy is one mounted tree of groups.
type hierarchy struct {
	version     int
	root        string // the group that is mounted, as /proc/PID/cgroup would name it
	point       string
	controllers []string // of version 1; those of version 2 are in a file
}

// hierarchies picks the trees of groups out of all mounts, in their order.
func hierarchies(mounts []mount) []hierarchy {
	var list []hierarchy
	for _, m := range mounts {
		switch m.kind {
		case "cgroup2":
			list = append(list, hierarchy{version: 2, root: m.root, point: m.point})
		case "cgroup":
			list = append(list, hierarchy{version: 1, root: m.root, point: m.point,
				controllers: strings.Split(m.options, ",")})
		}
	}
	return list
}

// visible leaves out the trees that are hidden by something mounted over them.
func visible(list []hierarchy) []hierarchy {
	return slices.DeleteFunc(slices.Clone(list), func(h hierarchy) bool {
		want := int64(unix.CGROUP_SUPER_MAGIC)
		if h.version == 2 {
			want = unix.CGROUP2_SUPER_MAGIC
		}
		var s unix.Statfs_t
		return unix.Statfs(h.point, &s) != nil || int64(s.Type) != want
	})
}

// dir is where the group called path, as /proc/PID/cgroup names it, is found under this mount.
func (h hierarchy) dir(path string) (string, bool) {
	rest, below := strings.CutPrefix(path, strings.TrimSuffix(h.root, "/"))
	if !below || rest != "" && rest[0] != '/' || slices.Contains(strings.Split(rest, "/"), "..") {
		return "", false
	}
	return filepath.Join(h.point, rest), true
}

// ownV2 returns the version 2 group from a text as in /proc/PID/cgroup.
func ownV2(text string) (string, bool) {
	for line := range strings.Lines(text) {
		if path, found := strings.CutPrefix(line, "0::"); found {
			return strings.TrimSuffix(path, "\n"), true
		}
	}
	return "", false
}
