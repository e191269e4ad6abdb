package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A job file is a JobSpec in YAML, of which JSON is a part, with the names and values of the API's JSON form.
// Beside those it has what people write: a number is a text where one is wanted, as in cpu: 1.5, and times are
// as flags have them. Anchors, aliases and tags are refused: a file says what it says where it says it.

const (
	// maxJobFile is more than any request may have.
	maxJobFile = 2 << 20
	// maxDepth is many times that of a JobSpec. What the parser takes grows with the square of the depth.
	maxDepth = 64
	// firstLook is so much of a file that a first look takes no time.
	firstLook = 64 << 10
)

// readJobFile is the job in the file at path, which is in when it is "-".
func readJobFile(path string, in io.Reader) (*telev1.JobSpec, error) {
	from := io.NopCloser(in)
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("-f: %w", err)
		}
		from = file
	}
	defer from.Close()
	text, err := io.ReadAll(io.LimitReader(from, maxJobFile+1))
	if err != nil {
		return nil, fmt.Errorf("-f: %w", err)
	}
	if len(text) > maxJobFile {
		return nil, fmt.Errorf("-f %s: this is no job file; it has more than %d bytes", path, maxJobFile)
	}
	return parseJobFile(path, text)
}

// parseJobFile is the job that text describes, in a file of this name.
func parseJobFile(name string, text []byte) (*telev1.JobSpec, error) {
	f := jobFile(name)
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors begin files so
	if len(text) > firstLook {
		if err := f.depth(lexer.Tokenize(string(text[:firstLook]))); err != nil {
			return nil, err
		}
	}
	tokens := lexer.Tokenize(string(text))
	if err := f.depth(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, f.syntax(err)
	}
	spec := &telev1.JobSpec{}
	var body ast.Node
	for _, doc := range file.Docs {
		switch _, isRemark := doc.Body.(*ast.CommentGroupNode); {
		case doc.Body == nil || isRemark:
		case body != nil:
			return nil, f.fail(doc.Body, "", "a second document; a job file has one")
		default:
			body = doc.Body
		}
	}
	if body == nil {
		return nil, fmt.Errorf("-f %s: the file is empty; it is to name what to run, like command: [make, test]", name)
	}
	return spec, f.message(spec.ProtoReflect(), "", body)
}

// A jobFile is a job file's name, for messages.
type jobFile string

func (f jobFile) fail(at ast.Node, path, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if path != "" {
		text = path + ": " + text
	}
	return fmt.Errorf("-f %s, line %d: %s", string(f), at.GetToken().Position.Line, text)
}

// depth refuses what is in too many other things: brackets that are open, and columns that are further right.
func (f jobFile) depth(tokens token.Tokens) error {
	open := 0
	var columns []int
	for _, t := range tokens {
		begin := t
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open++
		case token.SequenceEndType, token.MappingEndType:
			open = max(open-1, 0)
		case token.MappingValueType:
			if t.Prev != nil {
				begin = t.Prev // the key
			}
			fallthrough
		case token.SequenceEntryType, token.MappingKeyType:
			if open > 0 {
				continue
			}
			at := begin.Position.Column
			for len(columns) > 0 && columns[len(columns)-1] >= at {
				columns = columns[:len(columns)-1]
			}
			columns = append(columns, at)
		}
		if open+len(columns) > maxDepth {
			return fmt.Errorf("-f %s, line %d: more than %d things are in one another; no job has so many", string(f), t.Position.Line, maxDepth)
		}
	}
	return nil
}

// syntax is an error of the parser's, without the part of the file that it would show.
func (f jobFile) syntax(err error) error {
	var at interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &at) || at.GetToken() == nil {
		return fmt.Errorf("-f %s: %w", string(f), err)
	}
	return fmt.Errorf("-f %s, line %d: %s", string(f), at.GetToken().Position.Line, at.GetMessage())
}

// message sets the fields of m that node has; path is where it is in the file.
func (f jobFile) message(m protoreflect.Message, path string, node ast.Node) error {
	entries, ok := mapping(node)
	if !ok {
		return f.fail(node, path, "wants fields like name: value, not %s", kindOf(node))
	}
	fields := m.Descriptor().Fields()
	seen := map[protoreflect.Name]bool{}
	for _, entry := range entries {
		key, ok := textOf(entry.Key)
		if !ok {
			return f.fail(entry.Key, path, "%s where the name of a field is wanted", kindOf(entry.Key))
		}
		fd := fields.ByJSONName(key)
		if fd == nil {
			fd = fields.ByTextName(key)
		}
		here := join(path, key)
		switch _, isNull := entry.Value.(*ast.NullNode); {
		case fd == nil:
			return f.fail(entry.Key, here, "there is no such field; there are %s", fieldNames(fields))
		case seen[fd.Name()]:
			return f.fail(entry.Key, here, "the field is there twice")
		case isNull: // as in JSON, not set
		default:
			if err := f.field(m, fd, here, entry.Value); err != nil {
				return err
			}
		}
		seen[fd.Name()] = true
	}
	return nil
}

// field sets one field of m.
func (f jobFile) field(m protoreflect.Message, fd protoreflect.FieldDescriptor, path string, node ast.Node) error {
	switch {
	case fd.IsList():
		list, ok := node.(*ast.SequenceNode)
		if !ok {
			return f.fail(node, path, "wants a list, like [a, b], not %s", kindOf(node))
		}
		for i, item := range list.Values {
			value, err := f.value(m.Mutable(fd).List().NewElement(), fd, fmt.Sprintf("%s[%d]", path, i), item)
			if err != nil {
				return err
			}
			m.Mutable(fd).List().Append(value)
		}
	case fd.IsMap():
		return f.pairs(m.Mutable(fd).Map(), fd, path, node)
	default:
		value, err := f.value(m.NewField(fd), fd, path, node)
		if err != nil {
			return err
		}
		m.Set(fd, value)
	}
	return nil
}

// pairs fills a map of texts, whose keys are no fields.
func (f jobFile) pairs(to protoreflect.Map, fd protoreflect.FieldDescriptor, path string, node ast.Node) error {
	entries, ok := mapping(node)
	if !ok {
		return f.fail(node, path, "wants pairs like NAME: value, not %s", kindOf(node))
	}
	for _, entry := range entries {
		key, ok := textOf(entry.Key)
		if !ok {
			return f.fail(entry.Key, path, "%s where a name is wanted", kindOf(entry.Key))
		}
		if to.Has(protoreflect.ValueOfString(key).MapKey()) {
			return f.fail(entry.Key, join(path, key), "the name is there twice")
		}
		value, err := f.value(to.NewValue(), fd.MapValue(), join(path, key), entry.Value)
		if err != nil {
			return err
		}
		to.Set(protoreflect.ValueOfString(key).MapKey(), value)
	}
	return nil
}

// value is what node says, for a field or an element of a list; empty is a value of its type.
func (f jobFile) value(empty protoreflect.Value, fd protoreflect.FieldDescriptor, path string, node ast.Node) (protoreflect.Value, error) {
	text, isText := textOf(node)
	switch fd.Kind() {
	case protoreflect.StringKind:
		if isText {
			return protoreflect.ValueOfString(text), nil
		}
		return empty, f.fail(node, path, "wants a text, not %s%s", kindOf(node), quoteHint(node))
	case protoreflect.BoolKind:
		if b, ok := node.(*ast.BoolNode); ok {
			return protoreflect.ValueOfBool(b.Value), nil
		}
		return empty, f.fail(node, path, "wants true or false, not %s", kindOf(node))
	case protoreflect.Uint32Kind:
		if n, err := strconv.ParseUint(text, 10, 32); err == nil {
			return protoreflect.ValueOfUint32(uint32(n)), nil
		}
		return empty, f.fail(node, path, "wants a whole number, not %s", kindOf(node))
	case protoreflect.EnumKind:
		if value := fd.Enum().Values().ByName(protoreflect.Name(text)); value != nil {
			return protoreflect.ValueOfEnum(value.Number()), nil
		}
		return empty, f.fail(node, path, "wants one of %s, not %s", enumNames(fd.Enum()), kindOf(node))
	case protoreflect.MessageKind:
		if _, ok := empty.Message().Interface().(*durationpb.Duration); !ok {
			return empty, f.message(empty.Message(), path, node)
		}
		if d, err := time.ParseDuration(text); err == nil && isText {
			return protoreflect.ValueOfMessage(durationpb.New(d).ProtoReflect()), nil
		}
		return empty, f.fail(node, path, "wants a time like 90s or 1h30m, not %s", kindOf(node))
	}
	return empty, f.fail(node, path, "cannot be given in a job file")
}

// mapping are the entries of a node that has some.
func mapping(node ast.Node) (entries []*ast.MappingValueNode, ok bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// textOf is the text of a node that is one, or a number as it is written.
func textOf(node ast.Node) (text string, ok bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// kindOf says what a node is.
func kindOf(node ast.Node) string {
	switch n := node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "fields"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "nothing"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "a reference (a job file has none)"
	case *ast.TagNode:
		return "a tag (a job file has none)"
	case *ast.MappingKeyNode:
		return "a key that begins with ?"
	default:
		if text, ok := textOf(n); ok {
			return strconv.Quote(shorten(text, 40))
		}
		return shorten(n.GetToken().Value, 40)
	}
}

// quoteHint is for what YAML takes for something else than a text.
func quoteHint(node ast.Node) string {
	switch node.(type) {
	case *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return fmt.Sprintf("; write it in quotes, %q", node.GetToken().Value)
	}
	return ""
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func fieldNames(fields protoreflect.FieldDescriptors) string {
	var list []string
	for i := range fields.Len() {
		list = append(list, fields.Get(i).JSONName())
	}
	return strings.Join(list, ", ")
}

func enumNames(enum protoreflect.EnumDescriptor) string {
	var list []string
	for i := range enum.Values().Len() {
		list = append(list, string(enum.Values().Get(i).Name()))
	}
	return strings.Join(list, ", ")
}
