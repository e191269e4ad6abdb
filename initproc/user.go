package initproc

import (
	"golang.org/x/sys/unix"
)

// dropCapabilities empties the bounding set, so that no program that the command executes can
// bring a capability back, capabilities(7). Those that this process has itself go with setUser.
func dropCapabilities(b *builder) {
	for capability := 0; capability <= unix.CAP_LAST_CAP; capability++ {
		b.step("drop capabilities", unix.SYS_PRCTL, number(unix.PR_CAPBSET_DROP), number(capability),
			number(0), number(0), number(0))
		b.tolerate(uint16(unix.EINVAL)) // an older kernel has fewer
	}
}

// setUser makes the command's process the job's user: group and groups first, which the user may
// not set. Changing from root to another user clears all capabilities; in a user namespace, where
// the one mapped user stays, they are cleared here.
func setUser(b *builder, s Spec) {
	if !s.UserNamespace {
		// Else programs could not open /dev/stdout and /dev/stderr: opening a pipe anew takes its permissions.
		b.step("give the output to the user", unix.SYS_FCHOWN, number(1), number(s.UID), number(s.GID))
		b.step("give the output to the user", unix.SYS_FCHOWN, number(2), number(s.UID), number(s.GID))
		b.step("set the group", unix.SYS_SETRESGID, number(s.GID), number(s.GID), number(s.GID))
		b.step("drop groups", unix.SYS_SETGROUPS, number(0), number(0))
		b.step("set the user", unix.SYS_SETRESUID, number(s.UID), number(s.UID), number(s.UID))
	}
	// struct __user_cap_header_struct: version 3, pid 0; data: three sets of 64 bits, all empty.
	header := b.words(unix.LINUX_CAPABILITY_VERSION_3)
	b.step("clear capabilities", unix.SYS_CAPSET, header, b.words(0, 0, 0))
}

// forbidNewPrivileges makes set-user-ID and file capabilities without effect for this process and
// all that come from it, for ever (prctl(2), PR_SET_NO_NEW_PRIVS). A seccomp filter needs it.
func forbidNewPrivileges(b *builder) {
	b.step("forbid new privileges", unix.SYS_PRCTL, number(unix.PR_SET_NO_NEW_PRIVS), number(1),
		number(0), number(0), number(0))
}

// setRlimits gives the command limits that do not depend on how the server was started, setrlimit(2).
func setRlimits(b *builder, h host) {
	for _, limit := range []struct {
		name       string
		resource   int
		soft, hard uint64
	}{
		{"forbid core dumps", unix.RLIMIT_CORE, 0, 0},                           // they would go where the host's core_pattern says
		{"limit open files", unix.RLIMIT_NOFILE, 1024, min(1<<16, h.openFiles)}, // select(2) can no more than 1024
		{"limit locked memory", unix.RLIMIT_MEMLOCK, 8 << 20, 8 << 20},
		{"limit message queues", unix.RLIMIT_MSGQUEUE, 800 << 10, 800 << 10},
		{"limit priority", unix.RLIMIT_NICE, 0, 0},
		{"limit priority", unix.RLIMIT_RTPRIO, 0, 0},
	} {
		b.step(limit.name, unix.SYS_PRLIMIT64, number(0), number(limit.resource), b.words(limit.soft, limit.hard), number(0))
		b.tolerate(uint16(unix.EPERM)) // the server's own is lower, and it lacks CAP_SYS_RESOURCE
	}
}

// newKeyring gives the command a session keyring of its own, keyctl(2): without it, it would have
// the server's. Its user is the job's already, so it is counted there.
func newKeyring(b *builder) {
	b.step("join a new session keyring", unix.SYS_KEYCTL, number(unix.KEYCTL_JOIN_SESSION_KEYRING), number(0))
	b.tolerate(uint16(unix.ENOSYS)) // a kernel without keys has none to protect
}
