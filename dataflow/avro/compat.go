package avro

import (
	"errors"
	"fmt"
	"slices"
)

// Verdict says whether what was written with one schema can be read with
// another.
type Verdict uint8

// The verdicts.
const (
	AsIs           Verdict = iota + 1 // the written form is the same
	AfterMigration                    // readable; the next snapshot is in the new form
	Incompatible                      // there is no way
)

// String is the word for people.
func (v Verdict) String() string {
	return [...]string{AsIs: "as is", AfterMigration: "after migration", Incompatible: "incompatible"}[v]
}

// Compatible says whether rows written with one Avro schema can be read with
// another, and why not, or what becomes of them: all findings at once. Fields
// that tell a delta from a whole part do not count, nor does the order of
// columns of a table: they are found by name, and then by the reader's aliases.
//
// A schema that is not Avro is incompatible with everything.
func Compatible(writer, reader string) (Verdict, []string) {
	if _, ok := written(writer); ok && writer == reader {
		return AsIs, nil
	}
	w, errW := parseTree(writer)
	r, errR := parseTree(reader)
	if err := errors.Join(errW, errR); err != nil {
		return Incompatible, []string{err.Error()}
	}
	f := differences(w, r)
	switch {
	case len(f.no) > 0:
		return Incompatible, f.no
	case unlike(w, r):
		return AfterMigration, f.change
	}
	return AsIs, nil
}

// SameIdentity says which of the first n columns of a table are not the same in
// both schemas. They tell its rows apart, and those of a keyed table decide
// where they are: they can never change, whatever Avro could read.
func SameIdentity(writer, reader string, n int) ([]string, error) {
	w, err := ParseSchema(writer)
	if err != nil {
		return nil, err
	}
	r, err := ParseSchema(reader)
	if err != nil {
		return nil, err
	}
	var found []string
	for i := range n {
		switch {
		case i >= w.Schema.Len() || i >= r.Schema.Len():
			found = append(found, fmt.Sprintf("column %d of %d that tell rows apart is missing", i+1, n))
		case w.Schema.Field(i) != r.Schema.Field(i):
			was, is := w.Schema.Field(i), r.Schema.Field(i)
			found = append(found, fmt.Sprintf("column %q %v tells rows apart and is now %q %v: such columns cannot change", was.Name, was.Type, is.Name, is.Type))
		}
	}
	return found, nil
}

// findings are the differences of two schemas.
type findings struct {
	no     []string // there is no way
	change []string // what becomes of the rows
}

// differences looks at each field of two records, so that all is found at
// once; readable, which stops at the first, has the last word.
func differences(w, r *node) findings {
	var f findings
	if w.kind == "record" && r.kind == "record" {
		f.records(w, r)
	}
	if len(f.no) > 0 {
		return f
	}
	if err := readable(w, r); err != nil {
		f.no = append(f.no, err.Error())
	} else if w.kind != "record" && unlike(w, r) {
		f.change = append(f.change, fmt.Sprintf("%s is now %s", typeName(w), typeName(r)))
	}
	return f
}

func (f *findings) records(w, r *node) {
	if !sameName(w, r) {
		_, was := cutName(w.name)
		_, is := cutName(r.name)
		f.no = append(f.no, fmt.Sprintf("table %q is now %q", ColumnName(was), ColumnName(is)))
	}
	used := make([]bool, len(w.fields))
	for i := range r.fields {
		rf := &r.fields[i]
		j := fieldNamed(w.fields, rf)
		if j < 0 {
			f.added(rf)
			continue
		}
		used[j] = true
		f.changed(&w.fields[j], rf)
	}
	for i, u := range used {
		if name := w.fields[i].name; !u && name != kindField {
			f.change = append(f.change, fmt.Sprintf("column %q is removed; its values are dropped", ColumnName(name)))
		}
	}
}

func fieldNamed(w []nodeField, rf *nodeField) int {
	if j := slices.IndexFunc(w, func(wf nodeField) bool { return wf.name == rf.name }); j >= 0 {
		return j
	}
	return slices.IndexFunc(w, func(wf nodeField) bool { return slices.Contains(rf.aliases, wf.name) })
}

func (f *findings) added(rf *nodeField) {
	name := ColumnName(rf.name)
	if !rf.has {
		f.no = append(f.no, fmt.Sprintf("column %q is added without a default", name))
		return
	}
	f.change = append(f.change, fmt.Sprintf("column %q is added; rows that are there get %v", name, defaultName(rf.preset)))
}

func defaultName(v any) any {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return fmt.Sprintf("%q", v)
	}
	return v
}

func (f *findings) changed(wf, rf *nodeField) {
	name := ColumnName(rf.name)
	was, is := typeName(wf.node), typeName(rf.node)
	err := readable(wf.node, rf.node)
	a, b := logical(wf.node), logical(rf.node)
	switch {
	case err != nil && was == is:
		f.no = append(f.no, fmt.Sprintf("column %q: %v", name, err))
	case err != nil, a != b: // the number would be taken for a time, or the other way round
		f.no = append(f.no, fmt.Sprintf("column %q was %s and is now %s", name, was, is))
	case wf.name != rf.name:
		f.change = append(f.change, fmt.Sprintf("column %q is renamed to %q", ColumnName(wf.name), name))
	case unlike(wf.node, rf.node):
		f.change = append(f.change, fmt.Sprintf("column %q was %s and becomes %s", name, was, is))
	}
}

// logical is the logical type of a node, or of what is not null in it.
func logical(n *node) string {
	for _, b := range n.branches {
		if b.kind != "null" {
			return logical(b)
		}
	}
	return n.logical
}

// typeName is the type for people.
func typeName(n *node) string {
	_, short := cutName(n.name)
	switch {
	case n.kind == "union":
		s := ""
		for i, b := range n.branches {
			if i > 0 {
				s += " or "
			}
			s += typeName(b)
		}
		return s
	case n.logical != "":
		return n.logical
	case short != "":
		return n.kind + " " + short
	}
	return n.kind
}
