package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/access"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// TestMain is the tests, or in a job of theirs a probe.
func TestMain(m *testing.M) {
	if os.Args[0] == probePath {
		os.Exit(Probe(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if strings.Contains(os.Getenv("TELE_REQUIRE"), "root") {
			t.Fatal("TELE_REQUIRE names root, and this is not root")
		}
		t.Skip("needs root")
	}
}

// On a machine that can run the tests every wall and limit holds, but for what it has not.
func TestExamine(t *testing.T) {
	needRoot(t)
	state := t.TempDir()
	if err := os.WriteFile(filepath.Join(state, "secret"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	report, err := examine(t.Context(), state, []string{"/root", "/run", "/sys"}, false)
	if err != nil {
		t.Fatal(err)
	}
	most := 10 * time.Second
	if os.Getenv("TELE_TEST_SLOW") != "" {
		most *= 10
	}
	if took := time.Since(start); took > most {
		t.Errorf("took %s", took)
	}
	may := map[string]bool{ // be impossible to tell
		"security modules": true, "overlayfs": true, "start of inits": true, "project quota": true, "certificates": true,
		"system calls": true, "cpu": true, "direct reads": true, "direct writes": true, "buffered writes": true,
	}
	names := map[string]bool{}
	for _, c := range report {
		t.Logf("%+v", c)
		names[c.Name] = true
		if c.Verdict == Fail || c.Verdict == CannotTell && !may[c.Name] || c.Seen == "" || (c.Fix == "") != (c.Verdict == Pass) {
			t.Errorf("%+v", c)
		}
	}
	for _, wall := range walls {
		if !names[wall.name] {
			t.Errorf("%s is not in the report", wall.name)
		}
	}
	for _, name := range []string{"cpu", "memory", "processes", "files in memory", "direct reads", "direct writes", "buffered writes", "output", "timeout"} {
		if !names[name] {
			t.Errorf("%s is not in the report", name)
		}
	}
	left, err := filepath.Glob(filepath.Join(state, "doctor-*"))
	groups, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/tele-doctor-%d", os.Getpid()))
	if err != nil || len(left)+len(groups) > 0 {
		t.Errorf("left %v %v, %v", left, groups, err)
	}
}

// Where there is no sandbox the probes see it: here, in the test's own process.
func TestProbesSeeMissingWalls(t *testing.T) {
	needRoot(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	abstract, err := net.Listen("unix", fmt.Sprintf("@tele-doctor-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Setenv(mark, "1")
	f := facts{tcp.Addr().String(), abstract.Addr().String(), os.Getpid() + 1, []string{dir}}
	for _, wall := range walls {
		switch wall.name {
		case "writes to the host", "own places", "init", "devices", "core dumps", "system calls":
			continue // these would change the machine, or depend on it
		}
		v, seen := wall.probe(f)
		t.Logf("%s: %s", wall.name, seen)
		if v != Fail {
			t.Errorf("%s: %s, %s", wall.name, v, seen)
		}
		if wall.name == "network" && (!strings.Contains(seen, "tcp socket") || !strings.Contains(seen, "unix socket")) {
			t.Errorf("%s", seen)
		}
	}
}

func TestProbeRefusesToRunByHand(t *testing.T) {
	if code := Probe([]string{"eat"}); code != 125 {
		t.Errorf("exit code %d", code)
	}
}

func TestJudges(t *testing.T) {
	n := proto.Uint64
	job := func(reason telev1.Reason, u *telev1.Usage) *telev1.Job {
		return &telev1.Job{Reason: reason, Usage: u, Message: "exited with code 0", StdoutBytes: 1 << 16}
	}
	spun := func(cpu, throttled uint64) *telev1.Job { // within a second
		return &telev1.Job{CreatedAt: timestamppb.New(time.Unix(1, 0)), EndedAt: timestamppb.New(time.Unix(2, 0)),
			Usage: &telev1.Usage{CpuUsec: n(cpu), ThrottledCount: n(throttled)}}
	}
	pair := func(v Verdict, seen string) [2]string { return [2]string{string(v), seen} }
	for i, test := range []struct {
		got  [2]string
		want Verdict
	}{
		{pair(judgeCPU(spun(200_000, 7))), Pass},
		{pair(judgeCPU(spun(900_000, 7))), Fail},
		{pair(judgeCPU(spun(100_000, 0))), CannotTell},
		{pair(judgeCPU(nil)), CannotTell},
		{pair(judgeMemory(job(telev1.Reason_REASON_OOM_KILLED, &telev1.Usage{OomKills: n(1)}))), Pass},
		{pair(judgeMemory(job(telev1.Reason_REASON_EXITED, &telev1.Usage{}))), Fail},
		{pair(judgePids(nil, "20\n")), Pass},
		{pair(judgePids(nil, "128\n")), Fail},
		{pair(judgePids(nil, "")), CannotTell},
		{pair(judgeWrites(nil, "1500\n")), Pass},
		{pair(judgeWrites(nil, "20\n")), Fail},
		{pair(judgeWrites(nil, "open probe: invalid argument\n")), CannotTell},
		{pair(judgeFill(job(telev1.Reason_REASON_OOM_KILLED, nil), "")), Pass},
		{pair(judgeFill(job(telev1.Reason_REASON_EXITED, nil), "64\n")), Pass},
		{pair(judgeFill(job(telev1.Reason_REASON_EXITED, nil), "128\n")), Fail},
		{pair(judgeFill(job(telev1.Reason_REASON_EXITED, nil), "no room\n")), CannotTell},
		{pair(judgeOutput(job(telev1.Reason_REASON_OUTPUT_LIMIT, nil))), Pass},
		{pair(judgeOutput(job(telev1.Reason_REASON_EXITED, nil))), Fail},
		{pair(judgeTimeout(job(telev1.Reason_REASON_TIMED_OUT, &telev1.Usage{}))), Pass},
		{pair(judgeTimeout(job(telev1.Reason_REASON_EXITED, &telev1.Usage{}))), Fail},
	} {
		if test.got[0] != string(test.want) || test.got[1] == "" {
			t.Errorf("%d: got %q, want %s", i, test.got, test.want)
		}
	}
}

// Machines that are not as they should be, as files below another root.
func TestLook(t *testing.T) {
	for _, test := range []struct {
		name   string
		isRoot bool
		files  string // "path text", a line each
		look   func(look) (Verdict, string, string)
		want   Verdict
		seen   string
	}{
		{"kernel", true, "proc/sys/kernel/osrelease 6.1.0-48-cloud", look.kernel, Pass, "Linux 6.1.0"},
		{"old kernel", true, "proc/sys/kernel/osrelease 5.10.0", look.kernel, Fail, "too old"},
		{"middling kernel", true, "proc/sys/kernel/osrelease 5.12.1", look.kernel, Pass, "5.14"},
		{"no kernel", true, "", look.kernel, CannotTell, "no version"},
		{"namespaces", true, "", look.namespaces, Fail, "mnt, pid, net"},
		{"userns", false, "proc/sys/user/max_user_namespaces 100", look.userNamespaces, Pass, ""},
		{"no userns", false, "proc/sys/user/max_user_namespaces 0", look.userNamespaces, Fail, "max_user_namespaces is 0"},
		{"no userns for root", true, "proc/sys/user/max_user_namespaces 0", look.userNamespaces, Pass, "needs none"},
		{"userns switched off", false, "proc/sys/kernel/unprivileged_userns_clone 0", look.userNamespaces, Fail, "unprivileged_userns_clone"},
		{"userns without rights", false, "proc/sys/kernel/apparmor_restrict_unprivileged_userns 1", look.userNamespaces, Fail, "AppArmor"},
		{"seccomp", true, "proc/sys/kernel/seccomp/actions_avail errno allow", look.seccomp, Pass, "errno"},
		{"old seccomp", true, "proc/self/status Seccomp: 0", look.seccomp, Pass, "does not list"},
		{"no seccomp", true, "", look.seccomp, Fail, "no seccomp"},
		{"lsm", true, "sys/kernel/security/lsm lockdown,apparmor", look.securityModules, Pass, "apparmor"},
		{"no lsm", true, "", look.securityModules, CannotTell, "not mounted"},
		{"overlay", true, "proc/filesystems nodev overlay", look.overlayfs, Pass, ""},
		{"no overlay", true, "proc/filesystems nodev tmpfs", look.overlayfs, CannotTell, ""},
		{"memfd", true, "proc/sys/vm/memfd_noexec 1", look.memfd, Pass, ""},
		{"no memfd", true, "proc/sys/vm/memfd_noexec 2", look.memfd, Fail, "no init"},
		{"early entry", true, "", func(l look) (Verdict, string, string) { return l.startOfInits(true) }, Pass, "early entry"},
		{"package hook", true, "", func(l look) (Verdict, string, string) { return l.startOfInits(false) }, CannotTell, "package hook"},
		{"yama", false, "proc/sys/kernel/yama/ptrace_scope 1", look.takeDescriptors, Fail, "ptrace_scope is 1"},
		{"yama for root", true, "proc/sys/kernel/yama/ptrace_scope 1", look.takeDescriptors, Pass, ""},
		{"yama for nobody", true, "proc/sys/kernel/yama/ptrace_scope 3", look.takeDescriptors, Fail, "ptrace_scope is 3"},
		{"quota", true, "proc/self/mounts /dev/sda / ext4 rw,prjquota 0 0", func(l look) (Verdict, string, string) { return l.projectQuota("/") }, Pass, "prjquota"},
		{"no quota", true, "proc/self/mounts /dev/sda / ext4 rw 0 0", func(l look) (Verdict, string, string) { return l.projectQuota("/") }, CannotTell, "without"},
		{"no quota ever", true, "proc/self/mounts x / btrfs rw 0 0", func(l look) (Verdict, string, string) { return l.projectQuota("/") }, CannotTell, "btrfs"},
		{"v2", true, "", func(l look) (Verdict, string, string) { return l.cgroups("v2", nil) }, Pass, "v2"},
		{"no io", true, "", func(l look) (Verdict, string, string) { return l.cgroups("v2", []string{"io is not limited"}) }, Fail, "io"},
		{"no cgroups", true, "", func(l look) (Verdict, string, string) { return l.cgroups("none", nil) }, Fail, "none"},
		{"no cgroups for users", false, "", func(l look) (Verdict, string, string) { return l.cgroups("none", []string{"first", "last"}) }, CannotTell, "first"},
		{"no certificates", true, "", func(l look) (Verdict, string, string) { return l.certificates("/no/such", time.Now()) }, CannotTell, "none in sight"},
	} {
		root := t.TempDir()
		if path, text, found := strings.Cut(test.files, " "); found {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		v, seen, fix := test.look(look{root + "/", test.isRoot})
		if v != test.want || !strings.Contains(seen, test.seen) || (fix == "") != (v == Pass) {
			t.Errorf("%s: got %s, %q, fix %q; want %s, %q", test.name, v, seen, fix, test.want, test.seen)
		}
	}
}

func TestReport(t *testing.T) {
	report := Report{{"machine", "kernel", Pass, "Linux", ""}, {"walls", "network", Fail, "reached <it>", "mend it"}}
	var text, data bytes.Buffer
	if err := report.printText(&text); err != nil {
		t.Fatal(err)
	}
	want := `machine
  pass         kernel   Linux
walls
  fail         network  reached <it>
                        fix: mend it
1 pass, 1 fail, 0 cannot tell
`
	if text.String() != want {
		t.Errorf("got\n%s", &text)
	}
	if err := report.printJSON(&data); err != nil {
		t.Fatal(err)
	}
	var object struct {
		Fail   int
		Checks []map[string]string
	}
	if err := json.Unmarshal(data.Bytes(), &object); err != nil || object.Fail != 1 || object.Checks[1]["verdict"] != "fail" ||
		len(object.Checks[1]) != 5 || !strings.Contains(data.String(), "<it>") {
		t.Errorf("got %v %v", object, err)
	}
}

func TestCertificates(t *testing.T) {
	state := t.TempDir()
	if err := access.EnsurePKI(state, nil); err != nil {
		t.Fatal(err)
	}
	l := look{"/", true}
	if v, seen, _ := l.certificates(state, time.Now()); v != Pass || !strings.HasPrefix(seen, "3, the first to expire is ") {
		t.Errorf("got %s, %s", v, seen)
	}
	if v, seen, _ := l.certificates(state, time.Now().AddDate(100, 0, 0)); v != Fail || !strings.Contains(seen, "expired on") {
		t.Errorf("got %s, %s", v, seen)
	}
	if err := os.WriteFile(filepath.Join(access.CertDir(state), "admin.crt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, seen, _ := l.certificates(state, time.Now()); v != Fail || !strings.Contains(seen, "holds no certificate") {
		t.Errorf("got %s, %s", v, seen)
	}
}
