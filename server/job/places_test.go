package job

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/telerun/tele/initproc"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

func TestUser(t *testing.T) {
	table := open(t)
	const script = `echo $USER; id -u; id -g; id -G; touch f && stat -c '%u %g' . f; grep CapEff /proc/self/status`
	for user, want := range map[string]string{
		"":             "job\n1879048192\n1879048192\n1879048192\n1879048192 1879048192\n1879048192 1879048192\n",
		"nobody":       "nobody\n65534\n65534\n65534\n65534 65534\n65534 65534\n",
		"1234":         "job\n1234\n1234\n1234\n1234 1234\n1234 1234\n",
		"1234:99":      "job\n1234\n99\n99\n1234 99\n1234 99\n",
		"root":         "root\n0\n0\n0\n0 0\n0 0\n",
		"no-such-user": "", "-1": "", "4294967295": "", "0:": "", ":0": "", "00": "", "1:2:3": "",
	} {
		spec := sh(script)
		spec.User = user
		if want == "" {
			var request *BadRequest
			if _, err := table.Start(t.Context(), "me", "", spec); !errors.As(err, &request) || request.Field != "spec.user" {
				t.Errorf("%q: got %v", user, err)
			}
			continue
		}
		table.nextUID = 0
		_, out := run(t, table, spec)
		if want += "CapEff:\t0000000000000000\n"; out != want {
			t.Errorf("%q: got %q, want %q", user, out, want)
		}
	}
	if len(table.uids) != 0 {
		t.Errorf("in use: %v", table.uids)
	}
}

// A user id is one job's alone, and those of a small range come again when it has ended.
func TestUIDRange(t *testing.T) {
	table := with(t, open(t), func(o *Options) { o.FirstUID, o.UIDs = 2_000_000_000, 2 })
	long := sh("echo ready; exec sleep 1000")
	a, b := begin(t, table, long), begin(t, table, long)
	if a.record.Uid+b.record.Uid != 4_000_000_001 {
		t.Errorf("got %d and %d", a.record.Uid, b.record.Uid)
	}
	if _, err := table.Start(t.Context(), "me", "", long); err == nil || !strings.Contains(err.Error(), "all 2 user ids") {
		t.Errorf("a third: %v", err)
	}
	named := sh("id -u")
	named.User = "2000000000"
	if _, out := run(t, table, named); out != "2000000000\n" {
		t.Errorf("got %q", out)
	}
	// The next server has another range, and jobs of this one.
	table = with(t, table, func(o *Options) { o.FirstUID, o.UIDs = 2_000_000_001, 1 })
	if _, err := table.Start(t.Context(), "me", "", long); err == nil {
		t.Error("a user id twice")
	}
	for _, id := range []string{a.id, b.id} {
		j := find(t, table, id)
		if err := j.Stop(9, 0, "me"); err != nil {
			t.Fatal(err)
		}
		wait(t, j)
	}
	if _, out := run(t, table, sh("id -u")); out != "2000000001\n" || len(table.uids) != 0 {
		t.Errorf("got %q, in use %v", out, table.uids)
	}
}

func TestMountsAndRoot(t *testing.T) {
	table := open(t)
	data, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(data+"/file", []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(data, data+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dev", "home", "mnt", "proc", "usr", "sys/kernel"} {
		if err := os.MkdirAll(filepath.Join(image, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(image, name)); err != nil {
			t.Fatal(err)
		}
	}
	spec := sh("cat /tmp/data/file; touch /tmp/data/new && echo wrote; ls /sys; ls -d /etc")
	spec.User, spec.Root = "root", image
	spec.Mounts = []*telev1.Mount{{Source: "/usr", Target: "/usr"}, {Source: data, Target: "/tmp/data", Writable: true}}
	var request *BadRequest
	if _, err := table.Start(t.Context(), "me", "", spec); !errors.As(err, &request) || request.Field != "spec.root" ||
		!strings.Contains(request.Why, "has no directory /tmp, which the sandbox needs to mount on; make it: mkdir "+image+"/tmp") {
		t.Errorf("an incomplete root: %v", err)
	}
	if err := os.Mkdir(image+"/tmp", 0o755); err != nil {
		t.Fatal(err)
	}
	// Two pipes promise no order between them.
	_, out := run(t, table, spec)
	if !strings.Contains(out, "content\nwrote\n") || !strings.Contains(out, "ls: ") || !strings.Contains(out, "/etc': No such file") {
		t.Errorf("got %q", out)
	}
	state := table.options.StateDir
	for _, test := range []struct {
		root, source, target, why string
	}{
		{"", data + "/link", "/opt", "there is a symbolic link on the way"},
		{"", data + "/link/file", "/tmp/x", "there is a symbolic link on the way"},
		{"", data + "/none", "/opt", "no such file"},
		{"", state, "/opt", "this server's own files"},
		{"", state + "/jobs", "/opt", "this server's own files"},
		{"", filepath.Dir(state), "/opt", "this server's own files"},
		{"", "/", "/opt", "this server's own files"},
		{"", data + "/../x", "/opt", "absolute paths without . and .."},
		{"", "data", "/opt", "absolute paths without . and .."},
		{"", data, "opt", "absolute paths without . and .."},
		{"", data, "/opt/", "absolute paths without . and .."},
		{"", data, "/", "the sandbox's own"}, {"", data, "/proc", "the sandbox's own"},
		{"", data, "/proc/sys", "the sandbox's own"}, {"", data, "/dev/shm", "the sandbox's own"},
		{"", data, "/sys/x", "the sandbox's own"}, {"", data, "/tmp", "the sandbox's own"},
		{"", data, "/home/job", "the sandbox's own"}, {"", data, "/usr/x", "one lies in the other"},
		{state, data, "/opt", "this server's own files"}, {"/", data, "/opt", "neither overlay nor an absolute path"},
		{data + "/link", data, "/opt", "there is a symbolic link on the way"}, {data + "/file", data, "/opt", "is no directory"},
		{"image", data, "/opt", "neither overlay nor an absolute path"},
	} {
		spec := sh("true")
		spec.Root = test.root
		spec.Mounts = []*telev1.Mount{{Source: "/usr", Target: "/usr"}, {Source: test.source, Target: test.target}}
		if _, err := table.Start(t.Context(), "me", "", spec); !errors.As(err, &request) || !strings.Contains(request.Why, test.why) {
			t.Errorf("%+v: got %v", test, err)
		}
	}
	spec = sh("true")
	spec.Mounts = []*telev1.Mount{{Source: data, Target: "/none"}}
	var step *initproc.StepError
	if _, err := table.Start(t.Context(), "me", "", spec); !errors.As(err, &step) || step.BadMount() != "/none" {
		t.Errorf("got %v", err)
	}
}

// What a job changes is listed while it runs, after a restart, and after its end; and only the job saw it.
func TestDiffOfRoot(t *testing.T) {
	table := open(t)
	spec := sh("echo x >/etc/tele-test; rm /etc/passwd; echo y >>/etc/group; rm -r /etc/apt; mkdir /etc/apt; echo x >/tmp/no; echo ready; exec sleep 1000")
	spec.User, spec.Root = "root", RootOverlay
	j := begin(t, table, spec)
	firstOutput(t, j)
	const want = "C /etc\nD /etc/apt\nA /etc/apt\nC /etc/group\nD /etc/passwd\nA /etc/tele-test\n"
	for _, when := range []string{"while it runs", "after a restart"} {
		if diff, err := j.Diff(); err != nil || text(diff) != want {
			t.Errorf("%s: got %v\n%s", when, err, text(diff))
		}
		table = reopen(t, table)
		j = find(t, table, j.id)
	}
	if err := j.Stop(9, 0, "me"); err != nil {
		t.Fatal(err)
	}
	wait(t, j)
	for range 2 {
		if diff, err := j.Diff(); err != nil || text(diff) != want {
			t.Errorf("after its end: got %v\n%s", err, text(diff))
		}
		table = reopen(t, table)
		j = find(t, table, j.id)
	}
	if _, err := os.Stat("/etc/tele-test"); err == nil {
		t.Error("it is on the host")
	}
	if err := os.Remove(filepath.Join(j.dir, "changes")); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Diff(); !errors.Is(err, ErrDiffUnknown) {
		t.Errorf("got %v", err)
	}
}
