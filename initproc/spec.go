package initproc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A Spec is all that a job's sandbox depends on. All paths are absolute and clean.
type Spec struct {
	// The job's own, chosen by the server.
	Hostname string // at most 64 bytes
	UID, GID uint32 // what the command runs as; not used with UserNamespace
	Work     string // the host's directory that becomes the job's work directory; empty: one in memory
	WorkSize int64  // bytes that fit into a work directory in memory; 0 is as usual
	Project  bool   // Work is held to a size by a project quota, which the job must not get out of

	// The machine's, the same for every job.
	Anchor        string   // an empty directory of the host, on which the new root is mounted
	Hide          []string // directories of the host that the job sees empty
	UserNamespace bool     // there is no root: the sandbox's root is the caller
	Join          int      // how many cgroup v1 `tasks` files init gets
	Seccomp       []byte   // the filter of system calls, an array of struct sock_filter; empty is none
	Usual         Sizes    // what jobs have that ask for nothing else: a sandbox has it until the job is known
	// Template begins in a copy of a Template that was made with the same Anchor and Hide. Such a sandbox
	// has nothing of the host's beside: no Work, Mounts, Root, Overlay or UserNamespace.
	Template bool

	// What was asked for.
	Mounts      []Mount
	Command     []string // the program and its arguments
	Env         []string // K=V
	Cwd         string   // as the job sees it
	HostNetwork bool
	TmpSize     int64  // bytes that fit into each of /tmp and /dev/shm; 0 is as usual
	Root        string // the directory of the host that becomes the root, read-only; empty is the host's own
	Overlay     bool   // instead, the root is a writable view of the host's
	OverlaySize int64  // bytes that fit into what the job changes in it; 0 is half of the memory
	// Stdin gives the command a standard input, which comes with Run: a pipe, or what is typed at Terminal.
	// Else it is /dev/null, or a terminal at which nobody types.
	Stdin bool
	// Terminal gives the command a terminal of that size as its standard input, output and error.
	Terminal *Size
	// Agent makes Command the arguments of this program, which comes with the plan: it is executed whatever the
	// sandbox's root has.
	Agent bool
	// Merge gives the command the pipe of its standard output for its standard error as well.
	Merge bool
	// SeccompListener makes a listener for the filter's notifications; see Init.Listen.
	SeccompListener bool
	// Secrets are files that only the job's user can read, in SecretsDir. What is in them comes with Run.
	Secrets []Secret
}

// Sizes are how many bytes fit into a job's file systems in memory; 0 is half of the machine's.
type Sizes struct {
	Work int64 // the work directory
	Tmp  int64 // each of /tmp and /dev/shm
}

// A Mount shows the job a file or directory of the host. Nothing on the way to Source or to Target may
// be a symbolic link. Target must be there in the job's root, but below Home and /tmp it is made.
type Mount struct {
	Source, Target string
	Writable       bool
	File           bool // Source is no directory
}

// Home is the job's work directory as the job sees it.
const Home = "/home/job"

// A Plan is the list of steps that make one sandbox and run the command in it, in two parts: what can be
// done before the job is known, and the rest. See the package's documentation.
type Plan struct {
	parts      [][]byte
	namespaces uintptr
	userns     bool
	agent      bool // Spec.Agent
}

// Continues tells whether an init that was prepared by q's first part can go on with p's second: whether
// what it has done is, byte for byte, what p begins with.
func (p *Plan) Continues(q *Plan) bool {
	return bytes.Equal(p.parts[0], q.parts[0]) && p.namespaces == q.namespaces && p.userns == q.userns
}

// A host is what a plan depends on beside its spec.
type host struct {
	mnt       uint64   // inode of the server's mount namespace, in which no plan may run
	openFiles uint64   // the server's hard RLIMIT_NOFILE
	mounts    []string // for an overlay or a template, the mounts below the root, none below another
}

// NewPlan returns the plan for a job. It looks at nothing but s and what this process is like.
func NewPlan(s Spec) (*Plan, error) {
	h, err := thisHost()
	if err != nil {
		return nil, err
	}
	if s.Overlay {
		if h.mounts, err = mountsBelowRoot(); err != nil {
			return nil, err
		}
	}
	return newPlan(s, h)
}

// hostMnt is the mount namespace of this process, which stays the one that it is. To ask takes as long as to
// make a directory.
var hostMnt = sync.OnceValues(func() (inode uint64, err error) {
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &own); err != nil {
		return 0, &os.PathError{Op: "stat", Path: "/proc/self/ns/mnt", Err: err}
	}
	return own.Ino, nil
})

// thisHost is the host without its mounts.
func thisHost() (h host, err error) {
	if h.mnt, err = hostMnt(); err != nil {
		return h, err
	}
	var files unix.Rlimit // which may be changed from outside, prlimit(1)
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return h, os.NewSyscallError("getrlimit", err)
	}
	h.openFiles = files.Max
	return h, nil
}

func newPlan(s Spec, h host) (*Plan, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	var before builder
	prepare(&before, s, h)
	after := builder{before: len(before.steps)}
	rest(&after, s, h)
	p := &Plan{parts: [][]byte{before.encode(h.mnt), after.encode(h.mnt)}, namespaces: namespaces, userns: s.UserNamespace,
		agent: s.Agent}
	if s.HostNetwork {
		p.namespaces &^= unix.CLONE_NEWNET
	}
	if s.UserNamespace {
		p.namespaces |= unix.CLONE_NEWUSER
	}
	if n := len(p.parts[1]); n > maxPlan {
		return nil, fmt.Errorf("command and environment take %d bytes, the most is about %d", n, maxPlan)
	}
	return p, nil
}

// namespaces are what every sandbox has of its own, by clone flags.
const namespaces = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

func (s *Spec) check() error {
	if s.Template && (s.Work != "" || len(s.Mounts) > 0 || s.Root != "" || s.Overlay || s.UserNamespace) {
		return errors.New("a sandbox from a template has nothing else of the host's")
	}
	if len(s.Command) == 0 || s.Command[0] == "" {
		return errors.New("the command is empty")
	}
	for _, list := range [][]string{s.Command, s.Env, {s.Cwd, s.Work, s.Anchor, s.Hostname, s.Root}, s.Hide} {
		for _, text := range list {
			if strings.Contains(text, "\x00") {
				return fmt.Errorf("%q has a NUL in it", text)
			}
		}
	}
	for _, m := range s.Mounts {
		if strings.Contains(m.Source+m.Target, "\x00") {
			return fmt.Errorf("mount %q has a NUL in it", m.Source+":"+m.Target)
		}
	}
	if n := len(s.Seccomp); n%sockFilterSize != 0 || n > maxFilter*sockFilterSize {
		return fmt.Errorf("a filter of %d bytes is not one", n)
	}
	return s.checkSecrets()
}

// path is the value of PATH that the command has.
func (s *Spec) path() string {
	for _, kv := range s.Env {
		if value, found := strings.CutPrefix(kv, "PATH="); found {
			return value
		}
	}
	return ""
}
