package job

import (
	"errors"
	"math"

	"github.com/telerun/tele/initproc"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// ErrNoTerminal is returned for a job that was started without.
var ErrNoTerminal = errors.New("the job has no terminal; it must be started with one: tele run -t")

// CheckSize returns a *BadRequest for a size that no terminal has.
func CheckSize(field string, s *telev1.TerminalSize) error {
	if s.GetRows() < 1 || s.GetRows() > math.MaxUint16 || s.GetColumns() < 1 || s.GetColumns() > math.MaxUint16 {
		return bad(field, "has %d rows and %d columns, at least 1 and at most %d are possible", s.GetRows(), s.GetColumns(),
			math.MaxUint16)
	}
	return nil
}

func sizeOf(s *telev1.TerminalSize) *initproc.Size {
	if s == nil {
		return nil
	}
	return &initproc.Size{Rows: uint16(s.Rows), Columns: uint16(s.Columns)}
}

// openTerminal takes the terminal of a job whose command runs, if it has one.
func (j *Job) openTerminal() error {
	if !j.terminal {
		return nil
	}
	screen, err := j.init.Terminal()
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.screen = screen; j.input != nil {
		j.input.ends.TypeAt(screen) // nobody has the job yet who could write
	}
	return nil
}

// closeTerminal lets go of it; watch has left it already.
func (j *Job) closeTerminal() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.screen != nil {
		j.screen.Close()
		j.screen = nil
	}
}

// Resize changes the size of the job's terminal.
func (j *Job) Resize(s *telev1.TerminalSize) error {
	if !j.terminal {
		return ErrNoTerminal
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.endedLocked() || j.ending || j.screen == nil {
		return ErrEnded
	}
	return j.screen.Resize(*sizeOf(s))
}
