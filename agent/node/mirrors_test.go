package node

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// A job that is kept at c moved from a to b, and the session of its feed stayed: c and b
// both have a mirror of a's feed. So a waits for both, and b's mirror for nobody.
func TestAFeedWithTheSessionWaitsForAllMirrorsOfIt(t *testing.T) {
	const text = "name: x\nreplicate_to: [c]\nsources: {in: {feed: line3, format: json, fields: {k: string}, event_time: ingestion}}\nsinks: [{id: out, from: in, file: {path: out.jsonl}}]"
	at := func(st *coordinator.State, feed string) string {
		k := newKeptFeeds(func(f func(*coordinator.State)) { f(st) }, func(string) {})
		return fmt.Sprint(k.mirroredAt(feed))
	}
	b := &coordinator.State{Site: "b",
		Jobs:  map[coordinator.JobID]*coordinator.Job{"j1-a": {ID: "j1-a", Name: "x", Spec: []byte(text), Status: coordinator.Running, Reads: []string{"line3.at.a"}}},
		Feeds: map[string]*coordinator.Feed{"line3.at.a": {Name: "line3.at.a", Mirror: &coordinator.Mirror{Site: "a", Feed: "line3"}}}}
	job, ok := b.MovingTo("j1-a", nil, nil, nil)
	if of := (coordinator.Mirror{Site: "a", Feed: "line3"}); !ok || len(job.Feeds) != 1 || job.Feeds[0].Origin("b") != of {
		t.Fatalf("what c keeps reads %+v", job.Feeds)
	}
	if s := at(b, "line3.at.a"); s != "[]" {
		t.Errorf("b's mirror waits for %s, which never asks it", s)
	}
	taken := *b.Feeds["line3.at.a"]
	taken.Mirror = nil
	b.Feeds[taken.Name] = &taken
	if s := at(b, taken.Name); s != "[c]" {
		t.Errorf("when it has the session: %s", s)
	}

	moved := &coordinator.Job{ID: "j1-a", Name: "x", Spec: []byte(text), Status: coordinator.Moved, Owner: "b", Reads: []string{"line3"}}
	for name, c := range map[string]struct {
		feed coordinator.Feed
		move *coordinator.Departure
		want string
	}{
		"as its text says":         {coordinator.Feed{}, nil, "[b c]"},
		"as the move said":         {coordinator.Feed{}, &coordinator.Departure{To: "b", Epoch: 3, Sets: []string{"replicate_to=[d]"}}, "[b d]"},
		"as another move said":     {coordinator.Feed{}, &coordinator.Departure{To: "e", Epoch: 3, Sets: []string{"replicate_to=[d]"}}, "[b c]"},
		"another site has it":      {coordinator.Feed{Owner: "b"}, nil, "[]"},
		"its log is a mirror here": {coordinator.Feed{Mirror: &coordinator.Mirror{Site: "b", Feed: "line3"}}, nil, "[]"},
	} {
		f := c.feed
		f.Name = "line3"
		a := &coordinator.State{Site: "a", Moves: coordinator.NewMoves(), Jobs: map[coordinator.JobID]*coordinator.Job{"j1-a": moved}, Feeds: map[string]*coordinator.Feed{"line3": &f}}
		if c.move != nil {
			c.move.Job = "j1-a"
			a.Moves.Departures["m"] = c.move
		}
		if s := at(a, "line3"); s != c.want {
			t.Errorf("%s: a waits for %s, want %s", name, s, c.want)
		}
	}
}
