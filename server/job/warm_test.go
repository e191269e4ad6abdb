package job

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// openWarm is open with sandboxes that are kept ready.
func openWarm(t *testing.T, n int) *Table {
	return with(t, open(t), func(o *Options) { o.Warm = n })
}

// awaitWarm returns the sandboxes that are ready when there are n.
func awaitWarm(t *testing.T, table *Table, n int) []string {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; runtime.Gosched() {
		ids := table.Warm()
		if len(ids) == n {
			return ids
		}
		if time.Now().After(end) {
			t.Fatalf("%d sandboxes are ready, want %d", len(ids), n)
		}
	}
}

// A job gets the sandbox that was ready, with what it asks for, and nobody else gets it.
func TestWarm(t *testing.T) {
	table := openWarm(t, 2)
	const script = "hostname; echo $TELE_JOB_ID; id -u; df -k --output=size /tmp /dev/shm $HOME | tail -n +2 | tr -d ' '; ls -A $HOME /tmp; touch $HOME/f /tmp/f"
	uids := map[string]bool{}
	seen := map[string]bool{}
	for i, memory := range []string{"", "64M", "max", "64M", ""} {
		ready := awaitWarm(t, table, 2)
		spec := sh(script)
		spec.Limits = &telev1.Limits{Memory: memory}
		job, out := run(t, table, spec)
		lines := strings.Split(out, "\n")
		if job.Id != ready[0] || seen[job.Id] || lines[0] != job.Id || lines[1] != job.Id || uids[lines[2]] && i < 3 {
			t.Errorf("ready %v, job %s, output %q", ready, job.Id, out)
		}
		seen[job.Id], uids[lines[2]] = true, true
		kib := lines[3]
		switch {
		case memory == "64M" && kib != "65536", lines[4] != kib || lines[5] != kib:
			t.Errorf("memory %q: sizes %v", memory, lines[3:6])
		case lines[6] != "/home/job:" || lines[7] != "" || lines[8] != "/tmp:" || lines[9] != "":
			t.Errorf("it was not empty: %q", out)
		}
		for _, l := range job.Limits {
			if l.Name == "memory" && memory != "" && l.WhyNot == "" && l.Applied != memory {
				t.Errorf("memory %s: %v", memory, l)
			}
		}
	}
}

// What a warm sandbox has not, a job gets all the same.
func TestWarmIsNotForAll(t *testing.T) {
	table := openWarm(t, 1)
	ready := awaitWarm(t, table, 1)
	for name, change := range map[string]func(*telev1.JobSpec){
		"overlay": func(s *telev1.JobSpec) { s.Root = RootOverlay },
		"network": func(s *telev1.JobSpec) { s.Network = telev1.Network_NETWORK_HOST },
		"user":    func(s *telev1.JobSpec) { s.User = "nobody" },
		"mount":   func(s *telev1.JobSpec) { s.Mounts = []*telev1.Mount{{Source: "/usr", Target: "/opt"}} },
	} {
		spec := sh("echo out")
		change(spec)
		job, out := run(t, table, spec)
		if job.Id == ready[0] || out != "out\n" {
			t.Errorf("%s: job %s, output %q", name, job.Id, out)
		}
	}
	if now := awaitWarm(t, table, 1); now[0] != ready[0] {
		t.Errorf("%v was ready, now %v", ready, now)
	}
	// A refused request leaves it to the next.
	spec := sh("true")
	spec.Cwd = "/no/such"
	if _, err := table.Start(t.Context(), "me", "", spec); err == nil {
		t.Error("no error")
	}
	awaitWarm(t, table, 1)
}

// Two requests with one key are one job, and the sandbox of the second is for another.
func TestWarmIsGivenBack(t *testing.T) {
	table := openWarm(t, 1)
	awaitWarm(t, table, 1)
	first, err := table.Start(t.Context(), "me", "k", sh("sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	ready := awaitWarm(t, table, 1)
	if again, err := table.Start(t.Context(), "me", "k", sh("sleep 1000")); again != first || err != nil {
		t.Errorf("got %v, %v", again, err)
	}
	if now := table.Warm(); !slices.Equal(now, ready) {
		t.Errorf("%v was ready, now %v", ready, now)
	}
}

// While jobs start and end all the time, half of the pool is made ready beside them; the rest when they do
// not.
func TestWarmIsMadeBesideStarts(t *testing.T) {
	table := openWarm(t, 4)
	ready := awaitWarm(t, table, 4)
	table.warm.begin() // as if a job were about to start all the time
	for range 4 {
		run(t, table, sh("true"))
	}
	now := awaitWarm(t, table, 2)
	for _, id := range now {
		if slices.Contains(ready, id) {
			t.Errorf("%v was ready, now %v", ready, now)
		}
	}
	table.warm.end()
	if all := awaitWarm(t, table, 4); !slices.Equal(all[:2], now) {
		t.Errorf("%v was ready, now %v", now, all)
	}
}

// At the end nothing is left of those that no job had, and what a killed server left of them goes.
func TestWarmIsDrained(t *testing.T) {
	table := openWarm(t, 3)
	awaitWarm(t, table, 3)
	table.Leave()
	entries, err := os.ReadDir(table.jobsDir())
	if groups := table.options.Cgroups.List(); err != nil || len(entries) != 0 || len(groups) != 0 {
		t.Errorf("left: %v, %v, %v", entries, groups, err)
	}
}

// One whose init was killed is not for a job.
func TestWarmInitIsKilled(t *testing.T) {
	table := openWarm(t, 1)
	ready := awaitWarm(t, table, 1)
	table.warm.mu.Lock()
	init := table.warm.ready[0].init
	table.warm.mu.Unlock()
	if err := unix.Kill(init.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for !init.Ended() {
		runtime.Gosched()
	}
	if job, out := run(t, table, sh("echo out")); job.Id == ready[0] || out != "out\n" {
		t.Errorf("got %v, output %q", job, out)
	}
	if now := awaitWarm(t, table, 1); now[0] == ready[0] {
		t.Error("it is still there")
	}
}

// Jobs that ended while there was no server end while the next one opens, and then one is made ready.
func TestEndsWhileTheServerOpens(t *testing.T) {
	table := open(t)
	var jobs []*Job
	for range 8 {
		jobs = append(jobs, begin(t, table, sh("sleep 0.3; exit 3")))
	}
	table = with(t, table, func(o *Options) {
		o.Warm = 1
		for _, j := range jobs {
			children := fmt.Sprintf("/proc/%d/task/%[1]d/children", j.init.Pid)
			for text := []byte("some"); len(text) > 0; runtime.Gosched() {
				text, _ = os.ReadFile(children) // not there: it has ended already
			}
		}
	})
	for _, j := range jobs {
		if job := wait(t, find(t, table, j.id)); job.GetExitCode() != 3 {
			t.Errorf("got %v", job)
		}
	}
	awaitWarm(t, table, 1)
}
