package sim_test

import (
	"math"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/tidemark-mesh/tidemark/agent/sim"
)

// life is what a name of a job can be at, as clients see it: free, the name of a
// live submission, or of one that was told to end and may have done so.
type life struct {
	of  string // empty: it is free
	end bool
}

// What clients saw of submissions, cancels and stops can be put into one order,
// in which a name is one live job's at a time.
func TestControlHistory(t *testing.T) {
	for n := range uint64(12) {
		ops, v := sim.History(sim.Config{Seed: 500 + n})
		if v != nil {
			t.Fatalf("seed %d: %v", 500+n, v)
		}
		var history []porcupine.Operation
		known := 0
		for _, o := range ops {
			end := o.Return
			if end == 0 {
				end = math.MaxInt64
			} else {
				known++
			}
			history = append(history, porcupine.Operation{ClientId: o.Client, Input: o, Call: o.Call, Output: o.Result, Return: end})
		}
		if !porcupine.CheckOperations(model().ToModel(), history) {
			for _, o := range ops {
				t.Logf("%+v", *o)
			}
			t.Errorf("seed %d: no order explains what clients saw", 500+n)
		}
		if known < 5 {
			t.Errorf("seed %d: only %d operations returned", 500+n, known)
		}
	}
}

func model() *porcupine.NondeterministicModel {
	return &porcupine.NondeterministicModel{
		Init: func() []any { return []any{life{}} },
		Step: func(state, input, output any) []any {
			var all []any
			for _, s := range next(state.(life), input.(*sim.Op), output.(string)) {
				all = append(all, s)
			}
			return all
		},
		Equal: func(a, b any) bool { return a == b },
	}
}

func next(s life, o *sim.Op, result string) []life {
	mine := s.of == o.Request
	switch {
	case o.Kind == "submit" && result == "ok":
		switch {
		case mine:
			return []life{s}
		case s.of == "" || s.end:
			return []life{{of: o.Request}}
		}
		return nil
	case o.Kind == "submit" && result == "refused":
		if s.of != "" && !mine {
			return []life{s}
		}
		return nil
	case o.Kind == "submit":
		return append([]life{s}, next(s, o, "ok")...)
	case result == "ok" && o.Kind == "cancel":
		if mine {
			return []life{{s.of, true}}
		}
		return nil
	case result == "ok": // stopped: it has ended
		if mine {
			return []life{{}}
		}
		return []life{s} // it had ended before
	case result == "refused":
		if mine && !s.end {
			return nil
		}
		return []life{s}
	case mine:
		return []life{s, {s.of, true}}
	}
	return []life{s}
}
