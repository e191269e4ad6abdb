package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// This file is `tele top` on a terminal, which bubbletea draws, and gives back however it ends.

// topKeys sort.
var topKeys = map[string]string{"c": "cpu", "m": "memory", "i": "io", "p": "pids", "a": "age", "u": "user", "j": "job"}

// A topView is what is shown, and how.
type topView struct {
	*Top
	look    tea.Cmd
	screen  screen
	rows    int
	reverse bool
	loads   topLoads
	err     error // why it ended
}

// A topLook is the jobs at one time.
type topLook struct {
	jobs []*telev1.Job
	err  error
	at   time.Time
}

// live shows the jobs until q is typed.
func (t *Top) live(ctx context.Context, c *client.Client, streams Streams) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := &topView{Top: t, screen: screenOf(streams.Out), look: func() tea.Msg {
		jobs, err := t.list(ctx, c)
		return topLook{jobs, err, time.Now()}
	}}
	in := streams.In
	if f, ok := in.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		in = nil // nobody types there
	}
	program := tea.NewProgram(v, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(streams.Out),
		tea.WithoutSignalHandler())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		select {
		case s := <-signals:
			program.Send(s)
		case <-ctx.Done():
		}
	}()
	raw(streams.Err, true)
	defer raw(streams.Err, false)
	_, err := program.Run()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && !errors.Is(err, tea.ErrInterrupted):
		return fmt.Errorf("take the terminal: %w (tele top --once needs none)", err)
	}
	return v.err
}

// Init looks for the first time.
func (v *topView) Init() tea.Cmd { return v.look }

// Update takes what comes, and does what is typed, also while the server is away.
func (v *topView) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case topLook:
		if v.err = m.err; m.err != nil {
			return v, tea.Quit
		}
		v.loads.take(m.jobs, m.at)
		return v, tea.Tick(v.Interval, func(time.Time) tea.Msg { return v.look() })
	case tea.WindowSizeMsg:
		v.screen.width, v.rows = m.Width, m.Height
	case tea.KeyPressMsg:
		switch by, key := topKeys[m.String()], m.String(); {
		case key == "q" || key == "ctrl+c":
			return v, tea.Quit
		case key == "r":
			v.reverse = !v.reverse
		case by != "":
			v.Sort, v.reverse = by, false
		}
	case unix.Signal:
		v.err = exitError(128 + int(m))
		return v, tea.Quit
	}
	return v, nil
}

// View is the whole screen.
func (v *topView) View() tea.View {
	lines := append([]string{v.summary(), ""}, v.loads.table(v.Sort, v.reverse, v.screen.width)...)
	lines = lines[:min(len(lines), max(v.rows, 1))]
	for i, line := range lines {
		lines[i] = shorten(line, v.screen.width) // none may go on in the next
		if i == 2 && v.screen.color {
			lines[i] = colored(lines[i], "1")
		}
	}
	view := tea.NewView(strings.Join(lines, "\n"))
	view.AltScreen = true
	return view
}

// summary is the first line.
func (v *topView) summary() string {
	if v.loads.at.IsZero() {
		return "waiting for the server"
	}
	var cpus float64
	var memory uint64
	for _, j := range v.loads.jobs {
		cpus += max(0, known(j.cpu))
		memory += j.usage().GetMemoryBytes()
	}
	return fmt.Sprintf("%s  %d jobs  %.1f cpus  %s memory  by %s  [cmipauj] sort  [r]everse  [q]uit",
		v.loads.at.Format(time.TimeOnly), len(v.loads.jobs), cpus, size(memory), v.Sort)
}
