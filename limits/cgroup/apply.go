package cgroup

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/telerun/tele/limits"
)

// apply sets one limit and reads it back.
func (g *Group) apply(name limits.Name, r Request) limits.Status {
	value := r.Limits.Get(name)
	s := limits.Status{Name: name, Asked: limits.Format(name, value)}
	controller := map[limits.Name]string{limits.CPU: "cpu", limits.Memory: "memory", limits.Swap: "memory",
		limits.IORead: "io", limits.IOWrite: "io", limits.Pids: "pids"}[name]
	dir, version := g.dir(controller)
	if version == 0 && value == limits.Max {
		s.Applied, s.How = s.Asked, "no limit was asked for"
		return s
	}
	if version == 0 {
		s.WhyNot = "no cgroup controller " + controller + " here"
		return s
	}
	var applied int64
	var err error
	switch name {
	case limits.CPU:
		applied, s.How, err = setCPU(dir, version, value)
	case limits.Memory:
		applied, s.How, err = setNumber(dir, pick(version, "memory.limit_in_bytes", "memory.max"), version, value)
	case limits.Swap:
		applied, s.How, err = setSwap(dir, version, value, r.Limits.Memory)
	case limits.Pids:
		// The sandbox's init is one of those that the kernel counts.
		more := value
		if value != limits.Max {
			more++
		}
		applied, s.How, err = setNumber(dir, "pids.max", 2, more)
		if applied != limits.Max {
			applied--
		}
	case limits.IORead, limits.IOWrite:
		applied, s.How, err = setIO(dir, version, name, value, r)
	}
	if err != nil {
		s.How, s.WhyNot = "", err.Error()
		return s
	}
	s.Applied = limits.Format(name, applied)
	return s
}

func pick(version int, v1, v2 string) string {
	if version == 1 {
		return v1
	}
	return v2
}

// setNumber writes a file with one number, which says "max", or "-1" in version 1, for no limit.
func setNumber(dir, file string, version int, value int64) (int64, string, error) {
	text := strconv.FormatInt(value, 10)
	if value == limits.Max {
		text = pick(version, "-1", "max")
	}
	if err := writeFile(dir, file, text); err != nil {
		return 0, "", err
	}
	back, err := readFile(dir, file)
	if err != nil {
		return 0, "", err
	}
	applied := int64(limits.Max)
	if n, err := strconv.ParseInt(back, 10, 64); err == nil && n >= 0 && n < 1<<62 {
		applied = n
	}
	return applied, file + " " + back, nil
}

// setCPU gives thousandths of a CPU in each period of 100 ms; the kernel takes no quota under 1 ms,
// so a small share gets a longer period.
func setCPU(dir string, version int, value int64) (int64, string, error) {
	period := int64(100_000)
	quota := "max"
	if version == 1 {
		quota = "-1"
	}
	if value != limits.Max {
		if value < 10 {
			period = 1_000_000
		}
		quota = strconv.FormatInt(value*period/1000, 10)
	}
	if version == 1 {
		if err := writeFile(dir, "cpu.cfs_period_us", strconv.FormatInt(period, 10)); err != nil {
			return 0, "", err
		}
		if err := writeFile(dir, "cpu.cfs_quota_us", quota); err != nil {
			return 0, "", err
		}
		back, err := readFile(dir, "cpu.cfs_quota_us")
		return cpuValue(back, period), "cpu.cfs_quota_us " + back, err
	}
	if err := writeFile(dir, "cpu.max", fmt.Sprintf("%s %d", quota, period)); err != nil {
		return 0, "", err
	}
	back, err := readFile(dir, "cpu.max")
	first, _, _ := strings.Cut(back, " ")
	return cpuValue(first, period), "cpu.max " + back, err
}

func cpuValue(quota string, period int64) int64 {
	n, err := strconv.ParseInt(quota, 10, 64)
	if err != nil || n < 0 {
		return limits.Max
	}
	return n * 1000 / period
}

// setSwap comes after memory. Version 1 limits the sum of both.
func setSwap(dir string, version int, value, memory int64) (int64, string, error) {
	if version == 2 {
		return setNumber(dir, "memory.swap.max", 2, value)
	}
	sum := int64(limits.Max)
	if value != limits.Max && memory != limits.Max {
		sum = value + memory
	}
	applied, how, err := setNumber(dir, "memory.memsw.limit_in_bytes", 1, sum)
	if applied != limits.Max && memory != limits.Max {
		applied -= memory
	}
	return applied, how, err
}

// setIO sets the rate on every disk; what the answer shows is the least.
func setIO(dir string, version int, name limits.Name, value int64, r Request) (int64, string, error) {
	if len(r.Devices) == 0 {
		return 0, "", fmt.Errorf("no disk to limit: %s", r.NoDevice)
	}
	verb := map[limits.Name][2]string{
		limits.IORead:  {"blkio.throttle.read_bps_device", "rbps"},
		limits.IOWrite: {"blkio.throttle.write_bps_device", "wbps"},
	}[name]
	file, least, how := pick(version, verb[0], "io.max"), int64(limits.Max), ""
	for _, d := range r.Devices {
		line := fmt.Sprintf("%d:%d %d", d.Major, d.Minor, value)
		switch {
		case version == 1 && value == limits.Max:
			line = fmt.Sprintf("%d:%d 0", d.Major, d.Minor)
		case version == 2 && value == limits.Max:
			line = fmt.Sprintf("%d:%d %s=max", d.Major, d.Minor, verb[1])
		case version == 2:
			line = fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, verb[1], value)
		}
		if err := writeFile(dir, file, line); err != nil {
			return 0, "", err
		}
		back, err := readFile(dir, file)
		if err != nil {
			return 0, "", err
		}
		n, text := ioValue(back, d, verb[1])
		least = min(least, n)
		if how != "" {
			how += "; "
		}
		how += file + " " + text
	}
	return least, how, nil
}

// ioValue finds a device's rate in what io.max or a blkio.throttle file says.
func ioValue(text string, d Device, key string) (int64, string) {
	prefix := fmt.Sprintf("%d:%d ", d.Major, d.Minor)
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(strings.TrimSpace(line), prefix)
		if !found {
			continue
		}
		for _, word := range strings.Fields(rest) {
			if n, err := strconv.ParseInt(strings.TrimPrefix(word, key+"="), 10, 64); err == nil {
				return n, prefix + word
			}
		}
	}
	return limits.Max, prefix + "max"
}
