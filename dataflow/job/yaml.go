package job

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of a job's text. What is larger was not written by a person.
const (
	maxText    = 1 << 20
	maxDepth   = 32
	maxEntries = 1000 // of one list or mapping; suggestions cost entries times entries
)

// parse reads the text into one mapping node, or reports why it cannot.
func (l *loader) parse(text []byte) *yaml.Node {
	if len(text) > maxText {
		l.add(&Error{Msg: fmt.Sprintf("a job has at most %d bytes, and the file has more", maxText)})
		return nil
	}
	root, err := unmarshal(text)
	if err != nil {
		l.syntax(err, text)
		return nil
	}
	if root == nil {
		l.add(&Error{Msg: "the file is empty", Hint: "a job has name, sources, steps, sinks"})
		return nil
	}
	if !l.checkShape(root, 0) {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		l.add(&Error{Line: root.Line, Msg: fmt.Sprintf("a job is a mapping of keys, not %s", kindOf(root)), Hint: "start with name:"})
		return nil
	}
	return root
}

// unmarshal is the first document of text. The yaml package reports some
// malformed input by panicking; text from outside must not end the process.
func unmarshal(text []byte) (root *yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			root, err = nil, fmt.Errorf("yaml: %v", p)
		}
	}()
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	if err := dec.Decode(&doc); err != nil {
		if err.Error() == "EOF" {
			return nil, nil
		}
		return nil, err
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return nil, fmt.Errorf("yaml: line %d: a second document starts here", second.Line)
	} else if err.Error() != "EOF" {
		return nil, err
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, nil
	}
	if c := doc.Content[0]; c.Kind == yaml.ScalarNode && c.Tag == "!!null" {
		return nil, nil
	}
	return doc.Content[0], nil
}

// syntax reports an error of the yaml package under its line.
func (l *loader) syntax(err error, text []byte) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	e := &Error{Msg: msg}
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		number, what, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			e.Line, e.Msg = n, what
		}
		// The yaml package counts lines from 0 in its parser's errors, from 1 in
		// its scanner's.
		if strings.HasPrefix(what, "did not find expected") {
			e.Line++
		}
	}
	e.Msg = "not YAML: " + e.Msg
	// The yaml package names the line where it gave up, which may be the one
	// after the mistake.
	lines := strings.Split(string(text), "\n")
	for n := e.Line; n >= e.Line-1 && n >= 1; n-- {
		if n <= len(lines) && strings.ContainsRune(lines[n-1], '{') && strings.ContainsAny(lines[n-1], "(,$\"'") {
			e.Hint = "inside {...} an expression with a comma, a quote or a brace needs double quotes around all of it"
			break
		}
	}
	if strings.Contains(e.Msg, "cannot start any token") {
		e.Hint = "YAML indents with spaces, and a value that starts with @, ` or % needs quotes"
	}
	l.add(e)
}

// checkShape refuses what only makes a job hard to read or dear to parse:
// aliases, merge keys, custom tags, deep nesting, endless lists.
func (l *loader) checkShape(n *yaml.Node, depth int) bool {
	if depth > maxDepth {
		l.add(&Error{Line: n.Line, Col: n.Column, Msg: fmt.Sprintf("nested deeper than %d levels", maxDepth)})
		return false
	}
	if n.Kind == yaml.AliasNode || n.Anchor != "" || n.Tag == "!!merge" {
		l.add(&Error{Line: n.Line, Col: n.Column, Msg: "anchors, aliases and merge keys are not part of a job", Hint: "write the value out, or give it with --set"})
		return false
	}
	if n.Tag != "" && !strings.HasPrefix(n.Tag, "!!") {
		l.add(&Error{Line: n.Line, Col: n.Column, Msg: fmt.Sprintf("the tag %s is not part of a job", n.Tag), Hint: "a value that starts with ! needs quotes"})
		return false
	}
	entries := len(n.Content)
	if n.Kind == yaml.MappingNode {
		entries /= 2
	}
	if entries > maxEntries {
		l.add(&Error{Line: n.Line, Col: n.Column, Msg: fmt.Sprintf("%s of %d entries, at most %d are taken", kindOf(n), entries, maxEntries)})
		return false
	}
	for _, c := range n.Content {
		if !l.checkShape(c, depth+1) {
			return false
		}
	}
	return true
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "the boolean " + n.Value
	case "!!int", "!!float":
		return "the number " + n.Value
	}
	return strconv.Quote(n.Value)
}

// override applies one `--set K=V`. V is read as YAML, so that lists and
// numbers may be given; it becomes a node like any other and is checked with
// the rest.
func (l *loader) override(root *yaml.Node, set string) {
	key, text, ok := strings.Cut(set, "=")
	origin := "--set " + key // never the value: it may be a password
	bad := func(hint, format string, args ...any) {
		l.add(&Error{File: origin, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	if !ok || key == "" {
		bad("write --set sources.readings.mqtt.qos=1", "needs KEY=VALUE")
		return
	}
	value, err := unmarshal([]byte(text))
	if isPlain(text) {
		value, err = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}, nil
	}
	if err != nil {
		bad("quote the value", "the value is %s", strings.Replace(err.Error(), "yaml: ", "not YAML: ", 1))
		return
	}
	if value == nil {
		value = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	if !l.checkShape(value, 0) {
		return
	}
	l.mark(value, origin)
	at := root
	parts := strings.Split(key, ".")
	for i, part := range parts {
		slot := findChild(at, part)
		if i == len(parts)-1 && slot != nil {
			*slot = value
			return
		}
		if slot != nil {
			at = *slot
			continue
		}
		if at.Kind == yaml.ScalarNode && at.Tag == "!!null" {
			at.Kind, at.Tag, at.Value = yaml.MappingNode, "!!map", ""
		}
		switch at.Kind {
		case yaml.SequenceNode:
			bad("use the id of an entry, or its number from 0", "%s has no entry %q", strings.Join(parts[:i], "."), part)
			return
		case yaml.ScalarNode:
			bad("set the whole of it", "%s is %s and has no key %q", strings.Join(parts[:i], "."), kindOf(at), part)
			return
		}
		child := value
		if i < len(parts)-1 {
			child = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		}
		name := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: part}
		l.mark(name, origin)
		l.mark(child, origin)
		at.Content = append(at.Content, name, child)
		at = child
	}
}

// isPlain tells whether the value of an override is text though YAML would make
// something else of it that no job has: "-" for stdin, a glob that begins with a
// star. The quotes that a job would need, a shell has taken off.
func isPlain(text string) bool {
	return text == "-" || text != "" && strings.IndexByte("*&!%@`", text[0]) >= 0
}

// findChild is where the value of a key, or the list entry with an id or a
// number, hangs; nil if there is none.
func findChild(n *yaml.Node, name string) **yaml.Node {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				return &n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			if id := findChild(c, "id"); c.Kind == yaml.MappingNode && id != nil && (*id).Value == name {
				return &n.Content[i]
			}
		}
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n.Content) {
			return &n.Content[i]
		}
	}
	return nil
}

// mark remembers that a node came from an override.
func (l *loader) mark(n *yaml.Node, origin string) {
	l.origin[n] = origin
	n.Line, n.Column = 0, 0
	for _, c := range n.Content {
		l.mark(c, origin)
	}
}
