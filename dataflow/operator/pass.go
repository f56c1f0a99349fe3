package operator

import "github.com/tidemark-mesh/tidemark/dataflow/batch"

// NewPass makes the operator that hands on what it gets: union, and steps that
// only change the exchange or the chain.
func NewPass(schema *batch.Schema) Factory { return passFactory{schema} }

type passFactory struct{ schema *batch.Schema }

func (f passFactory) Output() *batch.Schema   { return f.schema }
func (f passFactory) Side(Side) *batch.Schema { return nil }
func (f passFactory) New() Operator           { return pass{} }

type pass struct {
	Stateless
	OneShot
}

func (pass) Open(*Context) error { return nil }

// Process emits b itself.
func (pass) Process(b *batch.Batch, out Output) (Progress, error) {
	out.Emit(b)
	return Done, nil
}
