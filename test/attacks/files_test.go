package attacks

// files are attacks on the host's files.
var files = []attack{
	{
		name:    "private places",
		tries:   "read the state directory (other jobs, keys), /root, /home, /run, /srv, /sys, /var/log, other temporary files",
		outcome: "empty, or not there",
		program: `
for path in STATE, "/root", "/run", "/var/run", "/srv", "/mnt", "/sys", "/var/log", "/var/spool/", "/boot", "/tmp", "/var/tmp":
    attempt("list " + path.replace(STATE, "STATE"), os.listdir, path)
print("home:", os.listdir("/home"), os.listdir(HOME))
for path in STATE + "/secret", "/srv/secret", "/run/../srv/secret", "/proc/self/root/srv/secret", "/proc/self/cwd/../../srv/secret":
    attempt("read " + path.replace(STATE, "STATE"), get, path)
for path in STATE, "/srv", "/home", "/mnt":
    attempt("write " + path.replace(STATE, "STATE"), put, path + "/new")
`,
		want: `
list STATE, list /root, list /run, list /srv, list /mnt, list /sys, list /var/log, list /tmp, list /var/tmp: DONE \[\]
list /var/run, list /var/spool/, list /boot: DONE \[\]|ENOENT
home: \['job'\] \[\]
read STATE/secret, read /srv/secret, read /run/../srv/secret, read /proc/self/root/srv/secret, read /proc/self/cwd/../../srv/secret: ENOENT
write STATE, write /srv, write /home, write /mnt: EROFS|EACCES`,
	},
	{
		name:    "another job's secrets",
		tries:   "find what another job was given in secret: where those are, in shared memory, and by every process that it sees",
		outcome: "not there; its processes are its own",
		program: `
attempt("list", os.listdir, "/dev/shm/secrets")
attempt("read", get, "/dev/shm/secrets/token")
print("variable:", os.environ.get("TELE_SECRETS"))
found = set()
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in "environ", "cmdline", "root/dev/shm/secrets/token", "mountinfo":
        try:
            found.add(b"the-hosts-" + b"secret" in get(f"/proc/{pid}/{name}", 1 << 20))
        except OSError:
            pass
print("found:", True in found)
`,
		want: `
list, read: ENOENT
variable: None
found: False`,
	},
	{
		name:    "files of root",
		tries:   "read what is root's alone: /etc/shadow, a file of mode 0600",
		outcome: "EACCES; uid 0 may, as it owns them: what a job of uid 0 must not read has to be hidden",
		program: `
try:
    attempt("shadow", lambda: len(get("/etc/shadow")) > 0)
except FileNotFoundError:
    print("shadow: EACCES")
attempt("secret", get, "/opt/secret")
`,
		want: `
shadow, secret: EACCES`,
		root: `
shadow: DONE True
secret: DONE b'the-hosts-secret\\n'`,
	},
	{
		name:    "change the host's files",
		tries:   "write, create, remove, rename, link, chmod, chown, touch, set attributes of files of the host",
		outcome: "EROFS; links and renames into the work directory EXDEV",
		program: `
os.chdir("/opt")
attempt("write", put, "public")
attempt("create", put, "/etc/new")
attempt("truncate", os.truncate, "public", 0)
attempt("mkdir", os.mkdir, "/new")
attempt("unlink", os.unlink, "public")
attempt("rename", os.rename, "public", "renamed")
attempt("chmod", os.chmod, "public", 0o777)
attempt("chown", os.chown, "public", os.getuid(), -1)
attempt("touch", os.utime, "public")
attempt("attribute", os.setxattr, "public", "user.x", b"x")
attempt("link here", os.link, "public", HOME + "/link")
attempt("link by descriptor", os.link, "/proc/self/fd/%d" % os.open("public", os.O_RDONLY), HOME + "/link")
attempt("rename here", os.rename, "public", HOME + "/moved")
attempt("write /dev", put, "/dev/new")
attempt("write /proc", put, "/proc/new")
attempt("reopen for writing", os.open, "/proc/self/fd/%d" % os.open("public", os.O_RDONLY), os.O_RDWR)
attempt("write the program", put, "/usr/bin/python3")
attempt("set flags", fcntl.ioctl, os.open("public", os.O_RDONLY), 0x40086602, struct.pack("l", 0x10))
m = mmap.mmap(os.open("public", os.O_RDONLY), 4, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
m[0:4] = b"mine" # copy on write: its own page alone
print("page:", get("public", 4))
`,
		want: `
write, create, truncate, mkdir, unlink, rename, chmod, chown, touch, attribute: EROFS|EACCES|EPERM
link here, link by descriptor, rename here: EXDEV|EPERM
write /dev, write /proc: EROFS|EACCES|ENOENT
reopen for writing, write the program: EROFS|EACCES|ETXTBSY
set flags: EROFS|EACCES|EPERM|ENOTTY
page: b'the-'`,
	},
	{
		name:    "devices",
		tries:   "make device nodes; open memory, disks, consoles; use nodes that lie in the host's files",
		outcome: "EPERM, ENOENT; EACCES: the host's files are mounted without devices, and a cgroup closes them too",
		program: `
for name, mode, number in ("mem", stat.S_IFCHR, os.makedev(1, 1)), ("disk", stat.S_IFBLK, os.makedev(8, 0)), ("null", stat.S_IFCHR, os.makedev(1, 3)):
    for place in HOME, "/tmp", "/dev/shm":
        attempt(f"make {name} in {place}", raw, "mknodat", -100, f"{place}/{name}".encode(), mode | 0o666, number)
for name in "mem", "kmem", "port", "kmsg", "sda", "vda", "nvme0n1", "loop0", "loop-control", "fuse", "kvm", "net/tun", "vhost-net", "vsock", "console", "tty0", "hwrng", "mapper/control", "uinput", "mqueue":
    attempt("open " + name, os.open, "/dev/" + name, os.O_RDONLY)
print("dev:", sorted(os.listdir("/dev")))
attempt("host's kmsg", os.open, "/opt/kmsg", os.O_RDONLY)
attempt("host's zero", os.open, "/opt/zero", os.O_RDONLY)
attempt("beneath /dev", os.listdir, "/proc/self/fd/%d/../opt" % os.open("/dev", os.O_RDONLY))
`,
		want: `
make mem in /home/job, make mem in /tmp, make mem in /dev/shm, make disk in /home/job, make disk in /tmp, make disk in /dev/shm, make null in /home/job, make null in /tmp, make null in /dev/shm: EPERM
open mem, open kmem, open port, open kmsg, open sda, open vda, open nvme0n1, open loop0, open loop-control, open fuse, open kvm, open net/tun, open vhost-net, open vsock, open console, open tty0, open hwrng, open mapper/control, open uinput, open mqueue: ENOENT
dev: \['fd', 'full', 'null', 'ptmx', 'pts', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'tty', 'urandom', 'zero'\]
host's kmsg, host's zero: EACCES
beneath /dev: DONE .*`,
	},
	{
		name:    "set-user-ID programs",
		tries:   "gain anything by su, mount, set-user-ID and set-group-ID programs of root, file capabilities, its own such files",
		outcome: "no capability, no other user or group",
		program: `
def ids(program):
    out = subprocess.run([program, "-hE", "^(Uid|Gid|CapEff|CapPrm):", "/proc/self/status"], capture_output=True, text=True).stdout
    return {line.split()[0]: set(line.split()[1:]) for line in out.splitlines()}
own = {"Uid:": {str(os.getuid())}, "Gid:": {str(os.getgid())}, "CapPrm:": {"0" * 16}, "CapEff:": {"0" * 16}}
for name in "suid", "caps":
    print(f"{name}:", "nothing" if ids("/opt/" + name) == own else ids("/opt/" + name))
import shutil
shutil.copy("/opt/caps", "own")
os.chmod("own", 0o6755)
print("own:", "nothing" if ids("./own") == own else ids("./own"))
attempt("own capability", os.setxattr, "own", "security.capability", bytes([1, 0, 0, 2]) + b"\xff" * 4 + bytes(12))
attempt("mount", lambda: subprocess.run(["mount", "-t", "tmpfs", "x", "/tmp"], capture_output=True).returncode != 0)
attempt("read by suid", lambda: subprocess.run(["/opt/suid", "-q", "the-hosts", "/opt/secret"], capture_output=True).returncode)
`,
		want: `
suid, caps, own: nothing
own capability: EPERM
mount: DONE True
read by suid: DONE 2`,
		root: `
read by suid: DONE 0`,
	},
	{
		name:    "capabilities",
		tries:   "take capabilities by capset, the ambient set, another user, other groups",
		outcome: "EPERM",
		program: `
header = struct.pack("Ii", 0x20080522, 0)
attempt("capset", raw, "capset", header, struct.pack("6I", *[0xffffffff] * 6))
attempt("inheritable", raw, "capset", header, struct.pack("6I", 0, 0, 0xffffffff, 0, 0, 0xffffffff))
attempt("ambient", raw, "prctl", 47, 2, 21, 0, 0)
attempt("new privileges", raw, "prctl", 39, 0, 0, 0, 0)
attempt("allow them again", raw, "prctl", 38, 0, 0, 0, 0)
attempt("another user", os.setuid, 12345)
attempt("groups", os.setgroups, [0, 42])
attempt("another group", os.setgid, 42)
attempt("keep capabilities", raw, "prctl", 28, 0xff, 0, 0, 0)
put("mine")
attempt("chown", os.chown, "mine", 12345, -1)
print("groups left:", set(os.getgroups()) - {os.getgid()})
`,
		want: `
capset, inheritable, ambient, another user, groups, another group, keep capabilities, chown: EPERM
new privileges: DONE 1
allow them again: EINVAL
groups left: set\(\)`,
	},
	{
		name:    "watch and lock the host's files",
		tries:   "inotify and flock on a host's file that it may read; a lease",
		outcome: "**not defended**: a job sees when others open a file that it may read, and can hold a lock on it",
		program: `
fd = os.open("/opt/public", os.O_RDONLY)
attempt("flock", fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
inotify = libc.inotify_init1(0)
print("inotify:", libc.inotify_add_watch(inotify, b"/opt/public", 0x20) >= 0)
attempt("lease", fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
`,
		want: `
flock: DONE
inotify: True
lease: EACCES`,
		root: `
lease: DONE 0`,
	},
}
