package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// makeTrouble makes all kinds of trouble until the time is up, and returns the last server, which is
// up; nil when none comes up any more.
func (w *world) makeTrouble(ctx context.Context, all *sync.WaitGroup, s *server) *server {
	for name, f := range map[string]func(context.Context, chance){
		"disk": w.fillNowAndThen, "inits": w.killInits, "processes": w.stopProcesses, "network": w.cutNowAndThen,
		"pauses": w.pauseJobs,
	} {
		all.Go(func() { f(ctx, newChance(w.options.seed, name)) })
	}
	return w.troubleServer(ctx, newChance(w.options.seed, "server"), s)
}

// troubleServer ends one server after another: some while they are still coming up, most while they
// work.
func (w *world) troubleServer(ctx context.Context, c chance, s *server) *server {
	var err error
	for n := 0; ; n++ {
		after := time.Duration(c.ExpFloat64() * float64(c.ms(30, 700))) // often soon, sometimes late
		if n%8 == 7 {
			after = c.ms(1500, 3500) // and now and then everybody gets on
		}
		select {
		case <-time.After(after):
		case <-s.gone:
		case <-ctx.Done():
		}
		if ctx.Err() == nil && s.checkAlive(w) {
			switch n := c.IntN(100); {
			case n < 72:
				s.kill(w)
			case n < 84:
				s.terminate(w, 20*time.Second)
			default:
				w.freeze(s, c)
				continue
			}
			if c.in(40) {
				pause(ctx, c.ms(0, 800)) // nobody is there
			}
		} else if ctx.Err() != nil {
			if s.up(w) {
				return s
			}
		}
		if s, err = w.startServer(); err != nil {
			w.figures.violation("start the server: %v", err)
			return nil
		}
		if c.in(25) {
			pause(ctx, c.ms(0, 120)) // it does not come up, or just so
			continue
		}
		if !s.up(w) {
			if s, err = w.again(); err != nil {
				w.figures.violation("%v", err)
				return nil
			}
		}
	}
}

// freeze stops the server for a while.
func (w *world) freeze(s *server, c chance) {
	if s.cmd.Process.Signal(unix.SIGSTOP) != nil {
		return // it has ended, which is seen elsewhere
	}
	time.Sleep(c.ms(10, 700))
	_ = s.cmd.Process.Signal(unix.SIGCONT) // the same
	w.figures.add("server stopped and continued", 1)
}

func (w *world) fillNowAndThen(ctx context.Context, c chance) {
	for pause(ctx, c.ms(1500, 6000)) {
		w.figures.add("disk fills", 1)
		w.noteFull(true)
		if err := w.fillDisk(); err != nil {
			w.figures.violation("fill the disk: %v", err)
		}
		for range c.between(0, 4) { // what is given back meanwhile is taken as well
			if !pause(ctx, c.ms(50, 500)) {
				break
			}
			if err := w.fillDisk(); err != nil {
				w.figures.violation("fill the disk: %v", err)
			}
		}
		if err := w.freeDisk(); err != nil {
			w.figures.violation("free the disk: %v", err)
		}
		w.noteFull(false)
	}
}

func (w *world) cutNowAndThen(ctx context.Context, c chance) {
	for pause(ctx, c.ms(100, 3000)) {
		w.proxy.cutSome(c.between(5, 100))
	}
}

// killInits kills the init of a job; that job, and no other, may be lost.
func (w *world) killInits(ctx context.Context, c chance) {
	for pause(ctx, c.ms(200, 2500)) {
		w.onSome(c, isInit, func(id string, fd int) {
			w.mu.Lock()
			w.initsKilled[id] = true
			w.mu.Unlock()
			if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
				w.figures.add("inits killed", 1)
			}
		})
	}
}

// stopProcesses stops a process of a job, or its init, for a while.
func (w *world) stopProcesses(ctx context.Context, c chance) {
	for pause(ctx, c.ms(20, 400)) {
		w.onSome(c, func(int) bool { return true }, func(_ string, fd int) {
			if unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0) != nil {
				return // it has ended
			}
			w.figures.add("processes stopped and continued", 1)
			pause(ctx, c.ms(1, 600))
			_ = unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0) // the same
		})
	}
}

// onSome calls f for some process of some job that fits, with a pidfd of it.
func (w *world) onSome(c chance, fits func(pid int) bool, f func(id string, fd int)) {
	groups := w.groups()
	if len(groups) == 0 {
		return
	}
	group := groups[c.IntN(len(groups))]
	pids := slices.DeleteFunc(processesIn(group), func(pid int) bool { return !fits(pid) })
	if len(pids) == 0 {
		return
	}
	pid := pids[c.IntN(len(pids))]
	onProcess(group, pid, func(fd int) {
		if fits(pid) {
			f(filepath.Base(group), fd)
		}
	})
}

// onProcess calls f with a pidfd that is surely of a process of the group, unless that has ended.
func onProcess(group string, pid int, f func(fd int)) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	// If it is in the group now, the pidfd is of a process of the group, or of one that has ended.
	if slices.Contains(processesIn(group), pid) {
		f(fd)
	}
}

// groups are the cgroups of the jobs, in one hierarchy in which each has its own.
func (w *world) groups() []string {
	for _, base := range w.ownGroups() {
		entries, err := os.ReadDir(base)
		if err != nil {
			continue
		}
		var list []string
		for _, e := range entries {
			if e.IsDir() {
				list = append(list, filepath.Join(base, e.Name()))
			}
		}
		if len(list) > 0 {
			return list
		}
	}
	return nil
}

// ownGroups are the server's own cgroups, in all hierarchies.
func (w *world) ownGroups() []string {
	var list []string
	for _, line := range w.mounts {
		fields := strings.Fields(line)
		at := slices.Index(fields, "-")
		if at < 0 || !strings.HasPrefix(fields[at+1], "cgroup") {
			continue
		}
		// At the root, or in the group that was delegated to us.
		for _, pattern := range []string{"", "*", "*/*"} {
			found, _ := filepath.Glob(filepath.Join(fields[4], pattern, w.group)) // the pattern is right
			list = append(list, found...)
		}
	}
	return list
}

func processesIn(group string) []int {
	text, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	if err != nil {
		return nil // it is gone
	}
	var pids []int
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isInit tells whether a process is number 1 of a PID namespace.
func isInit(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, "NSpid:"); found {
			fields := strings.Fields(rest)
			return len(fields) > 1 && fields[len(fields)-1] == "1"
		}
	}
	return false
}
