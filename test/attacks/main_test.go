// Package attacks has the attacks on the sandbox, as tests: each is a program that runs as a job, as
// a job's ordinary user and as uid 0, and that says for each thing that it tries what came of it. The
// table in docs/THREATS.md is made of theirs: go test ./test/attacks -run Threats -update.
//
// The tests run in a mount namespace of their own, in which they put on the host what an attack looks
// for (host_test.go). Nothing is sent to the network: jobs have one of their own with nothing in it.
package attacks

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	// A sandbox's init is the program that made it: this one. Here it becomes one.
	_ "github.com/telerun/tele/initproc"
	"golang.org/x/sys/unix"
)

// secretVariable is in the environment of the server, which no job may see.
const secretVariable = "TELE_ATTACKS_SECRET"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv("TELE_JOB_ID") != "":
		fmt.Println("this is the server's own program, as a job") // what the attack "the server's program" starts
		return
	case os.Geteuid() != 0:
		m.Run()
		return
	case os.Getenv(secretVariable) == "":
		os.Exit(again())
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "make mounts private:", err)
		os.Exit(1)
	}
	m.Run()
}

// again runs this program in a mount namespace of its own and returns how it ended.
func again() int {
	runtime.LockOSThread() // its end would be Pdeathsig's time
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), secretVariable+"=the-servers-secret")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if strings.Contains(","+os.Getenv("TELE_REQUIRE")+",", ",root,") {
		t.Fatal("TELE_REQUIRE names root, and this is not root")
	}
	t.Skip("needs root")
}
