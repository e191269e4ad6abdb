package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/telerun/tele/limits"
)

// controllers are where the limits are, by their version 2 names.
var controllers = map[limits.Name]string{limits.CPU: "cpu", limits.Memory: "memory", limits.Swap: "memory",
	limits.IORead: "io", limits.IOWrite: "io", limits.Pids: "pids"}

// apply sets one limit and reads it back.
func (g *Group) apply(name limits.Name, r Request) limits.Status {
	value := r.Limits.Get(name)
	s := limits.Status{Name: name, Asked: limits.Format(name, value)}
	controller := controllers[name]
	d, version := g.of(controller)
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
		applied, s.How, err = setCPU(d, version, value)
	case limits.Memory:
		applied, s.How, err = setMemory(d, version, value)
	case limits.Swap:
		applied, s.How, err = setSwap(d, version, value, r.Limits.Memory)
	case limits.Pids:
		// The sandbox's init is one of those that the kernel counts.
		more := value
		if value != limits.Max {
			more++
		}
		applied, s.How, err = setNumber(d, "pids.max", 2, more)
		if applied != limits.Max {
			applied--
		}
	case limits.IORead, limits.IOWrite:
		applied, s.How, err = setIO(d, version, name, value, r)
	}
	var part *partError
	if errors.As(err, &part) {
		s.WhyNot = err.Error()
		return s
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
func setNumber(d dir, file string, version int, value int64) (int64, string, error) {
	text := strconv.FormatInt(value, 10)
	if value == limits.Max {
		text = pick(version, "-1", "max")
	}
	back, err := d.set(file, text)
	if err != nil {
		return 0, "", err
	}
	applied := int64(limits.Max)
	if n, err := strconv.ParseInt(back, 10, 64); err == nil && n >= 0 && n < 1<<62 {
		applied = n
	}
	return applied, d.path(file) + " " + back, nil
}

// setMemory sets the memory limit. Version 1 counts what waits in TCP and UDP sockets apart, and only when
// that has a limit: without it, a job could have as much of it as the machine allows (tcp(7), tcp_mem). It
// is a soft one: the kernel gives each connection some 100 KiB all the same.
func setMemory(d dir, version int, value int64) (int64, string, error) {
	applied, how, err := setNumber(d, pick(version, "memory.limit_in_bytes", "memory.max"), version, value)
	if err != nil || version != 1 {
		return applied, how, err
	}
	_, sockets, err := setNumber(d, "memory.kmem.tcp.limit_in_bytes", version, value)
	if value == limits.Max && (err == nil || errors.Is(err, os.ErrNotExist)) {
		return applied, how, nil
	}
	if errors.Is(err, os.ErrNotExist) {
		return applied, how + " (what waits in sockets is not in it: this kernel has no memory.kmem.tcp.limit_in_bytes)", nil
	}
	return applied, how + "; what waits in sockets apart, " + sockets, err
}

// setCPU gives thousandths of a CPU in each period of 100 ms; the kernel takes no quota under 1 ms,
// so a small share gets a longer period.
func setCPU(d dir, version int, value int64) (int64, string, error) {
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
		// Each of the two goes through all groups of the machine (tg_cfs_schedulable_down): a period that
		// is as it should be, which a new group's nearly always is, is left alone.
		want := strconv.FormatInt(period, 10)
		text, err := d.read("cpu.cfs_period_us")
		if err != nil || text != want {
			text, err = d.set("cpu.cfs_period_us", want)
		}
		if err != nil {
			return 0, "", err
		}
		if quota, err = d.set("cpu.cfs_quota_us", quota); err != nil {
			return 0, "", err
		}
		if n, _ := strconv.ParseInt(text, 10, 64); n > 0 {
			period = n
		}
		return cpuValue(quota, period), fmt.Sprintf("%s %s; %s %s", d.path("cpu.cfs_quota_us"), quota,
			d.path("cpu.cfs_period_us"), text), nil
	}
	back, err := d.set("cpu.max", fmt.Sprintf("%s %d", quota, period))
	if err != nil {
		return 0, "", err
	}
	first, second, _ := strings.Cut(back, " ")
	if n, _ := strconv.ParseInt(second, 10, 64); n > 0 {
		period = n
	}
	return cpuValue(first, period), d.path("cpu.max") + " " + back, nil
}

func cpuValue(quota string, period int64) int64 {
	n, err := strconv.ParseInt(quota, 10, 64)
	if err != nil || n < 0 {
		return limits.Max
	}
	return n * 1000 / period
}

// setSwap comes after memory. Version 1 limits the sum of both. A kernel that does not account for
// swap has no file for it; where there is no swap at all, none can be used.
func setSwap(d dir, version int, value, memory int64) (int64, string, error) {
	file, sum := pick(version, memsw, "memory.swap.max"), value
	if version == 1 && value != limits.Max {
		sum = value + memory
	}
	if version == 1 && memory == limits.Max {
		sum = limits.Max
	}
	applied, how, err := setNumber(d, file, version, sum)
	if errors.Is(err, os.ErrNotExist) {
		swaps, err := os.ReadFile("/proc/swaps")
		if value == limits.Max {
			return value, "no limit was asked for", nil
		}
		if err != nil || strings.Count(string(swaps), "\n") <= 1 { // the heading; no file where there is no support
			return 0, "this machine has no swap (/proc/swaps)", nil
		}
		return 0, "", fmt.Errorf("this kernel does not account for swap: there is no %s (boot it with swapaccount=1, or switch swap off)",
			d.path(file))
	}
	if version == 1 && applied != limits.Max && memory != limits.Max {
		applied -= memory
	}
	return applied, how, err
}

// A partError is a limit that holds for some of a job's places, and not for others.
type partError struct{ text string }

func (e *partError) Error() string { return e.text }

// setIO sets the rate on every disk; what the answer shows is the least.
func setIO(d dir, version int, name limits.Name, value int64, r Request) (int64, string, error) {
	devices, why := slices.Clone(r.Devices), r.NoDevice
	if name == limits.IORead {
		for _, d := range r.ReadDevices {
			if !slices.Contains(devices, d) {
				devices = append(devices, d)
			}
		}
		if why == "" {
			why = r.NoReadDevice
		}
	}
	if len(devices) == 0 && value == limits.Max { // none was asked for, and there is none
		return limits.Max, "", nil
	}
	if len(devices) == 0 {
		return 0, "", fmt.Errorf("no disk to limit: %s", why)
	}
	verb := map[limits.Name][2]string{
		limits.IORead:  {"blkio.throttle.read_bps_device", "rbps"},
		limits.IOWrite: {"blkio.throttle.write_bps_device", "wbps"},
	}[name]
	file, least, how := pick(version, verb[0], "io.max"), int64(limits.Max), ""
	for _, disk := range devices {
		line := fmt.Sprintf("%d:%d %d", disk.Major, disk.Minor, value)
		switch {
		case version == 1 && value == limits.Max:
			line = fmt.Sprintf("%d:%d 0", disk.Major, disk.Minor)
		case version == 2 && value == limits.Max:
			line = fmt.Sprintf("%d:%d %s=max", disk.Major, disk.Minor, verb[1])
		case version == 2:
			line = fmt.Sprintf("%d:%d %s=%d", disk.Major, disk.Minor, verb[1], value)
		}
		back, err := d.set(file, line)
		if err != nil {
			return 0, "", err
		}
		n, text := ioValue(back, disk, verb[1])
		least = min(least, n)
		if how != "" {
			how += "; "
		}
		how += d.path(file) + " " + text
	}
	if why != "" && value != limits.Max {
		return 0, how, &partError{"holds on a part of the disks alone: " + why}
	}
	if version == 1 && name == limits.IOWrite && value != limits.Max {
		// The kernel's cgroup-v1/blkio-controller.txt: writeback is charged to the root.
		how += " (what a job writes without waiting for it, the kernel writes later, without this limit: it needs cgroup version 2)"
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
