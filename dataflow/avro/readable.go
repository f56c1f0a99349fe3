package avro

import (
	"fmt"
	"slices"
)

// unlike tells whether two schemas are written otherwise: names, fields in their
// order, types. Defaults, aliases and logical types do not count.
func unlike(a, b *node) bool { return !alike(a, b, make(map[[2]*node]bool)) }

func alike(a, b *node, seen map[[2]*node]bool) bool {
	if a == nil || b == nil || seen[[2]*node{a, b}] {
		return (a == nil) == (b == nil)
	}
	seen[[2]*node{a, b}] = true
	if a.kind != b.kind || a.name != b.name || a.size != b.size || !slices.Equal(a.symbols, b.symbols) || !alike(a.items, b.items, seen) {
		return false
	}
	same := func(x, y *node) bool { return alike(x, y, seen) }
	return slices.EqualFunc(a.branches, b.branches, same) && len(a.fields) == len(b.fields) && !differ(a.fields, b.fields, same)
}

func differ(a, b []nodeField, same func(x, y *node) bool) bool {
	for i := range a {
		if a[i].name != b[i].name || !same(a[i].node, b[i].node) {
			return true
		}
	}
	return false
}

// readable says why what was written with w cannot be read with r, by Avro's rules
// of resolution; each value that w can have must be readable.
func readable(w, r *node) error { return reads(w, r, make(map[[2]*node]bool)) }

func reads(w, r *node, seen map[[2]*node]bool) error {
	if seen[[2]*node{w, r}] {
		return nil
	}
	seen[[2]*node{w, r}] = true
	switch {
	case w.kind == "union":
		for _, b := range w.branches {
			if err := reads(b, r, seen); err != nil {
				return err
			}
		}
		return nil
	case r.kind == "union":
		b := branchFor(w, r)
		if b == nil {
			return fmt.Errorf("%s is none of %s", typeName(w), typeName(r))
		}
		return reads(w, b, seen)
	case w.kind == r.kind:
		return readsKind(w, r, seen)
	case promoted(w.kind, r.kind):
		return nil
	}
	return fmt.Errorf("%s cannot be read as %s", typeName(w), typeName(r))
}

func readsKind(w, r *node, seen map[[2]*node]bool) error {
	if w.name != "" && !sameName(w, r) || w.size != r.size {
		return fmt.Errorf("%s is now %s", typeName(w), typeName(r))
	}
	if w.logical == "decimal" && r.logical == "decimal" && w.decimal != r.decimal {
		return fmt.Errorf("decimals of precision and scale %v are now of %v", w.decimal, r.decimal)
	}
	for _, s := range w.symbols {
		if !r.fallback && !slices.Contains(r.symbols, s) {
			return fmt.Errorf("%s has no symbol %q any more, and no default", typeName(r), s)
		}
	}
	if w.items != nil {
		return reads(w.items, r.items, seen)
	}
	used := make([]string, len(w.fields))
	for i := range r.fields {
		rf := &r.fields[i]
		j := fieldNamed(w.fields, rf)
		if j < 0 && !rf.has && !mayBeNull(rf.node) {
			return fmt.Errorf("field %q of %s is added without a default", rf.name, typeName(r))
		}
		if j < 0 {
			continue
		}
		if err := reads(w.fields[j].node, rf.node, seen); err != nil {
			return fmt.Errorf("field %q: %w", rf.name, err)
		}
		for k := range w.fields { // two that one field takes
			if f := w.fields[k].name; k != j && used[k] == "" && slices.Contains(rf.aliases, f) && !slices.ContainsFunc(r.fields, func(o nodeField) bool { return o.name == f }) {
				return fmt.Errorf("fields %q and %q are both field %q now", w.fields[j].name, f, rf.name)
			}
		}
		used[j] = rf.name
	}
	return nil
}

// mayBeNull: null is the default of such a field if it says none.
func mayBeNull(n *node) bool { return len(n.branches) >= 2 && n.branches[0].kind == "null" }

// branchFor is the branch of a union that a value is read as; nil: none.
func branchFor(w, union *node) *node {
	for _, fits := range []func(b *node) bool{
		func(b *node) bool { return b.kind == w.kind && b.name == w.name && b.size == w.size },
		func(b *node) bool { return b.kind == w.kind && w.name != "" && sameName(w, b) && b.size == w.size },
		func(b *node) bool { return promoted(w.kind, b.kind) },
	} {
		if i := slices.IndexFunc(union.branches, fits); i >= 0 {
			return union.branches[i]
		}
	}
	return nil
}

// sameName: by Avro the namespace need not be the same.
func sameName(w, r *node) bool {
	_, was := cutName(w.name)
	_, is := cutName(r.name)
	return was == is || slices.Contains(r.aliases, w.name) || slices.Contains(r.bare, was)
}

func promoted(from, to string) bool {
	switch from {
	case "int":
		return to == "long" || to == "float" || to == "double"
	case "long":
		return to == "float" || to == "double"
	case "float":
		return to == "double"
	case "string":
		return to == "bytes"
	case "bytes":
		return to == "string"
	}
	return false
}
