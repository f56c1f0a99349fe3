package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// What is for a site arrives in order; a site that does not answer holds up no other, what
// is too much for it is lost, and it is said once that it is not reached.
func TestCourier(t *testing.T) {
	var mu sync.Mutex // guards got, said
	got, said := []string(nil), []string(nil)
	held, passed := make(chan struct{}), make(chan struct{}, 3*mostUnsent)
	c := courier{
		to: make(map[mesh.Site]*route), now: func() dataflow.Time { return 1 },
		tell: func(s string) { mu.Lock(); defer mu.Unlock(); said = append(said, s) },
		call: func(_ context.Context, site mesh.Site, path string, body []byte) ([]byte, error) {
			if site == "away" {
				<-held
				passed <- struct{}{}
				return nil, errors.New("not reached")
			}
			m, err := codec.DecodeToSource(body)
			if err != nil || path != pathMoveSource {
				t.Errorf("%s: %v", path, err)
			}
			mu.Lock()
			got = append(got, string(m.Move))
			mu.Unlock()
			passed <- struct{}{}
			return nil, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := &office{ctx: ctx}
	for range 2 * mostUnsent {
		c.send(o, &leader.ToSite{Site: "away", ToTarget: &coordinator.ToTarget{Move: "m1-here", Verdict: coordinator.DecisionAborted}})
	}
	var want []string
	for i := range mostUnsent {
		want = append(want, fmt.Sprintf("m%d-depot", i))
		c.send(o, &leader.ToSite{Site: "depot", ToSource: &coordinator.ToSource{Move: coordinator.MoveID(want[i]), Done: &coordinator.MoveDone{}}})
	}
	for range mostUnsent {
		<-passed
	}
	mu.Lock()
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	mu.Unlock()
	close(held)
	for range mostUnsent { // and perhaps the one that was under way
		<-passed
	}
	cancel()
	o.done.Wait()
	if len(said) != 1 || len(passed) > 1 {
		t.Errorf("said %q, and %d more calls", said, len(passed))
	}
}

// Who has a leader write to more sites than there can be has nobody write to them.
func TestCourierIsBounded(t *testing.T) {
	said := 0
	c := courier{to: make(map[mesh.Site]*route), now: func() dataflow.Time { return 1 }, tell: func(string) { said++ },
		call: func(context.Context, mesh.Site, string, []byte) ([]byte, error) { return nil, nil }}
	ctx, cancel := context.WithCancel(t.Context())
	o := &office{ctx: ctx}
	for i := range mostSites + 10 {
		c.send(o, &leader.ToSite{Site: mesh.Site(fmt.Sprint(i)), Owner: &coordinator.OwnerNews{Job: "j"}})
	}
	cancel()
	o.done.Wait()
	if len(c.to) != mostSites || said != 1 {
		t.Errorf("%d sites, said %d times", len(c.to), said)
	}
}

// What a site cannot be told of a job that is to move there, as it is too much, is as if
// that site refused it; large messages do not pile up.
func TestCourierCannotSay(t *testing.T) {
	var mu sync.Mutex // guards refused
	refused, let, calls := []string(nil), make(chan struct{}), make(chan int, 100)
	c := courier{
		to: make(map[mesh.Site]*route), now: func() dataflow.Time { return 1 }, tell: func(string) {},
		refused: func(site mesh.Site, id coordinator.MoveID, why string) {
			mu.Lock()
			defer mu.Unlock()
			refused = append(refused, fmt.Sprintf("%s %s: %s", site, id, why))
		},
		call: func(_ context.Context, site mesh.Site, _ string, body []byte) ([]byte, error) {
			calls <- len(body)
			<-let
			return nil, &SiteError{site, "n1", http.StatusBadRequest, "http: request body too large"}
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := &office{ctx: ctx}
	say := func(bytes int) {
		c.send(o, &leader.ToSite{Site: "depot", ToTarget: &coordinator.ToTarget{Move: "m1-here", Offer: &coordinator.MoveOffer{Savepoint: &coordinator.Snapshot{Name: "sp", Manifest: make([]byte, bytes)}}}})
	}
	say(codec.MaxSite + 1)
	for range 10 {
		say(longSite)
	}
	c.send(o, &leader.ToSite{Site: "depot", ToTarget: &coordinator.ToTarget{Move: "m2-here", Verdict: coordinator.DecisionAborted}})
	close(let)
	large := 0
	for n := longSite; n >= longSite; {
		if n = <-calls; n >= longSite {
			large++
		}
	}
	cancel()
	o.done.Wait()
	if large != 1 {
		t.Errorf("%d of ten equal messages were sent", large)
	}
	if len(refused) != 1+large || !strings.Contains(refused[0], "depot m1-here: it cannot be told of the job's state") || !strings.Contains(refused[0], "at most") || !strings.Contains(refused[1], "depot m1-here: it does not take a message of") {
		t.Errorf("%q", refused)
	}
}
