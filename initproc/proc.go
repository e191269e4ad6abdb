package initproc

import "golang.org/x/sys/unix"

// mountProc mounts a /proc that shows the sandbox's own processes alone, and of those to the job
// not its init (hidepid, proc(5); of the two that hide, 2 makes an exception for group 0). It is read-only: with it go the kernel's settings in /proc/sys,
// sysrq-trigger, and what a process may change of itself in /proc/self, like its OOM score, user
// map or comm. A user namespace lets it be mounted only while the host's /proc is in sight, as
// it is until then in the copy of the host's tree.
func mountProc(b *builder) {
	b.mount("mount /proc", "proc", "proc", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "hidepid=4")
}

// masked are the files and directories of /proc that tell of the machine, its devices or its memory
// more than a job needs: those that runc masks, and what root alone may read elsewhere. Which of
// them there are depends on the kernel.
var masked = struct{ files, dirs []string }{
	files: []string{"interrupts", "kcore", "key-users", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags",
		"latency_stats", "mtrr", "sched_debug", "slabinfo", "sysrq-trigger", "timer_list", "timer_stats", "vmallocinfo"},
	dirs: []string{"acpi", "asound", "bus", "driver", "fs", "irq", "scsi"},
}

// maskProc covers what no job needs: files with /dev/null, directories with an empty one. The
// /dev/null is the node that the server looked at (CheckDevices), in a /dev that nobody but init has
// ever written to (CVE-2025-31133).
func maskProc(b *builder) {
	for _, name := range masked.files {
		b.bind("mask /proc/"+name, "dev/null", "proc/"+name)
		b.tolerate(uint16(unix.ENOENT))
	}
	for _, name := range masked.dirs {
		b.bind("mask /proc/"+name, empty, "proc/"+name)
		b.tolerate(uint16(unix.ENOENT))
	}
}
