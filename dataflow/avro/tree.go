package avro

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// node is an Avro schema, taken apart. A named type that stands in several places
// is one node.
type node struct {
	kind     string // Avro's: long, record, union, ...
	name     string // of a named type: with its namespace
	aliases  []string
	bare     []string // aliases without a namespace, which are those of any
	logical  string
	fields   []nodeField // of a record
	branches []*node     // of a union
	items    *node       // of an array or map
	symbols  []string    // of an enum
	fallback bool        // of an enum: there is a default
	size     int64       // of a fixed
	decimal  [2]int64    // precision and scale
}

type nodeField struct {
	name    string
	aliases []string
	node    *node
	preset  any // as field.preset; of types that no column has: whatever JSON has
	has     bool
}

// deepest is how far types may be nested.
const deepest = 64

// parseTree takes a schema apart.
func parseTree(schema string) (*node, error) {
	d := json.NewDecoder(strings.NewReader(schema))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows it")
	}
	return (&parser{named: make(map[string]*node)}).node(v, "", 0)
}

// parser knows the named types that stood before.
type parser struct{ named map[string]*node }

func (p *parser) node(v any, space string, depth int) (*node, error) {
	if depth > deepest {
		return nil, fmt.Errorf("its types are nested more than %d deep", deepest)
	}
	switch v := v.(type) {
	case string:
		if _, ok := primitives[v]; ok {
			return &node{kind: v}, nil
		}
		if n := p.named[qualified(v, space)]; n != nil {
			return n, nil
		}
		return nil, fmt.Errorf("no type %q", v)
	case []any:
		return p.union(v, space, depth)
	case map[string]any:
		return p.object(v, space, depth)
	}
	return nil, errors.New("a type is a name, a list or an object")
}

func (p *parser) union(v []any, space string, depth int) (*node, error) {
	u := &node{kind: "union"}
	for _, one := range v {
		b, err := p.node(one, space, depth+1)
		if err != nil {
			return nil, err
		}
		twice := func(o *node) bool { return o.kind == b.kind && o.name == b.name }
		if b.kind == "union" || slices.ContainsFunc(u.branches, twice) {
			return nil, fmt.Errorf("a union has %s twice, or in another union", b.kind)
		}
		u.branches = append(u.branches, b)
	}
	if len(u.branches) == 0 {
		return nil, errors.New("a union of nothing")
	}
	return u, nil
}

func (p *parser) object(m map[string]any, space string, depth int) (n *node, err error) {
	kind, _ := m["type"].(string)
	switch kind {
	case "array", "map":
		n = &node{kind: kind}
		key := "items"
		if kind == "map" {
			key = "values"
		}
		if n.items, err = p.node(m[key], space, depth+1); err != nil {
			return nil, err
		}
	case "record", "error", "enum", "fixed":
		if n, err = p.declared(m, kind, space, depth); err != nil {
			return nil, err
		}
	default:
		if n, err = p.node(m["type"], space, depth+1); err != nil {
			return nil, err
		}
		if n.name != "" || n.kind == "union" {
			return n, nil
		}
	}
	n.logical, _ = m["logicalType"].(string)
	for i, key := range []string{"precision", "scale"} {
		n.decimal[i], _ = integerOf(m[key], math.MaxInt64)
	}
	return n, nil
}

// declared is a named type.
func (p *parser) declared(m map[string]any, kind, space string, depth int) (*node, error) {
	name, _ := m["name"].(string)
	if s, ok := m["namespace"].(string); ok {
		space = s
	}
	n := &node{kind: kind, name: qualified(name, space)}
	space, _ = cutName(n.name)
	if _, taken := primitives[n.name]; taken || !nameable(n.name) || p.named[n.name] != nil {
		return nil, fmt.Errorf("a type cannot be named %q, or two are", name)
	}
	p.named[n.name] = n
	aliases, err := words(m["aliases"])
	if err != nil {
		return nil, err
	}
	for _, a := range aliases {
		n.aliases = append(n.aliases, qualified(a, space))
		if !strings.Contains(a, ".") {
			n.bare = append(n.bare, a)
		}
	}
	switch kind {
	case "enum":
		return n, n.enum(m)
	case "fixed":
		var ok bool
		if n.size, ok = integerOf(m["size"], math.MaxInt32); !ok || n.size < 0 {
			return nil, fmt.Errorf("%q has no size", name)
		}
		return n, nil
	}
	n.kind = "record"
	fields, ok := m["fields"].([]any)
	if !ok {
		return nil, fmt.Errorf("%q has no fields", name)
	}
	taken := make(map[string]bool)
	for _, v := range fields {
		f, err := p.field(v, space, depth)
		if err != nil {
			return nil, err
		}
		for _, word := range append([]string{f.name}, f.aliases...) {
			if taken[word] {
				return nil, fmt.Errorf("%q has two fields that are, or were, named %q", name, word)
			}
			taken[word] = true
		}
		n.fields = append(n.fields, f)
	}
	return n, nil
}

func (n *node) enum(m map[string]any) (err error) {
	if n.symbols, err = words(m["symbols"]); err != nil || m["symbols"] == nil {
		return errors.Join(err, fmt.Errorf("%q has no symbols", n.name))
	}
	for i, s := range n.symbols {
		if strings.Contains(s, ".") || !nameable(s) || slices.Contains(n.symbols[:i], s) {
			return fmt.Errorf("%q cannot have the symbol %q, or has it twice", n.name, s)
		}
	}
	if v, ok := m["default"]; ok {
		s, _ := v.(string)
		if n.fallback = slices.Contains(n.symbols, s); !n.fallback {
			return fmt.Errorf("the default of %q is none of its symbols", n.name)
		}
	}
	return nil
}

func (p *parser) field(v any, space string, depth int) (f nodeField, err error) {
	m, _ := v.(map[string]any)
	if f.name, _ = m["name"].(string); strings.Contains(f.name, ".") || !nameable(f.name) {
		return f, fmt.Errorf("a field cannot be named %q", f.name)
	}
	if f.aliases, err = words(m["aliases"]); err != nil {
		return f, err
	}
	if f.node, err = p.node(m["type"], space, depth+1); err != nil {
		return f, fmt.Errorf("field %q: %w", f.name, err)
	}
	if v, f.has = m["default"]; f.has {
		var ok bool
		if f.preset, ok = f.node.valueOf(v); !ok {
			return f, fmt.Errorf("the default of field %q is no %s", f.name, f.node.kind)
		}
	}
	return f, nil
}

// valueOf is a default. That of a union is of the first branch that can have it.
func (n *node) valueOf(v any) (value any, ok bool) {
	switch n.kind {
	case "null":
		return nil, v == nil
	case "boolean":
		value, ok = v.(bool)
		return value, ok
	case "int":
		i, ok := integerOf(v, math.MaxInt32)
		return int32(i), ok
	case "long":
		i, ok := integerOf(v, math.MaxInt64)
		return i, ok
	case "float", "double":
		num, _ := v.(json.Number)
		d, err := num.Float64()
		if n.kind == "float" {
			return float32(d), err == nil && math.Abs(d) <= math.MaxFloat32
		}
		return d, err == nil
	case "bytes", "fixed":
		s, ok := v.(string)
		b := []byte{}
		for _, r := range s {
			ok = ok && r <= 0xff
			b = append(b, byte(r))
		}
		return b, ok && (n.kind == "bytes" || int64(len(b)) == n.size)
	case "string", "enum":
		s, ok := v.(string)
		return s, ok && (n.kind == "string" || slices.Contains(n.symbols, s))
	case "union":
		for _, b := range n.branches {
			if value, ok = b.valueOf(v); ok {
				return value, true
			}
		}
		return nil, false
	case "array":
		_, ok = v.([]any)
	default:
		_, ok = v.(map[string]any)
	}
	return v, ok
}

// integerOf is a number of JSON without a fraction, at most limit and at least
// -limit-1.
func integerOf(v any, limit int64) (int64, bool) {
	num, _ := v.(json.Number)
	i, err := strconv.ParseInt(num.String(), 10, 64)
	return i, err == nil && i <= limit && i >= -limit-1
}

// words is a list of texts, or nothing.
func words(v any) (all []string, err error) {
	list, ok := v.([]any)
	if v != nil && !ok {
		return nil, errors.New("a list of names is none")
	}
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, errors.New("a list of names has something else")
		}
		all = append(all, s)
	}
	return all, nil
}

// qualified is a name with its namespace.
func qualified(name, space string) string {
	if space == "" || strings.Contains(name, ".") {
		return name
	}
	return space + "." + name
}

// cutName is the namespace of a full name, and the rest.
func cutName(name string) (space, short string) {
	i := strings.LastIndexByte(name, '.')
	return name[:max(i, 0)], name[i+1:]
}

// nameable tells whether each part of a full name can be one.
func nameable(name string) bool {
	for part := range strings.SplitSeq(name, ".") {
		for i, c := range []byte(part) {
			letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
			if !letter && (i == 0 || c < '0' || c > '9') {
				return false
			}
		}
		if part == "" {
			return false
		}
	}
	return true
}
