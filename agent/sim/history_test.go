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

// What clients saw of submissions, cancels, stops, savepoints, rescaling and reads
// can be put into one order, in which a name is one live job's at a time.
func TestControlHistory(t *testing.T) {
	seen := make(map[string]int) // by kind and result
	for n := range uint64(40) {
		ops, v := sim.History(sim.Config{Seed: 500 + n})
		if v != nil {
			t.Fatalf("seed %d: %v", 500+n, v)
		}
		var history []porcupine.Operation
		known := 0
		for _, o := range ops {
			seen[o.Kind+" "+o.Result]++
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
	t.Log(seen)
	for _, what := range []string{"submit ok", "submit refused", "cancel ok", "stop ok", "savepoint ok", "rescale ok", "rescale refused", "read ok"} {
		if seen[what] < 5 {
			t.Errorf("%s: only %d of all", what, seen[what])
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
	case o.Kind == "read" && result == "ok":
		switch {
		case o.Request == s.of:
			return []life{s}
		case o.Request == "" && s.end:
			return []life{{}} // it has ended meanwhile
		}
		return nil
	case o.Kind == "read" || o.Kind == "savepoint" && result == "":
		return []life{s}
	case o.Kind == "savepoint": // it was taken while the job lived
		if mine {
			return []life{s}
		}
		return nil
	case o.Kind == "rescale" && result == "ok":
		if mine && !s.end {
			return []life{s}
		}
		return nil
	case o.Kind == "rescale" && result == "refused" && mine:
		return []life{{s.of, true}} // a stop that is not over yet was told
	case o.Kind == "rescale" && result == "":
		return []life{s}
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
