package main

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/telerun/tele/proto/files"
)

func TestMain(m *testing.M) {
	if os.Args[0] == files.AgentName { // in a job of a script's server
		os.Exit(run(os.Args))
	}
	commands := map[string]func(){}
	for _, name := range []string{"tele", "telerun", "teleworker", "tele-run", "tele-status", "tele-logs", "tele-probe"} {
		commands[name] = func() { os.Exit(run(append([]string{name}, os.Args[1:]...))) }
	}
	testscript.Main(m, commands)
}

// TestScripts runs the command lines in testdata against a real server, one for each script.
func TestScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		if strings.Contains(os.Getenv("TELE_REQUIRE"), "root") {
			t.Fatal("TELE_REQUIRE names root, and this is not root")
		}
		t.Skip("needs root")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TELE_ADDR", freeAddr(t))
			env.Setenv("TELE_STATE_DIR", filepath.Join(env.WorkDir, "state"))
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			env.Values["servers"] = &[]*serverProcess{}
			env.Values["shells"] = map[string]*shellSession{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit": expectExit, "server": startServer, "crash": crashServer, "await": awaitFile, "help": expectHelp, "cert": makeCert,
			"terminal": startTerminal, "type": typeKeys, "screen": awaitScreen, "needs": needsTool, "tab": pressTab,
			"readme-session": checkSession, "readme-exit-codes": checkExitCodes, "example": writeExample,
		},
	})
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// command is a command with the script's environment and output into the script's own.
func command(ts *testscript.TestScript, args []string) *exec.Cmd {
	path, err := exec.LookPath(args[0])
	ts.Check(err)
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = os.Environ()
	for _, name := range []string{"TELE_ADDR", "TELE_STATE_DIR", "TELE_CONTEXT", "XDG_CONFIG_HOME"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	return cmd
}

// expectExit is `exit CODE COMMAND…`: the command must end with just that code.
func expectExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE COMMAND…")
	}
	cmd := command(ts, args[1:])
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	_ = cmd.Run() // the code is looked at
	if got := fmt.Sprint(cmd.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

var update = flag.Bool("update", false, "write testdata/help, the manual pages and the README's session anew")

// expectHelp is `help NAME [COMMAND…]`: --help prints what the golden file in testdata/help says, in 80
// columns.
func expectHelp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: help NAME [COMMAND…]")
	}
	cmd := command(ts, append(slices.Clone(args), "--help"))
	cmd.Env = append(cmd.Env, "COLUMNS=80", "HOME=/root", "XDG_STATE_HOME=")
	got, err := cmd.Output()
	ts.Check(err)
	for line := range strings.Lines(string(got)) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 {
			ts.Fatalf("%v --help has a line of more than 80 columns: %s", args, line)
		}
	}
	dir, err := filepath.Abs("testdata/help")
	ts.Check(err)
	path := filepath.Join(dir, strings.Join(args, "-"))
	if *update {
		ts.Check(os.MkdirAll(dir, 0o755))
		ts.Check(os.WriteFile(path, got, 0o644))
		return
	}
	want, err := os.ReadFile(path)
	ts.Check(err)
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		ts.Fatalf("%v --help (-want +got):\n%s", args, diff)
	}
}

// A serverProcess is the server of a script.
type serverProcess struct {
	cmd     *exec.Cmd
	drained chan struct{} // closed when it has ended and log is complete
	log     bytes.Buffer
}

// startServer is `server COMMAND…`: starts it, waits until it listens, and ends it with the script.
func startServer(ts *testscript.TestScript, _ bool, args []string) {
	s := &serverProcess{cmd: command(ts, append(args, "--stop-jobs-on-exit")), drained: make(chan struct{})}
	stderr, err := s.cmd.StderrPipe()
	ts.Check(err)
	ts.Check(s.cmd.Start())
	listening := make(chan bool, 1)
	go func() {
		defer close(s.drained)
		buf := make([]byte, 4096)
		for told := false; ; {
			n, err := stderr.Read(buf)
			s.log.Write(buf[:n])
			if !told && (err != nil || bytes.Contains(s.log.Bytes(), []byte("cgroups"))) {
				listening <- err == nil
				told = true
			}
			if err != nil {
				return
			}
		}
	}()
	servers := ts.Value("servers").(*[]*serverProcess)
	*servers = append(*servers, s)
	ts.Defer(func() { s.end(ts, os.Interrupt) })
	if !<-listening {
		ts.Fatalf("the server ended:\n%s", s.log.String())
	}
}

// end ends the server, once, and logs what it said.
func (s *serverProcess) end(ts *testscript.TestScript, signal os.Signal) {
	if s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Signal(signal) // gone already shows below
	<-s.drained
	if err := s.cmd.Wait(); err != nil {
		ts.Logf("server: %v", err)
	}
	ts.Logf("server's log:\n%s", s.log.String())
}

// crashServer is `crash`: kill -9 to the server that was started last.
func crashServer(ts *testscript.TestScript, _ bool, _ []string) {
	servers := *ts.Value("servers").(*[]*serverProcess)
	if len(servers) == 0 {
		ts.Fatalf("no server runs")
	}
	servers[len(servers)-1].end(ts, os.Kill)
}

// needsTool is `needs TOOL`, for one that is not here: it fails where TELE_REQUIRE names the tool.
func needsTool(ts *testscript.TestScript, _ bool, args []string) {
	if slices.Contains(strings.Split(os.Getenv("TELE_REQUIRE"), ","), args[0]) {
		ts.Fatalf("TELE_REQUIRE names %s, and it is not here", args[0])
	}
}

// tmux is a tmux of the script's own.
func tmux(ts *testscript.TestScript, args ...string) *exec.Cmd {
	cmd := command(ts, append([]string{"tmux", "-L", "tele", "-f", "/dev/null"}, args...))
	cmd.Env = append(cmd.Env, "TMUX_TMPDIR="+ts.MkAbs("."), "SHELL=/bin/sh", "ENV=", "PS1=here> ", "TERM=xterm-256color",
		"PATH="+ts.Getenv("PATH"))
	return cmd
}

// startTerminal is `terminal COLUMNSxROWS`: a shell in a terminal of that size, the same one when it is there.
func startTerminal(ts *testscript.TestScript, _ bool, args []string) {
	columns, rows, _ := strings.Cut(args[0], "x")
	if tmux(ts, "has-session").Run() == nil {
		ts.Check(tmux(ts, "resize-window", "-x", columns, "-y", rows).Run())
		return
	}
	ts.Check(tmux(ts, "new-session", "-d", "-x", columns, "-y", rows, "sh").Run())
	ts.Setenv("TMUX_TMPDIR", ts.MkAbs("."))
	ts.Defer(func() { _ = tmux(ts, "kill-server").Run() }) // it may have ended with its shell
}

// typeKeys is `type KEYS…`, as tmux takes them.
func typeKeys(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(tmux(ts, append([]string{"send-keys"}, args...)...).Run())
}

// patience is how long what will come may take: on a machine that is emulated, shells begin after a minute.
const patience = 3 * time.Minute

// awaitScreen is `screen PATTERN`: waits until the terminal shows it.
func awaitScreen(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile("(?m)" + strings.ReplaceAll(args[0], `\n`, `\s*\n`))
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // another process writes it
		shown, err := tmux(ts, "capture-pane", "-p").Output()
		ts.Check(err)
		if pattern.Match(shown) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("the terminal does not show %q:\n%s", args[0], shown)
		}
	}
}

// awaitFile is `await FILE TEXT`: waits until the file holds the text.
func awaitFile(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: await FILE TEXT")
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // another process writes it
		if text, _ := os.ReadFile(ts.MkAbs(args[0])); bytes.Contains(text, []byte(args[1])) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s does not hold %q", args[0], args[1])
		}
	}
}
