package initproc

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

func setHostname(b *builder, s Spec) {
	b.step("set the host name", unix.SYS_SETHOSTNAME, b.string(s.Hostname), number(len(s.Hostname)))
}

// loopbackUp brings up the one interface that a new network namespace has; with it come 127.0.0.1
// and ::1. netdevice(7).
func loopbackUp(b *builder, s Spec) {
	if s.HostNetwork {
		return
	}
	var ifreq [40]byte
	copy(ifreq[:unix.IFNAMSIZ], "lo")
	binary.NativeEndian.PutUint16(ifreq[unix.IFNAMSIZ:], unix.IFF_UP)
	fd := b.stepResult("bring up loopback", unix.SYS_SOCKET, number(unix.AF_INET),
		number(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), number(0))
	b.step("bring up loopback", unix.SYS_IOCTL, fd, number(unix.SIOCSIFFLAGS), b.bytes(ifreq[:]))
	b.step("bring up loopback", unix.SYS_CLOSE, fd)
}
