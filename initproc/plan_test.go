package initproc

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var anyHost = host{mnt: 1, openFiles: 1 << 20}

// TestGoldenPlans compares whole plans with those in testdata.
func TestGoldenPlans(t *testing.T) {
	base := Spec{
		Hostname: "abc", UID: 1879048192, GID: 1879048192, Work: "/state/jobs/abc/work", Anchor: "/state/root",
		Hide: []string{"/root", "/run", "/state"}, Command: []string{"ls", "-l"}, Cwd: Home,
		Env: []string{"HOME=" + Home, "PATH=/usr/bin:/bin"}, TmpSize: 500 << 20,
	}
	v1 := base
	v1.Join, v1.Project = 2, true
	base.Work, base.WorkSize = "", 500<<20
	user := base
	user.UserNamespace, user.HostNetwork, user.Command = true, true, []string{"/bin/true"}
	for name, spec := range map[string]Spec{"v2": base, "v1": v1, "user": user} {
		plan, err := newPlan(spec, anyHost)
		if err != nil {
			t.Fatal(err)
		}
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

func TestBadSpecs(t *testing.T) {
	for _, s := range []Spec{{}, {Command: []string{""}}, {Command: []string{"a\x00b"}},
		{Command: []string{"a"}, Env: []string{"K=\x00"}},
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
	f.Add(plan.blob)
	f.Fuzz(func(t *testing.T, blob []byte) {
		_ = (&Plan{blob: blob}).String() // must not panic
	})
}
