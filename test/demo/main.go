// Command demo shows tele at work: it starts a server with a state directory of its own, uses the
// real client, and removes all that it made. `make demo` builds bin/tele and runs it.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := demo(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// A stage is where the demo plays.
type stage struct {
	ctx     context.Context
	tele    string
	color   bool
	failed  []string
	shown   []string // the titles of what was not skipped
	skipped []string
}

func demo(ctx context.Context) error {
	tele, err := filepath.Abs("bin/tele")
	if err != nil {
		return err
	}
	state, err := os.MkdirTemp("", "tele-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	os.Setenv("TELE_ADDR", addr)
	os.Setenv("TELE_STATE_DIR", filepath.Join(state, "state"))
	server := exec.Command(tele, "serve", "--stop-jobs-on-exit")
	stderr, err := server.StderrPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return fmt.Errorf("start %s: %w (make build)", tele, err)
	}
	drained := make(chan struct{})
	listening := make(chan struct{})
	go readLog(stderr, listening, drained)
	defer func() {
		_ = server.Process.Signal(os.Interrupt) // gone already is as good
		<-drained
		_ = server.Wait()
	}()
	select {
	case <-listening:
	case <-drained:
		return errors.New("the server ended")
	}
	_, colorErr := unix.IoctlGetTermios(1, unix.TCGETS)
	s := &stage{ctx: ctx, tele: tele, color: colorErr == nil && os.Getenv("NO_COLOR") == ""}
	s.play()
	if len(s.failed) > 0 {
		return fmt.Errorf("not as promised: %s", strings.Join(s.failed, "; "))
	}
	fmt.Println("\nShown:")
	for _, what := range s.shown {
		fmt.Println(" ", what)
	}
	for _, what := range s.skipped {
		fmt.Println("Skipped:", what)
	}
	fmt.Println("Everything it made is removed.")
	return nil
}

func readLog(r interface{ Read([]byte) (int, error) }, listening, drained chan struct{}) {
	defer close(drained)
	var log bytes.Buffer
	buf := make([]byte, 4096)
	for told := false; ; {
		n, err := r.Read(buf)
		log.Write(buf[:n])
		if !told && bytes.Contains(log.Bytes(), []byte("cgroups")) {
			close(listening)
			told = true
		}
		if err != nil {
			if !told {
				os.Stderr.Write(log.Bytes())
			}
			return
		}
	}
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *stage) play() {
	s.title("A command, elsewhere: its output, its exit code")
	s.show(0, "run", "--", "ls", "/")
	s.show(3, "run", "--", "sh", "-c", "echo to stderr >&2; exit 3")

	s.title("A Go program, built and run inside a job")
	if goroot, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		s.show(0, "run", "--cpu", "2", "--memory", "2G", "--io-read", "max", "--io-write", "max",
			"--env", "PATH="+strings.TrimSpace(string(goroot))+"/bin:/usr/bin:/bin", "--", "sh", "-c", program)
	} else {
		s.skip("the build, as there is no Go here")
	}

	s.title("A job that prints for a while, bytes of all kinds, followed by two clients at once")
	id := s.id("run", "-d", "--", "sh", "-c", "for i in 1 2 3; do head -c 100000 /dev/urandom; sleep 0.5; done")
	s.followTwice(id)

	limited, _ := s.lastJob()
	s.title("A job that eats memory ends with its reason")
	if _, err := exec.LookPath("python3"); !limited["memory"] {
		s.skip("the memory limit, which this server cannot enforce: start the demo as root")
	} else if err != nil {
		s.skip("the memory limit, as there is no python3 here")
	} else {
		s.show(137, "run", "--", "python3", "-c", "x = bytearray(600 << 20)")
	}

	s.title("A fork bomb is held")
	if limited["pids"] {
		s.show(0, "run", "--pids", "20", "--", "sh", "-c", "bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 1")
		if _, peak := s.lastJob(); peak == nil {
			fmt.Println("(this kernel does not count how many processes there were)")
		} else if fmt.Printf("at most %d processes at one time\n", *peak); *peak > 21 { // init is not counted in the 20
			s.failed = append(s.failed, "the fork bomb was not held")
		}
	} else {
		s.skip("the fork bomb, as this server cannot enforce the limit of processes: start the demo as root")
	}

	s.title("One job stopped gracefully, one killed")
	id = s.id("run", "-d", "--", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
	s.show(0, "stop", id)
	id = s.id("run", "-d", "--", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
	s.show(0, "stop", "--grace", "300ms", id)

	s.title("All of them, in a table")
	s.show(0, "status")
}

// lastJob returns which limits the server enforces for the newest job, and how many processes that
// had at one time, as tele status says.
func (s *stage) lastJob() (limited map[string]bool, pidsPeak *int) {
	out, err := exec.CommandContext(s.ctx, s.tele, "status", "-o", "json").Output()
	var jobs []struct {
		Limits map[string]struct {
			Applied string `json:"applied"`
		} `json:"limits"`
		Usage struct {
			PidsPeak *int `json:"pids_peak"`
		} `json:"usage"`
	}
	if err == nil {
		err = json.Unmarshal(out, &jobs)
	}
	if err != nil || len(jobs) == 0 {
		s.failed = append(s.failed, fmt.Sprintf("tele status: %d jobs, %v", len(jobs), err))
		return nil, nil
	}
	limited = map[string]bool{}
	for name, limit := range jobs[0].Limits {
		limited[name] = limit.Applied != ""
	}
	return limited, jobs[0].Usage.PidsPeak
}

func (s *stage) skip(what string) {
	fmt.Println("skipped:", what)
	s.skipped, s.shown = append(s.skipped, what), s.shown[:len(s.shown)-1]
}

const program = `cat > main.go <<'END'
package main

import "fmt"

func main() { fmt.Println("built and run inside a job") }
END
export GOCACHE=$HOME/cache GOFLAGS=-mod=mod GOTOOLCHAIN=local
go build -o hello main.go && ./hello`

func (s *stage) title(text string) {
	s.shown = append(s.shown, text)
	if s.color {
		text = "\x1b[1;36m" + text + "\x1b[0m"
	}
	fmt.Printf("\n%s\n", text)
}

// show runs a command as a person would; want is its exit code, or -1 for any.
func (s *stage) show(want int, args ...string) {
	fmt.Println("$ tele", strings.ReplaceAll(strings.Join(args, " "), "\n", "\n  "))
	cmd := exec.CommandContext(s.ctx, s.tele, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	_ = cmd.Run() // the code is looked at
	code := cmd.ProcessState.ExitCode()
	fmt.Printf("exit code %d\n", code)
	if want >= 0 && code != want {
		s.failed = append(s.failed, fmt.Sprintf("tele %s: exit code %d, not %d", args[0], code, want))
	}
}

func (s *stage) id(args ...string) string {
	fmt.Println("$ tele", strings.Join(args, " "))
	out, err := exec.CommandContext(s.ctx, s.tele, args...).Output()
	if err != nil {
		s.failed = append(s.failed, "no job: "+err.Error())
	}
	id := strings.TrimSpace(string(out))
	fmt.Println(id)
	return id
}

func (s *stage) followTwice(id string) {
	var sums [2]string
	var both sync.WaitGroup
	begin := time.Now()
	for i := range sums {
		both.Go(func() {
			out, err := exec.CommandContext(s.ctx, s.tele, "logs", id).Output()
			sums[i] = fmt.Sprintf("%d bytes, sha256 %.16x (%v)", len(out), sha256.Sum256(out), err)
		})
	}
	both.Wait()
	for i, sum := range sums {
		fmt.Printf("follower %d: %s\n", i+1, sum)
	}
	fmt.Printf("after %s\n", time.Since(begin).Round(100*time.Millisecond))
	if sums[0] != sums[1] || !strings.HasPrefix(sums[0], "300000 bytes") {
		s.failed = append(s.failed, "the followers differ")
	}
}
