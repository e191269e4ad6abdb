package initproc

import (
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var anyHost = host{mnt: 1, openFiles: 1 << 20, mounts: []string{"/dev", "/proc", "/run/lock", "/var"}}

// TestGoldenPlans compares whole plans with those in testdata.
func TestGoldenPlans(t *testing.T) {
	base := Spec{
		Hostname: "abc", UID: 1879048192, GID: 1879048192, Work: "/state/jobs/abc/work", Anchor: "/state/root",
		Hide: []string{"/root", "/run", "/state"}, Command: []string{"ls", "-l"}, Cwd: Home,
		Env: []string{"HOME=" + Home, "PATH=/usr/bin:/bin"}, TmpSize: 500 << 20,
		Seccomp: make([]byte, 80*sockFilterSize),
	}
	v1 := base
	v1.Join, v1.Project = 2, true
	base.Work, base.WorkSize = "", 500<<20
	log := base
	log.SeccompListener = true
	input := base
	input.Stdin = true
	terminal := input
	terminal.Terminal = &Size{24, 80}
	user := base
	user.Seccomp = nil
	user.UserNamespace, user.HostNetwork, user.Command = true, true, []string{"/bin/true"}
	overlay := base
	overlay.Overlay, overlay.OverlaySize = true, 100<<20
	shared := base
	shared.Template = true
	shared.Usual = Sizes{Work: 500 << 20, Tmp: 1 << 30}
	dir := base
	dir.Root, dir.Hide = "/srv/image", nil
	dir.Mounts = []Mount{{"/data", "/data", false, false}, {"/scratch", Home + "/a/scratch", true, false}, {"/etc/hosts", "/tmp/hosts", false, true}}
	secrets := shared
	secrets.Stdin, secrets.Secrets = true, []Secret{{"token", 40}, {"empty", 0}}
	agent := secrets
	agent.Agent, agent.SeccompListener, agent.Command = true, true, []string{"agent", "argument"}
	made := map[string]*Plan{"shared": templatePlan(shared, anyHost)}
	for name, spec := range map[string]Spec{"v2": base, "v1": v1, "user": user, "overlay": overlay, "dir": dir, "log": log, "input": input, "terminal": terminal, "template": shared, "secrets": secrets, "agent": agent} {
		plan, err := newPlan(spec, anyHost)
		if err != nil {
			t.Fatal(err)
		}
		made[name] = plan
	}
	for name, plan := range made {
		file := "testdata/" + name + ".plan"
		if *update {
			if err := os.WriteFile(file, []byte(plan.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), plan.String()); diff != "" {
			t.Errorf("%s (go test -update writes it anew):\n%s", name, diff)
		}
	}
}

func TestParseMounts(t *testing.T) {
	const text = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 21 0:5 / /var/a rw - x y z\n23 21 0:5 / /va\\040r rw - x y z\n" +
		"24 21 0:6 / /var rw shared:1 - x y z\n25 24 0:7 / /var/a/b rw - x y z\nbroken\n"
	if got := parseMounts([]byte(text)); !slices.Equal(got, []string{"/va r", "/var"}) {
		t.Errorf("got %q", got)
	}
}

func TestBadSpecs(t *testing.T) {
	for _, s := range []Spec{{}, {Command: []string{""}}, {Command: []string{"a\x00b"}},
		{Command: []string{"a"}, Env: []string{"K=\x00"}},
		{Command: []string{"a"}, Secrets: []Secret{{"../a", 1}}}, {Command: []string{"a"}, Secrets: []Secret{{"..", 1}}},
		{Command: []string{"a"}, Seccomp: make([]byte, 7)}, {Command: []string{"a"}, Seccomp: make([]byte, 8<<12+8)},
		{Command: []string{"a", string(make([]byte, maxPlan))}}} {
		if _, err := newPlan(s, anyHost); err == nil {
			t.Errorf("%.40v: no error", s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	plan, err := newPlan(Spec{Command: []string{"ls"}, Env: []string{"PATH=/bin"}, Cwd: "/"}, anyHost)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plan.parts[0])
	f.Add(plan.parts[1])
	f.Fuzz(func(t *testing.T, blob []byte) {
		_ = (&Plan{parts: [][]byte{blob}}).String() // must not panic
	})
}
