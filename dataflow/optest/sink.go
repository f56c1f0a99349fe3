package optest

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// sink is the output that an operator under test is given.
type sink struct {
	t       TB
	w       way
	factory operator.Factory

	main  Stream
	sides [2]Stream
	last  *batch.Mark // the latest mark on the main stream

	emits   int
	refused bool // in this call
	kept    []keptBatch
}

// keptBatch is an emitted batch and what it looked like then.
type keptBatch struct {
	b    *batch.Batch
	then string
}

// begin is called before each call of the operator.
func (s *sink) begin() { s.refused = false }

// Emit is operator.Output's.
func (s *sink) Emit(b *batch.Batch) bool {
	s.t.Helper()
	s.accept("Emit", b, s.factory.Output())
	for i := range b.Marks {
		m := b.Marks[i]
		if s.last != nil && (m.Watermark < s.last.Watermark || m.Arrival < s.last.Arrival) {
			s.t.Fatalf("%s: a mark goes back: %s after %s", s.w.name, formatMark(m), formatMark(*s.last))
		}
		s.last = &m
	}
	if b.Len() == 0 && len(b.Marks) == 0 {
		s.t.Fatalf("%s: emitted a batch without a row and without a mark", s.w.name)
	}
	s.main.Flatten(b)
	return s.answer()
}

// EmitSide is operator.Output's.
func (s *sink) EmitSide(side operator.Side, b *batch.Batch) bool {
	s.t.Helper()
	schema := s.factory.Side(side)
	if schema == nil {
		s.t.Fatalf("%s: emitted to side stream %v, which the factory says it has not", s.w.name, side)
	}
	s.accept("EmitSide", b, schema)
	rows := Stream{Schema: schema}
	rows.Flatten(b)
	for _, e := range rows.Elements {
		if e.Row != nil {
			s.sides[side].Elements = append(s.sides[side].Elements, e)
		}
	}
	return s.answer()
}

// Wanted is operator.Output's.
func (s *sink) Wanted(operator.Side) bool { return !s.w.deaf }

func (s *sink) accept(call string, b *batch.Batch, schema *batch.Schema) {
	s.t.Helper()
	if s.refused {
		s.t.Fatalf("%s: %s after a refusal in the same call", s.w.name, call)
	}
	if !b.Schema.Equal(schema) {
		s.t.Fatalf("%s: %s of (%v), the factory says (%v)", s.w.name, call, b.Schema, schema)
	}
	if err := b.Check(); err != nil {
		s.t.Fatalf("%s: %s: %v", s.w.name, call, err)
	}
	if s.w.keep {
		s.kept = append(s.kept, keptBatch{b: b.Retain(), then: fingerprint(b)})
	}
}

func (s *sink) answer() bool {
	s.emits++
	s.refused = s.w.refuse && s.emits%2 == 1
	return !s.refused
}

// settled is called when the operator is done with a batch: nothing that was
// handed on before may have changed.
func (s *sink) settled() {
	s.t.Helper()
	for _, k := range s.kept {
		if now := fingerprint(k.b); now != k.then {
			s.t.Fatalf("%s: a batch was written to after it was emitted\nthen %s\nnow  %s", s.w.name, k.then, now)
		}
	}
}

// finish gives up the batches that were kept.
func (s *sink) finish() {
	s.t.Helper()
	s.settled()
	for _, k := range s.kept {
		k.b.Release()
	}
	s.kept = nil
}
