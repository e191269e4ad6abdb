package job

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// interfaces are file systems that show the kernel, its processes or its devices. A job has its own
// /proc and /dev and no /sys; where the host has another one mounted, in a chroot of its own, say, it
// is covered like other private places.
var interfaces = []string{"proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "configfs", "bpf",
	"efivarfs", "pstore", "devtmpfs", "devpts", "mqueue", "fusectl", "binfmt_misc", "resctrl", "selinuxfs", "rpc_pipefs", "nfsd"}

// A mountWatch knows where the host has interfaces mounted now.
type mountWatch struct {
	mu    sync.Mutex
	fd    int // /proc/self/mountinfo, once open; not os's, whose poller would take the news from ours
	open  bool
	found []string
	seen  int // how often the mounts were looked at: another number, other mounts

	watching sync.WaitGroup
}

// hiding is what a job that starts now sees empty, and the state of the mounts that it is for.
func (t *Table) hiding() (list []string, seen int) {
	list, seen, err := t.mounts.hide(t.hide)
	if err != nil {
		t.options.Log.Err(err).Msg("look for other mounts of /proc and the like")
		return t.hide, seen
	}
	return list, seen
}

// hide returns list with what else is to be covered, in the same order: what holds another after it.
func (w *mountWatch) hide(list []string) (_ []string, seen int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.lookLocked(); err != nil {
		w.seen++ // nobody knows
		return nil, w.seen, err
	}
	var more []string
	for _, dir := range w.found {
		if !inside(dir, list) && !inside(dir, covered) && !inside(dir, more) {
			more = append(more, dir)
		}
	}
	if len(more) == 0 {
		return list, w.seen, nil
	}
	more = append(more, list...)
	slices.Sort(more)
	slices.Reverse(more)
	return more, w.seen, nil
}

// lookLocked reads the mounts when they are not those of the last time, which poll(2) tells at next to
// no cost (proc(5), /proc/pid/mounts).
func (w *mountWatch) lookLocked() (err error) {
	if !w.open {
		if w.fd, err = unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return &os.PathError{Op: "open", Path: "/proc/self/mountinfo", Err: err}
		}
		w.open = true
	} else {
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLPRI}}
		n, err := unix.Poll(fds, 0)
		for err == unix.EINTR { // also without a timeout, by the runtime's own signals
			n, err = unix.Poll(fds, 0)
		}
		if err == nil && n == 0 {
			return nil
		}
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	w.found = nil
	w.seen++
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) == 0 || !slices.Contains(interfaces, kind[0]) {
			continue
		}
		dir := unescape.Replace(fields[4])
		if info, err := os.Lstat(dir); err == nil && info.IsDir() && dir != "/" {
			w.found = append(w.found, dir)
		}
	}
	slices.Sort(w.found) // what holds another first
	return nil
}

// changes tells when the host's mounts change, until ctx ends; twice in a row may be told once. It has a
// descriptor of its own, for each tells of a change once; not epoll's, which would be told first.
func (w *mountWatch) changes(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{}, 1)
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return changed // starts look for themselves
	}
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		_ = mounts.Close() // nothing was written
		return changed
	}
	stop := context.AfterFunc(ctx, func() { _, _ = unix.Write(end, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	w.watching.Go(func() {
		defer unix.Close(end)
		defer stop()
		defer mounts.Close()
		fds := []unix.PollFd{{Fd: int32(mounts.Fd()), Events: unix.POLLPRI}, {Fd: int32(end), Events: unix.POLLIN}}
		for fds[1].Revents == 0 {
			n, err := unix.Poll(fds, -1)
			if err != nil && err != unix.EINTR {
				return
			}
			if n > 0 && fds[0].Revents != 0 {
				select {
				case changed <- struct{}{}:
				default: // not yet heard
				}
			}
		}
	})
	return changed
}

// unescape undoes what mountinfo does to a path.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// covered are the places that a job has as its own.
var covered = []string{"/tmp", "/var/tmp", "/home", "/dev", "/proc", "/mnt"}

func inside(dir string, of []string) bool {
	return slices.ContainsFunc(of, func(c string) bool { return dir == c || strings.HasPrefix(dir, c+"/") })
}

func (w *mountWatch) close() {
	w.watching.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open {
		_ = unix.Close(w.fd) // it was looked at
		w.open = false
	}
}
