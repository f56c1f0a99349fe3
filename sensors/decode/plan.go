package decode

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// kind is what the value at a place in a payload becomes.
type kind uint8

const (
	kindSkip    kind = iota // nothing: no field asks for it
	kindObject              // its keys lead to fields
	kindArray               // its elements become rows
	kindBoolean             // from here on: a column
	kindInteger             // bigint, or timestamp in a numeric unit
	kindDouble
	kindString
	kindBytes
	kindInstant // timestamp as RFC 3339
)

// target is a place in a payload that fields ask for. The tree of targets is
// made once; only the predictions in it change.
type target struct {
	kind      kind
	col       int    // the column
	word      int    // of the sets of columns
	bit       uint64 // in that word
	scale     int    // kindInteger: the value times 10^scale is what the column holds
	most      uint64 // kindInteger: the largest whole number that may be multiplied by times
	times     int64  // kindInteger: 10^scale; 0 if scale is negative
	stamp     bool   // a timestamp
	fromTopic bool   // filled from the topic
	want      string // for the reason when it is something else

	obj   *object // kindObject
	elem  *target // kindArray: each element
	level int     // kindArray: how many arrays deep its elements are
	below []int   // containers: the columns in it
	mask  set     // the same as a set
	rows  bool    // containers: there is a kindArray in it, or it is one
}

// set is a set of columns.
type set []uint64

func (s set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s set) has(i int) bool { return s[i/64]>>(i%64)&1 != 0 }

func (s set) remove(o set) {
	for w := range s {
		s[w] &^= o[w]
	}
}

// level is one depth of arrays: 0 is the payload itself, 1 the elements of its
// array, and so on. Only the deepest makes rows; those above are repeated.
type level struct {
	own  set // columns filled at this depth
	rest set // these and all deeper ones
}

// plan is the compiled spec.
type plan struct {
	root   *target
	leaves []*target // by column, whatever the format
	topics []topicField
	levels []level
	arrays []*target // by level; arrays[0] is nil
	words  int
	plain  bool    // no arrays, and no more columns than one word of a set has
	none   *target // kindSkip
}

type topicField struct {
	part int
	t    *target
}

func newPlan(spec *Spec) (*plan, error) {
	n := len(spec.Fields)
	p := &plan{words: batch.Words(n), arrays: []*target{nil}, none: &target{kind: kindSkip}}
	p.levels = []level{p.newLevel()}
	for i := range spec.Fields {
		f := &spec.Fields[i]
		t, err := p.newLeaf(f, i)
		if err != nil {
			return nil, err
		}
		p.leaves = append(p.leaves, t)
		if f.Topic >= 0 {
			t.fromTopic = true
			p.topics = append(p.topics, topicField{f.Topic, t})
		}
		if f.Topic >= 0 || spec.Format != JSON {
			p.levels[0].own.add(i)
			continue
		}
		if p.root, err = p.insert(p.root, f.path(), 0, f, t); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(p.topics, func(a, b topicField) int { return a.part - b.part })
	if p.root == nil {
		p.root = p.container(kindObject)
	}
	p.plain = len(p.levels) == 1 && p.words == 1
	for k := range p.levels {
		for _, deeper := range p.levels[k:] {
			for w := range deeper.own {
				p.levels[k].rest[w] |= deeper.own[w]
			}
		}
	}
	return p, nil
}

func (p *plan) newLevel() level {
	return level{own: make(set, p.words), rest: make(set, p.words)}
}

func (p *plan) newLeaf(f *Field, i int) (*target, error) {
	t := &target{col: i, word: i / 64, bit: 1 << (i % 64), times: 1, most: math.MaxInt64, want: f.Type.String()}
	switch f.Type {
	case batch.Boolean:
		t.kind = kindBoolean
	case batch.Bigint:
		t.kind = kindInteger
	case batch.Double:
		t.kind = kindDouble
	case batch.String:
		t.kind = kindString
	case batch.Bytes:
		t.kind = kindBytes
		t.want = "base64 string"
	case batch.Timestamp:
		return t, t.timestamp(f)
	default:
		return nil, fmt.Errorf("decode: field %q has no type; use one of boolean, bigint, double, string, bytes, timestamp", f.Name)
	}
	return t, nil
}

func (t *target) timestamp(f *Field) error {
	t.kind, t.stamp = kindInteger, true
	switch f.Unit {
	case Seconds:
		t.scale, t.want = 6, "timestamp in seconds"
	case Milliseconds:
		t.scale, t.want = 3, "timestamp in milliseconds"
	case Microseconds:
		t.scale, t.want = 0, "timestamp in microseconds"
	case Nanoseconds:
		t.scale, t.want = -3, "timestamp in nanoseconds"
	case RFC3339:
		t.kind, t.want = kindInstant, "timestamp in RFC 3339"
	default:
		return fmt.Errorf("decode: field %q: unknown unit %d; use s, ms, us, ns or rfc3339", f.Name, f.Unit)
	}
	if t.kind == kindInteger {
		t.times = 0
		if t.scale >= 0 {
			t.times = int64(tens[t.scale])
			t.most = math.MaxInt64 / uint64(t.times)
		}
	}
	return nil
}

// insert puts leaf t at the end of path, below cur, whose elements and keys are
// depth arrays deep; it makes the containers on the way and returns what now
// stands at cur.
func (p *plan) insert(cur *target, path []string, depth int, f *Field, t *target) (*target, error) {
	if len(path) == 0 {
		if cur != nil {
			return nil, fmt.Errorf("decode: field %q: another field has the path %q or goes on below it; copy a column with select instead", f.Name, f.where())
		}
		p.levels[depth].own.add(t.col)
		return t, nil
	}
	want := kindObject
	switch path[0] {
	case "":
		return nil, fmt.Errorf("decode: field %q: its path %q has an empty element", f.Name, f.where())
	case "[]":
		want = kindArray
		depth++
	}
	if cur == nil {
		cur = p.container(want)
	}
	if cur.kind != want {
		return nil, fmt.Errorf("decode: field %q: its path %q takes %s for %s, as another field's path does not", f.Name, f.where(), cur.kind, want)
	}
	cur.below = append(cur.below, t.col)
	cur.mask.add(t.col)
	if want == kindArray {
		if err := p.array(cur, depth, f); err != nil {
			return nil, err
		}
		e, err := p.insert(cur.elem, path[1:], depth, f, t)
		cur.elem = e
		return cur, err
	}
	next, err := p.insert(cur.obj.keys[path[0]], path[1:], depth, f, t)
	if err != nil {
		return nil, err
	}
	cur.obj.keys[path[0]] = next
	cur.rows = cur.rows || next.rows
	return cur, nil
}

// array says that c's elements are depth arrays deep. A payload has one chain
// of arrays: two side by side would have no common rows.
func (p *plan) array(c *target, depth int, f *Field) error {
	if len(p.arrays) == depth {
		p.arrays = append(p.arrays, c)
		p.levels = append(p.levels, p.newLevel())
		c.level = depth
	}
	if p.arrays[depth] != c {
		return fmt.Errorf("decode: field %q: path %q: two arrays side by side cannot make rows together; read them with two sources", f.Name, f.where())
	}
	return nil
}

func (p *plan) container(k kind) *target {
	c := &target{kind: k, mask: make(set, p.words), rows: k == kindArray}
	if k == kindObject {
		c.obj = &object{keys: make(map[string]*target)}
	}
	return c
}

// path is where f stands, its own name unless given.
func (f *Field) path() []string {
	if len(f.Path) == 0 {
		return []string{f.Name}
	}
	return f.Path
}

func (f *Field) where() string { return strings.Join(f.path(), ".") }

func (k kind) String() string {
	switch k {
	case kindObject:
		return "an object"
	case kindArray:
		return "an array"
	}
	return "a value"
}
