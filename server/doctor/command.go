package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/telerun/tele/limits/cgroup"
	"github.com/telerun/tele/server/access"
	"golang.org/x/sys/unix"
)

// Command is `tele doctor`, the part that needs no server.
type Command struct {
	Hide     []string `help:"Directories that jobs must see empty, as for tele serve." default:"${hide}" placeholder:"DIR"`
	LookOnly bool     `help:"Only look at the machine; run no probes." xor:"what"`
}

// ErrFailed is returned by Examine when a check failed; the report has said which.
var ErrFailed = errors.New("a check failed")

// Examine prints the report, as text or json. The server that is, or will be, on this machine has its
// state in the directory state; empty is the default.
func (c *Command) Examine(out io.Writer, format, state string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if state == "" {
		state = access.DefaultStateDir()
	}
	state, err := filepath.Abs(state)
	if err != nil {
		return err
	}
	report, err := examine(ctx, state, c.Hide, c.LookOnly)
	if err != nil {
		return err
	}
	if format == "json" {
		err = report.printJSON(out)
	} else {
		err = report.printText(out)
	}
	if err == nil && report.Count(Fail) > 0 {
		return ErrFailed
	}
	return err
}

// examine makes the report. Beside what is in /proc and /sys it changes nothing but a cgroup and a
// directory of its own, which are gone at the end.
func examine(ctx context.Context, state string, hide []string, lookOnly bool) (report Report, err error) {
	unix.Umask(0o077)
	groups, err := cgroup.Open(cgroup.Options{Name: fmt.Sprintf("tele-doctor-%d", os.Getpid())})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, groups.Close()) }()
	report = Look(state, groups)
	if lookOnly {
		return report, nil
	}
	proved, err := prove(ctx, state, hide, groups)
	return append(report, proved...), err
}
