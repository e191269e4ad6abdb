package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// packages are what --install installs: the peers that Debian has, and a C compiler.
var packages = []string{"bubblewrap", "crun", "runc", "firejail", "util-linux", "gcc", "libc6-dev"}

func install() error {
	for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)} {
		cmd := exec.Command("apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w", args[0], err)
		}
	}
	return nil
}

// A peer is another tool that runs a command in a sandbox. Options are its command line up to the
// command that it is to run.
type peer struct {
	name    string
	version []string // prints its version in the first line
	options []string
	bundle  bool   // wants the command in a bundle's config.json
	slow    bool   // has a quarter of the launches, so that the others can have more
	without string // runs where nothing is mounted here
	// A caller's box has to be made before it is used, and is thrown away at the end; the number of the
	// caller is appended.
	init, cleanup []string
}

// peers are the tools that are on the PATH; missing are the names of the others.
func peers(i isolation) (have []peer, missing []string) {
	five := []string{"--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"}
	all := []peer{
		{name: "bubblewrap", version: []string{"bwrap", "--version"},
			options: append(append([]string{"bwrap"}, five...), "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--")},
		{name: "bubblewrap, tele's isolation", version: []string{"bwrap", "--version"}, options: i.bubblewrap()},
		{name: "unshare", version: []string{"unshare", "--version"},
			options: []string{"unshare", "--pid", "--fork", "--kill-child", "--mount", "--net", "--ipc", "--uts", "--mount-proc", "--"}},
		{name: "crun", version: []string{"crun", "--version"}, bundle: true, without: unified(),
			options: []string{"crun", "--cgroup-manager=disabled", "--root", "{root}", "run", "--bundle", "{bundle}", groupName + "{}"}},
		{name: "runc", version: []string{"runc", "--version"}, bundle: true, slow: true,
			options: []string{"runc", "--root", "{root}", "run", "--bundle", "{bundle}", groupName + "{}"}},
		{name: "firejail", version: []string{"firejail", "--version"}, slow: true,
			options: []string{"firejail", "--quiet", "--noprofile", "--net=none", "--private-dev", "--private-tmp", "--ipc-namespace",
				"--caps.drop=all", "--nonewprivs", "--seccomp", "--"}},
		{name: "nsjail", version: []string{"nsjail", "--help"},
			options: []string{"nsjail", "-Mo", "-Q", "--chroot", "/", "--user", "65534", "--group", "65534", "--disable_clone_newuser", "--"}},
		{name: "isolate", version: []string{"isolate", "--version"}, options: []string{"isolate", "--box-id={}", "--silent", "--run", "--"},
			init: []string{"isolate", "--init", "--box-id"}, cleanup: []string{"isolate", "--cleanup", "--box-id"}},
	}
	for _, p := range all {
		path, err := exec.LookPath(p.options[0])
		if err != nil {
			missing = append(missing, p.name+": not on the PATH")
			continue
		}
		p.options[0] = path // limit.c does not search
		have = append(have, p)
	}
	return have, missing
}

// groupName begins the names of what the peers of this run make in /sys/fs/cgroup.
var groupName = fmt.Sprintf("tele-bench-%d-", os.Getpid())

// removeGroups takes away what they left there: go-judge always, runc when it was killed.
func removeGroups() {
	for _, below := range []string{"/*", ""} {
		for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			groups, _ := filepath.Glob(pattern + groupName + "*" + below) // the pattern is a good one
			for _, group := range groups {
				_ = syscall.Rmdir(group) // a file, or gone
			}
		}
	}
}

// unified is the mount of cgroup version 2 beside version 1, with which crun does not start. It is told
// to use no cgroup anyway.
func unified() string {
	const dir = "/sys/fs/cgroup/unified"
	if fileText(dir+"/cgroup.controllers") == "" {
		return ""
	}
	return dir
}

// limitArgs are limit.c's to run this command line.
func (p peer) limitArgs(line []string) []string {
	if p.without != "" {
		line = append([]string{"-u", p.without}, line...)
	}
	return append([]string{"exec"}, line...)
}

// bubblewrap's options that come closest to tele's sandbox. What is missing: cgroups with limits, the
// seccomp filter, a user of the job's own on the host, limits of size for what is in memory.
func (i isolation) bubblewrap() []string {
	o := []string{"bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
		"--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--new-session", "--hostname", "job", "--clearenv",
		"--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp"}
	for _, dir := range i.hidden {
		o = append(o, "--tmpfs", dir)
	}
	for _, file := range i.maskedFiles {
		o = append(o, "--ro-bind", "/dev/null", file)
	}
	for _, dir := range i.maskedDirs {
		o = append(o, "--tmpfs", dir)
	}
	return append(o, "--tmpfs", "/home", "--dir", "/home/job", "--chdir", "/home/job", "--setenv", "HOME", "/home/job", "--")
}

// command is the whole command line; dir is for what the peer needs beside it, and memory, a directory
// in memory, for its state, as /run is where it has that by default.
func (p peer) command(dir, memory string, command ...string) ([]string, error) {
	if !p.bundle {
		return append(append([]string{}, p.options...), command...), nil
	}
	at := filepath.Join(dir, p.name+"-"+filepath.Base(command[0]))
	if err := makeBundle(at, command); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	replace := strings.NewReplacer("{root}", filepath.Join(memory, p.name), "{bundle}", at)
	var line []string
	for _, word := range p.options {
		line = append(line, replace.Replace(word))
	}
	return line, nil
}

// boxes makes or throws away the boxes of so many callers.
func boxes(command []string, callers int) error {
	for i := range callers {
		if len(command) == 0 {
			break
		}
		cmd := exec.Command(command[0], append(command[1:len(command):len(command)], fmt.Sprint(i))...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
		}
	}
	return nil
}

// makeBundle writes what `runc spec` would, without a terminal and with the namespaces that the others
// have. The root is a directory with the host's programs and libraries in it, read-only: neither runc
// nor crun takes "/" itself.
func makeBundle(dir string, command []string) error {
	root := filepath.Join(dir, "rootfs")
	for _, name := range []string{"rootfs/proc", "rootfs/dev", "rootfs/tmp", "rootfs/usr", "rootfs/etc"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(root, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	type mount struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options"`
	}
	var namespaces []map[string]string
	for _, kind := range []string{"pid", "mount", "network", "ipc", "uts"} {
		namespaces = append(namespaces, map[string]string{"type": kind})
	}
	config := map[string]any{
		"ociVersion": "1.0.0",
		"process": map[string]any{
			"user": map[string]int{"uid": 65534, "gid": 65534}, "args": command, "cwd": "/", "noNewPrivileges": true,
			"env": []string{"PATH=/usr/bin:/bin"},
		},
		"root": map[string]any{"path": root, "readonly": true},
		"mounts": []mount{
			{"/usr", "bind", "/usr", []string{"rbind", "ro", "nosuid"}},
			{"/etc", "bind", "/etc", []string{"rbind", "ro", "nosuid"}},
			{"/proc", "proc", "proc", []string{"nosuid", "noexec", "nodev"}},
			{"/dev", "tmpfs", "tmpfs", []string{"nosuid", "mode=755", "size=64k"}},
			{"/dev/pts", "devpts", "devpts", []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{"/dev/shm", "tmpfs", "shm", []string{"nosuid", "noexec", "nodev", "mode=1777"}},
			{"/tmp", "tmpfs", "tmpfs", []string{"nosuid", "nodev", "mode=1777"}},
		},
		"linux": map[string]any{
			"namespaces":  namespaces,
			"maskedPaths": []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/sys/firmware"},
		},
	}
	text, err := json.MarshalIndent(config, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600)
}

// versionOf is the first line that a tool says about itself.
func versionOf(command []string) string {
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(line) > 60 {
		return "version not known"
	}
	return line
}
