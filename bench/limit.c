//go:build ignore

// limit is how fast the kernel allows a command to be run: nothing but the system calls, made by a
// process that shares its memory with its child until exec (as vfork does). The harness also lets it
// start the other tools (exec), so that all of them are started and timed by the same code.
//
//   limit exec [-u DIR] COMMAND...      vfork, exec, wait; {} in an argument is the caller's number;
//                                       where nothing is mounted on DIR
//   limit bare COMMAND...               5 new namespaces (pid, mount, net, ipc, uts), / private, /proc
//   limit full OPTIONS COMMAND...       every step of tele's plan but cgroups and the seccomp filter
//   limit template OPTIONS COMMAND...   the same sandbox; what all jobs share is mounted once, before
//   limit tick MICROSECONDS COUNT       no launch: writes COUNT lines, each the time of its write
//
// OPTIONS: -a DIR where the new root is attached, -h DIR a directory to be hidden, -m FILE and -d DIR
// of /proc to be covered (each may be repeated), -s with a seccomp filter of 80 instructions.
//
// It reads lines "LAUNCHES SPACE CALLERS" and answers each with a line for every launch, nanoseconds
// from before clone to after wait, and a last one "total NANOSECONDS". SPACE is the least time between
// the starts of two launches of one caller, in microseconds. Callers are processes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

// Of <linux/mount.h>, which does not go together with every <sys/mount.h>.
#define CLONE_TREE 1        // OPEN_TREE_CLONE
#define TREE_CLOEXEC O_CLOEXEC
#define WHOLE_TREE 0x8000   // AT_RECURSIVE
#define FROM_EMPTY 4        // MOVE_MOUNT_F_EMPTY_PATH
#define SET_RDONLY 1
#define SET_NOSUID 2
#define SET_NODEV 4
#define SET_NOEXEC 8
struct attr { uint64_t set, clear, propagation, userns; };

enum { EXEC, BARE, FULL, TEMPLATE };
enum { IN = 100, OUT, ERR }; // what was 0, 1 and 2; a child has /dev/null there

static int mode, with_filter;
static char **command, *anchor, *without;
static char *hidden[64], *masked[64], *covered[64];
static int hiddens, maskeds, covereds;
static const char *devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
enum { DEVICES = 6, JOB = 0x70000000 };
static struct sock_filter code[80];
static struct sock_fprog filter = {80, code};

static void die(const char *step, const char *what) {
	dprintf(ERR, "limit: %s %s: %s\n", step, what, strerror(errno));
	_exit(125);
}

static void must(long result, const char *step, const char *what) {
	if (result < 0) die(step, what);
}

static void mounted(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
	must(mount(source, target, type, flags, data), "mount", target);
}

static int clone_tree(const char *path, unsigned flags, uint64_t set) {
	int fd = syscall(SYS_open_tree, AT_FDCWD, path, CLONE_TREE | TREE_CLOEXEC | flags);
	must(fd, "open_tree", path);
	struct attr attr = {.set = set};
	must(syscall(SYS_mount_setattr, fd, "", WHOLE_TREE | AT_EMPTY_PATH, &attr, sizeof attr), "mount_setattr", path);
	return fd;
}

static void attach(int fd, const char *path) {
	must(syscall(SYS_move_mount, fd, "", AT_FDCWD, path, FROM_EMPTY), "move_mount", path);
	close(fd);
}

static void new_root(void) {
	int root = clone_tree("/", WHOLE_TREE, SET_RDONLY | SET_NOSUID | SET_NODEV);
	must(syscall(SYS_move_mount, root, "", AT_FDCWD, anchor, FROM_EMPTY), "move_mount", anchor);
	must(fchdir(root), "fchdir", anchor);
	close(root);
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root", anchor);
	must(umount2(".", MNT_DETACH), "umount", "/");
	must(chdir("/"), "chdir", "/");
}

static void dev(int *nodes) {
	char path[64];
	mounted("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k,nr_inodes=32");
	for (int i = 0; i < DEVICES; i++) {
		sprintf(path, "dev/%s", devices[i]);
		must(mknod(path, S_IFREG | 0444, 0), "mknod", path);
		attach(nodes[i], path);
	}
	must(mkdir("dev/pts", 0755), "mkdir", "dev/pts");
	must(mkdir("dev/shm", 01777), "mkdir", "dev/shm");
	must(symlink("/proc/self/fd", "dev/fd"), "symlink", "dev/fd");
	must(symlink("/proc/self/fd/0", "dev/stdin"), "symlink", "dev/stdin");
	must(symlink("/proc/self/fd/1", "dev/stdout"), "symlink", "dev/stdout");
	must(symlink("/proc/self/fd/2", "dev/stderr"), "symlink", "dev/stderr");
	must(symlink("pts/ptmx", "dev/ptmx"), "symlink", "dev/ptmx");
	mounted(NULL, "dev", NULL, MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_REMOUNT | MS_BIND, NULL);
}

static void hide(void) {
	mounted("tmpfs", "mnt", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=4k,nr_inodes=1");
	for (int i = 0; i < hiddens; i++)
		if (strcmp(hidden[i], "/mnt") != 0) mounted("mnt", hidden[i], NULL, MS_BIND, NULL);
}

static void home(void) {
	mounted("tmpfs", "home", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=4k,nr_inodes=3");
	must(mkdir("home/job", 0755), "mkdir", "home/job");
}

static void clone_devices(int *nodes) {
	char path[64];
	for (int i = 0; i < DEVICES; i++) {
		sprintf(path, "/dev/%s", devices[i]);
		nodes[i] = clone_tree(path, 0, SET_RDONLY | SET_NOSUID | SET_NOEXEC);
	}
}

// shared is what all sandboxes have in common. What it covers is taken away first: a mount that nobody
// sees would be copied for each sandbox.
static void shared(void) {
	int nodes[DEVICES];
	clone_devices(nodes);
	new_root();
	const char *unseen[] = {"proc", "dev", "tmp", "home"};
	for (int i = 0; i < 4; i++)
		while (umount2(unseen[i], MNT_DETACH) == 0);
	for (int i = 0; i < hiddens; i++)
		while (umount2(hidden[i], MNT_DETACH) == 0);
	dev(nodes);
	hide();
	home();
	mounted(NULL, "home", NULL, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_REMOUNT | MS_BIND, NULL);
}

// own is what each has for itself; the paths are of the new root.
static void own(void) {
	mounted("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,max=256");
	mounted("tmpfs", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=524288000");
	mounted("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=524288000");
	if (mount("tmp", "var/tmp", NULL, MS_BIND, NULL) < 0 && errno != ENOENT) die("mount", "var/tmp");
	for (int i = 0; i < maskeds; i++)
		if (mount("dev/null", masked[i], NULL, MS_BIND, NULL) < 0 && errno != ENOENT) die("mount", masked[i]);
	for (int i = 0; i < covereds; i++)
		if (mount("mnt", covered[i], NULL, MS_BIND, NULL) < 0 && errno != ENOENT) die("mount", covered[i]);
	mounted("tmpfs", "home/job", "tmpfs", MS_NOSUID | MS_NODEV, "mode=700,uid=1879048192,gid=1879048192,size=524288000");
}

static void loopback(void) {
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(fd, "socket", "lo");
	must(ioctl(fd, SIOCSIFFLAGS, &lo), "ioctl", "lo");
	close(fd);
}

// powerless gives up what a job must not have.
static void powerless(void) {
	must(setsid(), "setsid", "");
	struct { int what; rlim_t soft, hard; } most[] = {{RLIMIT_CORE, 0, 0}, {RLIMIT_NOFILE, 1024, 20000},
		{RLIMIT_MEMLOCK, 8388608, 8388608}, {RLIMIT_MSGQUEUE, 819200, 819200}, {RLIMIT_NICE, 0, 0}, {RLIMIT_RTPRIO, 0, 0}};
	for (int i = 0; i < 6; i++) {
		struct rlimit l = {most[i].soft, most[i].hard};
		if (syscall(SYS_prlimit64, 0, most[i].what, &l, NULL) < 0 && errno != EPERM) die("prlimit64", "");
	}
	for (int c = 0; c <= 40; c++)
		if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0 && errno != EINVAL) die("prctl", "PR_CAPBSET_DROP");
	must(syscall(SYS_setresgid, JOB, JOB, JOB), "setresgid", "");
	must(syscall(SYS_setgroups, 0, NULL), "setgroups", "");
	must(syscall(SYS_setresuid, JOB, JOB, JOB), "setresuid", "");
	struct __user_cap_header_struct version = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
	must(syscall(SYS_capset, &version, none), "capset", "");
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0) < 0 && errno != ENOSYS) die("keyctl", "");
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl", "PR_SET_NO_NEW_PRIVS");
	if (with_filter) must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter), "seccomp", "");
	must(chdir("/home/job"), "chdir", "/home/job");
	must(syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC), "close_range", "");
}

// child is the new process, as PID 1 of its namespace, in its parent's memory.
static int child(void *arg) {
	switch (mode) {
	case BARE:
		mounted(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
		mounted("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
		break;
	case FULL: {
		int nodes[DEVICES];
		umask(022);
		mounted(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
		clone_devices(nodes);
		new_root();
		mounted("proc", "proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=4");
		dev(nodes);
		hide();
		home();
		own();
		mounted(NULL, "home", NULL, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_REMOUNT | MS_BIND, NULL);
		must(sethostname("limit", 5), "sethostname", "");
		loopback();
		powerless();
		break;
	}
	case TEMPLATE:
		umask(022);
		mounted("proc", "proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=4");
		own();
		must(sethostname("limit", 5), "sethostname", "");
		loopback();
		powerless();
	}
	execve(((char **)arg)[0], arg, environ);
	die("execve", ((char **)arg)[0]);
	return 0;
}

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t launch(char **argv) {
	static char stack[64 << 10] __attribute__((aligned(16)));
	int flags = CLONE_VM | CLONE_VFORK | SIGCHLD, status;
	if (mode != EXEC) flags |= CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
	if (mode >= FULL) flags |= CLONE_NEWCGROUP;
	int64_t began = now();
	pid_t pid = clone(child, stack + sizeof stack, flags, argv);
	must(pid, "clone", "");
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR) die("waitpid", "");
	int64_t took = now() - began;
	if (status != 0) {
		dprintf(ERR, "limit: %s: wait status %#x\n", argv[0], status);
		_exit(125);
	}
	return took;
}

// caller is one of several processes that launch: number n of all.
static void caller(int n, int launches, int64_t space, int64_t *times) {
	char number[16], *argv[512];
	sprintf(number, "%d", n);
	int i = 0;
	for (; command[i] && i < 511; i++) {
		argv[i] = command[i];
		char *at = strstr(command[i], "{}");
		if (at && asprintf(&argv[i], "%.*s%s%s", (int)(at - command[i]), command[i], number, at + 2) < 0) die("asprintf", "");
	}
	argv[i] = NULL;
	int64_t next = now();
	for (i = 0; i < launches; i++) {
		if (space) {
			struct timespec t = {next / 1000000000, next % 1000000000};
			while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR);
			next = now() + space;
		}
		times[i] = launch(argv);
	}
}

static void serve(void) {
	enum { MOST = 1 << 20 };
	int64_t *times = mmap(NULL, MOST * sizeof *times, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (times == MAP_FAILED) die("mmap", "");
	FILE *in = fdopen(IN, "r"), *out = fdopen(OUT, "w");
	int launches, callers;
	long space;
	while (fscanf(in, "%d %ld %d", &launches, &space, &callers) == 3) {
		if (launches > MOST || launches % callers) die("request", "");
		int64_t began = now();
		if (callers == 1) {
			caller(0, launches, space * 1000, times);
		} else {
			int each = launches / callers, status, bad = 0;
			for (int i = 0; i < callers; i++) {
				pid_t pid = fork();
				must(pid, "fork", "");
				if (pid == 0) {
					caller(i, each, space * 1000, times + i * each);
					_exit(0);
				}
			}
			while (wait(&status) > 0) bad |= status;
			if (bad) die("a caller", "ended early");
		}
		int64_t total = now() - began;
		for (int i = 0; i < launches; i++) fprintf(out, "%lld\n", (long long)times[i]);
		fprintf(out, "total %lld\n", (long long)total);
		fflush(out);
	}
}

// tick writes the time as often as it is told, for whoever measures how long a line takes.
static int tick(long space, long count) {
	for (int64_t next = now(); count > 0; count--) {
		next += space * 1000;
		struct timespec t = {next / 1000000000, next % 1000000000};
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR);
		dprintf(1, "%lld\n", (long long)now());
	}
	return 0;
}

static void list(char **to, int *n, char *path) {
	if (*n == 64) die("too many", path);
	to[(*n)++] = path[0] == '/' ? path + 1 : path;
}

// refuse assembles a filter as long as tele's: as many system calls looked at, none of them used.
static void refuse(void) {
	code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (int i = 1; i < 78; i++) code[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 600 + i, 78 - i, 0);
	code[78] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[79] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
}

int main(int argc, char **argv) {
	dup2(2, ERR);
	if (argc == 4 && !strcmp(argv[1], "tick")) return tick(atol(argv[2]), atol(argv[3]));
	if (argc < 3) {
		fprintf(stderr, "usage: limit exec|bare|full|template OPTIONS COMMAND...\n       limit tick MICROSECONDS COUNT\n");
		return 125;
	}
	mode = !strcmp(argv[1], "bare") ? BARE : !strcmp(argv[1], "full") ? FULL : !strcmp(argv[1], "template") ? TEMPLATE : EXEC;
	opterr = 0;
	argv++, argc--;
	for (int option; (option = getopt(argc, argv, "+a:h:m:d:su:")) != -1;) {
		switch (option) {
		case 'a': anchor = optarg; break;
		case 'h': list(hidden, &hiddens, optarg); break;
		case 'm': list(masked, &maskeds, optarg); break;
		case 'd': list(covered, &covereds, optarg); break;
		case 's': with_filter = 1; break;
		case 'u': without = optarg; break;
		default: fprintf(stderr, "limit: no such option\n"); return 125;
		}
	}
	command = argv + optind;
	refuse();
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	must(null, "open", "/dev/null");
	for (int fd = 0; fd < 3; fd++) {
		must(dup3(fd, IN + fd, O_CLOEXEC) < 0 ? -1 : dup2(null, fd), "dup", "");
	}
	if (mode == TEMPLATE || without) {
		must(unshare(CLONE_NEWNS), "unshare", "");
		mounted(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	}
	if (mode == TEMPLATE) shared();
	if (without) must(umount2(without, MNT_DETACH), "umount", without);
	serve();
	return 0;
}
