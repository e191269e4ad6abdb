package attacks

// reach are attacks over sockets, pipes, terminals, shared memory and keys.
var reach = []attack{
	{
		name:    "another job",
		tries:   "reach a job that runs beside it and leaves all open: its files, /tmp, /dev/shm, sockets, shared memory, processes, output",
		outcome: "there is no way to it",
		program: `
def unix_socket(name):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(name)
directory = STATE + "/jobs/" + VICTIM
for path in directory + "/work/secret", directory + "/stdout", directory + "/record", "/tmp/secret", "/dev/shm/secret", HOME + "/secret":
    attempt("read " + path.replace(directory, "DIR"), get, path)
attempt("abstract", unix_socket, b"\0victim")
attempt("socket", unix_socket, "/tmp/victim")
attempt("loopback", socket.create_connection, ("127.0.0.1", 4242))
attempt("shm", raw, "shmget", 4242, 4096, 0)
print("processes:", [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())])
`,
		want: `
read DIR/work/secret, read DIR/stdout, read DIR/record, read /tmp/secret, read /dev/shm/secret, read /home/job/secret: ENOENT
socket, shm: ENOENT
abstract, loopback: ECONNREFUSED
processes: \[\]`,
	},
	{
		name:    "sockets of the host",
		tries:   "connect to the host's Unix sockets, abstract and by path, and to what listens on its loopback",
		outcome: "refused, or not there",
		program: `
def unix_socket(name):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(name)
attempt("hidden", unix_socket, "/srv/socket")
attempt("abstract", unix_socket, b"\0" + ABSTRACT.encode())
attempt("server's", unix_socket, STATE + "/tele.sock")
for path in "/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/journal/socket":
    attempt(path, unix_socket, path)
attempt("loopback", socket.create_connection, ("127.0.0.1", int(PORT)))
`,
		want: `
hidden, server's, /run/docker.sock, /var/run/docker.sock, /run/containerd/containerd.sock, /run/dbus/system_bus_socket, /run/systemd/private, /run/systemd/journal/socket: ENOENT
abstract, loopback: ECONNREFUSED`,
	},
	{
		name:    "sockets in sight",
		tries:   "connect to a Unix socket, or write to a FIFO, that lies outside of the hidden places and is open to all",
		outcome: "**not defended**: a read-only mount does not keep from connecting; hide such places (`--hide`)",
		program: `
with socket.socket(socket.AF_UNIX) as s:
    attempt("socket", s.connect, "/opt/socket")
attempt("fifo", lambda: os.open("/opt/fifo", os.O_RDWR) > 0)
`,
		want: `
socket: DONE
fifo: DONE True`,
	},
	{
		name:    "the network",
		tries:   "reach metadata services, the outside, by raw, packet, vsock and netlink sockets; change the network",
		outcome: "ENETUNREACH, EPERM, EAFNOSUPPORT: there is nothing but loopback",
		program: `
def tcp(address, family=socket.AF_INET):
    with socket.socket(family) as s:
        s.connect((address, 80))
for address in "169.254.169.254", "100.100.100.200", "10.0.0.1", "192.0.2.1":
    attempt(address, tcp, address)
attempt("fd00:ec2::254", tcp, "fd00:ec2::254", socket.AF_INET6)
attempt("udp", socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto, b"x", ("192.0.2.1", 53))
attempt("broadcast", socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto, b"x", ("255.255.255.255", 67))
attempt("raw", socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)
attempt("packet", socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0)
attempt("vsock", socket.socket, 40, socket.SOCK_STREAM)
attempt("ALG", socket.socket, 38, socket.SOCK_SEQPACKET)
print("interfaces:", [name for _, name in socket.if_nameindex() if name not in ("tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0")])
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
netlink.send(struct.pack("IHHII", 32, 16, 5, 1, 0) + struct.pack("BxHiII", 0, 0, 1, 0, 1)) # RTM_NEWLINK: lo down
answer = netlink.recv(4096)
print("lo down:", errno.errorcode[-struct.unpack("i", answer[16:20])[0]])
attempt("audit", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9).bind((0, 1)))
attempt("host's name", socket.sethostname, "owned")
print("uname:", os.uname().nodename == os.environ["TELE_JOB_ID"])
`,
		want: `
169.254.169.254, 100.100.100.200, 10.0.0.1, 192.0.2.1, fd00:ec2::254, udp, broadcast: ENETUNREACH|EHOSTUNREACH|EADDRNOTAVAIL|EACCES
raw: EPERM
packet, vsock, ALG: EAFNOSUPPORT
interfaces: \['lo'\]
lo down: EPERM
audit: EPERM|EPROTONOSUPPORT|ECONNREFUSED
host's name: EPERM
uname: True`,
	},
	{
		name:    "terminal injection",
		tries:   "TIOCSTI, TIOCLINUX, TIOCSETD (loads old line disciplines), TIOCCONS on a terminal of its own",
		outcome: "EPERM; no terminal of the host is in reach",
		program: `
controller, terminal = os.openpty()
for name, request in ("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541c), ("TIOCCONS", 0x541d), ("TIOCVHANGUP", 0x5437):
    attempt(name, fcntl.ioctl, terminal, request, b"x" * 8)
attempt("TIOCSTI with a high bit", raw, "ioctl", terminal, 0x5412 | 1 << 32, b"x")
attempt("TIOCSETD", fcntl.ioctl, terminal, 0x5423, struct.pack("i", 21))
print("terminals:", sorted(os.listdir("/dev/pts")))
attempt("vhangup", raw, "vhangup")
`,
		want: `
TIOCSTI, TIOCLINUX, TIOCCONS, TIOCVHANGUP, TIOCSTI with a high bit, TIOCSETD, vhangup: EPERM
terminals: \['0', 'ptmx'\]`,
	},
	{
		name:    "shared memory and queues",
		tries:   "open the host's System V shared memory and message queues",
		outcome: "ENOENT: an IPC namespace of its own",
		program: `
attempt("shm", raw, "shmget", int(SHM), 4096, 0)
print("listed:", len(get("/proc/sysvipc/shm").splitlines()) - 1)
attempt("/dev/mqueue", os.listdir, "/dev/mqueue")
`,
		want: `
shm, /dev/mqueue: ENOENT
listed: 0`,
	},
	{
		name:    "keys",
		tries:   "read or add keys: keyctl, add_key, request_key, /proc/keys",
		outcome: "EPERM, and an empty file",
		program: `
for keyring in -1, -2, -3, -4, -5:
    attempt(f"keyring {keyring}", raw, "keyctl", 11, keyring, None, 0)
attempt("add", raw, "add_key", b"user", b"x", b"x", 1, -4)
attempt("request", raw, "request_key", b"user", b"x", None, -4)
attempt("join", raw, "keyctl", 1, b"_ses")
for name in "keys", "key-users":
    attempt(name, get, "/proc/" + name)
`,
		want: `
keyring -1, keyring -2, keyring -3, keyring -4, keyring -5, add, request, join: EPERM
keys, key-users: DONE b''`,
	},
}
