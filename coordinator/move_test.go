package coordinator

import "testing"

// Every phase is reached, what is undecided leads to a decision, and what is
// decided to nothing but the fence.
func TestMovePhases(t *testing.T) {
	departures := map[DeparturePhase]bool{DepartureCopying: true}
	for range DepartureFenced {
		for p := DepartureCopying; p <= DepartureFenced; p++ {
			for to := DepartureCopying; to <= DepartureFenced; to++ {
				departures[to] = departures[to] || departures[p] && p.CanBecome(to)
				if p.CanBecome(to) && p.Decided() && to != DepartureFenced {
					t.Errorf("%s becomes %s after the decision", p, to)
				}
			}
		}
	}
	arrivals := map[ArrivalPhase]bool{ArrivalReceiving: true}
	for range ArrivalDropped {
		for p := ArrivalReceiving; p <= ArrivalDropped; p++ {
			for to := ArrivalReceiving; to <= ArrivalDropped; to++ {
				arrivals[to] = arrivals[to] || arrivals[p] && p.CanBecome(to)
			}
			if p.Decided() == p.CanBecome(ArrivalDropped) {
				t.Errorf("an arrival that is %s: decided %v", p, p.Decided())
			}
		}
	}
	for p := DepartureCopying; p <= DepartureFenced; p++ {
		if !departures[p] || !p.Decided() && !p.CanBecome(DepartureAborted) || p.CanBecome(p) {
			t.Errorf("%s is not reached, or cannot be aborted, or follows itself", p)
		}
	}
	for p := ArrivalReceiving; p <= ArrivalDropped; p++ {
		if !arrivals[p] {
			t.Errorf("nothing leads to %s", p)
		}
	}
	if ArrivalReceiving.CanBecome(ArrivalActive) || DepartureHalting.CanBecome(DepartureHandedOver) {
		t.Error("a phase is left out")
	}
}

func TestMoveIDs(t *testing.T) {
	for _, c := range []struct {
		id    MoveID
		index uint64
		site  string
		ok    bool
	}{
		{"m512-north", 512, "north", true}, {"m7-a-b", 7, "a-b", true}, {"m0-north", 0, "north", true},
		{"512-north", 512, "north", false}, {"m512-", 512, "", false}, {"m512", 512, "", false}, {"m-north", 0, "north", false},
		{"m007-north", 7, "north", false}, {"", 0, "", false},
	} {
		index, site, ok := c.id.Parts()
		if ok != c.ok || ok && (index != c.index || string(site) != c.site) {
			t.Errorf("%q: %d, %q, %v", c.id, index, site, ok)
		}
	}
}

func TestDryRunIDs(t *testing.T) {
	all := make(map[MoveID]bool)
	for term := range uint64(3) {
		for n := range uint64(3) {
			id := NewDryRunID(term, n, "north")
			if index, site, ok := id.Parts(); !ok || site != "north" || index < 1<<63 || !id.DryRun() || all[id] {
				t.Errorf("term %d, question %d: %q", term, n, id)
			}
			all[id] = true
		}
	}
	if NewMoveID(NextLife(9), "north").DryRun() || !NewMoveID(0, "north").DryRun() || MoveID("north").DryRun() {
		t.Error("a move is taken for a dry run, or the other way round")
	}
}
