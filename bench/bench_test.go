package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/telerun/tele/client"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	beOther()
	goleak.VerifyTestMain(m)
}

// newTest is a quick run with the tele that $TELE names, or one that is built of this tree.
func newTest(t testing.TB) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		if strings.Contains(os.Getenv("TELE_REQUIRE"), "root") {
			t.Fatal("TELE_REQUIRE names root, and this is not root")
		}
		t.Skip("needs root")
	}
	tele := os.Getenv("TELE")
	if tele == "" {
		tele = filepath.Join(t.TempDir(), "tele")
		build := exec.Command("go", "build", "-buildvcs=false", "-tags", "grpcnotrace", "-ldflags", "-E _tele_entry", "-o", tele, ".")
		build.Dir = ".."
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	b, err := newBench(tele, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b
}

// A quick run measures something everywhere, and a page comes of it.
func TestQuickRun(t *testing.T) {
	b := newTest(t)
	for _, p := range parts {
		if p.name == "callers" {
			continue // the code of launch, and most of the time
		}
		if err := p.run(b); err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
	}
	r := b.results
	for _, table := range []Table{r.BackToBack, r.Spaced, r.Commands} {
		if len(table.Rows) < 4 {
			t.Errorf("%s: %d rows", table.Title, len(table.Rows))
		}
		for _, row := range table.Rows {
			if row.N == 0 || row.P50 <= 0 || row.P99 < row.P50 {
				t.Errorf("%s: %+v", table.Title, row)
			}
		}
	}
	if len(r.Memory) == 0 || len(r.Output) == 0 || len(r.Line) == 0 || len(r.Growth) == 0 || len(r.Scale) == 0 {
		t.Errorf("%+v", r)
	}
	docs := t.TempDir()
	if err := r.write(docs); err != nil {
		t.Fatal(err)
	}
	written := fileText(filepath.Join(docs, "PERFORMANCE.md"))
	for _, want := range []string{nameFull, nameCold, "perf/launch.svg"} {
		if !strings.Contains(written, want) {
			t.Errorf("the page does not have %q:\n%s", want, written)
		}
	}
	if left := descendants(os.Getpid()); count(os.Getpid(), idleName) != 0 {
		t.Errorf("idle jobs are left: %v", left)
	}
}

// The kernel's limit would be none if it left something out.
func TestLimitIsASandbox(t *testing.T) {
	b := newTest(t)
	anchor := filepath.Join(b.dir, "here")
	if err := os.Mkdir(anchor, 0o700); err != nil {
		t.Fatal(err)
	}
	const check = `
		[ $$ = 1 ] || exit 1
		[ "$(id -u)" = 1879048192 ] || exit 2
		[ -z "$(ls /root /sys /mnt | grep -v :)" ] || exit 3
		echo x >/dev/null || exit 4
		echo x >/tmp/x && echo x >/var/tmp/x && echo x >/dev/shm/x && echo x >/home/job/x || exit 5
		[ -c /dev/pts/ptmx ] || exit 6
		! (echo x >/usr/x) || exit 7
		[ "$(ls /dev | wc -l)" = 13 ] || exit 8
		[ ! -s /proc/keys ] || exit 9
		grep -q '^CapBnd:.0*$' /proc/self/status || exit 10
		grep -q '^NoNewPrivs:.1' /proc/self/status || exit 11
		[ "$(ls -d /proc/[0-9]* | wc -l)" -lt 6 ] || exit 12`
	for _, mode := range []string{"full", "template"} {
		args := append([]string{mode}, b.sandbox.limitOptions(anchor)...)
		l, err := startLimit(b.limit, nil, append(args, "/bin/sh", "-c", check)...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.run(2, 1); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if _, err := l.run(8, 4); err != nil {
			t.Errorf("%s, 4 callers: %v", mode, err)
		}
		l.close()
	}
}

func TestRatio(t *testing.T) {
	var one, two []float64
	for i := range 101 {
		one, two = append(one, float64(100+i)), append(two, float64(200+2*i))
	}
	r := ratio(two, one, 0.5)
	if r.Value != 2 || r.Low > 2 || r.High < 2 || r.Low < 1.5 || r.High > 2.5 {
		t.Errorf("%+v", r)
	}
	if r := ratio(nil, one, 0.5); r.Value != 0 {
		t.Errorf("of nothing: %+v", r)
	}
}

func TestGoals(t *testing.T) {
	r := &Results{}
	for _, c := range []struct {
		must, aim string
		value     float64
		want      string
	}{
		{"≤ 1.6", "≤ 1.25", 1.7, "MISS"},
		{"≤ 1.6", "≤ 1.25", 1.6, "ok, not the aim"},
		{"≤ 1.6", "≤ 1.25", 1.2, "ok"},
		{"≥ 0.6", "≥ 0.8", 0.5, "MISS"},
		{"≥ 0.6", "≥ 0.8", 0.9, "ok"},
		{"< 100", "", 100, "MISS"},
		{"< 100", "", 99, "ok"},
		{"≤ 1.6", "≤ 1.25", 0, "not measured"},
		{"", "", 3, ""},
	} {
		r.goal("x", c.must, c.aim, Ratio{Value: c.value})
		if got := r.Goals[len(r.Goals)-1].Verdict; got != c.want {
			t.Errorf("%v of %q and %q: %q, want %q", c.value, c.must, c.aim, got, c.want)
		}
	}
}

// The benchmarks are what `make bench-compare` compares; Kernel is the same for both, and shows by how
// much the machine has changed meanwhile.

func BenchmarkKernel(b *testing.B) { launchOne(b, newTest(b), nameFull) }

func BenchmarkLaunchCold(b *testing.B) { launchOne(b, newTest(b), nameCold) }

func BenchmarkLaunchWarm(b *testing.B) { launchOne(b, newTest(b), nameWarm) }

func launchOne(b *testing.B, t *bench, name string) {
	for _, c := range t.contenders {
		if c.name == name {
			var all samples
			for b.Loop() {
				got, err := c.run(1, 1)
				if err != nil {
					b.Fatal(err)
				}
				all.add(got)
			}
			row := all.row(name)
			b.ReportMetric(row.P50*1e6, "p50-ns/op")
			b.ReportMetric(row.P99*1e6, "p99-ns/op")
			return
		}
	}
	b.Skip("this tele has no --warm")
}

func BenchmarkLaunch8Callers(b *testing.B) {
	t := newTest(b)
	for b.Loop() {
		if _, err := t.cold.run(64, 8); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*64/b.Elapsed().Seconds(), "jobs/s")
}

func BenchmarkCommand(b *testing.B) {
	t := newTest(b)
	for _, addr := range []string{t.cold.socket(), t.cold.addr} {
		kind, _, _ := strings.Cut(addr, ":")
		b.Run(map[bool]string{true: "socket", false: "tls"}[kind == "unix"], func(b *testing.B) {
			l, err := startLimit(t.limit, []string{"HOME=/root", "TELE_STATE_DIR=" + t.cold.dir},
				"exec", t.tele, "run", "--addr", addr, "--", "true")
			if err != nil {
				b.Fatal(err)
			}
			defer l.close()
			for b.Loop() {
				if _, err := l.run(1, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOutput(b *testing.B) {
	t := newTest(b)
	const size = 64 << 20
	for _, followers := range []int{1, 16} {
		b.Run(fmt.Sprintf("followers=%d", followers), func(b *testing.B) {
			clients := make([]*client.Client, followers)
			for i := range clients {
				c, err := t.cold.dial(t.cold.addr)
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				clients[i] = c
			}
			b.SetBytes(int64(followers) * size)
			for b.Loop() {
				if err := live(size, clients...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
