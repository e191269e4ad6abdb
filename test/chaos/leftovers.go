package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
)

// calm is a server without trouble: it must have lost no record, leave no descriptor open after many
// jobs, and at its end, asked to, stop all jobs.
func (w *world) calm() {
	s, err := w.again("--stop-jobs-on-exit")
	if err != nil {
		w.figures.violation("%v", err)
		return
	}
	if err := w.connect(); err != nil {
		w.figures.violation("%v", err)
		return
	}
	w.judgeKept()
	w.someJobs(1_000_000, 12)
	before := settled(s.cmd.Process.Pid, -1)
	w.someJobs(1_000_012, 48)
	if after := settled(s.cmd.Process.Pid, len(before)); len(after) > len(before) {
		w.figures.violation("the server had %d descriptors open, and %d after 48 jobs more:\n%v\n%v", len(before), len(after), before, after)
	}
	var sleepers []string
	for range 6 {
		job, err := w.witness.Start(context.Background(), &telev1.JobSpec{Command: []string{"sh", "-c", forever},
			Env: map[string]string{tokenName: w.name + "-calm."}})
		if err != nil {
			w.figures.violation("start a job in the calm: %v", err)
			return
		}
		sleepers = append(sleepers, job.Id)
	}
	w.disconnect()
	s.terminate(w, 30*time.Second)
	w.lookForProcesses("after --stop-jobs-on-exit")
	if s, err = w.again(); err != nil {
		w.figures.violation("%v", err)
		return
	}
	if err := w.connect(); err != nil {
		w.figures.violation("%v", err)
		return
	}
	for _, id := range sleepers {
		job, err := w.witness.Get(context.Background(), id)
		if err != nil || job.Reason != telev1.Reason_REASON_STOPPED {
			w.figures.violation("job %s was to be stopped at the server's end: %s, %v", id, brief(job), err)
		} else if _, err := w.witness.Remove(context.Background(), id); err != nil {
			w.figures.violation("remove %s: %v", id, err)
		}
	}
	w.judgeKept()
	w.disconnect()
	s.terminate(w, 20*time.Second)
}

// judgeKept checks that the jobs that were kept are all there, as they were.
func (w *world) judgeKept() {
	list, err := w.witness.List(context.Background(), client.ListOptions{})
	if err != nil {
		w.figures.violation("list: %v", err)
		return
	}
	there := map[string]*telev1.Job{}
	for _, job := range list {
		there[job.Id] = job
	}
	for _, l := range w.jobs {
		if l.judged != nil && !l.removed && !proto.Equal(there[l.judged.Id], l.judged) {
			l.wrong("after a restart its record is: %s; it was: %s", brief(there[l.judged.Id]), brief(l.judged))
		}
	}
}

// someJobs runs so many jobs of all kinds to their end, at most 12 at a time, and removes them.
func (w *world) someJobs(first, n int) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // no pauses and no kills
	places := make(chan struct{}, 12)
	var all sync.WaitGroup
	for i := range n {
		l := w.newLife(first + i)
		if l.kind.name == "timeout, deaf" {
			continue // takes its time
		}
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			l.submit(ctx)
			if l.id == "" {
				return
			}
			var clients sync.WaitGroup
			l.follow(ctx, &clients)
			if l.plan.stop != nil {
				l.stop(ctx)
			}
			ended, err := w.witness.Wait(context.Background(), l.id)
			if err != nil {
				l.wrong("wait: %v", err)
				return
			}
			for _, p := range l.runs {
				p.wait()
			}
			clients.Wait()
			l.judge(ended)
			l.remove()
		})
	}
	all.Wait()
}

// settled is what a process has open, when it is not more than most any more, or after some seconds.
func settled(pid, most int) []string {
	var list []string
	for n := range 25 { // nothing tells of another process's descriptors
		time.Sleep(200 * time.Millisecond)
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return nil
		}
		last := len(list)
		list = nil
		for _, e := range entries {
			target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
			if err == nil {
				list = append(list, target)
			}
		}
		if most < 0 && n > 4 && len(list) == last || most >= 0 && len(list) <= most {
			break
		}
	}
	slices.Sort(list)
	return list
}

// lookForLeftovers checks that nothing is left when the last server has ended.
func (w *world) lookForLeftovers() {
	w.lookForProcesses("at the end")
	w.lookForDirectories()
	for _, group := range w.ownGroups() {
		entries, _ := filepath.Glob(group + "/*/cgroup.procs") // the pattern is right
		w.figures.violation("a cgroup is left: %s, with %v", group, entries)
	}
	now, err := mounts()
	if err != nil {
		w.figures.violation("%v", err)
	}
	for _, line := range now {
		if fields := strings.Fields(line); fields[4] != w.disk && !slices.ContainsFunc(w.mounts, func(before string) bool {
			return strings.Fields(before)[4] == fields[4]
		}) {
			w.figures.violation("a mount is left: %s", line)
		}
	}
}

// mounts are the lines of this namespace's mountinfo.
func mounts() ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n"), nil
}

// lookForProcesses checks that no process of a job runs.
func (w *world) lookForProcesses(when string) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		w.figures.violation("%v", err)
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		read := func(name string) string {
			text, _ := os.ReadFile(filepath.Join("/proc", e.Name(), name)) // one that has ended is none
			return string(text)
		}
		mine := strings.Contains(read("environ")+read("cmdline"), w.name+"-") ||
			strings.Contains(read("cgroup"), "/"+w.group+"/")
		if mine && !strings.Contains(read("status"), "State:\tZ") {
			w.figures.violation("%s process %d is left: %q, %q", when, pid, read("cmdline"), read("cgroup"))
		}
	}
}

// lookForDirectories checks that the state directory has what the records name, and nothing else.
func (w *world) lookForDirectories() {
	kept := map[string]*life{}
	for _, l := range w.jobs {
		if l.judged != nil && !l.removed {
			kept[l.judged.Id] = l
		}
	}
	entries, err := os.ReadDir(filepath.Join(w.state, "jobs"))
	if err != nil {
		w.figures.violation("%v", err)
	}
	for _, e := range entries {
		l := kept[e.Name()]
		if l == nil {
			w.figures.violation("a directory is left: jobs/%s", e.Name())
			continue
		}
		delete(kept, e.Name())
		files, err := os.ReadDir(filepath.Join(w.state, "jobs", e.Name()))
		if err != nil {
			w.figures.violation("%v", err)
		}
		for _, f := range files {
			known := slices.Contains([]string{"record", "stdout", "stderr", "index"}, f.Name()) ||
				f.Name() == "work" && l.kind.name == "files" || f.Name() == "files.tar" && l.plan.leaves != nil
			if !known {
				l.wrong("%s is left in its directory", f.Name())
			}
		}
	}
	for id := range kept {
		w.figures.violation("job %s has no directory", id)
	}
	rest, err := os.ReadDir(w.state)
	if err != nil {
		w.figures.violation("%v", err)
	}
	for _, e := range rest {
		if !slices.Contains([]string{"certs", "events", "jobs", "lock", "root", "version"}, e.Name()) {
			w.figures.violation("%s is left in the state directory", e.Name())
		}
	}
}
