package systemd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// countJob counts until it is told to end, by a file in its work directory: a line a number.
const countJob = `i=0; while ! [ -e end ]; do echo $i; i=$((i+1)); sleep 0.02; done`

// A job is one that runs while the server goes.
type job struct {
	t  *testing.T
	id string
}

func startJob(t *testing.T, args ...string) job {
	t.Helper()
	return job{t, run(t, "tele", append([]string{"run", "-d"}, args...)...)}
}

// status is what `tele status` says of the job: its status, exit code, and reason.
func (j job) status() string {
	j.t.Helper()
	var list []struct {
		ID       string `json:"job_id"`
		Status   string `json:"status"`
		ExitCode *int   `json:"exit_code"`
		Reason   string `json:"reason"`
	}
	out := run(j.t, "tele", "status", "-o", "json", j.id)
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || list[0].ID != j.id {
		j.t.Fatalf("tele status: %v, %s", err, out)
	}
	if list[0].ExitCode == nil {
		return list[0].Status
	}
	return fmt.Sprintf("%s %d %s", list[0].Status, *list[0].ExitCode, list[0].Reason)
}

// group is the directory of the job's group, of which there is one in the machine.
func (j job) group() string {
	j.t.Helper()
	var found []string
	err := filepath.WalkDir(cgroups, func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == j.id {
			found = append(found, path)
		}
		return nil // groups come and go meanwhile
	})
	if err != nil || len(found) != 1 {
		j.t.Fatalf("groups of job %s: %v, %v", j.id, found, err)
	}
	return found[0]
}

// read reads a file of the job's group.
func (j job) read(name string) string {
	j.t.Helper()
	text, err := os.ReadFile(filepath.Join(j.group(), name))
	if err != nil {
		j.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// await waits, by following the output, until the job has counted to n.
func (j job) await(n int) {
	j.t.Helper()
	cmd := exec.Command("tele", "logs", j.id)
	out, err := cmd.StdoutPipe()
	if err != nil {
		j.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		j.t.Fatal(err)
	}
	defer cmd.Wait()         // killed
	defer cmd.Process.Kill() // it would go on until the job ends
	lines := bufio.NewScanner(out)
	last := "none"
	for lines.Scan() {
		if last = lines.Text(); last == strconv.Itoa(n) {
			return
		}
	}
	j.t.Fatalf("the output ended after the line %q, and not after %d", last, n)
}

// lines is how many lines the job has written up to now.
func (j job) lines() int {
	j.t.Helper()
	return strings.Count(run(j.t, "tele", "logs", "--no-follow", j.id)+"\n", "\n")
}

// end tells the job to end and checks all that it wrote: every number once, in order.
func (j job) end() {
	j.t.Helper()
	if err := os.WriteFile(filepath.Join("/var/lib/tele/jobs", j.id, "work/end"), nil, 0o644); err != nil {
		j.t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(run(j.t, "tele", "logs", j.id) + "\n") {
		if line != fmt.Sprintln(n) {
			j.t.Fatalf("line %d of the output is %q", n, line)
		}
		n++
	}
	if got := j.status(); got != "success 0 exited" {
		j.t.Errorf("the job ended with %s", got)
	}
	run(j.t, "tele", "wait", j.id) // exits with the job's exit code
}

// A job is where the unit's systemd can leave it over a restart, and has its limits there.
func TestJobGroup(t *testing.T) {
	start(t)
	j := startJob(t, "--memory", "100M", "--", "sh", "-c", countJob)
	parent := filepath.Dir(filepath.Dir(j.group()))
	want := cgroups
	if delegates(t) {
		want = cgroups + "/system.slice/tele.service"
	}
	if parent != want {
		t.Errorf("the job is in %s, want it two below %s", j.group(), want)
	}
	if got := j.read("memory.max"); got != "104857600" {
		t.Errorf("memory.max %s", got)
	}
	said := strings.Contains(run(t, "journalctl", "-b", "-o", "cat", "-u", "tele"), "not in "+cgroups+"/system.slice/tele.service")
	if said == delegates(t) {
		t.Errorf("the server said that jobs are not in the unit's group: %v", said)
	}
	j.end()
}

// The same job goes on, with the same limits, and its output loses and repeats nothing, whatever
// happens to the server.
func TestJobOutlivesServer(t *testing.T) {
	start(t)
	j := startJob(t, "--memory", "100M", "--", "sh", "-c", countJob)
	j.await(5)
	group, processes, controllers := j.group(), j.read("cgroup.procs"), j.read("cgroup.controllers")
	for _, event := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"restart", func(t *testing.T) { run(t, "systemctl", "restart", "tele") }},
		{"kill -9", killServer},
		{"stop and start", func(t *testing.T) {
			run(t, "systemctl", "stop", "tele")
			if !running(t, group) {
				t.Fatal("the job has ended with the server")
			}
			run(t, "systemctl", "start", "tele")
		}},
		{"a second restart", func(t *testing.T) { run(t, "systemctl", "restart", "tele") }},
	} {
		before := show(t, "MainPID")
		event.do(t)
		if after := show(t, "MainPID"); after == before || after == "0" || show(t, "ActiveState") != "active" {
			t.Fatalf("%s: main process %s before and %s after, unit %s", event.name, before, after, show(t, "ActiveState"))
		}
		if got := j.status(); got != "running" {
			t.Fatalf("%s: the job is %s", event.name, got)
		}
		if j.group() != group || !strings.HasPrefix(j.read("cgroup.procs"), firstLine(processes)) {
			t.Errorf("%s: the job is in %s with %q, was in %s with %q", event.name, j.group(), j.read("cgroup.procs"), group, processes)
		}
		if got, now := j.read("memory.max"), j.read("cgroup.controllers"); got != "104857600" || now != controllers {
			t.Errorf("%s: memory.max %s, controllers %q, were %q", event.name, got, now, controllers)
		}
		j.await(j.lines() + 5)
		if out := run(t, "tele", "run", "--", "echo", "new"); out != "new" {
			t.Errorf("%s: a new job: %q", event.name, out)
		}
	}
	j.end()
}

// killServer kills the server and returns when systemd has started the next one.
func killServer(t *testing.T) {
	t.Helper()
	journal := exec.Command("journalctl", "--follow", "--lines=0", "--output=cat", "--unit=tele")
	out, err := journal.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := journal.Start(); err != nil {
		t.Fatal(err)
	}
	defer journal.Wait()         // killed
	defer journal.Process.Kill() // it follows for ever
	run(t, "systemctl", "kill", "--kill-whom=main", "--signal=KILL", "tele")
	awaitText(t, out, "Started tele.service")
}

// awaitText reads until a line has the text.
func awaitText(t *testing.T, r io.Reader, text string) {
	t.Helper()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			return
		}
	}
	t.Fatalf("the journal ended without %q", text)
}

// running tells whether a group has a process.
func running(t *testing.T, group string) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(group, "cgroup.events"))
	return err == nil && strings.Contains(string(text), "populated 1")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// A job that the kernel ends at its limit is no reason for systemd to end the unit.
func TestOOMOfAJob(t *testing.T) {
	start(t)
	before := show(t, "MainPID")
	j := startJob(t, "--memory", "20M", "--", "sh", "-c", "head -c 60M /dev/zero | tail -c 50M")
	_ = exec.Command("tele", "wait", j.id).Run() // exits with the job's exit code
	if got := j.status(); got != "failed 137 oom_killed" {
		t.Errorf("the job is %s", got)
	}
	if after := show(t, "MainPID"); after != before || show(t, "ActiveState") != "active" {
		t.Errorf("the server was %s and is %s, unit %s", before, after, show(t, "ActiveState"))
	}
}

// A job that a server outside of systemd started goes on under the unit: its group is elsewhere.
func TestJobMovesToTheUnit(t *testing.T) {
	need(t)
	workOnDisk(t)
	server := exec.Command("tele", "serve")
	out, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	awaitText(t, out, `"listening"`)
	go io.Copy(io.Discard, out) // ends with the server
	j := startJob(t, "--", "sh", "-c", countJob)
	j.await(5)
	group := j.group()
	if err := server.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait() // what counts is the job
	start(t)
	if got := j.status(); got != "running" || j.group() != group {
		t.Fatalf("the job is %s, in %s and was in %s", got, j.group(), group)
	}
	j.await(j.lines() + 5)
	j.end()
}
