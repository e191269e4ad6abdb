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

// setRlimits allows no core dumps: they would go where the host's core_pattern says.
func setRlimits(b *builder) {
	b.step("forbid core dumps", unix.SYS_PRLIMIT64, number(0), number(unix.RLIMIT_CORE),
		b.words(0, 0), number(0))
}
