package twosites

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Lasts is how long a fault is there: short enough that what waits for it goes on,
// long enough that a lease, a stream and a leader's term end meanwhile.
const lasts = 5 * sec

// Faults are all that can come at a step.
func Faults(kind Kind, at Step) (all []Fault) {
	for _, w := range Whats() {
		if w == ComesBack && kind != Failover {
			continue
		}
		if !w.Of() {
			all = append(all, Fault{at, w, "", lasts})
			continue
		}
		for _, s := range []mesh.Site{"a", "b"} {
			all = append(all, Fault{at, w, s, lasts})
		}
	}
	return all
}

// Singles are all faults at all steps of the undisturbed run.
func Singles(seed uint64, kind Kind) (all []Fault, undisturbed *Result) {
	undisturbed = Run(Config{Seed: seed, Kind: kind})
	for _, s := range undisturbed.Steps {
		all = append(all, Faults(kind, s)...)
	}
	return all, undisturbed
}

// Seconds are the faults that may come after a first one: at the steps that the run
// takes with that one.
func Seconds(kind Kind, first Fault, with *Result) (all []Fault) {
	behind := false
	for _, s := range with.Steps {
		if behind && s.After {
			all = append(all, Faults(kind, s)...)
		}
		behind = behind || s == first.At
	}
	return all
}

// Stay is the fault that a site is away for so long.
func Stay(at Step, site mesh.Site, long dataflow.Time) Fault { return Fault{at, CrashAll, site, long} }
