package twosites

import (
	"slices"
)

// Lasts is how long a fault is there: short enough that what waits for it goes on,
// long enough that a lease, a stream and a leader's term end meanwhile.
const lasts = 5 * sec

// Faults are all that can come at a step.
func Faults(kind Kind, at Step) (all []Fault) {
	for _, w := range Whats() {
		if w == ComesBack && !slices.Contains([]Kind{Failover, Return, Torn, Taken, Home, Third, Chain}, kind) {
			continue
		}
		if !w.Of() {
			all = append(all, Fault{at, w, "", lasts})
			continue
		}
		for _, s := range kind.sites() {
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

// Firsts are the faults with which a pair may begin: right behind each step of the
// undisturbed run (before a step is behind the one before), if they change anything.
func Firsts(undisturbed *Result) (all []Fault) {
	for _, f := range undisturbed.Open {
		if f.At.After {
			all = append(all, f)
		}
	}
	return all
}

// Seconds are the faults that may come after a first one: at the steps that the run
// takes with that one, if they change anything there.
func Seconds(first Fault, with *Result) (all []Fault) {
	behind := slices.Index(with.Steps, first.At) + 1
	for _, f := range with.Open {
		if f.At.After && slices.Index(with.Steps, f.At) >= behind {
			all = append(all, f)
		}
	}
	return all
}
