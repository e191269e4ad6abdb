package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/telerun/tele/client"
	"golang.org/x/sys/unix"
)

// Contexts is `tele context`: servers by name, in a file of the user's.
type Contexts struct {
	Add  ContextAdd  `cmd:"" help:"Give a server a name."`
	List ContextList `cmd:"" help:"List the contexts; * is at the current one."`
	Use  ContextUse  `cmd:"" help:"Make a context the current one: the server of commands that name none."`
	Show ContextShow `cmd:"" help:"Show a context, or the one that commands would take."`
	Rm   ContextRm   `cmd:"" help:"Forget contexts; nothing happens to the servers."`
}

// Help is the long help of `tele context`.
func (*Contexts) Help() string {
	return `A context is a server by name: its address, and the files with which one proves who one is.
Commands take it from --context, TELE_CONTEXT, or "tele context use". What --addr, --ca, --cert, --key
and --state-dir, or their variables, say goes before; and where those give an address or a state
directory, the current context is of no concern. "default" is the server that is found without any.

Contexts are kept in $XDG_CONFIG_HOME/tele/contexts.json, or ~/.config/tele/contexts.json.`
}

// A namedServer is one context as the file has it. Paths are absolute.
type namedServer struct {
	Addr     string `json:"addr,omitempty"`
	CA       string `json:"ca,omitempty"`
	Cert     string `json:"cert,omitempty"`
	Key      string `json:"key,omitempty"`
	StateDir string `json:"state_dir,omitempty"`
}

// A contextFile is all of the file.
type contextFile struct {
	path     string
	Current  string                 `json:"current,omitempty"`
	Contexts map[string]namedServer `json:"contexts"`
}

// noContext is the name of what there is without contexts.
const noContext = "default"

// goodName is whether a context may be called so: its name is typed, and shown in a table.
func goodName(name string) bool {
	const first = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	return name != "" && len(name) <= 64 && strings.Trim(name, first+"._-") == "" && strings.Contains(first, name[:1])
}

// errNoHome is returned where there can be no contexts, which only matters to who asks for one.
var errNoHome = errors.New("contexts: neither HOME nor XDG_CONFIG_HOME is set (set one, or name the server with --addr)")

// contextsPath is by the rule of the XDG Base Directory Specification.
func contextsPath() (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home := os.Getenv("HOME")
		if home == "" {
			return "", errNoHome
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "tele", "contexts.json"), nil
}

// readContexts reads the file; one that is not there has no contexts. Nor has one in a directory that this
// user may not look into, or that is none: HOME may be that of who called sudo(8), or /dev/null.
func readContexts() (*contextFile, error) {
	path, err := contextsPath()
	if err != nil {
		return nil, err
	}
	f := &contextFile{path: path, Contexts: map[string]namedServer{}}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return f, nil
	case err != nil:
		if _, err := os.Stat(path); errors.Is(err, unix.EACCES) {
			return f, nil
		}
		return nil, fmt.Errorf("contexts: %w (make it readable, or go round it with --context %s)", err, noContext)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(f); err != nil {
		return nil, fmt.Errorf("contexts: %s: %w (mend it, or remove it and add the contexts anew)", path, err)
	}
	return f, nil
}

// changeContexts lets change have the file for itself, and replaces it by what it is then.
func changeContexts(change func(*contextFile) error) error {
	path, err := contextsPath()
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	defer lock.Close() // which unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("contexts: lock %s: %w", dir, err)
	}
	f, err := readContexts()
	if err != nil {
		return err
	}
	if err := change(f); err != nil {
		return err
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(path, append(text, '\n')); err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	return nil
}

// replaceFile writes a file that only its owner reads: whoever opens it has the old or the new one.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".contexts-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	err = cmp.Or(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error says enough
	}
	return err
}

// find returns the server that a name stands for.
func (f *contextFile) find(name string) (namedServer, error) {
	if name == noContext {
		return namedServer{}, nil
	}
	server, found := f.Contexts[name]
	if !found {
		return server, fmt.Errorf("no context %q in %s (tele context list shows them, tele context add %s makes it)",
			name, f.path, name)
	}
	return server, nil
}

// names are all names, the default's first.
func (f *contextFile) names() []string {
	return append([]string{noContext}, slices.Sorted(maps.Keys(f.Contexts))...)
}

// takeContext fills in from a context what flags and variables leave open. The current one is for
// commands that say nothing of the server: its certificates are of no use with another.
func (c *Connection) takeContext() error {
	if c.Context == noContext || c.Context == "" && c.Addr+c.StateDir != "" {
		return nil
	}
	f, err := readContexts()
	if errors.Is(err, errNoHome) && c.Context == "" {
		return nil
	}
	if err != nil {
		return err
	}
	server, err := f.find(cmp.Or(c.Context, f.Current, noContext))
	if err != nil {
		return err
	}
	for to, from := range map[*string]string{&c.Addr: server.Addr, &c.CA: server.CA, &c.Cert: server.Cert,
		&c.Key: server.Key, &c.StateDir: server.StateDir} {
		*to = cmp.Or(*to, from)
	}
	return nil
}

// ContextAdd is `tele context add`. Its flags are Connection's without the variables: what is in the
// environment by chance is not to be kept.
type ContextAdd struct {
	Name     string `arg:"" help:"The name: letters, digits, dots, dashes and underscores."`
	Addr     string `help:"The server: HOST:PORT or unix:/path." placeholder:"ADDR"`
	CA       string `name:"ca" help:"Certificate of the CA to trust." placeholder:"FILE" type:"existingfile"`
	Cert     string `help:"Certificate to show." placeholder:"FILE" type:"existingfile" and:"pair"`
	Key      string `help:"Its key." placeholder:"FILE" type:"existingfile" and:"pair"`
	StateDir string `help:"State directory of a server on this machine, instead of an address." placeholder:"DIR" type:"path"`
}

// Run adds the context; it does not ask the server, which may be elsewhere now.
func (a *ContextAdd) Run(streams Streams) error {
	server := namedServer{Addr: a.Addr, CA: a.CA, Cert: a.Cert, Key: a.Key, StateDir: a.StateDir}
	switch {
	case !goodName(a.Name):
		return fmt.Errorf("context %q: a name has up to 64 letters, digits, dots, dashes and underscores, and begins with "+
			"a letter or a digit", a.Name)
	case a.Name == noContext:
		return fmt.Errorf("context %q: this name is that of the server which is found without a context", a.Name)
	case a.Addr == "" && a.StateDir == "":
		return errors.New("which server? give --addr HOST:PORT or unix:/path, or the --state-dir of one on this machine")
	}
	if path, isSocket := strings.CutPrefix(a.Addr, "unix:"); isSocket {
		path, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		server.Addr = "unix:" + path
	} else if a.Addr != "" {
		if _, _, err := net.SplitHostPort(a.Addr); err != nil {
			return fmt.Errorf("--addr %s: %w (write it like build.example:50051 or unix:/path)", a.Addr, err)
		}
	}
	err := changeContexts(func(f *contextFile) error {
		if _, found := f.Contexts[a.Name]; found {
			return fmt.Errorf("context %q is in %s already (tele context rm %s removes it)", a.Name, f.path, a.Name)
		}
		f.Contexts[a.Name] = server
		return nil
	})
	if err == nil {
		fmt.Fprintln(streams.Out, a.Name, "added")
	}
	return err
}

// ContextList is `tele context list`.
type ContextList struct {
	Quiet  bool   `short:"q" help:"Only the names."`
	Output string `short:"o" help:"text or json." enum:"text,json" default:"text"`
}

// Run lists the contexts, and with them what there is without.
func (l *ContextList) Run(streams Streams) error {
	f, err := readContexts()
	if err != nil {
		return err
	}
	current := cmp.Or(os.Getenv("TELE_CONTEXT"), f.Current, noContext)
	if l.Output == "json" {
		list := []contextJSON{}
		for _, name := range f.names() {
			list = append(list, contextJSON{name, name == current, f.Contexts[name]})
		}
		return printIndented(streams.Out, list)
	}
	table := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	if !l.Quiet {
		fmt.Fprint(table, "  NAME\tSERVER\n")
	}
	for _, name := range f.names() {
		switch server := f.Contexts[name]; {
		case l.Quiet:
			fmt.Fprintln(table, name)
		case name == current:
			fmt.Fprintf(table, "* %s\t%s\n", name, server.address())
		default:
			fmt.Fprintf(table, "  %s\t%s\n", name, server.address())
		}
	}
	return table.Flush()
}

// address is where a client goes.
func (s namedServer) address() string { return s.options().Address() }

func (s namedServer) options() client.Options {
	return client.Options{Addr: s.Addr, CA: s.CA, Cert: s.Cert, Key: s.Key, StateDir: s.StateDir}
}

// A contextJSON is a context as scripts see it.
type contextJSON struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	namedServer
}

func printIndented(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// ContextUse is `tele context use`.
type ContextUse struct {
	Name string `arg:"" name:"context" help:"The context; default is the server that is found without one."`
}

// Run makes the context the current one, and says what goes before it.
func (u *ContextUse) Run(streams Streams) error {
	err := changeContexts(func(f *contextFile) error {
		if _, err := f.find(u.Name); err != nil {
			return err
		}
		f.Current = u.Name
		if u.Name == noContext {
			f.Current = ""
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(streams.Out, u.Name, "is current")
	warnOf(streams, "TELE_CONTEXT", "TELE_ADDR", "TELE_STATE_DIR")
	return nil
}

// warnOf warns of variables that are set: who chooses a context may not know of them.
func warnOf(streams Streams, names ...string) {
	for _, name := range names {
		if os.Getenv(name) != "" {
			fmt.Fprintf(streams.Err, "tele: warning: %s is set, and goes before the current context\n", name)
		}
	}
}

// ContextShow is `tele context show`.
type ContextShow struct {
	Output string `short:"o" help:"text or json." enum:"text,json" default:"text"`
	Name   string `arg:"" name:"context" optional:"" help:"The context; none is that of TELE_CONTEXT, or the current one."`
}

// Run shows the context.
func (s *ContextShow) Run(streams Streams) error {
	f, err := readContexts()
	if err != nil {
		return err
	}
	current := cmp.Or(os.Getenv("TELE_CONTEXT"), f.Current, noContext)
	name := cmp.Or(s.Name, current)
	server, err := f.find(name)
	if err != nil {
		return err
	}
	if s.Name == "" {
		warnOf(streams, "TELE_ADDR", "TELE_STATE_DIR")
	}
	if s.Output == "json" {
		return printIndented(streams.Out, contextJSON{name, name == current, server})
	}
	table := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{{"name", name}, {"server", server.address()}, {"ca", server.CA},
		{"cert", server.Cert}, {"key", server.Key}, {"state dir", server.StateDir}} {
		if line[1] != "" {
			fmt.Fprintf(table, "%s\t%s\n", line[0], line[1])
		}
	}
	return table.Flush()
}

// ContextRm is `tele context rm`.
type ContextRm struct {
	Names []string `arg:"" name:"context" help:"The contexts."`
}

// Run removes the contexts, all or none.
func (r *ContextRm) Run(streams Streams) error {
	err := changeContexts(func(f *contextFile) error {
		for _, name := range r.Names {
			if name == noContext {
				return fmt.Errorf("context %q is what there is without contexts, and cannot be removed", name)
			}
			if _, err := f.find(name); err != nil {
				return err
			}
			delete(f.Contexts, name)
			if f.Current == name {
				f.Current = ""
			}
		}
		return nil
	})
	if err == nil {
		for _, name := range r.Names {
			fmt.Fprintln(streams.Out, name, "removed")
		}
	}
	return err
}
