package attacks

import (
	"strings"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// A flood is a program that takes what there is, or will not end. It runs with 64 MiB of memory and 64
// processes; meanwhile another job must be served, and afterwards nothing of it may be left.
type flood struct {
	name, tries, outcome string
	program              string
	goesOn               bool // it ends only when it is stopped
	user                 bool // it is not for uid 0: it needs the server
	spec                 func(*telev1.JobSpec)
	out                  string // what it must have written, where it is not killed before
	check                func(t *testing.T, e end)
	after                func(t *testing.T, h *host, s *sandbox)
}

var floods = []flood{
	{
		name: "fork bomb", tries: "fork without end", outcome: "as many processes as the limit says",
		program: `
print("ready", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
`,
		goesOn: true, check: atPidsLimit,
	},
	{
		name: "thread bomb", tries: "start threads without end", outcome: "as many as the limit says: they count as processes",
		program: `
print("ready", flush=True)
threading.stack_size(64 << 10)
stop = threading.Event()
try:
    while True:
        threading.Thread(target=stop.wait).start()
except (RuntimeError, MemoryError):
    print("held", flush=True)
os._exit(0)
`,
		out: "held", check: atPidsLimit,
	},
	{
		name: "zombies", tries: "leave children that have ended, and orphans, without end", outcome: "children count until they are reaped; init reaps orphans",
		program: `
print("ready", flush=True)
for _ in range(200): # orphans: more than there may be
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
try:
    while True:
        if os.fork() == 0:
            os._exit(0)
except OSError as e:
    print(errno.errorcode[e.errno], flush=True)
`,
		out: "EAGAIN", check: atPidsLimit,
	},
	{
		name: "memory bomb", tries: "take memory without end", outcome: "killed at its limit",
		program: `
print("ready", flush=True)
kept = []
while True:
    kept.append(bytearray(1 << 20))
`,
		check: outOfMemory,
	},
	{
		name: "memory by children", tries: "take memory in many processes, of which the kernel may kill but one at a time", outcome: "killed at its limit",
		program: `
print("ready", flush=True)
while True:
    try:
        if os.fork() == 0:
            kept = bytearray(8 << 20)
            time.sleep(1000)
    except OSError:
        time.sleep(0.01)
`,
		goesOn: true, check: withinMemory,
	},
	{
		name: "fill /dev/shm", tries: "write without end to /dev/shm", outcome: "counted in its memory: killed, or ENOSPC",
		program: fill("/dev/shm"), check: withinMemory,
	},
	{
		name: "fill /tmp", tries: "write without end to /tmp", outcome: "counted in its memory: killed, or ENOSPC",
		program: fill("/tmp"), check: withinMemory,
	},
	{
		name: "files in /tmp", tries: "make empty files in /tmp without end", outcome: "counted in its memory: killed, or ENOSPC",
		program: `
print("ready", flush=True)
try:
    for n in range(1 << 30):
        os.close(os.open(f"/tmp/{n}" + "x" * 200, os.O_CREAT))
except OSError as e:
    print(errno.errorcode[e.errno], flush=True)
`,
		check: withinMemory,
	},
	{
		name: "descriptors", tries: "open files without end, as many as it may", outcome: "EMFILE at its limit, or killed at that of its memory",
		program: `
print("ready", flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
try:
    while True:
        os.open("/etc/passwd", os.O_RDONLY)
except OSError as e:
    os.write(1, errno.errorcode[e.errno].encode())
`,
		out: "EMFILE", check: withinMemory,
	},
	{
		name: "pipes and sockets", tries: "fill the buffers of pipes and of Unix sockets", outcome: "counted in its memory: killed, or EMFILE",
		program: `
print("ready", flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
kept = []
try:
    for n in range(1 << 30):
        a, b = socket.socketpair() if n % 2 else os.pipe()
        kept.append((a, b))
        fd = a.fileno() if n % 2 else b
        os.set_blocking(fd, False)
        try:
            while True:
                os.write(fd, bytes(64 << 10))
        except BlockingIOError:
            pass
except OSError as e:
    os.write(1, errno.errorcode[e.errno].encode())
`,
		check: withinMemory,
	},
	{
		name: "TCP buffers", tries: "fill the buffers of TCP connections over loopback", outcome: "counted in its memory; on cgroup version 1 apart, up to as much again and some 100 KiB a connection, which the kernel gives all the same",
		program: `
print("ready", flush=True)
server = socket.create_server(("127.0.0.1", 0))
kept, held = [], 0
while len(kept) < 60 and held < 200 << 20: # without a limit, 5 MiB each
    a = socket.create_connection(server.getsockname())
    b, _ = server.accept()
    kept.append((a, b))
    for s in a, b:
        s.setblocking(False)
        try:
            while held < 200 << 20:
                held += s.send(bytes(64 << 10))
        except BlockingIOError:
            pass
print("within" if held < 100 << 20 else "beyond", held >> 20, flush=True)
`,
		out: "within", check: withinMemory,
	},
	{
		name: "terminals", tries: "open terminals without end: the machine has 4096", outcome: "256 a job",
		program: `
print("ready", flush=True)
count, kept = 0, []
try:
    while True:
        kept.append(os.open("/dev/ptmx", os.O_RDWR))
        count += 1
except OSError as e:
    print("made", count, flush=True)
`,
		out: "made 256",
	},
	{
		name: "output", tries: "write output without end", outcome: "stopped at its output limit", user: true,
		program: `
print("ready", flush=True)
while True:
    os.write(1, b"x" * 65536)
`,
		spec: func(s *telev1.JobSpec) { s.OutputLimit = "1M" },
		check: func(t *testing.T, e end) {
			if e.reason != telev1.Reason_REASON_OUTPUT_LIMIT {
				t.Errorf("ended for %v", e.reason)
			}
		},
	},
	{
		name: "refused calls", tries: "make refused calls without end, each of which the server answers (seccomp_log)", outcome: "the server serves others; its CPU time for it is its own", user: true,
		program: `
print("ready", flush=True)
while True:
    libc.umount2(b"/", 0)
`,
		goesOn: true, spec: func(s *telev1.JobSpec) { s.SeccompLog = true },
	},
	{
		name: "SIGCHLD to init", tries: "signal init without end, with the one signal that it has a handler for", outcome: "EPERM; uid 0 spends its own CPU limit",
		program: `
print("ready", flush=True)
while True:
    try:
        os.kill(1, signal.SIGCHLD)
    except OSError:
        pass
`,
		goesOn: true,
	},
	{
		name: "ignore the stop", tries: "block and ignore every signal", outcome: "killed after the grace time",
		program: `
for n in range(1, 65):
    try:
        signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
print("ready", flush=True)
while True:
    time.sleep(1000)
`,
		goesOn: true,
	},
	{
		name: "stopped", tries: "stop all of its processes (SIGSTOP), so that no signal is handled", outcome: "killed after the grace time",
		program: `
if os.fork():
    print("ready", flush=True)
while True:
    os.kill(os.getpid(), signal.SIGSTOP)
`,
		goesOn: true,
	},
	{
		name: "outlive the end", tries: "double fork, setsid, ignore signals, keep the output open, trace each other; then the command ends", outcome: "all are killed with it",
		program: `
print("ready", flush=True)
r, w = os.pipe()
for n in range(8):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for s in range(1, 32):
                try:
                    signal.signal(s, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            pid = os.fork()
            if pid and n % 2:
                raw("ptrace", 0x4206, pid, 0, 0)
            os.write(w, b"x")
            while True:
                time.sleep(1000)
        os._exit(0)
for n in range(8):
    os.read(r, 1)
`,
	},
	{
		name: "outlive the stop", tries: "the same, and fork again and again while it is stopped", outcome: "all are killed",
		program: `
print("ready", flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        if os.fork():
            os._exit(0) if os.getppid() != 1 else time.sleep(0.001)
        else:
            os.setsid()
    except OSError:
        pass
`,
		goesOn: true,
	},
	{
		name: "traps in the work directory", tries: "leave FIFOs, sockets, links, unreadable and deep directories, odd names, in the way of the server when it removes the job", outcome: "removed; nothing that a link leads to is touched", user: true,
		program: `
print("ready", flush=True)
for name in "record", "stdout", "index", "work", "\n\x1b[2J", "x" * 255:
    os.mkfifo("fifo" + name[:250])
    os.symlink("/opt/public", name)
os.symlink("/opt", "link")
socket.socket(socket.AF_UNIX).bind("socket")
for n in range(2000):
    os.mkdir(f"many{n}")
for n in range(3000):
    os.mkdir("deep")
    os.symlink("/opt", "deep/link")
    os.chdir("deep")
os.chmod(HOME, 0)
`,
		after: func(t *testing.T, h *host, s *sandbox) {
			j, err := h.table.Get(s.id, func(string) bool { return true })
			mustDo(t, err)
			mustDo(t, h.table.Remove(j))
		},
	},
}

// fill writes to one file until it can no more.
func fill(dir string) string {
	return `
print("ready", flush=True)
try:
    with open("` + dir + `/x", "wb", buffering=0) as f:
        while True:
            f.write(bytes(1 << 20))
except OSError as e:
    print(errno.errorcode[e.errno], flush=True)
`
}

const (
	floodMemory = 64 << 20
	floodPids   = 64
)

func atPidsLimit(t *testing.T, e end) {
	if e.pids > floodPids {
		t.Errorf("had %d processes", e.pids)
	}
}

// withinMemory allows what the kernel charges beyond the limit for a moment, to those that it kills.
func withinMemory(t *testing.T, e end) {
	if e.memory > floodMemory+1<<20 {
		t.Errorf("had %d bytes of memory", e.memory)
	}
}

func outOfMemory(t *testing.T, e end) {
	withinMemory(t, e)
	if !e.oom {
		t.Errorf("ended with %#x, %v", e.status, e.reason)
	}
}

func TestFloods(t *testing.T)       { floodAll(t, asUser, false) }
func TestFloodsAsRoot(t *testing.T) { floodAll(t, asRoot, true) }

func floodAll(t *testing.T, start starter, root bool) {
	h := newHost(t)
	for _, f := range floods {
		if root && f.user {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			spec := h.python(f.program)
			spec.Limits = &telev1.Limits{Memory: "64M", Pids: "64"}
			if f.spec != nil {
				f.spec(spec)
			}
			s, err := start(t, h, spec)
			mustDo(t, err)
			s.ready()
			h.serves(t)
			if f.goesOn {
				s.stop()
			}
			e := s.wait()
			if out := s.output(); !strings.Contains(out, f.out) && !e.oom {
				t.Errorf("it wrote %q", out)
			}
			if e.reason == telev1.Reason_REASON_LOST {
				t.Error("its init is gone")
			}
			if f.check != nil {
				f.check(t, e)
			}
			s.gone(t, h)
			if f.after != nil {
				f.after(t, h, s)
			}
			h.unharmed(t)
		})
	}
}

// serves checks that another job is served.
func (h *host) serves(t *testing.T) {
	t.Helper()
	begin := time.Now()
	s, err := asUser(t, h, &telev1.JobSpec{Command: []string{"echo", "served"}})
	mustDo(t, err)
	if out := s.output(); out != "served\n" {
		t.Errorf("another job wrote %q", out)
	}
	t.Logf("another job was served in %v", time.Since(begin))
}
