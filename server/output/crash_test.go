package output

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The server of TestKilled is this test's binary with these variables set. Its descriptors:
//
//	3  the read end of the job's stdout, which the test keeps open too
//	4  the same of stderr
//	5  where it sends what a follower of both streams gets, from crashOffset on
const (
	crashDir    = "TELE_TEST_OUTPUT_DIR"
	crashOffset = "TELE_TEST_OUTPUT_OFFSET"
)

// crashServer takes over a log and its pipes, as the next server does, until their end.
func crashServer() {
	offset, err := strconv.ParseInt(os.Getenv(crashOffset), 10, 64)
	crashIf(err)
	l, err := Open(os.Getenv(crashDir))
	crashIf(err)
	reader, err := l.NewReader(ReadOptions{Offset: offset, Follow: true})
	crashIf(err)
	var follower, drains sync.WaitGroup
	follower.Go(func() {
		to := os.NewFile(5, "follower")
		buf := make([]byte, 32<<10)
		for {
			c, err := reader.Next(context.Background(), buf)
			if err == io.EOF {
				return
			}
			crashIf(err)
			_, err = to.Write(c.Data)
			crashIf(err)
		}
	})
	for s, fd := range map[Stream]int{Stdout: 3, Stderr: 4} {
		drains.Go(func() {
			crashIf(unix.SetNonblock(fd, true)) // exec made it blocking
			for {
				_, err := l.Drain(s, fd)
				if err == io.EOF {
					return
				}
				crashIf(err)
				_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
				if err != unix.EINTR {
					crashIf(err)
				}
			}
		})
	}
	drains.Wait()
	l.Finish()
	follower.Wait()
}

func crashIf(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "server of the test:", err)
		os.Exit(1)
	}
}

// A job writes numbered lines to both streams; its server is killed again and again at random
// moments, and each successor takes the same pipes over. Nothing is lost, doubled or torn, and who
// follows and comes back at its offset gets every byte once.
func TestKilled(t *testing.T) {
	const kills = 60
	total := [3]int64{Stdout: 48 << 20, Stderr: 16 << 20}
	rest := total
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()

	// The job: what it may write so far comes through more.
	var reads []*os.File
	var more [3]chan int64
	var job sync.WaitGroup
	for _, s := range []Stream{Stdout, Stderr} {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, 1<<20); err != nil {
			t.Fatal(err)
		}
		read, write := os.NewFile(uintptr(fds[0]), "read"), os.NewFile(uintptr(fds[1]), "write")
		defer read.Close()
		reads = append(reads, read)
		more[s] = make(chan int64, kills+1)
		job.Go(func() {
			defer write.Close()
			var p []byte
			line := 0
			for n := range more[s] {
				for n > 0 {
					for len(p) < 16<<10 {
						p = appendLine(p, int(s), line)
						line++
					}
					m, err := write.Write(p[:min(int64(len(p)), n)])
					if err != nil {
						t.Error(err)
						return
					}
					p, n = append(p[:0], p[m:]...), n-int64(m)
				}
			}
		})
	}
	var followed bytes.Buffer
	var killedAfter int64
	for i := range kills + 1 {
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		server := exec.Command("/proc/self/exe")
		server.Env = append(os.Environ(), crashDir+"="+dir, fmt.Sprintf("%s=%d", crashOffset, followed.Len()))
		server.Stderr = os.Stderr
		server.ExtraFiles = []*os.File{reads[0], reads[1], to}
		for _, s := range []Stream{Stdout, Stderr} {
			n := rest[s]
			if i < kills {
				n = 1 + random.Int64N(total[s]/kills) // something each time: the follower gets a byte
			}
			rest[s] -= n
			if more[s] <- n; i == kills {
				close(more[s])
			}
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		_ = to.Close()
		var client sync.WaitGroup
		begun := make(chan struct{})
		client.Go(func() {
			p := make([]byte, 64<<10)
			n, err := from.Read(p)
			for close(begun); err == nil; n, err = from.Read(p) {
				followed.Write(p[:n])
			}
		})
		if i < kills {
			if i%8 != 0 { // else the kill comes while it starts
				<-begun
			}
			time.Sleep(time.Duration(random.Int64N(int64(5 * time.Millisecond)))) // a random moment, no wait
			_ = server.Process.Kill()
		}
		err = server.Wait()
		client.Wait()
		_ = from.Close()
		if i == kills && err != nil {
			t.Fatal(err)
		}
		if state, ok := server.ProcessState.Sys().(interface{ Signaled() bool }); i < kills && (!ok || !state.Signaled()) {
			t.Fatalf("the server ended by itself: %v", err)
		}
		if i == kills-1 {
			killedAfter = int64(followed.Len())
		}
	}
	job.Wait()
	t.Logf("%d kills during the first %d MiB of %d", kills, killedAfter>>20, followed.Len()>>20)

	checkFiles(t, dir)
	for _, s := range []Stream{Stdout, Stderr} {
		checkLines(t, filepath.Join(dir, names[s]), int(s), total[s])
	}
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reader, err := l.NewReader(ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	buf := make([]byte, 64<<10)
	for {
		c, err := reader.Next(t.Context(), buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(followed.Next(len(c.Data)), c.Data) {
			t.Fatalf("the follower got something else at %d", c.Offset)
		}
	}
	if followed.Len() > 0 {
		t.Errorf("the follower got %d bytes too many", followed.Len())
	}
}

var padding = strings.Repeat("=", 100)

// appendLine makes lines of many lengths, so that pages and blocks end anywhere in them.
func appendLine(p []byte, s, line int) []byte {
	return fmt.Appendf(p, "%d line %d %s\n", s, line, padding[:line%len(padding)])
}

// checkLines checks that a file is the job's lines, up to the byte.
func checkLines(t *testing.T, path string, s int, size int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<16)
	var want []byte
	for line := 0; size > 0; line++ {
		want = appendLine(want[:0], s, line)
		want = want[:min(int64(len(want)), size)]
		got := make([]byte, len(want))
		if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: got %q, %v, want %q", path, got, err, want)
		}
		size -= int64(len(want))
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("%s is longer than what was written", path)
	}
}
