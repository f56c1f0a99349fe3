package coordinator

import "testing"

// Every state is reached, and every state that is not an end leads to one.
func TestStatusTable(t *testing.T) {
	reached := map[Status]bool{Created: true}
	for round := 0; round < int(Cancelled); round++ {
		for s := Created; s <= Cancelled; s++ {
			for to := Created; to <= Cancelled; to++ {
				if reached[s] && s.CanBecome(to) {
					reached[to] = true
				}
			}
		}
	}
	for s := Created; s <= Cancelled; s++ {
		if !reached[s] {
			t.Errorf("nothing leads to %s", s)
		}
		if s.CanBecome(s) {
			t.Errorf("%s follows itself", s)
		}
		if !s.Ended() && !s.CanBecome(Failed) {
			t.Errorf("a job that is %s cannot fail", s)
		}
		if s.Ended() != (s == Stopped || s == Finished || s == Failed || s == Cancelled) {
			t.Errorf("%s: Ended %v", s, s.Ended())
		}
	}
	if Created.CanBecome(Running) || Stopped.CanBecome(Running) {
		t.Error("a job runs without having been restored")
	}
}
