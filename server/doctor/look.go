package doctor

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits/cgroup"
	"github.com/telerun/tele/server/access"
	"golang.org/x/sys/unix"
)

// Look looks at the machine, within milliseconds, and changes nothing. groups are those that jobs
// will have.
func Look(stateDir string, groups *cgroup.Manager) Report {
	l := look{root: "/", isRoot: os.Geteuid() == 0}
	var report Report
	for _, check := range []struct {
		name string
		look func() (Verdict, string, string)
	}{
		{"kernel", l.kernel},
		{"cgroups", func() (Verdict, string, string) { return l.cgroups(groups.Layout(), groups.Explain()) }},
		{"namespaces", l.namespaces},
		{"user namespaces", l.userNamespaces},
		{"seccomp", l.seccomp},
		{"security modules", l.securityModules},
		{"overlayfs", l.overlayfs},
		{"project quota", func() (Verdict, string, string) { return l.projectQuota(stateDir) }},
		{"pidfd_getfd", l.takeDescriptors},
		{"memfd", l.memfd},
		{"start of inits", func() (Verdict, string, string) { return l.startOfInits(initproc.EarlyEntry()) }},
		{"disk space", func() (Verdict, string, string) { return l.diskSpace(stateDir) }},
		{"certificates", func() (Verdict, string, string) { return l.certificates(stateDir, time.Now()) }},
	} {
		verdict, seen, fix := check.look()
		report = append(report, Check{"machine", check.name, verdict, seen, fix})
	}
	return report
}

// A look is at the machine, or in tests at files like a machine's below another root.
type look struct {
	root   string
	isRoot bool
}

// text is what a file says, without the newline; empty when it cannot be read.
func (l look) text(path string) string {
	data, _ := os.ReadFile(filepath.Join(l.root, path)) // what is not there decides nothing
	return strings.TrimSpace(string(data))
}

// kernel: mount_setattr(2), without which there is no read-only root, came with 5.12, and
// cgroup.kill with 5.14.
func (l look) kernel() (Verdict, string, string) {
	release := l.text("proc/sys/kernel/osrelease")
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n < 2 {
		return CannotTell, fmt.Sprintf("the release %q says no version", release), "look at uname -r: tele needs Linux 5.12"
	}
	switch version := major*1000 + minor; {
	case version < 5012:
		return Fail, "Linux " + release + " is too old: the root cannot be made read-only", "use Linux 5.12 or newer"
	case version < 5014:
		return Pass, "Linux " + release + " (5.14 and newer kill a whole cgroup at once)", ""
	}
	return Pass, "Linux " + release, ""
}

func (l look) cgroups(layout string, explain []string) (Verdict, string, string) {
	seen := "layout " + layout
	if layout == "none" {
		seen += ", no limit can be enforced"
		explain = explain[:min(len(explain), 1)] // of version 2 if there is one; the others say the same of other trees
	}
	if len(explain) > 0 {
		seen += ": " + strings.Join(explain, "; ")
	}
	switch {
	case layout == "none" && l.isRoot:
		return Fail, seen, "mount cgroup2: mount -t cgroup2 none /sys/fs/cgroup"
	case layout == "none":
		return CannotTell, seen, "run the server as root, or under systemd with Delegate=yes"
	case len(explain) > 0 && l.isRoot:
		return Fail, seen, "see that all controllers are there (cgroup_disable= on the kernel's command line, cgroup.subtree_control)"
	case len(explain) > 0:
		return CannotTell, seen, "run the server as root, or under systemd with Delegate=yes"
	}
	return Pass, seen, ""
}

func (l look) namespaces() (Verdict, string, string) {
	var none, unknown []string
	for _, kind := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		if _, err := os.Lstat(filepath.Join(l.root, "proc/self/ns", kind)); err != nil {
			none = append(none, kind)
			continue
		}
		switch most := l.text("proc/sys/user/max_" + kind + "_namespaces"); most {
		case "0":
			none = append(none, kind)
		case "":
			unknown = append(unknown, kind)
		}
	}
	switch {
	case len(none) > 0:
		return Fail, "none to be had: " + strings.Join(none, ", "), "raise user.max_*_namespaces (sysctl), or use a kernel that has them"
	case len(unknown) > 0:
		return CannotTell, "the kernel does not say how many there may be: " + strings.Join(unknown, ", "), "see whether /proc/sys/user is hidden"
	}
	return Pass, "mount, PID, network, IPC, UTS, cgroup", ""
}

// userNamespaces are what a server that is not root makes the others with.
func (l look) userNamespaces() (Verdict, string, string) {
	why, fix := "", ""
	switch {
	case l.text("proc/sys/user/max_user_namespaces") == "0":
		why, fix = "user.max_user_namespaces is 0", "sysctl user.max_user_namespaces=10000"
	case l.text("proc/sys/kernel/unprivileged_userns_clone") == "0":
		why, fix = "kernel.unprivileged_userns_clone is 0", "sysctl kernel.unprivileged_userns_clone=1"
	case l.text("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		why = "AppArmor takes their rights away (kernel.apparmor_restrict_unprivileged_userns is 1)"
		fix = "give tele an AppArmor profile with userns, or sysctl kernel.apparmor_restrict_unprivileged_userns=0"
	}
	switch {
	case why == "":
		return Pass, "for every user", ""
	case l.isRoot:
		return Pass, "not for every user, and a server that is root needs none: " + why, ""
	}
	return Fail, why, fix + "; or run the server as root"
}

func (l look) seccomp() (Verdict, string, string) {
	if actions := l.text("proc/sys/kernel/seccomp/actions_avail"); actions != "" {
		return Pass, actions, ""
	}
	if strings.Contains(l.text("proc/self/status"), "Seccomp:") {
		return Pass, "filters (the kernel does not list its actions)", ""
	}
	return Fail, "the kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER"
}

func (l look) securityModules() (Verdict, string, string) {
	if modules := l.text("sys/kernel/security/lsm"); modules != "" {
		return Pass, modules, ""
	}
	return CannotTell, "/sys/kernel/security is not mounted, or the kernel has none", "mount -t securityfs none /sys/kernel/security"
}

func (l look) overlayfs() (Verdict, string, string) {
	for line := range strings.Lines(l.text("proc/filesystems")) {
		if words := strings.Fields(line); slices.Contains(words, "overlay") {
			return Pass, "the kernel has it", ""
		}
	}
	return CannotTell, "not loaded; the kernel may have it as a module", "modprobe overlay"
}

// projectQuota: whether it is switched on is said by the options of the mount.
func (l look) projectQuota(stateDir string) (Verdict, string, string) {
	dir := existing(stateDir)
	best, options := "", ""
	for line := range strings.Lines(l.text("proc/self/mounts")) {
		words := strings.Fields(line)
		if len(words) < 4 {
			continue
		}
		below := strings.TrimSuffix(words[1], "/") + "/"
		if strings.HasPrefix(dir+"/", below) && len(below) >= len(best) {
			best, options = below, words[2]+" "+words[3]
		}
	}
	kind, list, _ := strings.Cut(options, " ")
	for _, option := range strings.Split(list, ",") {
		if option == "prjquota" || option == "pquota" {
			return Pass, kind + " with " + option + " at " + best, ""
		}
	}
	if kind != "ext4" && kind != "xfs" && kind != "f2fs" {
		return CannotTell, fmt.Sprintf("%s is on %s, which has none that tele knows", dir, kind), "put the state directory on ext4 or xfs, mounted with prjquota"
	}
	return CannotTell, fmt.Sprintf("%s is on %s without it", dir, kind),
		"mount it with prjquota (ext4: tune2fs -O project -Q prjquota first), to hold what jobs keep on disk to a size"
}

// existing is path, or the nearest directory above it that is there.
func existing(path string) string {
	for path != "/" {
		if _, err := os.Stat(path); err == nil {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}

// takeDescriptors: a server takes over running jobs with pidfd_getfd(2), which asks what ptrace(2)
// asks.
func (l look) takeDescriptors() (Verdict, string, string) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err == nil {
		var copied int
		if copied, err = unix.PidfdGetfd(fd, 0, 0); err == nil {
			_ = unix.Close(copied) // it was only tried
		}
		_ = unix.Close(fd)
	}
	if err != nil {
		return Fail, "a later server cannot take over running jobs: " + err.Error(), "use Linux 5.6 or newer, without a filter for pidfd_getfd"
	}
	scope, _ := strconv.Atoi(l.text("proc/sys/kernel/yama/ptrace_scope"))
	switch {
	case scope == 3:
		return Fail, "a later server cannot take over running jobs: kernel.yama.ptrace_scope is 3", "boot with a lower one"
	case scope > 0 && !l.isRoot:
		return Fail, fmt.Sprintf("a later server cannot take over running jobs: kernel.yama.ptrace_scope is %d", scope),
			"run the server as root, or sysctl kernel.yama.ptrace_scope=0"
	}
	return Pass, "works", ""
}

// memfd: inits run from a sealed file in memory.
func (l look) memfd() (Verdict, string, string) {
	if l.text("proc/sys/vm/memfd_noexec") == "2" {
		return Fail, "vm.memfd_noexec is 2: no init can be started", "sysctl vm.memfd_noexec=1"
	}
	return Pass, "programs in memory can be executed", ""
}

// startOfInits is about this program more than the machine: without the linker's flag all works, slower.
func (l look) startOfInits(early bool) (Verdict, string, string) {
	if early {
		return Pass, "before the Go runtime (early entry)", ""
	}
	return CannotTell, "after the Go runtime (package hook): each start takes a millisecond more, each job a megabyte",
		"build with make build, which sets the entry"
}

func (l look) diskSpace(stateDir string) (Verdict, string, string) {
	dir := existing(stateDir)
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return CannotTell, fmt.Sprintf("statfs %s: %v", dir, err), "choose another --state-dir"
	}
	free := s.Bavail * uint64(s.Bsize)
	seen := fmt.Sprintf("%d MiB free at %s", free>>20, dir)
	switch {
	case free < 256<<20:
		return Fail, seen, "make room, or choose another --state-dir: by default a job may write 1 GiB of output"
	case s.Files > 0 && s.Ffree < 10_000:
		return Fail, fmt.Sprintf("%s, but only %d inodes", seen, s.Ffree), "remove files, or choose another --state-dir"
	}
	return Pass, seen, ""
}

func (l look) certificates(stateDir string, now time.Time) (Verdict, string, string) {
	files, _ := filepath.Glob(filepath.Join(access.CertDir(stateDir), "*.crt")) // fails for a bad pattern alone
	if len(files) == 0 {
		return CannotTell, "none in sight in " + access.CertDir(stateDir), "tele serve makes them when it starts first"
	}
	var first *x509.Certificate
	name := ""
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return CannotTell, err.Error(), "run tele doctor as the server's user"
		}
		block, _ := pem.Decode(data)
		if block == nil {
			return Fail, path + " holds no certificate", "remove it and restart tele serve, or issue it anew: tele certs issue"
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return Fail, path + ": " + err.Error(), "remove it and restart tele serve, or issue it anew: tele certs issue"
		}
		if first == nil || cert.NotAfter.Before(first.NotAfter) {
			first, name = cert, filepath.Base(path)
		}
	}
	if !first.NotAfter.After(now) {
		return Fail, fmt.Sprintf("%s expired on %s", name, first.NotAfter.Format(time.DateOnly)), "restart tele serve, which renews its own; others: tele certs issue"
	}
	return Pass, fmt.Sprintf("%d, the first to expire is %s, on %s", len(files), name, first.NotAfter.Format(time.DateOnly)), ""
}
