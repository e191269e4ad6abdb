// Package man writes manual pages from kong's model of a command line: Pages one for each command, Topic
// one for a text. They are for man(7)'s macros as groff and mandoc have them, and say nothing of when
// they were made, so that the same program has the same pages.
package man

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// A Section is a part of a page that is in no model.
type Section struct{ Title, Text string }

// Pages returns the pages of a program and its commands, by file name. Sections are added to pages by name,
// like "tele-run"; seeAlso is at the end of each.
func Pages(app *kong.Application, sections map[string][]Section, seeAlso ...string) map[string]string {
	pages := map[string]string{}
	for _, node := range append([]*kong.Node{app.Node}, commands(app.Node)...) {
		name := pageName(node)
		p := &page{}
		p.title(name, "1")
		p.section("NAME", fmt.Sprintf("%s - %s", name, lowerFirst(strings.TrimSuffix(node.Help, "."))))
		p.line(".SH SYNOPSIS")
		p.line(escape(synopsis(node)))
		p.section("DESCRIPTION", node.Help+"\n\n"+node.Detail)
		p.arguments(node)
		p.options(node)
		p.commands(node)
		for _, s := range sections[name] {
			p.section(s.Title, s.Text)
		}
		p.seeAlso(node, seeAlso)
		pages[name+".1"] = p.String()
	}
	return pages
}

// Topic returns a page of section 7. A paragraph of text that is indented stays as it is; a line above an
// empty one that begins with "# " is a heading, and the first of them what the page is about.
func Topic(name, text string) string {
	p := &page{}
	p.title(name, "7")
	heading, rest, _ := strings.Cut(strings.TrimPrefix(text, "# "), "\n")
	p.section("NAME", fmt.Sprintf("%s - %s", name, lowerFirst(heading)))
	p.section("DESCRIPTION", rest)
	return p.String()
}

// commands are all commands below a node that are shown.
func commands(node *kong.Node) []*kong.Node {
	var all []*kong.Node
	for _, child := range node.Children {
		if !child.Hidden {
			all = append(append(all, child), commands(child)...)
		}
	}
	return all
}

// synopsis is how a command is called, from the program's name on.
func synopsis(node *kong.Node) string {
	above := strings.TrimSuffix(node.FullPath(), node.Path())
	return above + node.Summary()
}

func pageName(node *kong.Node) string { return strings.ReplaceAll(node.FullPath(), " ", "-") }

// A page is roff that is being written.
type page struct{ strings.Builder }

func (p *page) line(text string) { p.WriteString(text + "\n") }

func (p *page) title(name, section string) {
	p.line(`.\" Made from the program's own help: make man.`)
	p.line(fmt.Sprintf(`.TH "%s" "%s" "" "tele" "tele's manual"`, escape(strings.ToUpper(name)), section))
	p.line(".nh\n.ad l") // as in --help: names are not broken, and lines not filled up with blanks
}

func (p *page) section(title, text string) {
	p.line(`.SH "` + escape(title) + `"`)
	p.paragraphs(text)
}

// paragraphs writes text, in which empty lines part paragraphs.
func (p *page) paragraphs(text string) {
	for i, paragraph := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		heading, isHeading := strings.CutPrefix(paragraph, "# ")
		switch {
		case isHeading:
			p.line(`.SS "` + escape(heading) + `"`)
		case strings.HasPrefix(paragraph, " "):
			p.line(".PP\n.nf")
			for line := range strings.SplitSeq(paragraph, "\n") {
				p.line(escape(line))
			}
			p.line(".fi")
		default:
			if i > 0 {
				p.line(".PP")
			}
			for line := range strings.SplitSeq(paragraph, "\n") {
				p.line(escape(line))
			}
		}
	}
}

func (p *page) item(head, text string) {
	p.line(".TP")
	p.line(head)
	p.line(escape(text))
}

func (p *page) arguments(node *kong.Node) {
	if len(node.Positional) == 0 {
		return
	}
	p.line(".SH ARGUMENTS")
	for _, arg := range node.Positional {
		p.item(`\fI`+escape(arg.Summary())+`\fR`, arg.Help)
	}
}

// options writes a node's flags and those that it has of the nodes above, a heading a group.
func (p *page) options(node *kong.Node) {
	var flags []*kong.Flag
	for _, of := range node.AllFlags(true) {
		flags = append(flags, of...)
	}
	if len(flags) == 0 {
		return
	}
	group := func(f *kong.Flag) string {
		if f.Group == nil {
			return ""
		}
		return f.Group.Title
	}
	slices.SortStableFunc(flags, func(a, b *kong.Flag) int { return cmp.Compare(group(a), group(b)) })
	p.line(".SH OPTIONS")
	last := ""
	for _, f := range flags {
		if group(f) != last {
			last = group(f)
			p.line(`.SS "` + escape(last) + `"`)
		}
		head := `\fB\-\-` + escape(f.Name) + `\fR`
		if f.Short != 0 {
			head = `\fB\-` + string(f.Short) + `\fR, ` + head
		}
		if !f.IsBool() {
			head += `=\fI` + escape(strings.Trim(f.FormatPlaceHolder(), `"`)) + `\fR`
		}
		p.item(head, kong.DefaultHelpValueFormatter(f.Value))
	}
}

func (p *page) commands(node *kong.Node) {
	list := commands(node)
	if len(list) == 0 {
		return
	}
	p.line(".SH COMMANDS")
	for _, child := range list {
		p.item(`\fB`+escape(pageName(child))+`\fR(1)`, child.Help)
	}
}

// seeAlso names the page above and those beside it.
func (p *page) seeAlso(node *kong.Node, more []string) {
	var names []string
	if node.Parent != nil {
		names = append(names, pageName(node.Parent)+"(1)")
		for _, sibling := range node.Parent.Children {
			if sibling != node && !sibling.Hidden && node.Parent.Parent != nil {
				names = append(names, pageName(sibling)+"(1)")
			}
		}
	}
	p.section("SEE ALSO", strings.Join(append(names, more...), ", "))
}

// escape makes text what it stands for in roff: a minus that can be copied, no escapes, no requests.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `"`, `\(dq`, `~`, `\(ti`, `^`, `\(ha`, "`", `\(ga`, `'`, `\(aq`, `…`, `...`,
		`–`, `\(en`, `≥`, `\(>=`).Replace(text)
	if strings.HasPrefix(text, ".") {
		return `\&` + text
	}
	return text
}

func lowerFirst(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToLower(first)) + text[size:]
}
