package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// idle is the command of idle jobs; whatever else runs is what they cost.
var idle = []string{"/bin/" + idleName, "1000"}

const idleName = "sleep"

// memory is what an idle job takes beyond its own process.
func (b *bench) memory() error {
	jobs := b.many(200, 20)
	for _, tele := range []struct {
		name  string
		flags []string
	}{{nameCold, b.cold.flags}, {nameWarm, nil}} {
		if tele.name == nameWarm && b.warm == nil {
			continue
		}
		init, server, err := b.teleMemory(jobs, tele.flags)
		if err != nil {
			return err
		}
		b.results.Memory = append(b.results.Memory, Amount{tele.name, init + server, "KiB a job"},
			Amount{tele.name + ": of it the server", server, "KiB a job"})
		b.results.goal("memory a job beyond the job, KiB PSS ("+tele.name[6:]+")", "≤ 64", "≤ 24", Ratio{Value: init + server})
	}
	for _, p := range b.peers {
		kib, err := b.peerMemory(p, jobs)
		if err != nil {
			b.results.Missing = append(b.results.Missing, fmt.Sprintf("memory of %s: %v", p.name, err))
			continue
		}
		b.results.Memory = append(b.results.Memory, Amount{p.name, kib, "KiB a job"})
	}
	return nil
}

// teleMemory starts idle jobs on a server that has already run some, as one at work has, and returns
// by how much the server and the inits have grown, each for a job.
func (b *bench) teleMemory(jobs int, flags []string) (init, server float64, err error) {
	s, err := b.serve("idle"+strings.Join(flags, ""), flags...)
	if err != nil {
		return 0, 0, err
	}
	defer s.stop()
	if _, err := s.run(b.many(400, 40), 4); err != nil {
		return 0, 0, err
	}
	pid := s.cmd.Process.Pid
	initBefore, serverBefore := overhead(pid), pss(pid)
	for range jobs {
		if _, err := s.client.Start(context.Background(), &telev1.JobSpec{Command: idle}); err != nil {
			return 0, 0, err
		}
	}
	return (overhead(pid) - initBefore) / float64(jobs), (pss(pid) - serverBefore) / float64(jobs), nil
}

// peerMemory starts as many, and returns what is there for each beside the job.
func (b *bench) peerMemory(p peer, jobs int) (float64, error) {
	line, err := p.command(b.dir, b.shm, idle...)
	if err != nil {
		return 0, err
	}
	if p.init != nil {
		jobs = min(jobs, int(slices.Max(callerCounts))) // as many boxes as there are
	}
	l, err := startLimit(b.limit, nil, p.limitArgs(line)...)
	if err != nil {
		return 0, err
	}
	pid := l.cmd.Process.Pid
	ended := make(chan error, 1)
	go func() {
		_, err := l.run(jobs, jobs) // never comes back by itself
		ended <- err
	}()
	defer func() {
		endIdle(pid)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			killUnder(pid)
			<-ended
		}
		l.close()
	}()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		if count(pid, idleName) == jobs {
			return overhead(pid) / float64(jobs), nil
		}
		select {
		case err := <-ended:
			ended <- err
			return 0, err
		case <-time.After(50 * time.Millisecond):
		}
	}
	return 0, fmt.Errorf("%d of %d jobs run", count(pid, idleName), jobs)
}

// A process is one of /proc.
type process struct {
	pid, parent int
	name        string
}

// descendants of a process, the nearest first.
func descendants(pid int) (all []process) {
	children := map[int][]process{}
	entries, _ := os.ReadDir("/proc") // without it there are none
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat := fileText(fmt.Sprintf("/proc/%d/stat", id))
		begin, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
		if end < 0 {
			continue // gone
		}
		fields := strings.Fields(stat[end+1:])
		if fields[0] == "Z" {
			continue
		}
		parent, _ := strconv.Atoi(fields[1]) // the kernel's own number
		children[parent] = append(children[parent], process{id, parent, stat[begin+1 : end]})
	}
	next := children[pid]
	for len(next) > 0 {
		all = append(all, next[0])
		next = append(next[1:], children[next[0].pid]...)
	}
	return all
}

func count(pid int, name string) (n int) {
	for _, p := range descendants(pid) {
		if p.name == name {
			n++
		}
	}
	return n
}

// overhead is what the descendants of a process take that are neither jobs nor of this harness.
func overhead(pid int) (kib float64) {
	for _, p := range descendants(pid) {
		if p.name != idleName && p.name != "limit" {
			kib += pss(p.pid)
		}
	}
	return kib
}

// pss is a process's memory, of what it shares its part; KiB.
func pss(pid int) float64 { return kib(pid, "smaps_rollup", "Pss:") }

// kib is a value of one of a process's files.
func kib(pid int, file, name string) float64 {
	for line := range strings.Lines(fileText(fmt.Sprintf("/proc/%d/%s", pid, file))) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			value, _ := strconv.ParseFloat(words[1], 64) // the kernel's own number
			return value
		}
	}
	return 0
}

// endIdle ends the idle jobs under a process; the tools that run them clean up then.
func endIdle(pid int) {
	for _, p := range descendants(pid) {
		if p.name == idleName {
			_ = syscall.Kill(p.pid, syscall.SIGKILL) // gone already is as good
		}
	}
}

// killUnder ends everything under a process, which may go on starting processes while it is looked at.
func killUnder(pid int) {
	for {
		all := descendants(pid)
		for _, p := range all {
			_ = syscall.Kill(p.pid, syscall.SIGKILL) // gone already is as good
		}
		if len(all) == 0 {
			return
		}
	}
}
