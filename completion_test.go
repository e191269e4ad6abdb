package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// What each shell reads when it starts, and how: it takes the script as a user's shell does, and on Ctrl-X p
// prints the line as it stands. Its prompt is "ready> ".
var shells = map[string]struct{ file, text string }{
	"bash": {"bashrc", `
source <(tele completion bash)
show() { printf 'line:<%s>\n' "$READLINE_LINE"; }
bind -x '"\C-xp": show'
PS1='ready> '
`},
	"zsh": {".zshrc", `
autoload -Uz compinit && compinit -u -D
source <(tele completion zsh)
show() { print -r -- "line:<$BUFFER>" }
zle -N show
bindkey '^Xp' show
unsetopt prompt_sp prompt_cr
PS1='ready> '
`},
	"fish": {"fish/config.fish", `
tele completion fish | source
function fish_greeting; end
function fish_prompt; echo -n 'ready> '; end
bind \cxp 'echo "line:<"(commandline)">"'
`},
}

// A shellSession is a shell of a script's at its prompt.
type shellSession struct {
	terminal *os.File
	seen     []byte // and not yet looked at
}

// pressTab is `tab SHELL LINE WANT`: in that shell, on a terminal, LINE and the tab key make WANT, in which
// ID stands for what is in the file id. A script has one shell of a kind, with the environment of then.
func pressTab(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: tab SHELL LINE WANT")
	}
	shell, line, want := args[0], args[1], args[2]
	if strings.Contains(want, "ID") {
		want = strings.ReplaceAll(want, "ID", strings.TrimSpace(ts.ReadFile("id")))
	}
	if _, err := exec.LookPath(shell); err != nil {
		if strings.Contains(os.Getenv("TELE_REQUIRE"), "shells") {
			ts.Fatalf("TELE_REQUIRE names shells: %v", err)
		}
		ts.Logf("not tested: %v", err)
		return
	}
	sessions := ts.Value("shells").(map[string]*shellSession)
	s := sessions[shell]
	if s == nil {
		s = startShell(ts, shell)
		sessions[shell] = s
		s.readTo(ts, "ready> ")
	}
	_, err := s.terminal.WriteString(line + "\t\x18p\x15") // Ctrl-U leaves an empty line
	ts.Check(err)
	s.readTo(ts, "line:<")
	if got := s.readTo(ts, ">"); got != want {
		ts.Fatalf("%s: %q and tab make %q, not %q", shell, line, got, want)
	}
}

// startShell starts a shell that ends with the script.
func startShell(ts *testscript.TestScript, shell string) *shellSession {
	startup := ts.MkAbs(shells[shell].file)
	ts.Check(os.MkdirAll(filepath.Dir(startup), 0o755))
	ts.Check(os.WriteFile(startup, []byte(shells[shell].text), 0o644))
	cmd := command(ts, map[string][]string{"bash": {"bash", "--rcfile", startup, "-i"}, "zsh": {"zsh", "-d", "-i"},
		"fish": {"fish", "-i"}}[shell])
	// A program with the race detector else sleeps for a second before it ends.
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0", "TERM=xterm", "HOME="+ts.MkAbs("."), "ZDOTDIR="+ts.MkAbs("."))
	if shell == "fish" {
		cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+ts.MkAbs("."))
	}
	s := &shellSession{terminal: startOnTerminal(ts, cmd)}
	ts.Defer(func() {
		_ = s.terminal.Close()    // hangs up
		_ = cmd.Process.Kill()    // which may have been enough
		_, _ = cmd.Process.Wait() // killed, as it is to be
	})
	return s
}

// readTo returns what the shell writes before text.
func (s *shellSession) readTo(ts *testscript.TestScript, text string) string {
	ts.Check(s.terminal.SetReadDeadline(time.Now().Add(patience)))
	for {
		if before, after, found := bytes.Cut(s.seen, []byte(text)); found {
			s.seen = after
			return string(before)
		}
		buf := make([]byte, 4096)
		n, err := s.terminal.Read(buf)
		if s.seen = append(s.seen, buf[:n]...); err != nil {
			ts.Fatalf("%v; no %q in %q", err, text, s.seen)
		}
	}
}

// startOnTerminal starts a command in a session of its own on a new, wide terminal and returns the other end.
func startOnTerminal(ts *testscript.TestScript, cmd *exec.Cmd) *os.File {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	ts.Check(err)
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	ts.Check(errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 200})))
	terminal := os.NewFile(uintptr(fd), "ptmx")
	side, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	ts.Check(err)
	defer side.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = side, side, side
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ts.Check(cmd.Start())
	return terminal
}
