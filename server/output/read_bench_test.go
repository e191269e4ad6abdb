package output

import (
	"io"
	"os"
	"testing"
)

// BenchmarkReadLines reads 1 MiB that came in lines of 16 bytes, in chunks as a server sends them.
func BenchmarkReadLines(b *testing.B) {
	const size, line = 1 << 20, "fifteen letters\n"
	l := New(b.TempDir())
	defer l.Close()
	read, write, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	conn, err := read.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	for range size / len(line) {
		if _, err := write.WriteString(line); err != nil {
			b.Fatal(err)
		}
		if err := conn.Control(func(fd uintptr) { _, err = l.Drain(Stdout, int(fd)) }); err != nil {
			b.Fatal(err)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	l.Finish()
	buf := make([]byte, 512<<10)
	b.SetBytes(size)
	for b.Loop() {
		r, err := l.NewReader(ReadOptions{})
		if err != nil {
			b.Fatal(err)
		}
		total := 0
		for {
			c, err := r.Next(b.Context(), buf)
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			total += len(c.Data)
		}
		if err := r.Close(); err != nil || total != size {
			b.Fatalf("read %d, %v", total, err)
		}
	}
}
