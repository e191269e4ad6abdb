package attacks

// walls are ways out of the root, and what is mounted in it.
var walls = []attack{
	{
		name:    "leave the root",
		tries:   "the double chroot, pivot_root, .. from every directory, a directory moved while it is the working directory",
		outcome: "EPERM; .. of the root is the root",
		program: `
os.mkdir("jail")
root = os.open("/", os.O_RDONLY)
attempt("chroot", raw, "chroot", b"jail")
os.fchdir(root)
os.chdir("../" * 100)
attempt("chroot again", raw, "chroot", b".")
attempt("pivot_root", raw, "pivot_root", b".", b".")
here = os.stat("/")
print("root:", all(os.path.samestat(os.stat("../" * n + "."), here) for n in range(5)))
attempt("chroot to init", raw, "chroot", b"/proc/1/root")
os.chdir(HOME)
os.makedirs("a/b/c")
os.chdir("a/b/c")
os.rename(HOME + "/a/b", HOME + "/b")
os.chdir("../../../../../..")
print("moved:", os.path.samestat(os.stat("."), here))
attempt("rename out", os.rename, HOME + "/b", "/tmp/b")
print("/proc/self/root:", os.path.samestat(os.stat("/proc/self/root/.."), here))
`,
		want: `
chroot, chroot again, pivot_root, chroot to init: EPERM
root, moved, /proc/self/root: True
rename out: EXDEV`,
	},
	{
		name:    "mounts",
		tries:   "mount, remount, unmount what covers private places, move and clone mounts, old and new interface (CVE-2022-0185)",
		outcome: "EPERM",
		program: `
for name, args in {
    "tmpfs": (b"x", b"/tmp", b"tmpfs", 0, None), "proc": (b"x", b"/tmp", b"proc", 0, None), "bind": (b"/", b"/tmp", None, 4096, None),
    "remount root": (None, b"/", None, 32 | 4096, None), "remount proc": (None, b"/proc", None, 32 | 4096, None),
    "propagation": (None, b"/", None, 1 << 20 | 16384, None), "move": (b"/home/job", b"/tmp", None, 8192, None),
}.items():
    attempt(name, raw, "mount", *args)
for path in "/proc/kcore", "/proc", "/srv", "/home", "/dev/null", "/dev", "/sys", "/":
    attempt("unmount " + path, raw, "umount2", path.encode(), 2)
attempt("open_tree", raw, "open_tree", -100, b"/", 1)
attempt("fsopen", raw, "fsopen", b"ext4", 0)
attempt("fsmount", raw, "fsmount", 3, 0, 0)
attempt("move_mount", raw, "move_mount", -100, b"/home", -100, b"/tmp", 0)
attempt("mount_setattr", raw, "mount_setattr", -100, b"/", 0, struct.pack("QQQQ", 0, 1, 0, 0), 32)
lines = get("/proc/self/mountinfo", 1 << 20).decode().splitlines()
print("shared:", [line for line in lines if "shared:" in line or "master:" in line])
bad = [line for line in lines if line.split()[4] == "/" and "ro" not in line.split()[5].split(",")]
print("root writable:", bad)
`,
		want: `
tmpfs, proc, bind, remount root, remount proc, propagation, move: EPERM
unmount /proc/kcore, unmount /proc, unmount /srv, unmount /home, unmount /dev/null, unmount /dev, unmount /sys, unmount /: EPERM
open_tree, fsopen, fsmount, move_mount, mount_setattr: EPERM
shared, root writable: \[\]`,
	},
	{
		name:    "namespaces",
		tries:   "make and enter namespaces, user namespaces above all; ask for those above",
		outcome: "EPERM; clone3 ENOSYS",
		program: `
for name, flag in {"user": 0x10000000, "mnt": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x8000000, "uts": 0x4000000, "cgroup": 0x2000000, "time": 0x80}.items():
    attempt("unshare " + name, raw, "unshare", flag)
    if name != "time":
        attempt("clone " + name, raw, "clone", flag | 17, 0, 0, 0, 0)
    attempt("enter " + name, raw, "setns", os.open("/proc/self/ns/" + name, os.O_RDONLY), 0)
attempt("clone3", raw, "clone3", bytes(88), 88)
pid = os.open("/proc/self/ns/pid", os.O_RDONLY)
attempt("parent of pid", fcntl.ioctl, pid, 0xb702)
attempt("next mnt", fcntl.ioctl, os.open("/proc/self/ns/mnt", os.O_RDONLY), 0x8010b70b, bytes(16))
attempt("map users", put, "/proc/self/uid_map", "0 0 1")
`,
		want: `
unshare user, unshare mnt, unshare pid, unshare net, unshare ipc, unshare uts, unshare cgroup, unshare time: EPERM
clone user, clone mnt, clone pid, clone net, clone ipc, clone uts, clone cgroup: EPERM
enter user, enter mnt, enter pid, enter net, enter ipc, enter uts, enter cgroup, enter time: EPERM
clone3: ENOSYS
parent of pid: EPERM
next mnt: EPERM|ENOTTY|ENOENT|EINVAL
map users: EROFS|EACCES|EPERM`,
	},
	{
		name:    "files by handle",
		tries:   "open_by_handle_at of the root's inode (shocker)",
		outcome: "EPERM",
		program: `
handle = struct.pack("Ii", 8, 1) + struct.pack("II", 2, 0)
attempt("open", raw, "open_by_handle_at", os.open("/etc", os.O_RDONLY), handle, 0)
`,
		want: `open: EPERM`,
	},
	{
		name:    "cgroup release_agent",
		tries:   "write a release_agent, mount cgroups (CVE-2022-0492), change its own limits",
		outcome: "there are no cgroup files; EPERM",
		program: `
attempt("unshare", raw, "unshare", 0x12000000)
attempt("mount", raw, "mount", b"cgroup", b"/tmp", b"cgroup", 0, b"rdma")
attempt("mount v2", raw, "mount", b"cgroup", b"/tmp", b"cgroup2", 0, None)
for path in "memory/release_agent", "rdma/release_agent", "cgroup.procs", "unified/cgroup.procs", "memory.max":
    attempt(path, put, "/sys/fs/cgroup/" + path)
print("path:", {line.split(":", 2)[2] for line in get("/proc/self/cgroup").decode().splitlines()})
`,
		want: `
unshare, mount, mount v2: EPERM
memory/release_agent, rdma/release_agent, cgroup.procs, unified/cgroup.procs, memory.max: ENOENT|EROFS
path: \{'/'\}`,
	},
	{
		name:    "masks of /proc",
		tries:   "read masked files; find a mask that is not the real /dev/null (CVE-2025-31133), or write through one",
		outcome: "each is device 1:3, or an empty read-only directory",
		program: `
files = [name for name in ("interrupts", "kcore", "key-users", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags",
    "latency_stats", "mtrr", "sched_debug", "slabinfo", "sysrq-trigger", "timer_list", "timer_stats", "vmallocinfo") if os.path.exists("/proc/" + name)]
print("files:", {(stat.S_ISCHR(os.stat("/proc/" + name).st_mode), os.stat("/proc/" + name).st_rdev == os.makedev(1, 3)) for name in files}, len(files) > 5)
print("read:", {get("/proc/" + name) for name in files})
dirs = [name for name in ("acpi", "asound", "bus", "driver", "fs", "irq", "scsi") if os.path.exists("/proc/" + name)]
print("dirs:", {len(os.listdir("/proc/" + name)) for name in dirs}, len(dirs) > 1)
attempt("create", put, "/proc/irq/x")
print("/dev/null:", os.stat("/dev/null").st_rdev == os.makedev(1, 3), get("/dev/null"))
attempt("replace /dev/null", os.unlink, "/dev/null")
attempt("rename it", os.rename, "/dev/null", "/dev/old")
attempt("chmod it", os.chmod, "/dev/null", 0o600)
`,
		want: `
files: \{\(True, True\)\} True
read: \{b''\}
dirs: \{0\} True
create: EROFS|EACCES
/dev/null: True b''
replace /dev/null, rename it, chmod it: EROFS|EACCES|EBUSY|EPERM`,
	},
	{
		name:    "another /proc",
		tries:   "read a second /proc that the host has mounted elsewhere, in a chroot of its own, say",
		outcome: "it is covered like the first",
		program: `
attempt("server's command line", get, "/opt/proc/" + SERVER + "/cmdline")
attempt("server's root", os.listdir, "/opt/proc/" + SERVER + "/root/")
attempt("settings", get, "/opt/proc/sys/kernel/ostype")
attempt("memory", get, "/opt/proc/kcore")
`,
		want: `
server's command line, server's root, settings, memory: ENOENT`,
	},
}
