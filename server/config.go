package server

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/telerun/tele/limits"
)

// Maxima are the most that a job may ask for, as people write limits.
type Maxima struct {
	CPU     string `name:"cpu" help:"Most CPUs that a job may ask for." default:"max" placeholder:"N"`
	Memory  string `help:"Most memory that a job may ask for." default:"max" placeholder:"SIZE"`
	IORead  string `name:"io-read" help:"Most disk reads a second that a job may ask for." default:"max" placeholder:"SIZE"`
	IOWrite string `name:"io-write" help:"Most disk writes a second that a job may ask for." default:"max" placeholder:"SIZE"`
	Pids    string `help:"Most processes that a job may ask for." default:"max" placeholder:"N"`
}

func (m *Maxima) parse() (limits.Limits, error) {
	most := limits.Limits{Swap: limits.Max}
	for name, text := range map[limits.Name]string{limits.CPU: m.CPU, limits.Memory: m.Memory,
		limits.IORead: m.IORead, limits.IOWrite: m.IOWrite, limits.Pids: m.Pids} {
		if text == "" {
			text = "max"
		}
		value, err := limits.Parse(name, text)
		if err != nil {
			return most, fmt.Errorf("--max-%s: %w", strings.ReplaceAll(string(name), "_", "-"), err)
		}
		most.Set(name, value)
	}
	return most, nil
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
