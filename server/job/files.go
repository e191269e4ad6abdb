package job

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"github.com/telerun/tele/proto/files"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// This file copies files into a running job and out of it. It is the agent that does so (proto/files), beside
// the job's command: a server that is root would see what the job must not, and write past what limits it.

// A FilesError is why files could not be copied, in the words of the agent.
type FilesError struct{ Why string }

func (e *FilesError) Error() string { return e.Why }

// Files begins to copy. The stream of files is read from the agent's Stdout, or written to its Stdin. The
// caller closes what it gets.
func (j *Job) Files(ctx context.Context, t *telev1.FileTransfer) (*Beside, error) {
	if err := checkFiles(t); err != nil {
		return nil, err
	}
	s, init, err := j.besideSpec(&telev1.JobSpec{})
	if err != nil {
		return nil, err
	}
	s.Agent, s.Env = true, files.AgentEnv
	s.Command = files.PackCommand(t.Path)
	if t.Direction == telev1.FileDirection_FILE_DIRECTION_IN {
		s.Stdin = true
		s.Command = files.UnpackCommand(files.Place{Path: t.Path, Name: t.Name})
	}
	return j.runBeside(ctx, init, s)
}

func checkFiles(t *telev1.FileTransfer) error {
	switch {
	case t.Direction != telev1.FileDirection_FILE_DIRECTION_IN && t.Direction != telev1.FileDirection_FILE_DIRECTION_OUT:
		return bad("start.files.direction", "%d is neither in nor out", t.Direction)
	case t.Name != "" && t.Direction == telev1.FileDirection_FILE_DIRECTION_OUT:
		return bad("start.files.name", "is for files that go into a job")
	}
	return checkPlace("start.files", t.Path, t.Name)
}

// checkPlace looks at where files are, or are to be; field is the one that both are in.
func checkPlace(field, path, name string) error {
	switch {
	case path == "" || len(path) > maxPath || strings.Contains(path, "\x00"):
		return bad(field+".path", "%s is no path of at most %d bytes", Quote(path), maxPath)
	case name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00"):
		return bad(field+".name", "%s is no name of a file, of at most %d bytes", Quote(name), maxName)
	}
	return nil
}

// FilesEnd is how an agent ended that has said that: an error, or nil. What it said comes from the job's
// sandbox, and may be anything.
func (b *Beside) FilesEnd(said string) error {
	status, seen := b.Exit()
	switch {
	case !seen:
		return &FilesError{"the job ended while files were copied"}
	case status.ExitStatus() == 0:
		return nil
	case status.Signaled():
		return &FilesError{fmt.Sprintf("what copies files in the sandbox was ended by signal %d: the job ended, or its memory limit is too low; it takes some 8M",
			status.Signal())}
	case status.ExitStatus() == 1 && said != "":
		lines := strings.Split(strings.TrimSpace(said), "\n")
		return &FilesError{lines[len(lines)-1]}
	}
	return &FilesError{fmt.Sprintf("what copies files in the sandbox ended with exit code %d; it takes 4 of the processes that the job may have, and some 8M of its memory", status.ExitStatus())}
}

// Printable is text without what a terminal would obey but the ends of lines.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}
