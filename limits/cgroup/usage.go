package cgroup

import (
	"math"
	"strconv"
	"strings"
)

// Usage is what a job used, as its groups counted it; nil where they do not.
type Usage struct {
	CPU, CPUUser, CPUSystem *uint64 // microseconds
	Throttled               *uint64 // microseconds in which the CPU limit held it back
	ThrottledCount          *uint64
	MemoryPeak              *uint64 // bytes
	OOMKills                *uint64 // processes that the kernel killed at the memory limit
	IORead, IOWrite         *uint64 // bytes
	PidsPeak                *uint64 // without the sandbox's init
	PidsLimitHits           *uint64 // forks that the pids limit refused
	// Microseconds in which at least one process waited for it, the kernel's accounting/psi.rst.
	StallCPU, StallMemory, StallIO *uint64
}

// Usage reads what the group has used so far. What cannot be read is not known.
func (g *Group) Usage() Usage {
	var u Usage
	// Every version 2 group has these, also one without controllers beside trees of version 1.
	if d, version := g.in(g.m.unified); version != 0 {
		text, _ := d.read(cpuStat)
		u.CPU, u.CPUUser, u.CPUSystem = find(text, "usage_usec", 1), find(text, "user_usec", 1), find(text, "system_usec", 1)
		u.Throttled, u.ThrottledCount = find(text, "throttled_usec", 1), find(text, "nr_throttled", 1) // with the controller
		u.StallCPU, u.StallMemory, u.StallIO = stall(d, "cpu.pressure"), stall(d, "memory.pressure"), stall(d, "io.pressure")
	}
	if d, version := g.of("cpu"); version == 1 {
		text, _ := d.read(cpuStat)
		u.Throttled, u.ThrottledCount = find(text, "throttled_time", 1000), find(text, "nr_throttled", 1)
	}
	if d, version := g.of("cpuacct"); version == 1 && u.CPU == nil {
		u.CPU = number(d, "cpuacct.usage", 1000)
		u.CPUUser = number(d, "cpuacct.usage_user", 1000)
		u.CPUSystem = number(d, "cpuacct.usage_sys", 1000)
	}
	if d, version := g.of("memory"); version != 0 {
		u.MemoryPeak = number(d, pick(version, "memory.max_usage_in_bytes", "memory.peak"), 1)
		text, _ := d.read(pick(version, "memory.oom_control", "memory.events"))
		u.OOMKills = find(text, "oom_kill", 1)
	}
	if d, version := g.of("io"); version != 0 {
		u.IORead, u.IOWrite = diskBytes(d, version)
	}
	if d, version := g.of("pids"); version != 0 {
		if peak := number(d, "pids.peak", 1); peak != nil && *peak > 0 {
			*peak--
			u.PidsPeak = peak
		}
		text, _ := d.read("pids.events")
		u.PidsLimitHits = find(text, "max", 1)
	}
	return u
}

// Current is what a job uses now, of what somebody looks at again and again; nil where it is not known.
type Current struct {
	CPU             *uint64 // microseconds since it began
	Memory          *uint64 // bytes
	MemoryLimit     *uint64 // nil also for none
	IORead, IOWrite *uint64 // bytes since it began
	Pids            *uint64 // without the sandbox's init
}

// Current reads what the group uses. It opens five files, where Usage opens a dozen.
func (g *Group) Current() Current {
	var c Current
	if d, version := g.in(g.m.unified); version != 0 {
		text, _ := d.read(cpuStat) // what cannot be read is not known
		c.CPU = find(text, "usage_usec", 1)
	}
	if d, version := g.of("cpuacct"); version == 1 && c.CPU == nil {
		c.CPU = number(d, "cpuacct.usage", 1000)
	}
	if d, version := g.of("memory"); version != 0 {
		c.Memory = number(d, pick(version, "memory.usage_in_bytes", "memory.current"), 1)
		c.MemoryLimit = number(d, pick(version, "memory.limit_in_bytes", "memory.max"), 1)
		if c.MemoryLimit != nil && *c.MemoryLimit > math.MaxInt64-1<<20 { // how version 1 writes none
			c.MemoryLimit = nil
		}
	}
	if d, version := g.of("io"); version != 0 {
		c.IORead, c.IOWrite = diskBytes(d, version)
	}
	if d, version := g.of("pids"); version != 0 {
		if c.Pids = number(d, "pids.current", 1); c.Pids != nil && *c.Pids > 0 {
			*c.Pids--
		}
	}
	return c
}

// cpuStat has the CPU time in version 2, and how often the limit held it back in both.
const cpuStat = "cpu.stat"

// stall reads the total of the "some" line: "some avg10=0.00 avg60=0.00 avg300=0.00 total=5".
func stall(d dir, file string) *uint64 {
	text, err := d.read(file) // EOPNOTSUPP where it is switched off (psi=0)
	if err != nil {
		return nil
	}
	return stallTotal(text)
}

func stallTotal(text string) *uint64 {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "some" {
			continue
		}
		total, found := strings.CutPrefix(words[len(words)-1], "total=")
		if n, err := strconv.ParseUint(total, 10, 64); found && err == nil {
			return &n
		}
	}
	return nil
}

func find(text, key string, divide uint64) *uint64 {
	n, found := field(text, key)
	if !found {
		return nil
	}
	n /= divide
	return &n
}

func number(d dir, file string, divide uint64) *uint64 {
	text, err := d.read(file)
	if err != nil {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil
	}
	n /= divide
	return &n
}

func diskBytes(d dir, version int) (read, write *uint64) {
	text, err := d.read(pick(version, "blkio.throttle.io_service_bytes", "io.stat"))
	if err != nil {
		return nil, nil
	}
	return ioBytes(text, stacked)
}

// ioBytes adds up all disks: "8:0 rbytes=1 wbytes=2 …" in version 2, "8:0 Read 1" in version 1. Those
// that pass everything on, for which skip is true, are left out.
func ioBytes(text string, skip func(number string) bool) (read, write *uint64) {
	var r, w uint64
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		var read, written uint64
		if len(words) == 3 && words[1] == "Read" {
			read, _ = strconv.ParseUint(words[2], 10, 64)
		}
		if len(words) == 3 && words[1] == "Write" {
			written, _ = strconv.ParseUint(words[2], 10, 64)
		}
		for _, word := range words {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "rbytes":
				read, _ = strconv.ParseUint(value, 10, 64)
			case "wbytes":
				written, _ = strconv.ParseUint(value, 10, 64)
			}
		}
		if read+written > 0 && !skip(words[0]) { // the answer is looked for in the file system
			r, w = r+read, w+written
		}
	}
	return &r, &w
}
