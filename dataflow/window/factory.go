package window

import (
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// Factory makes the operators of a window step. It is immutable.
type Factory struct {
	spec Spec
	out  *batch.Schema
	plan *plan
}

// NewFactory checks a spec and makes its factory.
func NewFactory(s Spec) (*Factory, error) {
	out, err := s.Output()
	if err != nil {
		return nil, err
	}
	return &Factory{spec: s, out: out, plan: newPlan(&s)}, nil
}

// Output is the schema of the results.
func (f *Factory) Output() *batch.Schema { return f.out }

// Side is the input's schema for late rows, in forms that have any.
func (f *Factory) Side(s operator.Side) *batch.Schema {
	if s == operator.Late && f.spec.Form.Timed() {
		return f.spec.Input
	}
	return nil
}

// Backed is operator.Backed's: running aggregates by key, unless they have sets.
func (f *Factory) Backed() bool {
	for _, a := range f.plan.accs {
		if a.kind == distinct {
			return false
		}
	}
	return f.spec.Form == Running && len(f.spec.Keys) > 0
}

// New makes the operator of one subtask.
func (f *Factory) New() operator.Operator {
	o := newCore(&f.spec, f.plan, f.out)
	switch f.spec.Form {
	case Session:
		o.form = newSessions(o)
	case Count:
		o.form = newCounts(o)
	case SlidingCount:
		o.form = newSlidingCounts(o)
	case Running:
		f := newRunning(o)
		o.form = f
		o.describe(f)
		return &paged{core: o, running: f}
	default:
		o.form = newSliced(o)
	}
	o.describe(o.form)
	return o
}
