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

// Command is `tele doctor`.
type Command struct {
	Output   string   `short:"o" help:"text or json." enum:"text,json" default:"text"`
	StateDir string   `help:"State directory of the server that is, or will be, on this machine (default: ${state_dir})." env:"TELE_STATE_DIR" type:"path" placeholder:"DIR"`
	Hide     []string `help:"Directories that jobs must see empty, as for tele serve." default:"${hide}" placeholder:"DIR"`
	LookOnly bool     `help:"Only look at the machine; run no probes."`
}

// ErrFailed is returned by Run when a check failed; the report has said which.
var ErrFailed = errors.New("a check failed")

// Run prints the report.
func (c *Command) Run(out io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	state := c.StateDir
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
	if c.Output == "json" {
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
