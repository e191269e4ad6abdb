package doctor

// This file is the probes: a job of the doctor's, in its sandbox, as the job's user, child of init. A
// probe tries what must not work, says how that went, and has nothing to clean up.

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/telerun/tele/initproc"
	"golang.org/x/sys/unix"
)

// ProbeName is the name that this program is called by in its role as a probe.
const ProbeName = "tele-probe"

// probePath is where a job of the doctor's sees it.
const probePath = "/tmp/" + ProbeName

// mark is an environment variable of the doctor's, which no job may see.
const mark = "TELE_DOCTOR_MARK"

// notAProbe is the exit code of a probe that will not run.
const notAProbe = 125

// Probe is that role; it returns the exit code.
func Probe(args []string) int {
	if exe, err := os.Executable(); err != nil || exe != probePath || os.Getppid() != 1 || len(args) == 0 {
		fmt.Fprintln(os.Stderr, ProbeName+": this is the inner part of tele doctor and is started by it alone; use: tele doctor")
		return notAProbe
	}
	switch args[0] {
	case "walls":
		lookAtWalls(args[1:])
	case "eat":
		eat()
	case "spin":
		spin()
	case "forks":
		forks()
	case "write":
		write(len(args) > 1)
	case "read":
		read()
	case "fill":
		fill()
	case "flood":
		_, _ = os.Stdout.Write(make([]byte, 1<<20)) // it is stopped meanwhile
		select {}
	case "sleep":
		time.Sleep(time.Hour)
	}
	return 0
}

// facts are what the walls must keep from the job.
type facts struct {
	tcp      string // a listener of the host
	abstract string // another, in the abstract namespace
	pid      int    // the doctor's
	hidden   []string
}

func (f facts) args() []string {
	return append([]string{"walls", f.tcp, f.abstract, strconv.Itoa(f.pid)}, f.hidden...)
}

// lookAtWalls writes a line for each wall: the verdict, its name and what was seen, with tabs between.
func lookAtWalls(args []string) {
	if len(args) < 3 {
		return
	}
	pid, _ := strconv.Atoi(args[2])
	f := facts{args[0], args[1], pid, args[3:]}
	for _, wall := range walls {
		verdict, seen := wall.probe(f)
		fmt.Printf("%s\t%s\t%s\n", verdict, wall.name, strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, seen))
	}
}

// walls are looked at in this order.
var walls = []struct {
	name  string
	probe func(facts) (Verdict, string)
}{
	{"network", network},
	{"writes to the host", writes},
	{"own places", places},
	{"hidden places", hidden},
	{"other processes", processes},
	{"init", initOutOfReach},
	{"capabilities", capabilities},
	{"new privileges", privileges},
	{"system calls", systemCalls},
	{"devices", devices},
	{"environment", environment},
	{"descriptors", descriptors},
	{"core dumps", coreDumps},
}

// verdict is a pass with what is good, unless something is bad.
func verdict(bad []string, good string) (Verdict, string) {
	const most = 4
	if len(bad) > most {
		bad = append(bad[:most:most], fmt.Sprintf("and %d more", len(bad)-most))
	}
	if len(bad) > 0 {
		return Fail, strings.Join(bad, "; ")
	}
	return Pass, good
}

func network(f facts) (Verdict, string) {
	var bad []string
	for _, host := range [][2]string{{"tcp", f.tcp}, {"unix", f.abstract}} {
		if c, err := net.DialTimeout(host[0], host[1], time.Second); err == nil {
			_ = c.Close()
			bad = append(bad, fmt.Sprintf("reached the host's %s socket %s", host[0], host[1]))
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return CannotTell, err.Error()
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0 {
			bad = append(bad, "has the interface "+i.Name)
		}
	}
	return verdict(bad, "only a loopback of its own")
}

// writes: each must be refused; and since the job's user could not write there anyway, that what is
// mounted there is read-only is looked at, too.
func writes(facts) (Verdict, string) {
	var bad []string
	for _, dir := range []string{"/", "/etc", "/usr", "/usr/bin", "/var", "/opt", "/boot", "/proc", "/proc/sys", "/sys", "/dev", "/home", "/run", "/root"} {
		path := filepath.Join(dir, ".tele-probe")
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			_ = f.Close()
			_ = os.Remove(path) // as if it had not been
			bad = append(bad, "made a file in "+dir)
		}
		var s unix.Statfs_t
		if unix.Statfs(dir, &s) == nil && s.Flags&unix.ST_RDONLY == 0 {
			bad = append(bad, dir+" is not mounted read-only")
		}
	}
	for _, path := range []string{"/etc/passwd", "/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj", os.Args[0]} {
		if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			_ = f.Close()
			bad = append(bad, "opened "+path+" for writing")
		}
	}
	return verdict(bad, "/, /etc, /usr, /var, /proc/sys, /dev, /sys and more are read-only")
}

// places are those that must be writable.
func places(facts) (Verdict, string) {
	var bad []string
	for _, dir := range []string{initproc.Home, "/tmp", "/dev/shm"} {
		entries, err := os.ReadDir(dir)
		entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return filepath.Join(dir, e.Name()) == probePath })
		if err := os.WriteFile(filepath.Join(dir, "probe"), []byte("probe"), 0o600); err != nil {
			bad = append(bad, err.Error())
		}
		if err != nil || len(entries) > 0 {
			bad = append(bad, fmt.Sprintf("%s is not its own: %v %v", dir, entries, err))
		}
	}
	return verdict(bad, initproc.Home+", /tmp and /dev/shm are its own")
}

func hidden(f facts) (Verdict, string) {
	var bad []string
	for _, dir := range append(f.hidden, "/home", "/mnt") {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			bad = append(bad, err.Error())
		}
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); path != initproc.Home {
				bad = append(bad, "sees "+path)
				break
			}
		}
	}
	return verdict(bad, fmt.Sprintf("%d places are empty", len(f.hidden)+2))
}

func processes(f facts) (Verdict, string) {
	var bad []string
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return CannotTell, err.Error()
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			bad = append(bad, fmt.Sprintf("sees process %d", pid))
		}
	}
	if f.pid > os.Getpid() && !errors.Is(unix.Kill(f.pid, 0), unix.ESRCH) {
		bad = append(bad, fmt.Sprintf("reaches process %d of the host", f.pid))
	}
	return verdict(bad, "sees its own alone")
}

func initOutOfReach(facts) (Verdict, string) {
	var bad []string
	for _, name := range []string{"exe", "root", "cwd", "environ", "mem", "maps", "fd", "ns/mnt"} {
		path := "/proc/1/" + name
		if _, err := os.Readlink(path); err == nil {
			bad = append(bad, "reads "+path)
		}
		if f, err := os.Open(path); err == nil {
			_ = f.Close()
			bad = append(bad, "opens "+path)
		}
	}
	runtime.LockOSThread() // ptrace's are between threads
	defer runtime.UnlockOSThread()
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1, 0, 0, 0, 0); errno == 0 {
		bad = append(bad, "traces init")
	}
	return verdict(bad, "/proc/1 tells nothing, and it cannot be traced")
}

// status is a line of /proc/self/status.
func status(key string) string {
	text, _ := os.ReadFile("/proc/self/status") // without it no line is found
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, key+":"); found {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func capabilities(facts) (Verdict, string) {
	var bad []string
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if value := status(set); strings.Trim(value, "0") != "" || value == "" {
			bad = append(bad, set+" is "+value)
		}
	}
	if groups := status("Groups"); groups != "" && os.Getuid() >= 0x70000000 { // as root alone they can be dropped
		bad = append(bad, "has the groups "+groups)
	}
	return verdict(bad, "none, and none to be had")
}

func privileges(facts) (Verdict, string) {
	var bad []string
	if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || n != 1 {
		bad = append(bad, fmt.Sprintf("no_new_privs is %d, %v", n, err))
	}
	for _, dir := range []string{"/", "/usr", "/tmp", initproc.Home} {
		var s unix.Statfs_t
		if unix.Statfs(dir, &s) == nil && s.Flags&unix.ST_NOSUID == 0 {
			bad = append(bad, dir+" is mounted without nosuid")
		}
	}
	return verdict(bad, "no_new_privs is set, and set-user-ID without effect")
}

// systemCalls: a kernel in which these are reached answers otherwise to arguments like these.
func systemCalls(facts) (Verdict, string) {
	if status("Seccomp") != "2" {
		return CannotTell, "there is no filter of system calls"
	}
	var bad []string
	refused := func(errno unix.Errno) bool {
		return errno == unix.EPERM || errno == unix.ENOSYS || errno == unix.EACCES
	}
	if _, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 0, 0, 0); !refused(errno) {
		bad = append(bad, "io_uring_setup is let through: "+errno.Error())
	}
	if _, _, errno := unix.Syscall(unix.SYS_KEYCTL, ^uintptr(0), 0, 0); !refused(errno) {
		bad = append(bad, "keyctl is let through: "+errno.Error())
	}
	if _, _, errno := unix.Syscall6(unix.SYS_MOUNT, 0, 0, 0, 0, 0, 0); !refused(errno) {
		bad = append(bad, "mount is let through: "+errno.Error())
	}
	return verdict(bad, "a filter refuses what no job needs")
}

func devices(facts) (Verdict, string) {
	var bad []string
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return CannotTell, err.Error()
	}
	usual := []string{"null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx", "shm", "fd", "stdin", "stdout", "stderr", ProbeName}
	for _, e := range entries {
		if !slices.Contains(usual, e.Name()) {
			bad = append(bad, "sees /dev/"+e.Name())
		}
	}
	path := filepath.Join(initproc.Home, "node")
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))); err == nil {
		if f, err := os.Open(path); err == nil {
			_ = f.Close()
			bad = append(bad, "made and opened a node of a disk")
		}
	}
	var s unix.Stat_t
	if unix.Stat("/dev/null", &s) != nil || s.Rdev != unix.Mkdev(1, 3) {
		bad = append(bad, "/dev/null is not what it is called")
	}
	return verdict(bad, "only the harmless ones, and no way to make others")
}

func environment(facts) (Verdict, string) {
	var bad []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.Contains([]string{"PATH", "HOME", "USER", "TELE_JOB_ID"}, name) {
			bad = append(bad, "has "+name)
		}
	}
	return verdict(bad, "nothing of the server's")
}

// descriptors: beside 0, 1 and 2 there are those that the Go runtime has for itself, also into the
// CPU's cgroup where that is in sight.
func descriptors(facts) (Verdict, string) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return CannotTell, err.Error()
	}
	var bad []string
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if n, _ := strconv.Atoi(e.Name()); n > 2 && err == nil && !strings.HasPrefix(to, "anon_inode:") &&
			!strings.HasPrefix(to, "/proc/") && !strings.HasPrefix(to, "/sys/fs/cgroup/") {
			bad = append(bad, e.Name()+" is "+to)
		}
	}
	return verdict(bad, "0, 1 and 2 alone")
}

func coreDumps(facts) (Verdict, string) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &r); err != nil || r.Max != 0 {
		return Fail, fmt.Sprintf("the limit is %d, %v", r.Max, err)
	}
	return Pass, "none"
}

// eat takes memory until it is killed.
func eat() {
	var all [][]byte
	for range eatAtMost >> 20 {
		piece := make([]byte, 1<<20)
		for i := 0; i < len(piece); i += 4096 {
			piece[i] = 1
		}
		all = append(all, piece)
	}
	fmt.Println(len(all))
}

// spin keeps two CPUs busy.
func spin() {
	end := time.Now().Add(spinFor)
	work := func() {
		for time.Now().Before(end) {
		}
	}
	go work()
	work()
}

// forks makes processes that do nothing until it may make no more, and writes how many.
func forks() {
	n := 0
	for ; n < 4*forkLimit; n++ {
		// As fork(2). The child does what is safe without the rest of the Go runtime: one system call.
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			break
		}
		if pid == 0 {
			for {
				_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
			}
		}
	}
	fmt.Println(n)
}

// write writes a file, and writes how many milliseconds it took.
func write(buffered bool) {
	flags := os.O_WRONLY | os.O_CREATE
	if !buffered {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(filepath.Join(initproc.Home, "probe"), flags, 0o600)
	if err != nil {
		fmt.Println(err)
		return
	}
	start := time.Now()
	for block := range blocks {
		if _, err := f.Write(block); err != nil {
			fmt.Println(err)
			return
		}
	}
	if err := f.Sync(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(time.Since(start).Milliseconds())
}

// blocks are as many as the probes write and read, each the same memory, aligned as O_DIRECT wants it.
func blocks(yield func([]byte) bool) {
	block, err := unix.Mmap(-1, 0, 128<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range writeBytes / len(block) {
		if !yield(block) {
			return
		}
	}
}

// read reads past the page cache what was written before, and says how many milliseconds it took.
func read() {
	path := filepath.Join(initproc.Home, "probe")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.Write(make([]byte, writeBytes))
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	if f, err = os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0); err != nil {
		fmt.Println(err)
		return
	}
	start := time.Now()
	for block := range blocks {
		if _, err := io.ReadFull(f, block); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(time.Since(start).Milliseconds())
}

// fill writes into /tmp until it is refused, and says how many MiB there was room for.
func fill() {
	f, err := os.Create("/tmp/fill")
	if err != nil {
		fmt.Println(err)
		return
	}
	mib := 0
	for block := make([]byte, 1<<20); mib < 2*64; mib++ {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	fmt.Println(mib)
}
