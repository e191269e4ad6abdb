package seccomp

import (
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// install puts this thread under a filter.
func install(b *testing.B, raw []byte) {
	program := unix.SockFprog{Len: uint16(len(raw) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&raw[0]))}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		b.Error(err)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		b.Error(errno)
	}
}

// onThread runs f on a thread that ends with it, and a filter with the thread.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// BenchmarkLoad is what the filter costs the start of a job.
func BenchmarkLoad(b *testing.B) {
	raw := Filter()
	var took time.Duration
	for range b.N {
		onThread(func() {
			begin := time.Now()
			install(b, raw)
			took += time.Since(begin)
		})
	}
	b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/load")
	b.ReportMetric(float64(len(raw)/8), "instructions")
	b.ReportMetric(0, "ns/op") // mostly the thread's
}

// BenchmarkCall is what it costs a system call that is simply allowed, one whose argument is looked
// at, and one that is refused.
func BenchmarkCall(b *testing.B) {
	for _, call := range []struct {
		name string
		nr   uintptr
		args [2]uintptr
	}{
		{"getppid", unix.SYS_GETPPID, [2]uintptr{}}, {"ioctl", unix.SYS_IOCTL, [2]uintptr{^uintptr(0), unix.TCGETS}},
		{"socket", unix.SYS_SOCKET, [2]uintptr{unix.AF_UNIX, 1 << 10}}, {"chroot", unix.SYS_CHROOT, [2]uintptr{}},
	} {
		for _, filter := range []bool{false, true} {
			name := call.name + "/without"
			if filter {
				name = call.name + "/with"
			}
			b.Run(name, func(b *testing.B) {
				onThread(func() {
					if filter {
						install(b, Filter())
					}
					b.ResetTimer()
					for range b.N {
						_, _, _ = syscall.RawSyscall(call.nr, call.args[0], call.args[1], 0)
					}
				})
			})
		}
	}
}
