package avro

import (
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/avro"
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
	w, errW := avro.Parse(writer)
	r, errR := avro.Parse(reader)
	if err := errors.Join(errW, errR); err != nil {
		return Incompatible, []string{err.Error()}
	}
	f := differences(w, r)
	switch {
	case len(f.no) > 0:
		return Incompatible, f.no
	case string(w.Canonical()) != string(r.Canonical()):
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
// once; the library, which stops at the first, has the last word.
func differences(w, r *avro.Schema) findings {
	var f findings
	wr, rr := w.Root(), r.Root()
	if wr.Type == "record" && rr.Type == "record" {
		f.records(wr, rr)
	}
	if len(f.no) > 0 {
		return f
	}
	if err := avro.CheckCompatibility(w, r); err != nil {
		f.no = append(f.no, err.Error())
	} else if wr.Type != "record" && string(w.Canonical()) != string(r.Canonical()) {
		f.change = append(f.change, fmt.Sprintf("%s is now %s", typeName(wr), typeName(rr)))
	}
	return f
}

func (f *findings) records(w, r *avro.SchemaNode) {
	if w.Name != r.Name && !slices.Contains(r.Aliases, w.Name) {
		f.no = append(f.no, fmt.Sprintf("table %q is now %q", ColumnName(w.Name), ColumnName(r.Name)))
	}
	used := make([]bool, len(w.Fields))
	for i := range r.Fields {
		rf := &r.Fields[i]
		j := fieldNamed(w.Fields, rf)
		if j < 0 {
			f.added(rf)
			continue
		}
		used[j] = true
		f.changed(&w.Fields[j], rf)
	}
	for i, u := range used {
		if name := w.Fields[i].Name; !u && name != kindField {
			f.change = append(f.change, fmt.Sprintf("column %q is removed; its values are dropped", ColumnName(name)))
		}
	}
}

func fieldNamed(w []avro.SchemaField, rf *avro.SchemaField) int {
	if j := slices.IndexFunc(w, func(wf avro.SchemaField) bool { return wf.Name == rf.Name }); j >= 0 {
		return j
	}
	return slices.IndexFunc(w, func(wf avro.SchemaField) bool { return slices.Contains(rf.Aliases, wf.Name) })
}

func (f *findings) added(rf *avro.SchemaField) {
	name := ColumnName(rf.Name)
	if !rf.HasDefault {
		f.no = append(f.no, fmt.Sprintf("column %q is added without a default", name))
		return
	}
	f.change = append(f.change, fmt.Sprintf("column %q is added; rows that are there get %v", name, defaultName(rf.Default)))
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

func (f *findings) changed(wf, rf *avro.SchemaField) {
	name := ColumnName(rf.Name)
	was, is := typeName(&wf.Type), typeName(&rf.Type)
	ws, errW := wf.Type.Schema()
	rs, errR := rf.Type.Schema()
	if err := errors.Join(errW, errR); err != nil {
		f.no = append(f.no, fmt.Sprintf("column %q: %v", name, err))
		return
	}
	err := avro.CheckCompatibility(ws, rs)
	a, b := logical(&wf.Type), logical(&rf.Type)
	switch {
	case err != nil && was == is:
		f.no = append(f.no, fmt.Sprintf("column %q: %v", name, err))
	case err != nil, a != b: // the number would be taken for a time, or the other way round
		f.no = append(f.no, fmt.Sprintf("column %q was %s and is now %s", name, was, is))
	case wf.Name != rf.Name:
		f.change = append(f.change, fmt.Sprintf("column %q is renamed to %q", ColumnName(wf.Name), name))
	case string(ws.Canonical()) != string(rs.Canonical()):
		f.change = append(f.change, fmt.Sprintf("column %q was %s and becomes %s", name, was, is))
	}
}

// logical is the logical type of a node, or of what is not null in it.
func logical(n *avro.SchemaNode) string {
	for i := range n.Branches {
		if n.Branches[i].Type != "null" {
			return logical(&n.Branches[i])
		}
	}
	return n.LogicalType
}

// typeName is the type for people.
func typeName(n *avro.SchemaNode) string {
	switch {
	case n.Type == "union":
		s := ""
		for i := range n.Branches {
			if i > 0 {
				s += " or "
			}
			s += typeName(&n.Branches[i])
		}
		return s
	case n.LogicalType != "":
		return n.LogicalType
	case n.Name != "":
		return n.Type + " " + n.Name
	}
	return n.Type
}
