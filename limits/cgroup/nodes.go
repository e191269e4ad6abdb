package cgroup

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file closes devices off: whatever node a job should get hold of, the kernel opens none but
// these for it. Their numbers are in the kernel's admin-guide/devices.txt. Like the limits it is
// done on version 1 by files (cgroup-v1/devices.txt), and on version 2 by a BPF program
// (cgroup-v2.txt, "Device controller"). Either way it is done for all jobs at once: on version 2 in the group
// above theirs, on version 1 in the one that they are all in. What a job must not touch there, Kill and
// Delete, is among no job's paths.

// A node is a character device that jobs may open. A negative minor is any.
type node struct{ major, minor int32 }

// null, zero, full, random, urandom; tty, ptmx; and the terminals of devpts.
var nodes = []node{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}, {136, -1}}

func (n node) String() string {
	if n.minor < 0 {
		return fmt.Sprintf("c %d:* rw", n.major)
	}
	return fmt.Sprintf("c %d:%d rw", n.major, n.minor)
}

// closeDevices makes the groups of jobs open none but nodes.
func (m *Manager) closeDevices() error {
	switch t := m.by["devices"]; {
	case t != nil:
		return closeDevicesV1(t.base)
	case m.unified != nil && os.Geteuid() == 0:
		return closeDevicesV2(m.unified.base)
	}
	return fmt.Errorf("there is no cgroup for it here")
}

// closeDevicesV1 closes everything once, while there are no groups below, and then opens nodes.
func closeDevicesV1(dir string) error {
	list, err := readFile(dir, "devices.list")
	if err != nil {
		return err
	}
	if strings.HasPrefix(list, "a ") {
		if err := writeFile(dir, "devices.deny", "a"); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		if err := writeFile(dir, "devices.allow", n.String()); err != nil {
			return err
		}
	}
	return nil
}

// closeDevicesV2 attaches the program, unless an earlier server did: it may hold for jobs that run.
func closeDevicesV2(path string) error {
	group, err := dir{nil, path}.open("", unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(group)
	program, err := loadProgram(deviceProgram())
	if err != nil {
		return err
	}
	defer unix.Close(program)
	attached, err := isAttached(group, program)
	if err != nil || attached {
		return err
	}
	attr := struct{ target, program, kind, flags uint32 }{uint32(group), uint32(program), unix.BPF_CGROUP_DEVICE,
		unix.BPF_F_ALLOW_MULTI} // systemd may have one there, too: then both must agree
	_, err = bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// An instruction is struct bpf_insn.
type instruction struct {
	code   uint8
	regs   uint8 // destination in the low half, source in the high one
	offset int16
	imm    int32
}

// deviceProgram returns 1 for a character device in nodes and 0 for everything else. What it gets is
// struct bpf_cgroup_dev_ctx: access_type, whose low half is the kind of device, major and minor.
func deviceProgram() []instruction {
	const (
		load   = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
		and    = unix.BPF_ALU64 | unix.BPF_AND | unix.BPF_K
		unless = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
		set    = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
		exit   = unix.BPF_JMP | unix.BPF_EXIT
		device = 2 // BPF_DEVCG_DEV_CHAR
	)
	program := []instruction{
		{load, 1<<4 | 2, 0, 0}, // r2 = access_type
		{load, 1<<4 | 3, 4, 0}, // r3 = major
		{load, 1<<4 | 4, 8, 0}, // r4 = minor
		{set, 0, 0, 0},         // r0 = 0
		{and, 2, 0, 0xffff},
		{unless, 2, int16(4 * len(nodes)), device},
	}
	for _, n := range nodes {
		minor := instruction{unless, 4, 2, n.minor}
		if n.minor < 0 {
			minor = instruction{set, 2, 0, 0} // nothing to compare
		}
		program = append(program, instruction{unless, 3, 3, n.major}, minor,
			instruction{set, 0, 0, 1}, instruction{exit, 0, 0, 0})
	}
	return append(program, instruction{exit, 0, 0, 0})
}

func loadProgram(program []instruction) (fd int, err error) {
	license := new([7]byte)
	copy(license[:], "Apache")
	var pin runtime.Pinner // what the kernel gets as a number, Go does not see
	defer pin.Unpin()
	pin.Pin(&program[0])
	pin.Pin(license)
	attr := struct {
		kind, count           uint32
		instructions, license uint64
		logLevel, logSize     uint32
		log                   uint64
		version, flags        uint32
		name                  [16]byte
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(program)),
		instructions: uint64(uintptr(unsafe.Pointer(&program[0]))), license: uint64(uintptr(unsafe.Pointer(license))),
		name: [16]byte{'t', 'e', 'l', 'e', '_', 'd', 'e', 'v', 'i', 'c', 'e', 's'}}
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// isAttached tells whether a program like this one is attached to the group.
func isAttached(group, program int) (bool, error) {
	own, err := tag(program)
	if err != nil {
		return false, err
	}
	ids := new([64]uint32) // the kernel's BPF_CGROUP_MAX_PROGS
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(ids)
	attr := struct {
		target, kind, query, flags uint32
		ids                        uint64
		count, _                   uint32
	}{target: uint32(group), kind: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(ids))), count: uint32(len(ids))}
	if _, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return false, err
	}
	for _, id := range ids[:min(int(attr.count), len(ids))] {
		request := struct{ id, next, flags uint32 }{id: id}
		fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&request), unsafe.Sizeof(request))
		if err != nil {
			continue // it went just now
		}
		other, err := tag(fd)
		_ = unix.Close(fd) // it was only looked at
		if err == nil && other == own {
			return true, nil
		}
	}
	return false, nil
}

// tag is the kernel's hash over a program's instructions.
func tag(program int) ([8]byte, error) {
	info := new(struct { // the beginning of struct bpf_prog_info
		kind, id uint32
		tag      [8]byte
	})
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(info)
	attr := struct {
		fd, size uint32
		info     uint64
	}{uint32(program), uint32(unsafe.Sizeof(*info)), uint64(uintptr(unsafe.Pointer(info)))}
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return info.tag, err
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return -1, fmt.Errorf("bpf command %d: %w", command, os.NewSyscallError("bpf", errno))
	}
	return int(r), nil
}
