package output

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkDrain moves blocks of 1 MiB from a pipe of that size into a file: as Drain does, and
// with read and write, as cat does. How long the writer takes to fill the pipe is not measured.
func BenchmarkDrain(b *testing.B) {
	const block, most = 1 << 20, 256 << 20
	data := make([]byte, block)
	b.Run("splice", func(b *testing.B) {
		benchmark(b, data, most, func(dir string) (func(pipe int) (int64, error), io.Closer) {
			l := New(dir)
			return func(pipe int) (int64, error) { return l.Drain(Stdout, pipe) }, closer(l.Close)
		})
	})
	b.Run("copy", func(b *testing.B) {
		buf := make([]byte, 128<<10) // as cat
		benchmark(b, data, most, func(dir string) (func(pipe int) (int64, error), io.Closer) {
			f, err := os.Create(filepath.Join(dir, "stdout"))
			if err != nil {
				b.Fatal(err)
			}
			return func(pipe int) (total int64, err error) {
				for {
					n, err := unix.Read(pipe, buf)
					if err == unix.EAGAIN {
						return total, nil
					}
					if err != nil {
						return total, err
					}
					if _, err := f.Write(buf[:n]); err != nil {
						return total, err
					}
					total += int64(n)
				}
			}, f
		})
	})
}

type closer func() error

func (c closer) Close() error { return c() }

func benchmark(b *testing.B, data []byte, most int64, open func(dir string) (func(pipe int) (int64, error), io.Closer)) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		b.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	if _, err := unix.FcntlInt(uintptr(pipe[1]), unix.F_SETPIPE_SZ, len(data)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	var drain func(pipe int) (int64, error)
	var log io.Closer
	var size int64
	dir := ""
	renew := func() {
		if log != nil {
			_ = log.Close()
			_ = os.RemoveAll(dir)
		}
		log, size = nil, 0
	}
	defer renew()
	for b.Loop() {
		b.StopTimer()
		if log != nil && size >= most {
			renew()
		}
		if log == nil {
			var err error
			if dir, err = os.MkdirTemp(b.TempDir(), ""); err != nil {
				b.Fatal(err)
			}
			drain, log = open(dir)
		}
		if n, err := unix.Write(pipe[1], data); n != len(data) {
			b.Fatalf("wrote %d, %v", n, err)
		}
		b.StartTimer()
		n, err := drain(pipe[0])
		if err != nil || n != int64(len(data)) {
			b.Fatalf("drained %d, %v", n, err)
		}
		size += n
	}
}
