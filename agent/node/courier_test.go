package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
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

// Small letters to a site do not wait until a large one has arrived, which may take
// minutes; the next large one is carried when it has.
func TestCourierCarriesSmallOnesBesides(t *testing.T) {
	held, small, large := make(chan struct{}), make(chan string, 1), make(chan int, 2)
	c := courier{
		to: make(map[mesh.Site]*route), now: func() dataflow.Time { return 1 }, tell: func(s string) { t.Error(s) },
		call: func(_ context.Context, _ mesh.Site, _ string, body []byte) ([]byte, error) {
			if len(body) > longSite {
				large <- len(body)
				<-held
				return nil, nil
			}
			m, err := codec.DecodeToTarget(body)
			if err != nil {
				t.Error(err)
			}
			small <- string(m.Move)
			return nil, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := &office{ctx: ctx}
	newest := func(bytes int) {
		c.send(o, &leader.ToSite{Site: "depot", ToTarget: &coordinator.ToTarget{Move: "m1-here", Newest: &coordinator.MoveNewest{Snapshot: &coordinator.Snapshot{Name: "s", Manifest: make([]byte, bytes)}}}})
	}
	newest(1 << 20)
	<-large
	for i := range 2 * mostUnsent { // more than may wait
		want := fmt.Sprintf("m%d-here", i)
		c.send(o, &leader.ToSite{Site: "depot", ToTarget: &coordinator.ToTarget{Move: coordinator.MoveID(want), Verdict: coordinator.DecisionAborted}})
		if got := <-small; got != want {
			t.Errorf("%s arrived, and not %s", got, want)
		}
	}
	close(held)
	for again := true; again; { // the one before may not be over yet
		newest(2 << 20)
		select {
		case <-large:
			again = false
		default:
			runtime.Gosched()
		}
	}
	cancel()
	o.done.Wait()
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
	large := 0
	for range 2 { // in any order
		if n := <-calls; n >= longSite {
			large++
		}
	}
	close(let)
	cancel()
	o.done.Wait()
	if large != 1 || len(calls) > 0 {
		t.Errorf("%d of ten equal messages were sent, and %d messages besides", large, len(calls))
	}
	if len(refused) != 1+large || !strings.Contains(refused[0], "depot m1-here: it cannot be told of the job's state") || !strings.Contains(refused[0], "at most") || !strings.Contains(refused[1], "depot m1-here: it does not take a message of") {
		t.Errorf("%q", refused)
	}
}

// A move that would do harm at a site of an older program is not even proposed there.
func TestCourierDoesNotProposeHarm(t *testing.T) {
	refused := ""
	c := courier{
		to: make(map[mesh.Site]*route), now: func() dataflow.Time { return 1 }, tell: func(string) {},
		refused: func(site mesh.Site, id coordinator.MoveID, why string) {
			refused = fmt.Sprintf("%s %s: %s", site, id, why)
		},
		call: func(context.Context, mesh.Site, string, []byte) ([]byte, error) { return nil, nil },
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := &office{ctx: ctx, levelAt: func(mesh.Site) uint32 { return coordinator.GoesOnLevel }}
	p := &coordinator.MovePropose{From: "here", Epoch: 2, Job: coordinator.MovingJob{ID: "j7-here", Reads: []string{"line"},
		Feeds: []coordinator.MovingFeed{{Name: "line", Lineage: []coordinator.Reign{{Epoch: 90, Site: "here"}}}}}}
	c.send(o, &leader.ToSite{Site: "depot", ToTarget: &coordinator.ToTarget{Move: "m1-here", Propose: p}})
	cancel()
	o.done.Wait()
	if want := "depot m1-here: an agent of site depot has a program of feature level 5, and cannot take the session of the shared feed line"; len(c.to) != 0 || !strings.HasPrefix(refused, want) {
		t.Errorf("on its way to %d sites, %q", len(c.to), refused)
	}
}
