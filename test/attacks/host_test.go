package attacks

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/cgroup"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server"
	"github.com/telerun/tele/server/job"
	"golang.org/x/sys/unix"
)

// A host is the machine that is attacked, with what an attacker would look for.
type host struct {
	state   string // of the server
	cgroups *cgroup.Manager
	table   *job.Table
	values  map[string]string // for programs: what they find as NAME
}

// visible is a directory of the host that jobs see, private one that they do not. Both are mounted
// anew, for these tests alone.
const (
	visible = "/opt"
	private = "/srv"
)

// secret is in every file that no job may read; a program that prints it has won.
const secret = "the-hosts-secret"

func newHost(t *testing.T) *host {
	t.Helper()
	needRoot(t)
	// Where a server has it: on the disk, in a place that is hidden because it is the server's.
	state, err := os.MkdirTemp("/var/lib", "tele-attacks-")
	mustDo(t, err)
	t.Cleanup(func() { mustDo(t, os.RemoveAll(state)) })
	mustDo(t, os.Chmod(state, 0o755)) // that it is hidden must be enough
	h := &host{state: state}
	for _, dir := range []string{visible, private} {
		mustDo(t, os.MkdirAll(dir, 0o755))
		mustDo(t, unix.Mount("attacks", dir, "tmpfs", 0, "mode=755")) // devices and set-user-ID programs count
		t.Cleanup(func() { mustDo(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	}
	h.fill(t)
	h.cgroups, err = cgroup.Open(cgroup.Options{Name: fmt.Sprintf("tele-attacks-%d", os.Getpid())})
	mustDo(t, err)
	most := limits.Limits{CPU: limits.Max, Memory: limits.Max, Swap: limits.Max, IORead: limits.Max,
		IOWrite: limits.Max, Pids: limits.Max}
	h.table, err = job.Open(job.Options{StateDir: h.state, Cgroups: h.cgroups, Most: most, Hide: hide(), Warm: 1,
		Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)})
	mustDo(t, err)
	t.Cleanup(func() {
		h.table.Stop()
		if ids := h.cgroups.List(); len(ids) != 0 {
			t.Errorf("cgroups left: %v", ids)
		}
		mustDo(t, h.cgroups.Close())
	})
	h.victim(t)
	return h
}

// What the host mounts later, the next job sees, also one in a sandbox that was to be ready.
func TestNewMounts(t *testing.T) {
	h := newHost(t)
	for i := range 3 {
		first, err := asWarm(t, h, h.python("pass"))
		mustDo(t, err)
		first.wait()
		dir := fmt.Sprintf("%s/new%d", visible, i)
		mustDo(t, os.Mkdir(dir, 0o755))
		mustDo(t, unix.Mount("attacks", dir, "tmpfs", 0, "mode=755"))
		mustDo(t, os.WriteFile(dir+"/f", []byte("new"), 0o644))
		s, err := asUser(t, h, h.python("print(open('"+dir+"/f').read())"))
		mustDo(t, err)
		if out := s.output(); out != "new\n" {
			t.Errorf("got %q", out)
		}
		// Nobody keeps it from being unmounted for good: the pool is made anew.
		mustDo(t, unix.Unmount(dir, 0))
		if s, err = asWarm(t, h, h.python("import os; print(os.listdir('"+dir+"'))")); err == nil && s.output() != "[]\n" {
			t.Errorf("got %q", s.output())
		}
		mustDo(t, err)
	}
}

// victim starts another job, which leaves its doors open, and runs until the server ends.
func (h *host) victim(t *testing.T) {
	t.Helper()
	h.values["SECRET"] = secret
	s, err := asUserWith(t, h, []*telev1.Secret{{Name: "token", Data: []byte(secret)}}, h.python(`
os.umask(0)
for dir in HOME, "/tmp", "/dev/shm":
    put(dir + "/secret", SECRET)
os.chmod(HOME, 0o777)
listeners = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 4242))]
listeners[0].bind(b"\0victim")
listeners[1].bind("/tmp/victim")
for s in listeners[:2]:
    s.listen()
raw("shmget", 4242, 4096, 0o1666)
print("ready", flush=True)
time.sleep(1 << 20)
`))
	mustDo(t, err)
	s.ready()
	delete(h.values, "SECRET")
	h.values["VICTIM"] = s.id
}

func hide() []string { return strings.Split(server.DefaultHide, ",") }

// hidden is what initproc gets of it; server/job does the same.
func (h *host) hidden() []string {
	var list []string
	for _, dir := range append(hide(), h.state, visible+"/proc") {
		dir, err := filepath.EvalSymlinks(dir)
		info, _ := os.Lstat(dir)
		if err == nil && info.IsDir() && !slices.Contains(list, dir) {
			list = append(list, dir)
		}
	}
	slices.Sort(list)
	slices.Reverse(list)
	return list
}

// fill puts on the host what an attacker would look for.
func (h *host) fill(t *testing.T) {
	t.Helper()
	h.values = map[string]string{"SERVER": strconv.Itoa(os.Getpid()), "STATE": h.state}
	write := func(path string, mode os.FileMode) {
		mustDo(t, os.WriteFile(path, []byte(secret+"\n"), 0o600))
		mustDo(t, os.Chmod(path, mode))
	}
	write(h.state+"/secret", 0o644)
	write(private+"/secret", 0o644)
	write(visible+"/secret", 0o600)
	write(visible+"/public", 0o644)
	for _, node := range []struct {
		path         string
		mode         uint32
		major, minor uint32
	}{
		{visible + "/kmsg", unix.S_IFCHR, 1, 11}, {visible + "/zero", unix.S_IFCHR, 1, 5}, {visible + "/fifo", unix.S_IFIFO, 0, 0},
	} {
		mustDo(t, unix.Mknod(node.path, node.mode|0o666, int(unix.Mkdev(node.major, node.minor))))
		mustDo(t, os.Chmod(node.path, 0o666))
	}
	h.programs(t)
	h.listen(t)
	// A chroot's /proc, say, in a place that nobody thought of.
	mustDo(t, os.Mkdir(visible+"/proc", 0o755))
	mustDo(t, unix.Mount("proc", visible+"/proc", "proc", 0, ""))
	t.Cleanup(func() { mustDo(t, unix.Unmount(visible+"/proc", unix.MNT_DETACH)) })
	h.memory(t)
}

// programs makes grep set-user-ID and set-group-ID to root, and once with file capabilities.
func (h *host) programs(t *testing.T) {
	t.Helper()
	grep, err := exec.LookPath("grep")
	mustDo(t, err)
	data, err := os.ReadFile(grep)
	mustDo(t, err)
	mustDo(t, os.WriteFile(visible+"/suid", data, 0o755))
	mustDo(t, unix.Chmod(visible+"/suid", 0o6755))
	mustDo(t, os.WriteFile(visible+"/caps", data, 0o755))
	// struct vfs_cap_data, revision 2, effective: all of the first 32 capabilities permitted.
	value := []byte{1, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	mustDo(t, unix.Setxattr(visible+"/caps", "security.capability", value, 0))
}

// listen listens wherever a job could come from: in a hidden directory, in one that it sees, on an
// abstract name, and on loopback.
func (h *host) listen(t *testing.T) {
	t.Helper()
	abstract := fmt.Sprintf("tele-attacks-%d", os.Getpid())
	for _, l := range []struct{ network, address string }{
		{"unix", private + "/socket"}, {"unix", visible + "/socket"}, {"unix", "@" + abstract}, {"tcp", "127.0.0.1:0"},
	} {
		listener, err := net.Listen(l.network, l.address)
		mustDo(t, err)
		t.Cleanup(func() { _ = listener.Close() })
		if tcp, ok := listener.Addr().(*net.TCPAddr); ok {
			h.values["PORT"] = strconv.Itoa(tcp.Port)
		} else if !strings.HasPrefix(l.address, "@") {
			mustDo(t, os.Chmod(l.address, 0o666))
		}
	}
	h.values["ABSTRACT"] = abstract
}

// memory makes a shared memory segment, which all may read and write.
func (h *host) memory(t *testing.T) {
	t.Helper()
	key := 0x7e1e0000 + os.Getpid()
	id, err := unix.SysvShmGet(key, 4096, unix.IPC_CREAT|unix.IPC_EXCL|0o666)
	mustDo(t, err)
	t.Cleanup(func() { _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); mustDo(t, err) })
	h.values["SHM"] = strconv.Itoa(key)
}

// unharmed checks that what was put on the host is as it was.
func (h *host) unharmed(t *testing.T) {
	t.Helper()
	for path, mode := range map[string]os.FileMode{h.state + "/secret": 0o644, private + "/secret": 0o644,
		visible + "/secret": 0o600, visible + "/public": 0o644} {
		data, err := os.ReadFile(path)
		info, statErr := os.Lstat(path)
		if err != nil || statErr != nil || string(data) != secret+"\n" || info.Mode() != mode {
			t.Errorf("%s is %q, %v, %v", path, data, info, err)
		}
	}
	entries, err := os.ReadDir(visible)
	mustDo(t, err)
	if len(entries) != 9 {
		t.Errorf("%s has %v", visible, entries)
	}
	if t.Failed() {
		return
	}
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
