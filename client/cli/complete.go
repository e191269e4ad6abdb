package cli

import (
	"context"
	_ "embed" // the scripts
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// How completion works: a shell's script, which `tele completion` prints, calls
//
//	tele __complete NAME WORD… LAST
//
// with the command line up to the cursor: the program's name, the words before the one that is typed,
// and what is typed of that one, which may be empty. The answer's first line says what can be there:
// words, and then they are the lines below, each with what it means behind a tab; files; dirs; or
// commands, which are files, too. Whatever goes wrong, nothing is said: somebody is typing.

// CompleteWord is the first argument of the shell's scripts, and no command.
const CompleteWord = "__complete"

// Completion is `tele completion`.
type Completion struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is the long help of `tele completion`.
func (*Completion) Help() string {
	return `The script completes commands, flags and their values, contexts, and ids of jobs, which it asks the server
for. "make install" puts it where the shells look. Without that:

  bash    in ~/.bashrc:  source <(tele completion bash)

  zsh     in ~/.zshrc, after compinit:  source <(tele completion zsh)

  fish    tele completion fish >~/.config/fish/completions/tele.fish`
}

//go:embed completion/tele.bash
var bashScript string

//go:embed completion/_tele
var zshScript string

//go:embed completion/tele.fish
var fishScript string

// Run prints the script.
func (c *Completion) Run(streams Streams) error {
	_, err := io.WriteString(streams.Out,
		map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[c.Shell])
	return err
}

// completionTime is how long the server has to say which jobs there are.
const completionTime = time.Second

// Complete writes what the last of words can be, of a program with this model.
func Complete(ctx context.Context, model *kong.Node, words []string, out io.Writer) {
	if len(words) == 0 {
		return
	}
	l := &typedLine{node: model, given: map[string][]string{}}
	for _, word := range words[:len(words)-1] {
		l.take(word)
	}
	last := words[len(words)-1]
	fits := slices.DeleteFunc(l.candidates(ctx, last), func(c candidate) bool { return !strings.HasPrefix(c.word, last) })
	kind := l.kind(last)
	if value, _ := l.value(last); len(fits) == 0 && isPlace(value) {
		kind = "files"
	}
	fmt.Fprintln(out, kind)
	for _, c := range fits {
		fmt.Fprintln(out, strings.TrimSpace(c.word+"\t"+shorten(c.meaning, 70)))
	}
}

// isPlace tells that a value is JOB:PATH, or a file of this machine.
func isPlace(value *kong.Value) bool {
	return value != nil && (value.Name == "from" || value.Name == "to")
}

// A typedLine is as much as was typed before the word in question.
type typedLine struct {
	node    *kong.Node          // the command
	args    []string            // its arguments
	given   map[string][]string // flags with their values
	waiting *kong.Flag          // the flag whose value comes next
	noFlags bool                // after --, or in another's command
}

// A candidate is what a word can be.
type candidate struct{ word, meaning string }

func (l *typedLine) take(word string) {
	switch {
	case l.waiting != nil:
		l.given[l.waiting.Name] = append(l.given[l.waiting.Name], word)
		l.waiting = nil
	case l.noFlags || word == "-" || !strings.HasPrefix(word, "-"):
		l.takeArgument(word)
	case word == "--":
		l.noFlags = true
	case strings.HasPrefix(word, "--"):
		name, value, hasValue := strings.Cut(word[2:], "=")
		l.takeFlag(l.flag(func(f *kong.Flag) bool { return f.Name == name }), value, hasValue)
	default:
		for i, short := range word[1:] {
			f := l.flag(func(f *kong.Flag) bool { return f.Short == short })
			if f != nil && !f.IsBool() { // the rest is its value
				l.takeFlag(f, word[i+2:], i+2 < len(word))
				return
			}
			l.takeFlag(f, "", true)
		}
	}
}

func (l *typedLine) takeFlag(f *kong.Flag, value string, hasValue bool) {
	switch {
	case f == nil: // there is none; the command will say so
	case hasValue || f.IsBool():
		l.given[f.Name] = append(l.given[f.Name], value)
	default:
		l.waiting = f
	}
}

func (l *typedLine) takeArgument(word string) {
	for _, child := range l.node.Children {
		if child.Name == word || slices.Contains(child.Aliases, word) {
			l.node = child
			return
		}
	}
	l.args = append(l.args, word)
	if p := l.positional(0); p != nil && p.Passthrough {
		l.noFlags = true
	}
}

func (l *typedLine) flag(is func(*kong.Flag) bool) *kong.Flag {
	for _, flags := range l.node.AllFlags(false) {
		if i := slices.IndexFunc(flags, is); i >= 0 {
			return flags[i]
		}
	}
	return nil
}

// positional is the nth argument of the command; the last one may be repeated.
func (l *typedLine) positional(n int) *kong.Positional {
	of := l.node.Positional
	switch {
	case n < len(of):
		return of[n]
	case len(of) > 0 && of[len(of)-1].IsCumulative():
		return of[len(of)-1]
	}
	return nil
}

// value is what the word stands for: a flag's value or an argument; nil when it is neither. In
// --name=VALUE, prefix is what stands before it.
func (l *typedLine) value(last string) (value *kong.Value, prefix string) {
	switch name, _, hasValue := strings.Cut(strings.TrimPrefix(last, "--"), "="); {
	case l.waiting != nil:
		return l.waiting.Value, ""
	case !l.noFlags && strings.HasPrefix(last, "--") && hasValue:
		if f := l.flag(func(f *kong.Flag) bool { return f.Name == name }); f != nil {
			return f.Value, "--" + name + "="
		}
		return nil, ""
	case !l.noFlags && strings.HasPrefix(last, "-"):
		return nil, ""
	}
	return l.positional(len(l.args)), ""
}

func (l *typedLine) kind(last string) string {
	value, _ := l.value(last)
	switch {
	case value == nil:
	case value.Passthrough && len(l.args) == 0:
		return "commands"
	case value.Passthrough:
		return "files"
	case value.Tag.Type == "existingdir" || value.Tag.Type == "path" && value.Tag.PlaceHolder == "DIR":
		return "dirs"
	case value.Tag.Type == "path" || value.Tag.Type == "existingfile" || value.Name == "upload":
		return "files"
	}
	return "words"
}

func (l *typedLine) candidates(ctx context.Context, last string) []candidate {
	value, prefix := l.value(last)
	if value == nil {
		if !l.noFlags && strings.HasPrefix(last, "-") {
			return l.flags()
		}
		return l.commands()
	}
	var list []candidate
	switch {
	case value.Enum != "":
		for word := range strings.SplitSeq(value.Enum, ",") {
			list = append(list, candidate{word, ""})
		}
	case value.Name == "id":
		list = l.jobs(ctx)
	case isPlace(value):
		for _, c := range l.jobs(ctx) {
			list = append(list, candidate{c.word + ":", c.meaning})
		}
	case value.Name == "context":
		list = contextCandidates()
	case value.Name == "topic":
		list = l.helpWords()
	case value.Name == "signal":
		for _, name := range []string{"HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "TSTP", "WINCH"} {
			list = append(list, candidate{name, ""})
		}
	}
	for i := range list {
		list[i].word = prefix + list[i].word
	}
	return list
}

// commands are those below this one.
func (l *typedLine) commands() []candidate {
	var list []candidate
	for _, child := range l.node.Children {
		if !child.Hidden && len(l.args) == 0 {
			list = append(list, candidate{child.Name, child.Help})
		}
	}
	return list
}

// helpWords are commands, those below one that is there already, and topics.
func (l *typedLine) helpWords() []candidate {
	node := l.node.Parent
	for _, word := range l.args {
		i := slices.IndexFunc(node.Children, func(child *kong.Node) bool { return child.Name == word })
		if i < 0 {
			return nil
		}
		node = node.Children[i]
	}
	list := (&typedLine{node: node}).commands()
	if len(l.args) == 0 {
		for _, name := range TopicNames {
			list = append(list, candidate{name, topicAbout(name)})
		}
	}
	return list
}

// flags are those that may still be given.
func (l *typedLine) flags() []candidate {
	var list []candidate
	for _, flags := range l.node.AllFlags(true) {
		for _, f := range flags {
			if l.given[f.Name] == nil || f.IsCumulative() {
				list = append(list, candidate{"--" + f.Name, f.Help})
			}
		}
	}
	return list
}

func contextCandidates() []candidate {
	f, err := readContexts()
	if err != nil {
		return nil
	}
	var list []candidate
	for _, name := range f.names() {
		list = append(list, candidate{name, f.Contexts[name].address()})
	}
	return list
}

// statusesFor are of the jobs that a command is for; none means all.
func statusesFor(command string) []telev1.JobStatus {
	switch command {
	case "attach", "cp", "exec", "kill", "pause", "resume", "set", "stop":
		return []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_SUBMITTED, telev1.JobStatus_JOB_STATUS_RUNNING}
	case "rm":
		return []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_SUCCESS, telev1.JobStatus_JOB_STATUS_FAILED,
			telev1.JobStatus_JOB_STATUS_KILLED}
	}
	return nil
}

// jobs asks the server that the command line says, or the environment.
func (l *typedLine) jobs(ctx context.Context) []candidate {
	var connection Connection
	parser, err := kong.New(&connection)
	if err != nil {
		return nil
	}
	var flags []string
	for _, f := range parser.Model.Flags {
		if values := l.given[f.Name]; len(values) > 0 && f.Name != "help" {
			flags = append(flags, "--"+f.Name+"="+values[len(values)-1])
		}
	}
	if _, err := parser.Parse(flags); err != nil || connection.contextErr != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	o := connection.options()
	o.Reconnect = 0
	c, err := client.Dial(o)
	if err != nil {
		return nil
	}
	defer c.Close()
	jobs, err := c.List(ctx, client.ListOptions{Statuses: statusesFor(l.node.Name), Brief: true, Limit: 1000})
	if err != nil {
		return nil
	}
	var list []candidate
	for _, j := range jobs {
		name := j.Spec.GetName()
		if slices.Contains(l.args, j.Id) || name != "" && slices.Contains(l.args, name) {
			continue
		}
		text := printable(strings.Join(j.Spec.GetCommand(), " "))
		list = append(list, candidate{j.Id, statusNames[j.Status] + "  " + shorten(text, 50)})
		if name != "" {
			list = append(list, candidate{name, j.Id})
		}
	}
	return list
}
