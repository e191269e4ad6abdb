package server

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/server/job"
)

// Maxima are the most that a job may ask for, as people write limits.
type Maxima struct {
	CPU     string `name:"cpu" help:"Most CPUs that a job may ask for." default:"max" placeholder:"N"`
	Memory  string `help:"Most memory that a job may ask for." default:"max" placeholder:"SIZE"`
	IORead  string `name:"io-read" help:"Most disk reads a second that a job may ask for." default:"max" placeholder:"SIZE"`
	IOWrite string `name:"io-write" help:"Most disk writes a second that a job may ask for." default:"max" placeholder:"SIZE"`
	Pids    string `help:"Most processes that a job may ask for." default:"max" placeholder:"N"`
	Output  string `help:"Most output that a job may ask to be kept." default:"max" placeholder:"SIZE"`
	Work    string `help:"Most disk that a job may ask for its work directory, where that has a quota." default:"10G" placeholder:"SIZE"`
}

func (m *Maxima) parse() (most limits.Limits, output, work int64, err error) {
	most = limits.Limits{Swap: limits.Max}
	for name, text := range map[limits.Name]string{limits.CPU: m.CPU, limits.Memory: m.Memory,
		limits.IORead: m.IORead, limits.IOWrite: m.IOWrite, limits.Pids: m.Pids} {
		if text == "" {
			text = "max"
		}
		value, err := limits.Parse(name, text)
		if err != nil {
			return most, 0, 0, fmt.Errorf("--max-%s: %w", strings.ReplaceAll(string(name), "_", "-"), err)
		}
		most.Set(name, value)
	}
	if output, err = parseBytes(m.Output); err != nil {
		return most, 0, 0, fmt.Errorf("--max-output: %w", err)
	}
	if work, err = parseBytes(m.Work); err != nil {
		return most, 0, 0, fmt.Errorf("--max-work: %w", err)
	}
	return most, output, work, nil
}

// parseBytes reads a size; "max" and nothing are 0, no bound.
func parseBytes(text string) (int64, error) {
	if text == "" || text == "max" {
		return 0, nil
	}
	return limits.Parse(limits.Output, text)
}

// Keeping says how long ended jobs are kept.
type Keeping struct {
	Age    time.Duration `help:"An ended job is removed after this time; 0 is never." default:"720h" placeholder:"TIME"`
	Jobs   int           `help:"The most ended jobs that are kept; the oldest go first. 0 is any number." default:"10000" placeholder:"N"`
	Output string        `help:"The most output of all jobs; that of the oldest ended ones goes first, their records stay. When there is none left to go, jobs that write wait, and new ones are refused." default:"10G" placeholder:"SIZE"`
}

func (k *Keeping) parse() (job.Retention, error) {
	bytes, err := parseBytes(k.Output)
	if err != nil {
		return job.Retention{}, fmt.Errorf("--keep-output: %w", err)
	}
	return job.Retention{Age: k.Age, Jobs: k.Jobs, Output: bytes}, nil
}

// LoadConfig reads --config: a JSON object with this command's flags, "max_jobs" for --max-jobs. A
// flag on the command line counts more. It is a kong.ConfigurationLoader.
func LoadConfig(r io.Reader) (kong.Resolver, error) {
	var values map[string]any
	if err := json.NewDecoder(r).Decode(&values); err != nil {
		return nil, fmt.Errorf("the configuration file is not a JSON object: %w", err)
	}
	return config(values), nil
}

type config map[string]any

// Validate refuses a key that is no flag.
func (c config) Validate(app *kong.Application) error {
	flags := map[string]bool{}
	for _, node := range append([]*kong.Node{app.Node}, app.Children...) {
		if node.Target.IsValid() && node.Target.Type() == reflect.TypeFor[Command]() {
			for _, flag := range node.Flags {
				flags[key(flag)] = flag.Name != "help" && flag.Name != "config"
			}
		}
	}
	for name := range c {
		if !flags[name] {
			return fmt.Errorf("unknown setting %q in the configuration file; settings are the flags of tele serve, written like max_jobs", name)
		}
	}
	return nil
}

// Resolve returns the value of a flag.
func (c config) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	return c[key(flag)], nil
}

func key(flag *kong.Flag) string { return strings.ReplaceAll(flag.Name, "-", "_") }
