package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/telerun/tele/test/vm/internal/spec"
)

// virtiofsdArgs share this machine's root. The socket comes as descriptor 3: so it is there before
// QEMU asks for it, and virtiofsd leaves no lock file for a path in /run. Nothing changes what is
// shared while the machine runs, so the guest may cache it.
func virtiofsdArgs(path string) []string {
	if path == "/usr/lib/qemu/virtiofsd" { // the one in C, up to Debian 12
		return []string{
			"--fd=3", "-f", "--thread-pool-size=4", "-o",
			"log_level=warn,source=/,cache=always,no_xattr,no_flock,no_posix_lock,sandbox=chroot",
		}
	}
	// An announced submount would be one to the guest too, and overlayfs does not look below
	// those of its lower layer: EREMOTE.
	return []string{
		"--fd=3", "--thread-pool-size=4", "--shared-dir=/", "--cache=always", "--sandbox=chroot",
		"--no-announce-submounts", "--log-level=warn",
	}
}

// qemuArgs describe the machine, with its files in dir.
func qemuArgs(dir string, o options, k kernel) []string {
	args := append(accelerator(),
		"-M", "pc", "-smp", strconv.Itoa(o.cpus), "-m", o.memory,
		// Five-level page tables cost TCG time and bring nothing.
		"-cpu", "max,la57=off",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", k.image, "-initrd", dir+"/initrd",
		// A panic reboots at once, which -no-reboot makes the end of QEMU.
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off",
		"-serial", "file:"+dir+"/console.log",
	)
	return append(args,
		// A pipe to this process, the first descriptor that os/exec hands on.
		"-chardev", "file,id=result,path=/dev/fd/3",
		"-device", "virtio-serial-pci",
		"-device", "virtserialport,chardev=result,name="+spec.Port,
		"-drive", "file="+dir+"/disk.img,format=raw,if=none,id=disk,cache=unsafe,aio=threads",
		"-device", "virtio-blk-pci,drive=disk,serial=scratch",
		// virtiofsd reads and writes the guest's memory.
		"-object", "memory-backend-memfd,id=memory,share=on,size="+o.memory,
		"-numa", "node,memdev=memory",
		"-chardev", "socket,id=fs,path="+dir+"/fs.sock",
		"-device", "vhost-user-fs-pci,queue-size=1024,chardev=fs,tag="+spec.HostTag,
	)
}

// accelerator takes KVM only where the processor's own is there. That /dev/kvm opens says little:
// there are kinds of it on which this kernel hangs.
func accelerator() []string {
	for _, module := range []string{"/sys/module/kvm_intel", "/sys/module/kvm_amd"} {
		if isDir(module) && unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) == nil {
			return []string{"-accel", "kvm", "-accel", "tcg,thread=multi"}
		}
	}
	return []string{"-accel", "tcg,thread=multi"}
}

// makeDisk makes the scratch disk, without taking its size on this machine's.
func makeDisk(path string, size int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Truncate(size)
}
