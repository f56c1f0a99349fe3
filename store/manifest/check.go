package manifest

import (
	"fmt"
	"unicode/utf8"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
)

// The modes.
const (
	ExactlyOnce = "exactly-once"
	AtLeastOnce = "at-least-once"
)

const spreads = 3 // as many ways operator.Spread has

// CheckName says why a text cannot be a manifest's name: it becomes a file's.
func CheckName(name string) error {
	ok := name != "" && len(name) <= 128
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (letter || i > 0 && (c == '.' || c == '-' || c == '_'))
	}
	if !ok {
		return fmt.Errorf("manifest: the name %q is no file's name: use 1 to 128 letters, digits, '-', '_', '.', and a letter or digit first", name)
	}
	return nil
}

// Check says which of the type's invariants the manifest breaks; the order of
// its parts is not one of them.
func (m Manifest) Check() error {
	if err := CheckName(m.Name); err != nil {
		return err
	}
	fail := func(format string, args ...any) error {
		return fmt.Errorf("manifest %q: %s", m.Name, fmt.Sprintf(format, args...))
	}
	switch {
	case m.Kind != Checkpoint && m.Kind != Savepoint:
		return fail("kind %d", m.Kind)
	case m.Job == "" || !utf8.ValidString(m.Job):
		return fail("job %q", m.Job)
	case !utf8.ValidString(m.ID.Token.Site):
		return fail("site %q", m.ID.Token.Site)
	case m.MaxParallelism < 1 || m.MaxParallelism > dataflow.MaxMaxParallelism:
		return fail("max parallelism %d, not in 1 to %d", m.MaxParallelism, dataflow.MaxMaxParallelism)
	case m.Took < 0:
		return fail("it took %v", m.Took)
	case m.Mode != ExactlyOnce && m.Mode != AtLeastOnce:
		return fail("mode %q", m.Mode)
	}
	sizes := make(map[store.Digest]int64)
	ids := make(map[dataflow.OperatorID]bool)
	for _, o := range m.Operators {
		if ids[o.ID] || o.ID == "" || !utf8.ValidString(string(o.ID)) {
			return fail("operator %q is there twice, or has no name in UTF-8", o.ID)
		}
		ids[o.ID] = true
		if err := o.check(sizes); err != nil {
			return fail("operator %q: %v", o.ID, err)
		}
	}
	return nil
}

func (o Operator) check(sizes map[store.Digest]int64) error {
	if o.Parallelism < 1 || o.Parallelism > dataflow.MaxMaxParallelism {
		return fmt.Errorf("parallelism %d", o.Parallelism)
	}
	splits := make(map[string]bool)
	for _, p := range o.Positions {
		if splits[p.Split] {
			return fmt.Errorf("split %q is there twice", p.Split)
		}
		splits[p.Split] = true
	}
	tables := make(map[string]bool)
	for _, t := range o.Tables {
		if tables[t.Name] || t.Name == "" || !utf8.ValidString(t.Name) {
			return fmt.Errorf("table %q is there twice, or has no name in UTF-8", t.Name)
		}
		tables[t.Name] = true
		if err := t.check(o.Parallelism, sizes); err != nil {
			return fmt.Errorf("table %q: %v", t.Name, err)
		}
	}
	return nil
}

func (t Table) check(parallelism int, sizes map[store.Digest]int64) error {
	switch {
	case t.Schema == "" || !utf8.ValidString(t.Schema):
		return fmt.Errorf("no schema")
	case t.Spread >= spreads:
		return fmt.Errorf("spread %d", t.Spread)
	case t.Identity < 0:
		return fmt.Errorf("identity %d", t.Identity)
	case len(t.Shards) != parallelism:
		return fmt.Errorf("%d shards for %d subtasks", len(t.Shards), parallelism)
	}
	there := make([]bool, parallelism)
	for _, s := range t.Shards {
		if s.Subtask < 0 || s.Subtask >= parallelism || there[s.Subtask] {
			return fmt.Errorf("subtask %d is there twice, or is none of %d", s.Subtask, parallelism)
		}
		there[s.Subtask] = true
		if len(s.Parts) > 1 && t.Identity == 0 {
			return fmt.Errorf("subtask %d: %d parts; a table whose rows have no identity has one", s.Subtask, len(s.Parts))
		}
		for i, p := range s.Parts {
			if err := p.check(i, sizes); err != nil {
				return fmt.Errorf("subtask %d, part %d: %v", s.Subtask, i, err)
			}
		}
	}
	return nil
}

func (p PartUse) check(i int, sizes map[store.Digest]int64) error {
	switch {
	case p.Digest == store.Digest{}:
		return fmt.Errorf("no digest")
	case p.Size <= 0 || p.Rows < 0:
		return fmt.Errorf("%d rows in %d bytes", p.Rows, p.Size)
	case p.Delta != (i > 0):
		return fmt.Errorf("the first part is whole, and those after it are deltas; this one is not so")
	}
	if was, known := sizes[p.Digest]; known && was != p.Size {
		return fmt.Errorf("part %v has %d and %d bytes", p.Digest, was, p.Size)
	}
	sizes[p.Digest] = p.Size
	return nil
}
