package attacks

// kernel are attacks on the kernel's settings, and on parts of it that no job needs.
var kernel = []attack{
	{
		name:    "the machine",
		tries:   "reboot, swap, accounting, quota, modules, kexec, clocks, names, the kernel's log",
		outcome: "EPERM",
		program: `
attempt("reboot", raw, "reboot", 0xfee1dead, 672274793, 0, None)
attempt("swapon", raw, "swapon", b"/home/job/x", 0)
attempt("swapoff", raw, "swapoff", b"/dev/vda")
attempt("acct", raw, "acct", b"/home/job/x")
attempt("quotactl", raw, "quotactl", 0, b"/dev/vda", 0, 0)
attempt("init_module", raw, "init_module", b"", 0, b"")
attempt("finit_module", raw, "finit_module", 0, b"", 0)
attempt("delete_module", raw, "delete_module", b"ext4", 0)
attempt("kexec", raw, "kexec_load", 0, 0, None, 0)
attempt("clock_settime", raw, "clock_settime", 0, struct.pack("qq", 0, 0))
attempt("settimeofday", raw, "settimeofday", struct.pack("qq", 0, 0), None)
attempt("adjtime", raw, "clock_adjtime", 0, struct.pack("I", 1) + bytes(204))
attempt("host name", raw, "sethostname", b"x", 1)
attempt("domain name", raw, "setdomainname", b"x", 1)
attempt("log", raw, "syslog", 3, None, 0)
attempt("personality", raw, "personality", 0x0040000)
`,
		want: `
reboot, swapon, swapoff, acct, quotactl, init_module, finit_module, delete_module, kexec, clock_settime, settimeofday, adjtime, host name, domain name, log, personality: EPERM`,
	},
	{
		name:    "large parts of the kernel",
		tries:   "bpf, perf, io_uring, userfaultfd, fanotify; x32 and 32-bit calls are in server/seccomp and initproc",
		outcome: "EPERM",
		program: `
attempt("bpf", raw, "bpf", 0, bytes(72), 72)
attempt("perf", raw, "perf_event_open", bytes(128), 0, -1, -1, 0)
attempt("io_uring", raw, "io_uring_setup", 1, bytes(120))
attempt("userfaultfd", raw, "userfaultfd", 1)
attempt("fanotify", raw, "fanotify_init", 0, 0)
`,
		want: `
bpf, perf, io_uring, userfaultfd, fanotify: EPERM`,
	},
	{
		name:    "settings",
		tries:   "write /proc/sys (core_pattern, modprobe, binfmt_misc, shm, net …), /proc/sysrq-trigger, /sys",
		outcome: "EROFS, EACCES, ENOENT",
		program: `
for name in "kernel/core_pattern", "kernel/modprobe", "kernel/sysrq", "kernel/hostname", "kernel/pid_max", "kernel/shmmax", "kernel/ns_last_pid", "kernel/yama/ptrace_scope", "kernel/poweroff_cmd", "fs/binfmt_misc/register", "fs/suid_dumpable", "fs/mqueue/queues_max", "net/ipv4/ip_forward", "vm/panic_on_oom", "vm/drop_caches", "user/max_user_namespaces":
    attempt(name, put, "/proc/sys/" + name)
for path in "/proc/sysrq-trigger", "/proc/pressure/memory", "/proc/mtrr":
    attempt(path, lambda: os.write(os.open(path, os.O_WRONLY), b"some 150000 1000000\0") and stat.S_ISCHR(os.stat(path).st_mode))
for path in "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/debug/x", "/sys/fs/cgroup/x", "/sys/firmware/efi/efivars/x", "/sys/module/x":
    attempt(path, put, path)
`,
		want: `
kernel/core_pattern, kernel/modprobe, kernel/sysrq, kernel/hostname, kernel/pid_max, kernel/shmmax, kernel/ns_last_pid, kernel/yama/ptrace_scope, kernel/poweroff_cmd, fs/binfmt_misc/register, fs/suid_dumpable, fs/mqueue/queues_max, net/ipv4/ip_forward, vm/panic_on_oom, vm/drop_caches, user/max_user_namespaces: EROFS|EACCES|ENOENT
/proc/sysrq-trigger, /proc/mtrr: DONE True|ENOENT|EROFS|EACCES
/proc/pressure/memory: EROFS|EACCES|ENOENT|EOPNOTSUPP
/sys/kernel/uevent_helper, /sys/power/state, /sys/kernel/debug/x, /sys/fs/cgroup/x, /sys/firmware/efi/efivars/x, /sys/module/x: EROFS|EACCES|ENOENT`,
	},
	{
		name:    "writes to /proc/self",
		tries:   "attr/current, exec (CVE-2025-52881), mem, uid_map, comm, loginuid, coredump_filter, of itself and its threads",
		outcome: "EROFS, EACCES, ENOENT",
		program: `
for name in "attr/current", "attr/exec", "attr/apparmor/exec", "mem", "uid_map", "gid_map", "setgroups", "projid_map", "comm", "loginuid", "coredump_filter", "oom_adj", "autogroup", "timerslack_ns", "clear_refs", "sched", "make-it-fail", "fail-nth", "task/TID/comm":
    attempt(name, put, "/proc/self/" + name.replace("TID", str(os.getpid())))
`,
		want: `
attr/current, attr/exec, attr/apparmor/exec, mem, uid_map, gid_map, setgroups, projid_map, comm, loginuid, coredump_filter, oom_adj, autogroup, timerslack_ns, clear_refs, sched, make-it-fail, fail-nth: EROFS|EACCES|ENOENT
task/TID/comm: EROFS|EACCES`,
	},
}
