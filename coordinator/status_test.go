package coordinator

import "testing"

// Every state is reached, every state that is not an end leads to one, and what
// has ended comes back only by arriving.
func TestStatusTable(t *testing.T) {
	reached := map[Status]bool{Created: true}
	for round := 0; round < int(Quarantined); round++ {
		for s := Created; s.Known(); s++ {
			for to := Created; to.Known(); to++ {
				if reached[s] && s.CanBecome(to) {
					reached[to] = true
				}
			}
		}
	}
	for s := Created; s.Known(); s++ {
		if !reached[s] || s.String() == "" {
			t.Errorf("nothing leads to %d, %q", s, s)
		}
		if s.CanBecome(s) {
			t.Errorf("%s follows itself", s)
		}
		if !s.Ended() && s != Suspended && s != Quarantined && !s.CanBecome(Failed) {
			t.Errorf("a job that is %s cannot fail", s)
		}
		if s != Moved && !s.CanBecome(Moved) {
			t.Errorf("no other site can have a job that is %s", s)
		}
		for to := Created; to.Known(); to++ {
			if s.Ended() && s.CanBecome(to) && to != Created && to != Moved {
				t.Errorf("a job that is %s becomes %s", s, to)
			}
		}
		if s.Ended() != s.CanBecome(Created) {
			t.Errorf("%s: Ended %v", s, s.Ended())
		}
	}
	if Created.CanBecome(Running) || Stopped.CanBecome(Running) || Suspended.CanBecome(Restoring) || Quarantined.CanBecome(Restoring) {
		t.Error("a job runs without having been restored, or in spite of its move")
	}
}

func TestJobIDs(t *testing.T) {
	for _, c := range []struct {
		id    JobID
		index uint64
		site  string
		ok    bool
	}{
		{"j17", 17, "", true}, {"j17-north", 17, "north", true}, {"j7-a-b", 7, "a-b", true}, {"j07", 7, "", false}, {"j7-", 7, "", false},
		{"j", 0, "", false}, {"17", 17, "", false}, {"x17-north", 0, "north", false}, {"j-north", 0, "north", false}, {"", 0, "", false},
	} {
		index, site, ok := c.id.Parts()
		if ok != c.ok || ok && (index != c.index || string(site) != c.site) {
			t.Errorf("%q: %d, %q, %v", c.id, index, site, ok)
		}
		if first, own := Own(string(c.id) + ".in.x"); own != c.ok || own && first != c.id {
			t.Errorf("%s.in.x: %q, %v", c.id, first, own)
		}
		if _, own := Own(string(c.id)); own {
			t.Errorf("%q could be a job's own feed", c.id)
		}
	}
}
