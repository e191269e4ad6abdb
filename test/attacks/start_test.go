package attacks

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/telerun/tele/initproc"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// A trick is a request that has init itself do something, before the job's program begins.
type trick struct {
	name, tries, outcome string
	try                  func(t *testing.T, h *host, start starter)
}

var tricks = []trick{
	{
		name: "working directory by descriptor", tries: "begin in /proc/self/fd/N (CVE-2024-21626), /proc/self/cwd/.., /proc/1/root",
		outcome: "the job does not begin: no directory of the host is open",
		try: func(t *testing.T, h *host, start starter) {
			for n := range 70 {
				refused(t, h, start, &telev1.JobSpec{Command: []string{"true"}, Cwd: fmt.Sprintf("/proc/self/fd/%d", n)})
			}
			for _, cwd := range []string{"/proc/1/cwd", "/proc/1/root", "/proc/thread-self/fd/5/..", "/srv/secret", h.state + "/jobs"} {
				refused(t, h, start, &telev1.JobSpec{Command: []string{"true"}, Cwd: cwd})
			}
			s, err := start(t, h, &telev1.JobSpec{Command: []string{"pwd"}, Cwd: "/proc/self/cwd/../../../.."})
			mustDo(t, err)
			if out := s.output(); out != "/\n" {
				t.Errorf("it is in %q", out)
			}
		},
	},
	{
		name: "program by descriptor", tries: "execute what init has open",
		outcome: "the job does not begin",
		try: func(t *testing.T, h *host, start starter) {
			for n := range 70 {
				refused(t, h, start, &telev1.JobSpec{Command: []string{fmt.Sprintf("/proc/self/fd/%d", n)}})
			}
		},
	},
	{
		name: "the server's program", tries: "execute /proc/self/exe, which is the server's program before the job's (CVE-2019-5736), to write to it",
		outcome: "it runs as any program; it is a sealed copy that nobody can write to, root of the host included",
		try: func(t *testing.T, h *host, start starter) {
			s, err := start(t, h, &telev1.JobSpec{Command: []string{"/proc/self/exe"}})
			mustDo(t, err)
			if out := s.output(); out != "this is the server's own program, as a job\n" {
				t.Errorf("it wrote %q", out)
			}
			s, err = start(t, h, &telev1.JobSpec{Command: []string{"exe"}, Env: map[string]string{"PATH": "/proc/self:/usr/bin"}})
			mustDo(t, err)
			s.output()
			s, err = start(t, h, &telev1.JobSpec{Command: []string{"sleep", "1000"}})
			mustDo(t, err)
			defer func() { s.stop(); s.wait() }()
			if s.pid == 0 {
				return // the server does not say
			}
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/exe", s.pid), unix.O_RDONLY, 0)
			mustDo(t, err)
			defer unix.Close(fd)
			seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
			const all = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
			if err != nil || seals&all != all {
				t.Errorf("the init's program can be written to: seals %#x, %v", seals, err)
			}
			if link, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.pid)); err != nil || link != "/memfd:tele-init (deleted)" {
				t.Error(link, err)
			}
		},
	},
}

// refused checks that a job does not begin, because a step of its own failed.
func refused(t *testing.T, h *host, start starter, spec *telev1.JobSpec) {
	t.Helper()
	s, err := start(t, h, spec)
	if err == nil {
		t.Errorf("%v in %q began and wrote %q", spec.Command, spec.Cwd, s.output())
		return
	}
	if step := new(initproc.StepError); !errors.As(err, &step) {
		t.Errorf("%v in %q: %v", spec.Command, spec.Cwd, err)
	}
}

func TestTricks(t *testing.T)             { trickAll(t, asUser) }
func TestTricksWarm(t *testing.T)         { trickAll(t, asWarm) }
func TestTricksAsRoot(t *testing.T)       { trickAll(t, asRoot) }
func TestTricksAsSharedRoot(t *testing.T) { trickAll(t, asSharedRoot) }

func trickAll(t *testing.T, start starter) {
	h := newHost(t)
	for _, trick := range tricks {
		t.Run(trick.name, func(t *testing.T) {
			trick.try(t, h, start)
			h.unharmed(t)
		})
	}
}
