package attacks

// processes are attacks on processes that are not the job's: its init, the server, and the host's.
var processes = []attack{
	{
		name:    "list processes",
		tries:   "find processes of the host, the server or other jobs in /proc, or their command lines",
		outcome: "none but its own; its init is hidden, too",
		program: `
pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
print("init:", "seen" if 1 in pids else "hidden")
print("others:", sorted(pids - {1, os.getpid()}))
attempt("server", os.listdir, "/proc/" + SERVER)
attempt("command line", get, "/proc/1/cmdline")
`,
		want: `
init: hidden
others: \[\]
server, command line: ENOENT`,
	},
	{
		name:    "look into init",
		tries:   "/proc/1/exe (CVE-2019-5736), fd, root, cwd, mem, environ, maps, ns, to read, write or walk through",
		outcome: "ENOENT, EACCES: init is hidden, not dumpable, and has capabilities that the job lacks",
		program: `
for name in "exe", "mem", "environ", "maps", "auxv", "syscall", "stack", "clear_refs":
    attempt(name, get, "/proc/1/" + name)
attempt("overwrite", put, "/proc/1/exe")
attempt("overwrite memory", put, "/proc/1/mem")
for name in "exe", "root", "cwd", "ns/mnt", "ns/pid":
    attempt("link " + name, os.readlink, "/proc/1/" + name)
attempt("fd", os.listdir, "/proc/1/fd")
attempt("map_files", os.listdir, "/proc/1/map_files")
for number in range(10):
    attempt(f"fd {number}", os.open, f"/proc/1/fd/{number}", os.O_RDWR)
attempt("through root", get, "/proc/1/root/etc/shadow")
attempt("through cwd", get, "/proc/1/cwd/etc/shadow")
attempt("chdir", os.chdir, "/proc/1/root")
attempt("thread", os.listdir, "/proc/1/task/1/fd")
`,
		want: `
exe, mem, environ, maps, auxv, syscall, stack, clear_refs: ENOENT|EACCES|EPERM
overwrite, overwrite memory, link exe, link root, link cwd, link ns/mnt, link ns/pid, map_files: ENOENT|EACCES|EPERM|EROFS
fd, thread: ENOENT|EACCES
fd 0, fd 1, fd 2, fd 3, fd 4, fd 5, fd 6, fd 7, fd 8, fd 9: ENOENT|EACCES
through root, through cwd, chdir: ENOENT|EACCES`,
	},
	{
		name:    "trace init",
		tries:   "ptrace init, read and write its memory, take its descriptors with pidfd_getfd",
		outcome: "EPERM",
		program: `
attempt("attach", raw, "ptrace", 16, 1, 0, 0)
attempt("seize", raw, "ptrace", 0x4206, 1, 0, 0)
buffer = ctypes.create_string_buffer(8)
vec = struct.pack("QQ", ctypes.addressof(buffer), 8)
for name in "process_vm_readv", "process_vm_writev":
    attempt(name, raw, name, 1, vec, 1, struct.pack("QQ", 0x400000, 8), 1, 0)
fd = raw("pidfd_open", 1, 0)
for number in range(3, 10):
    attempt(f"pidfd_getfd {number}", raw, "pidfd_getfd", fd, number, 0)
attempt("kcmp", raw, "kcmp", os.getpid(), 1, 0, 0, 0)
attempt("mnt namespace", fcntl.ioctl, fd, 0xff03)
`,
		want: `
attach, seize, process_vm_readv, process_vm_writev, kcmp: EPERM
pidfd_getfd 3, pidfd_getfd 4, pidfd_getfd 5, pidfd_getfd 6, pidfd_getfd 7, pidfd_getfd 8, pidfd_getfd 9: EPERM
mnt namespace: EPERM|EACCES|ENOTTY|EINVAL`,
	},
	{
		name:    "trace its own child",
		tries:   "ptrace a child of its own, as a debugger does",
		outcome: "allowed",
		program: `
pid = os.fork()
if pid == 0:
    raw("ptrace", 0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)
_, status = os.waitpid(pid, 0)
print("stopped:", os.WIFSTOPPED(status))
attempt("continue", raw, "ptrace", 7, pid, 0, 0)
os.waitpid(pid, 0)
`,
		want: `
stopped: True
continue: DONE 0`,
	},
	{
		name:    "signals to init",
		tries:   "all 64 signals to PID 1, by kill, tgkill, rt_sigqueueinfo, pidfd_send_signal, to all processes",
		outcome: "EPERM; for uid 0 nothing happens",
		program: `
fd = raw("pidfd_open", 1, 0)
outcomes = set()
def collect(*args):
    try:
        outcomes.add(raw(*args))
    except OSError as e:
        outcomes.add(errno.errorcode[e.errno])
for signo in range(1, 65):
    info = struct.pack("iii", signo, 0, -1) + bytes(128 - 12)
    for _ in range(3):
        collect("tgkill", 1, 1, signo)
        collect("rt_sigqueueinfo", 1, signo, info)
        collect("pidfd_send_signal", fd, signo, None, 0)
        try:
            os.kill(1, signo)
        except OSError as e:
            outcomes.add(errno.errorcode[e.errno])
print("outcomes:", sorted(outcomes, key=str))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
attempt("all", os.kill, -1, signal.SIGTERM)
# Init still reaps: an orphan's end leaves no zombie.
child = os.fork()
if child == 0:
    if os.fork() == 0:
        os._exit(0)
    os._exit(0)
os.waitpid(child, 0)
def zombie(pid):
    try:
        return pid.isdigit() and b"\nState:\tZ" in get(f"/proc/{pid}/status")
    except OSError:
        return False # reaped just now
while any(zombie(pid) for pid in os.listdir("/proc")):
    time.sleep(0.01)
print("init: reaps")
`,
		want: `
outcomes: \['EPERM'\]
all: DONE|ESRCH
init: reaps`,
		root: `
outcomes: \[0\]|\[0, 'EPERM'\]`,
	},
	{
		name:    "signals outside",
		tries:   "signal the server and every other process of the host, by pid and by process group",
		outcome: "ESRCH: there are no such processes",
		program: `
attempt("server", os.kill, int(SERVER), signal.SIGTERM)
attempt("its group", os.killpg, int(SERVER), signal.SIGTERM)
attempt("pidfd", raw, "pidfd_open", int(SERVER), 0)
found = set()
for pid in range(2, 70000):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        continue
    except PermissionError:
        pass
    if pid > 64: # below are init's threads, which have numbers, too
        found.add(pid)
print("found:", len(found - {os.getpid()}))
# What a descriptor that it shares with the server could send.
attempt("owner of stdout", fcntl.fcntl, 1, fcntl.F_SETOWN, int(SERVER))
`,
		want: `
server, its group, pidfd: ESRCH
found: 0
owner of stdout: ESRCH`,
	},
	{
		name:    "the server's environment",
		tries:   "find the server's environment or command line in any process that it sees, or its own",
		outcome: "nothing",
		program: `
found = []
for place, _, names in os.walk("/proc"):
    if place.count("/") > 2 or not place.split("/")[-1].isdigit():
        continue
    for name in "environ", "cmdline", "auxv":
        try:
            if b"the-servers-" + b"secret" in get(place + "/" + name, 1 << 20):
                found.append(place + "/" + name)
        except OSError:
            pass
print("found:", found)
print("own:", sorted(os.environ))
`,
		want: `
found: \[\]
own: \['HOME', ('LC_CTYPE', )?'PATH', 'TELE_JOB_ID'(, 'USER')?\]`,
	},
	{
		name:    "what it inherits",
		tries:   "use descriptors, blocked signals, a session, a terminal or a keyring that the server left it",
		outcome: "descriptors 0, 1 and 2 alone, nothing blocked or ignored, its own session, no terminal",
		program: `
fds = []
for number in range(0, 1024):
    try:
        fds.append((number, stat.S_IFMT(os.fstat(number).st_mode)))
    except OSError:
        pass
print("descriptors:", [(n, {stat.S_IFCHR: "device", stat.S_IFIFO: "pipe"}.get(m, oct(m))) for n, m in fds])
status = get("/proc/self/status").decode()
print("signals:", [line.split()[1].lstrip("0") for line in status.splitlines() if line[:6] in ("SigBlk", "SigPnd", "ShdPnd")])
print("session:", os.getsid(0) == os.getpid() == os.getpgid(0))
print("terminal:", status and get("/proc/self/stat").split()[6])
attempt("/dev/tty", os.open, "/dev/tty", os.O_RDWR)
print("umask:", oct(os.umask(0)))
print("core:", resource.getrlimit(resource.RLIMIT_CORE))
`,
		want: `
descriptors: \[\(0, 'device'\), \(1, 'pipe'\), \(2, 'pipe'\)\]
signals: \['', '', ''\]
session: True
terminal: b'0'
/dev/tty: ENXIO
umask: 0o22
core: \(0, 0\)`,
	},
	{
		name:    "stand above others",
		tries:   "raise resource limits, priority, scheduling and I/O class; lower its OOM score",
		outcome: "EPERM, EACCES, EROFS",
		program: `
for name in "RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_MSGQUEUE":
    attempt(name, resource.setrlimit, getattr(resource, name, 12), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
attempt("nice", os.nice, -5)
attempt("real-time", os.sched_setscheduler, 0, os.SCHED_RR, os.sched_param(1))
attempt("I/O class", raw, "ioprio_set", 1, 0, 1 << 13)
attempt("OOM score", put, "/proc/self/oom_score_adj", "-1000")
attempt("lock memory", lambda: libc.mlockall(3) and (_ for _ in ()).throw(OSError(ctypes.get_errno(), "")))
`,
		want: `
RLIMIT_CORE, RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_NICE, RLIMIT_RTPRIO, RLIMIT_MSGQUEUE: not allowed to raise maximum limit|EPERM
nice, real-time, I/O class: EPERM|EACCES
OOM score: EROFS|EACCES
lock memory: ENOMEM|EPERM`,
	},
}
