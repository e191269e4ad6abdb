package attacks

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// An attack is a program that tries something, and what must come of it.
type attack struct {
	name    string
	tries   string // for docs/THREATS.md, as is outcome
	outcome string
	// program is Python, after prelude; it prints a line "LABEL: WHAT CAME OF IT" for each try. want has
	// the same lines, with a regular expression for what may come of it; root has those of uid 0 that
	// are others.
	program    string
	want, root string
}

// prelude is what the programs have: raw makes a system call, whatever the C library thinks of it;
// attempt prints the name of the error, or that it was done and what it returned.
const prelude = `
import ctypes, errno, fcntl, mmap, os, resource, select, signal, socket, stat, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
HOME = "/home/job"

def raw(name, *args):
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(NUMBER[name]), *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result

def attempt(label, f, *args):
    try:
        result = f(*args)
    except OSError as e:
        result = errno.errorcode.get(e.errno, str(e))
    except ValueError as e:
        result = e # Python's own word for some of EINVAL, EPERM
    else:
        result = "DONE" if result is None else "DONE " + repr(result)
    print(f"{label}: {result}", flush=True)

def put(path, text="x"):
    with open(path, "w") as f:
        f.write(text)

def get(path, size=4096):
    with open(path, "rb") as f:
        return f.read(size)
`

var numbers = map[string]int{
	"acct": unix.SYS_ACCT, "add_key": unix.SYS_ADD_KEY, "bpf": unix.SYS_BPF, "capset": unix.SYS_CAPSET,
	"chroot": unix.SYS_CHROOT, "clock_adjtime": unix.SYS_CLOCK_ADJTIME, "clock_settime": unix.SYS_CLOCK_SETTIME,
	"clone": unix.SYS_CLONE, "clone3": unix.SYS_CLONE3, "delete_module": unix.SYS_DELETE_MODULE,
	"fanotify_init": unix.SYS_FANOTIFY_INIT, "finit_module": unix.SYS_FINIT_MODULE, "fsmount": unix.SYS_FSMOUNT,
	"fsopen": unix.SYS_FSOPEN, "init_module": unix.SYS_INIT_MODULE, "io_uring_setup": unix.SYS_IO_URING_SETUP,
	"ioctl": unix.SYS_IOCTL, "ioprio_set": unix.SYS_IOPRIO_SET, "kcmp": unix.SYS_KCMP, "kexec_load": unix.SYS_KEXEC_LOAD,
	"keyctl": unix.SYS_KEYCTL, "mknodat": unix.SYS_MKNODAT, "mount": unix.SYS_MOUNT,
	"mount_setattr": unix.SYS_MOUNT_SETATTR, "move_mount": unix.SYS_MOVE_MOUNT, "name_to_handle_at": unix.SYS_NAME_TO_HANDLE_AT,
	"open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "open_tree": unix.SYS_OPEN_TREE,
	"perf_event_open": unix.SYS_PERF_EVENT_OPEN, "personality": unix.SYS_PERSONALITY, "pidfd_getfd": unix.SYS_PIDFD_GETFD,
	"pidfd_open": unix.SYS_PIDFD_OPEN, "pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL, "pivot_root": unix.SYS_PIVOT_ROOT,
	"process_vm_readv": unix.SYS_PROCESS_VM_READV, "process_vm_writev": unix.SYS_PROCESS_VM_WRITEV, "prctl": unix.SYS_PRCTL,
	"ptrace": unix.SYS_PTRACE, "quotactl": unix.SYS_QUOTACTL, "reboot": unix.SYS_REBOOT, "request_key": unix.SYS_REQUEST_KEY,
	"rt_sigqueueinfo": unix.SYS_RT_SIGQUEUEINFO, "setdomainname": unix.SYS_SETDOMAINNAME, "sethostname": unix.SYS_SETHOSTNAME,
	"setns": unix.SYS_SETNS, "settimeofday": unix.SYS_SETTIMEOFDAY, "shmget": unix.SYS_SHMGET, "swapoff": unix.SYS_SWAPOFF,
	"swapon": unix.SYS_SWAPON, "syslog": unix.SYS_SYSLOG, "tgkill": unix.SYS_TGKILL, "umount2": unix.SYS_UMOUNT2,
	"unshare": unix.SYS_UNSHARE, "userfaultfd": unix.SYS_USERFAULTFD, "vhangup": unix.SYS_VHANGUP,
	"process_madvise": unix.SYS_PROCESS_MADVISE,
}

// python is a job that runs an attack's program.
func (h *host) python(program string) *telev1.JobSpec {
	var head strings.Builder
	fmt.Fprintf(&head, "NUMBER = {")
	for name, number := range numbers {
		fmt.Fprintf(&head, "%q: %d, ", name, number)
	}
	fmt.Fprintf(&head, "}\n")
	for name, value := range h.values {
		fmt.Fprintf(&head, "%s = %q\n", name, value)
	}
	return &telev1.JobSpec{Command: []string{"/usr/bin/python3", "-c", head.String() + prelude + program}}
}

// table is all attacks that are a program and what it prints.
var table = slices.Concat(processes, files, reach, walls, kernel)

func TestAttacks(t *testing.T)             { tryAll(t, asUser, false) }
func TestAttacksWarm(t *testing.T)         { tryAll(t, asWarm, false) }
func TestAttacksAsRoot(t *testing.T)       { tryAll(t, asRoot, true) }
func TestAttacksAsSharedRoot(t *testing.T) { tryAll(t, asSharedRoot, true) }

func tryAll(t *testing.T, start starter, root bool) {
	h := newHost(t)
	for _, a := range table {
		t.Run(a.name, func(t *testing.T) {
			s, err := start(t, h, h.python(a.program))
			mustDo(t, err)
			out := s.output()
			if end := s.wait(); end.status != 0 {
				t.Errorf("ended with status %#x, reason %v", end.status, end.reason)
			}
			a.check(t, out, root)
			if strings.Contains(out, secret) && !strings.Contains(a.root, secret) {
				t.Error("it read a secret")
			}
			h.unharmed(t)
		})
	}
}

// check compares the lines that an attack printed with those that it must.
func (a attack) check(t *testing.T, out string, root bool) {
	t.Helper()
	want := parse(t, a.want)
	if root {
		for label, value := range parse(t, a.root) {
			want[label] = value
		}
	}
	for line := range strings.Lines(out) {
		label, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		expected, known := want[label]
		switch {
		case !known:
			t.Errorf("says %q", line)
		case !regexp.MustCompile("^(?:" + expected + ")$").MatchString(value):
			t.Errorf("%s: %s, want %s", label, value, expected)
		}
		delete(want, label)
	}
	for label, value := range want {
		t.Errorf("does not say %s: %s", label, value)
	}
	if t.Failed() {
		t.Logf("it printed:\n%s", out)
	}
}

func parse(t *testing.T, lines string) map[string]string {
	t.Helper()
	parsed := map[string]string{}
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		label, value, found := strings.Cut(strings.TrimSpace(line), ": ")
		if label != "" && !found {
			t.Fatalf("no value: %q", line)
		}
		if found {
			for _, label := range strings.Split(label, ", ") {
				parsed[label] = value
			}
		}
	}
	return parsed
}
