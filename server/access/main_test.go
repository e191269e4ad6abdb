package access

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// asUser is "UID PATH" in a child of the test binary: it becomes that user, calls Get on the unix
// socket at PATH and prints what came back.
const asUser = "TELE_TEST_AS_USER"

func TestMain(m *testing.M) {
	if task := os.Getenv(asUser); task != "" {
		uid, path, _ := strings.Cut(task, " ")
		os.Exit(callAs(uid, path))
	}
	goleak.VerifyTestMain(m)
}

func callAs(text, path string) int {
	uid, err := strconv.Atoi(text)
	if err == nil {
		err = becomeUser(uid)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	who, err := whoOverUnix(path)
	fmt.Printf("%s\n%v\n", who, err)
	return 0
}

func becomeUser(uid int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setgid(uid); err != nil {
		return os.NewSyscallError("setgid", err)
	}
	return os.NewSyscallError("setuid", syscall.Setuid(uid))
}
