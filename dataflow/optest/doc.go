// Package optest is the harness that every operator has to pass: the same
// input is run in several ways (row by row, in full batches, restored after
// every element, restored from deltas, with an output that refuses, with
// selections), and all ways must give the same rows, marks and counts.
//
// It owns a text notation for streams too, see Parse. It is for tests only and
// boxes values freely; nothing of the engine imports it.
//
//	optest.Check(t, optest.Case{
//		Factory: f,
//		Input:   optest.MustParse(t, in, `a@1 v=3; b@2 v=4; wm 9; end`),
//		Want:    `a@1 v=3; wm 9; wm max`,
//		OrderBy: []string{"key"},
//	})
package optest
