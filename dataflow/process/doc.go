// Package process owns the operator that calls a function of the user's for
// runs of rows with equal keys: with keyed state, timers, side output. Jobs
// built in code use it with graph.Builder:
//
//	counts, err := process.New(process.Config{
//		Input: in, Keys: []int{0}, Output: out,
//		New: func(s *state.Store) process.Function {
//			return &counter{seen: s.Value("seen", state.TTL{}, batch.Field{Name: "n", Type: batch.Bigint})}
//		},
//	})
//	b.Source("in", src).KeyBy("id").Then("counts", counts).Sink("out", sink)
//
// It keeps no state of its own: dataflow/state does. It never lets a function
// that fails leave half of a row's work behind. docs/STATE.md says what a user
// may rely on; dataflow/operator is the contract that this package fulfils.
package process
