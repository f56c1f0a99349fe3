package job

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// value is a place in the job: a node and the path that leads to it. The zero
// node means that the key is not there; then every reader below returns its
// "not there" answer without an error.
type value struct {
	l    *loader
	node *yaml.Node
	path string
}

func (v value) given() bool { return v.node != nil }

// textNode is a scalar that stands nowhere in the file.
func textNode(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// fail reports what is wrong with the value.
func (v value) fail(hint, format string, args ...any) {
	e := &Error{Path: v.path, Msg: fmt.Sprintf(format, args...), Hint: hint}
	if v.node != nil {
		e.Line, e.Col = v.node.Line, v.node.Column
		e.File = v.l.origin[v.node]
	}
	v.l.add(e)
}

func (v value) line() int {
	if v.node == nil {
		return 0
	}
	return v.node.Line
}

// text is a scalar's text. Numbers and booleans are text too: a topic may be
// called 1, and an expression may be true.
func (v value) text() (string, bool) {
	if v.node == nil {
		return "", false
	}
	if v.node.Kind != yaml.ScalarNode {
		v.fail(quoteHint(v.node), "must be text, not %s", kindOf(v.node))
		return "", false
	}
	if v.node.Tag == "!!null" && v.node.Value == "" || v.node.Value == "" {
		v.fail("", "must not be empty")
		return "", false
	}
	return v.node.Value, true
}

func quoteHint(n *yaml.Node) string {
	if n.Style&yaml.FlowStyle != 0 {
		return "text that starts with { or [ needs quotes"
	}
	return ""
}

func (v value) integer(least, most int64) (int64, bool) {
	if v.node == nil {
		return 0, false
	}
	n := v.node
	var i int64
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || n.Decode(&i) != nil {
		v.fail("", "must be a whole number, not %s", kindOf(n))
		return 0, false
	}
	if i < least || i > most {
		v.fail("", "must be in %d..%d, not %d", least, most, i)
		return 0, false
	}
	return i, true
}

func (v value) number(least, most float64) (float64, bool) {
	if v.node == nil {
		return 0, false
	}
	n := v.node
	f, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" || err != nil {
		v.fail("", "must be a number, not %s", kindOf(n))
		return 0, false
	}
	if !(f >= least && f <= most) {
		v.fail("", "must be in %g..%g, not %s", least, most, n.Value)
		return 0, false
	}
	return f, true
}

func (v value) boolean() (b, ok bool) {
	if v.node == nil {
		return false, false
	}
	if v.node.Kind != yaml.ScalarNode || v.node.Tag != "!!bool" || v.node.Decode(&b) != nil {
		v.fail("", "must be true or false, not %s", kindOf(v.node))
		return false, false
	}
	return b, true
}

// duration is a span of at least least.
func (v value) duration(least dataflow.Duration) (dataflow.Duration, bool) {
	if v.node == nil {
		return 0, false
	}
	if v.node.Kind != yaml.ScalarNode {
		v.fail("", "must be a duration like 10s, not %s", kindOf(v.node))
		return 0, false
	}
	d, err := ParseDuration(v.node.Value)
	if err != nil {
		v.fail("", "%s", err)
		return 0, false
	}
	if d < least {
		v.fail("", "must be at least %s, not %s", FormatDuration(least), v.node.Value)
		return 0, false
	}
	return d, true
}

// oneOf is the index of the value among names.
func (v value) oneOf(names ...string) (int, bool) {
	if v.node == nil {
		return 0, false
	}
	if v.node.Kind == yaml.ScalarNode {
		for i, n := range names {
			if v.node.Value == n {
				return i, true
			}
		}
	}
	hint := didYouMean(v.node.Value, names)
	if n := nearest(v.node.Value, names); n != "" {
		hint += " (" + strings.Join(names, ", ") + ")"
	}
	v.fail(hint, "unknown form %s", kindOf(v.node))
	return 0, false
}

// list is the elements of a list; a scalar alone counts as a list of one.
func (v value) list() ([]value, bool) {
	if v.node == nil {
		return nil, false
	}
	switch {
	case v.node.Kind == yaml.SequenceNode:
		vs := make([]value, len(v.node.Content))
		for i, c := range v.node.Content {
			vs[i] = value{v.l, c, fmt.Sprintf("%s[%d]", v.path, i)}
		}
		return vs, true
	case v.node.Kind == yaml.ScalarNode && v.node.Tag != "!!null":
		return []value{v}, true
	}
	v.fail("", "must be a list, not %s", kindOf(v.node))
	return nil, false
}

// texts is a list of texts, without those that are none.
func (v value) texts() ([]string, []value) {
	vs, _ := v.list()
	var texts []string
	var where []value
	for _, e := range vs {
		if s, ok := e.text(); ok {
			texts, where = append(texts, s), append(where, e)
		}
	}
	if v.node != nil && v.node.Kind == yaml.SequenceNode && len(vs) == 0 {
		v.fail("", "must not be an empty list")
	}
	return texts, where
}

// object is a mapping whose keys are taken one by one; close reports those that
// nobody took. A nil object has no keys.
type object struct {
	value
	keys  []value // their nodes are the key nodes
	vals  []*yaml.Node
	taken []bool
	valid []string // every name that was asked for
}

// object reads a mapping. Nothing at all (`stdout:`) counts as an empty one.
func (v value) object() *object {
	if v.node == nil {
		return nil
	}
	if v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!null" && v.node.Value == "" {
		return &object{value: v}
	}
	if v.node.Kind != yaml.MappingNode {
		v.fail("", "must be a mapping of keys, not %s", kindOf(v.node))
		return nil
	}
	o := &object{value: v}
	content := o.rejoin()
	first := make(map[string]*yaml.Node, len(content)/2)
	for i := 0; i+1 < len(content); i += 2 {
		k := value{v.l, content[i], join(v.path, content[i].Value)}
		if k.node.Kind != yaml.ScalarNode {
			k.path = v.path
			k.fail("", "a key must be a word, not %s", kindOf(k.node))
			continue
		}
		if was := first[k.node.Value]; was != nil {
			k.fail("remove one of them", "the key appears twice%s", firstLine(was))
			continue
		}
		first[k.node.Value] = k.node
		o.keys = append(o.keys, k)
		o.vals = append(o.vals, content[i+1])
	}
	o.taken = make([]bool, len(o.keys))
	return o
}

func firstLine(n *yaml.Node) string {
	if n.Line == 0 {
		return ""
	}
	return fmt.Sprintf(", first in line %d", n.Line)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// rejoin finds expressions that YAML cut at their commas, because they stand in
// a {...} without quotes: `{r: round(x, 2)}` is read as r: "round(x" and a key
// "2)". It reports them and puts them together again, so that checking can go
// on with what was meant.
func (o *object) rejoin() []*yaml.Node {
	content := o.node.Content
	if o.node.Style&yaml.FlowStyle == 0 {
		return content
	}
	var out []*yaml.Node
	for i := 0; i+1 < len(content); i += 2 {
		key, val := content[i], content[i+1]
		whole, j := val.Value, i+2
		for plainScalar(val) && openParens(whole) > 0 && j+1 < len(content) && isEmpty(content[j+1]) && content[j].Kind == yaml.ScalarNode {
			part := content[j].Value
			if q := content[j].Style; q&yaml.SingleQuotedStyle != 0 {
				part = "'" + strings.ReplaceAll(part, "'", "''") + "'"
			}
			whole += ", " + part
			j += 2
		}
		if j > i+2 {
			c := *val
			c.Value = whole
			o.l.copyMark(val, &c)
			value{o.l, &c, join(o.path, key.Value)}.fail(fmt.Sprintf("write %s: %q", key.Value, whole),
				"inside {...} an expression with a comma needs quotes: YAML cut it after %q", val.Value)
			val = &c
			i = j - 2
		}
		out = append(out, key, val)
	}
	return out
}

func plainScalar(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0
}

func isEmpty(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value == ""
}

func openParens(s string) int { return strings.Count(s, "(") - strings.Count(s, ")") }

// take is the value of a key; every key that may be there is taken once.
func (o *object) take(key string) value {
	if o == nil {
		return value{}
	}
	o.valid = append(o.valid, key)
	for i, k := range o.keys {
		if k.node.Value == key {
			o.taken[i] = true
			return value{o.l, o.vals[i], k.path}
		}
	}
	return value{l: o.l, path: join(o.path, key)}
}

// need is take for a key that must be there.
func (o *object) need(key, hint string) value {
	v := o.take(key)
	if o != nil && !v.given() {
		o.fail(hint, "the key %q is missing", key)
	}
	return v
}

// has tells whether a key is there, without taking it.
func (o *object) has(key string) bool {
	if o == nil {
		return false
	}
	for _, k := range o.keys {
		if k.node.Value == key {
			return true
		}
	}
	return false
}

// entries takes all keys: for mappings whose keys are the user's own names.
func (o *object) entries() (keys, vals []value) {
	if o == nil {
		return nil, nil
	}
	for i, k := range o.keys {
		o.taken[i] = true
		keys = append(keys, k)
		vals = append(vals, value{o.l, o.vals[i], k.path})
	}
	return keys, vals
}

// close reports the keys that nobody took.
func (o *object) close() {
	if o == nil {
		return
	}
	for i, k := range o.keys {
		if !o.taken[i] {
			k.fail(didYouMean(k.node.Value, o.valid), "unknown key %q", k.node.Value)
		}
	}
}
