package coordinator_test

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// A session is that of a client id at a broker's host and port.
func TestSessionOf(t *testing.T) {
	s := &coordinator.State{Mesh: "m", Site: "depot"}
	for url, want := range map[string]string{
		"mqtt://b": "b:1883", "TCP://B:1883": "b:1883", "mqtt://b:1884": "b:1884", "mqtts://b": "b:8883", "ssl://b": "b:8883", "tls://b/": "b:8883",
		"ws://b/mqtt": "b:80", "wss://b?x=1": "b:443", "mqtt://[::1]": "[::1]:1883", "mqtt://[::1]:9": "[::1]:9", "mqtt://u:p@b": "b:1883",
	} {
		f := &coordinator.Feed{Name: "line", Config: fmt.Appendf(nil, `{"broker":%q,"client_id":"mine"}`, url)}
		if got := s.SessionOf(f); got != (coordinator.Session{Broker: want, Client: "mine"}) {
			t.Errorf("%s: %+v", url, got)
		}
	}
	config := []byte(`{"broker":"mqtt://b","client_id":"mine"}`)
	taken := &coordinator.Feed{Name: "line.at.plant", Config: config, Lineage: reigns("plant", "depot")}
	if got := s.SessionOf(taken).Client; got != "m/depot/line.at.plant" {
		t.Error(got)
	}
	for _, config := range []string{"", "{}", "x", `{"broker":"mqtt://b"}`} {
		if got := s.SessionOf(&coordinator.Feed{Name: "line", Config: []byte(config)}); got != (coordinator.Session{}) {
			t.Errorf("%s: %+v", config, got)
		}
	}
}

// Whose session is in use, and whose only waits.
func TestHasSession(t *testing.T) {
	s := &coordinator.State{Site: "depot", Jobs: map[coordinator.JobID]*coordinator.Job{
		"j1": {ID: "j1", Status: coordinator.Running}, "j2": {ID: "j2", Status: coordinator.Stopped}, "j3": {ID: "j3", Status: coordinator.Moved}, "j4": {ID: "j4", Status: coordinator.Quarantined},
	}}
	s.Moves.Arrivals = map[coordinator.MoveID]*coordinator.Arrival{"m1": {ID: "m1", Job: coordinator.MovingJob{ID: "j5", Feeds: []coordinator.MovingFeed{{Name: "j5.in"}, {Name: "j5.more", Stay: true}}}}}
	mirror := &coordinator.Mirror{Site: "plant"}
	for _, c := range []struct {
		f   coordinator.Feed
		has bool
	}{
		{coordinator.Feed{Name: "line"}, true},
		{coordinator.Feed{Name: "line", Owner: "plant"}, true},
		{coordinator.Feed{Name: "line.at.plant", Mirror: mirror}, false},
		{coordinator.Feed{Name: "j1.in", Job: "j1"}, true},
		{coordinator.Feed{Name: "j1.in", Job: "j1", Mirror: mirror}, false},
		{coordinator.Feed{Name: "j2.in", Job: "j2"}, false},
		{coordinator.Feed{Name: "j3.in", Job: "j3", Owner: "plant"}, true},
		{coordinator.Feed{Name: "j3.in", Job: "j3", Owner: "plant", Mirror: mirror}, true},
		{coordinator.Feed{Name: "j3.more", Job: "j3", Mirror: &coordinator.Mirror{Site: "hall"}}, true}, // it stayed there
		{coordinator.Feed{Name: "j4.in", Job: "j4"}, true},
		{coordinator.Feed{Name: "j5.in", Job: "j5", Mirror: mirror, Owner: "plant"}, true},
		{coordinator.Feed{Name: "j5.more", Job: "j5", Mirror: mirror}, false},
		{coordinator.Feed{Name: "j3.in", Job: "j6", Past: []coordinator.JobID{"j3"}, Owner: "plant", Mirror: mirror}, true}, // j6 goes on there from what j3 left
		{coordinator.Feed{Name: "j3.in", Job: "j2", Past: []coordinator.JobID{"j3"}}, false},                                // it came here since, and was stopped
		{coordinator.Feed{Name: "j6.in", Job: "j6"}, false},
		{coordinator.Feed{Name: "j6.in", Job: "j6", Mirror: mirror}, false},
	} {
		if got := s.HasSession(&c.f); got != c.has {
			t.Errorf("%s of %q: %t", c.f.Name, c.f.Job, got)
		}
	}
}

// Who has a session is said with what can be done about it, by how its job is.
func TestOccupies(t *testing.T) {
	s := &coordinator.State{Site: "depot", Jobs: make(map[coordinator.JobID]*coordinator.Job), Moves: coordinator.NewMoves()}
	for id, status := range map[coordinator.JobID]coordinator.Status{"j1": coordinator.Running, "j2": coordinator.Quarantined, "j3": coordinator.Moved, "j4": coordinator.Suspended} {
		s.Jobs[id] = &coordinator.Job{ID: id, Name: "n" + string(id), Status: status}
	}
	s.Jobs["j3"].Owner = "plant"
	s.Moves.Departures["m4"] = &coordinator.Departure{ID: "m4", Job: "j4", To: "plant"}
	s.Moves.Arrivals["m5"] = &coordinator.Arrival{ID: "m5", Job: coordinator.MovingJob{ID: "j5", Feeds: []coordinator.MovingFeed{{Name: "j5.in"}, {Name: "j3.back"}}}}
	const ever = ", and two sessions of one id throw each other out for ever: "
	back := "feed j3.in of job j3 (nj3), which is at site plant" + ever + "if it is not needed there any more stop it there, and forget it at site depot (tidemark job forget j3); or another id"
	for _, c := range []struct {
		f    coordinator.Feed
		want string
	}{
		{coordinator.Feed{Name: "line"}, "feed line" + ever + "delete it first (tidemark feed delete line); or another id"},
		{coordinator.Feed{Name: "j1.in", Job: "j1"}, "feed j1.in of job j1 (nj1), which is running" + ever + "stop that job first (tidemark job stop nj1); or another id"},
		{coordinator.Feed{Name: "j2.in", Job: "j2"}, "feed j2.in of job j2 (nj2), which is quarantined" + ever + "cancel that job first (tidemark job cancel nj2); or another id"},
		{coordinator.Feed{Name: "j3.in", Job: "j3", Owner: "plant"}, back},
		{coordinator.Feed{Name: "j3.in", Job: "j3", Owner: "plant", Mirror: &coordinator.Mirror{Site: "plant"}}, back},
		{coordinator.Feed{Name: "j3.in", Job: "j6", Past: []coordinator.JobID{"j3"}, Owner: "plant", Mirror: &coordinator.Mirror{Site: "plant"}}, back},
		{coordinator.Feed{Name: "j3.back", Job: "j3", Owner: "plant"}, "feed j3.back, which is on its way to site depot, by m5" + ever + "another id"},
		{coordinator.Feed{Name: "j3.more", Past: []coordinator.JobID{"j3"}}, "feed j3.more, whose session stayed at site depot when job j3 moved" + ever + "another id"},
		{coordinator.Feed{Name: "j4.in", Job: "j4"}, "feed j4.in of job j4 (nj4), which is moving, by m4" + ever + "another id"},
		{coordinator.Feed{Name: "j5.in", Job: "j5"}, "feed j5.in, which is on its way to site depot, by m5" + ever + "another id"},
	} {
		if got := s.Occupies(&c.f, "another id"); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// What an agent below level 6 refuses to read needs that level.
func TestWhatASessionMayHaveNeedsItsLevel(t *testing.T) {
	for config, want := range map[string]uint32{`{"left":["x"]}`: coordinator.SettledLevel, `{}`: coordinator.SitesLevel} {
		job := coordinator.MovingJob{Feeds: []coordinator.MovingFeed{{Name: "j1-a.in", Config: []byte(config)}}}
		for _, c := range []coordinator.Command{{Move: &coordinator.MoveCommand{ArrivalBegan: &coordinator.Arrival{Job: job}}}, {ReplicaOffered: &coordinator.ReplicaOffered{Job: job}}} {
			if got := c.Needs(); got != want {
				t.Errorf("%s: level %d, want %d", config, got, want)
			}
		}
	}
}
