package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/telerun/tele/limits"
)

func open1(t *testing.T) *Manager {
	t.Helper()
	if os.Geteuid() != 0 {
		if strings.Contains(os.Getenv("TELE_REQUIRE"), "root") {
			t.Fatal("TELE_REQUIRE names root, and this is not root")
		}
		t.Skip("needs root")
	}
	m, err := Open(Options{Name: fmt.Sprintf("tele-test-%d-%s", os.Getpid(), strings.ToLower(t.Name()))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// TestSet changes limits up, down and away; each is read back.
func TestSet(t *testing.T) {
	m := open1(t)
	devices, why := FindDevices("/")
	request := func(memory, swap, pids int64) Request {
		l := limits.Default()
		l.Memory, l.Swap, l.Pids = memory, swap, pids
		return Request{Limits: l, Devices: devices, NoDevice: why}
	}
	g, err := m.Create("set", request(100<<20, 0, 10))
	if err != nil {
		t.Fatal(err)
	}
	g.CloseStartFiles()
	defer func() {
		if err := g.Delete(); err != nil {
			t.Error(err)
		}
	}()
	for _, r := range []Request{request(200<<20, 0, 20), request(50<<20, 0, 20), request(limits.Max, limits.Max, limits.Max),
		request(300<<20, 100<<20, 5), request(300<<20, 0, 5), request(100<<20, 0, 10)} {
		if err := g.Set(r); err != nil {
			t.Fatal(err)
		}
		fresh, err := m.Create("fresh", r)
		if err != nil {
			t.Fatal(err)
		}
		fresh.CloseStartFiles()
		for i, got := range g.Status() {
			want := fresh.Status()[i]
			want.How = strings.ReplaceAll(want.How, "/fresh/", "/set/")
			if got != want {
				t.Errorf("%+v\ngot  %+v\nwant %+v", r.Limits, got, want)
			}
		}
		if err := fresh.Delete(); err != nil {
			t.Error(err)
		}
	}
}

func TestLifeOfAGroup(t *testing.T) {
	m := open1(t)
	t.Logf("layout %s, %q", m.Layout(), m.Explain())
	devices, why := FindDevices("/")
	g, err := m.Create("job", Request{Limits: limits.Default(), Devices: devices, NoDevice: why})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range g.Status() {
		t.Logf("%+v", s)
		io := s.Name == limits.IORead || s.Name == limits.IOWrite
		if s.Applied != s.Asked && !(io && len(devices) == 0) && s.Name != limits.Swap {
			t.Errorf("%s: asked %s, applied %s, %s", s.Name, s.Asked, s.Applied, s.WhyNot)
		}
	}
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: g.CloneFD() >= 0, CgroupFD: g.CloneFD()}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.CloseStartFiles()
	if ids := m.List(); len(ids) != 1 || ids[0] != "job" {
		t.Errorf("list %v", ids)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if err := g.WaitEmpty(t.Context()); err != nil {
		t.Fatal(err)
	}
	if u := g.Usage(); u.MemoryPeak == nil || u.OOMKills == nil {
		t.Errorf("usage %+v", u)
	}
	if err := g.Delete(); err != nil {
		t.Fatal(err)
	}
	if ids := m.List(); len(ids) != 0 {
		t.Errorf("list after delete %v", ids)
	}
}

func TestParse(t *testing.T) {
	mounts := parseMountinfo("36 35 98:0 / /a\\040b rw,x master:1 - cgroup2 c rw,nsdelegate\nbad\n" +
		"37 35 98:0 / /c rw - cgroup c rw,cpu,cpuacct\n")
	list := hierarchies(mounts)
	if len(list) != 2 || list[0].point != "/a b" || list[1].controllers[1] != "cpu" {
		t.Errorf("got %+v", list)
	}
	if own, found := ownV2("3:cpu:/x\n0::/y z\n"); !found || own != "/y z" {
		t.Errorf("got %q", own)
	}
	if n, text := ioValue("8:0 rbps=5 wbps=max", Device{8, 0, ""}, "rbps"); n != 5 || text != "8:0 rbps=5" {
		t.Errorf("got %d %q", n, text)
	}
	if r, w := ioBytes("8:0 rbytes=1 wbytes=2\n9:0 Read 3\n9:0 Write 4\n253:0 rbytes=9 wbytes=9\nTotal 7\n",
		func(number string) bool { return number == "253:0" }); *r != 4 || *w != 6 {
		t.Errorf("got %d %d", *r, *w)
	}
	if n := stallTotal("some avg10=0.00 avg60=1.00 avg300=0.10 total=72674\nfull avg10=0.00 total=5\n"); n == nil || *n != 72674 {
		t.Errorf("got %v", n)
	}
	if n := stallTotal("full avg10=0.00 total=5\nsome total=x\nsome\n"); n != nil {
		t.Errorf("got %v", *n)
	}
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add("36 35 98:0 / /a\\040b rw,x master:1 - cgroup2 c rw,nsdelegate\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, h := range hierarchies(parseMountinfo(text)) {
			h.dir("/x/../y")
		}
		ownV2(text)
		ioValue(text, Device{8, 0, ""}, "rbps")
		ioBytes(text, func(string) bool { return false })
		pids(text)
	})
}

// Where there are no cgroups, no limit is as good as enforced, and any other is not.
func TestNoLimitNeedsNoController(t *testing.T) {
	g := &Group{m: &Manager{by: map[string]*tree{}}}
	l := limits.Default()
	l.Set(limits.IORead, limits.Max)
	if s := g.apply(limits.IORead, Request{Limits: l}); s.Applied != "max" || s.WhyNot != "" {
		t.Errorf("%+v", s)
	}
	if s := g.apply(limits.IOWrite, Request{Limits: l}); s.Applied != "" || s.WhyNot == "" {
		t.Errorf("%+v", s)
	}
}
