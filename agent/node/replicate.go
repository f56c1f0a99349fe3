package node

import (
	"context"
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/replication"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// PathReplicas is what a site asks another one to know what to keep of its jobs: a
// coordinator.Want, answered by an Offer.
const PathReplicas = pathSite + "replicas"

// askOffer asks another site's leader, which is answered with an event, whatever comes.
// While an answer is on its way, which may be large, no other one is asked for.
func (o *office) askOffer(a *replication.Ask) {
	if o.offered[a.Site] {
		return
	}
	o.offered[a.Site] = true
	o.done.Go(func() {
		offer, err := o.offerOf(a)
		o.inbox.post(func() {
			delete(o.offered, a.Site)
			o.step(leader.Event{Offered: &leader.Offered{Site: a.Site, No: a.No, Offer: offer, Err: err}})
		})
	})
}

func (o *office) offerOf(a *replication.Ask) (*coordinator.Offer, error) {
	w, level := &a.Want, o.levelAt(a.Site)
	if level >= coordinator.SettledLevel {
		w = explained(w, o.keptHere(a.Site, sensors.Wall{}.Now()))
	}
	body, err := codec.EncodeWant(plain(w, a.Site, level))
	if err != nil {
		return nil, err
	}
	answer, err := o.callSite(o.ctx, a.Site, PathReplicas, body)
	if err != nil {
		return nil, err
	}
	return codec.DecodeOffer(answer)
}

// plain is a question as a site's agents of a feature level read it: who does not know a
// field refuses all of it.
func plain(w *coordinator.Want, site mesh.Site, level uint32) *coordinator.Want {
	if level >= coordinator.SettledLevel {
		return w
	}
	own := *w
	own.Settled, own.Jobs = false, slices.Clone(w.Jobs)
	own.Jobs = slices.DeleteFunc(own.Jobs, func(j coordinator.WantedJob) bool { return j.At(site) })
	for i := range own.Jobs {
		own.Jobs[i].Why, own.Jobs[i].Later = "", nil
	}
	return &own
}

// explained is a question that says why jobs could not go on here, by what is kept of them:
// of those of which the same snapshot is complete still.
func explained(w *coordinator.Want, kept []api.Replica) *coordinator.Want {
	whys := make(map[coordinator.JobID]*api.Replica, len(kept))
	for i := range kept {
		whys[coordinator.JobID(kept[i].Job)] = &kept[i]
	}
	own := *w
	own.Jobs = slices.Clone(w.Jobs)
	for i := range own.Jobs {
		if r := whys[own.Jobs[i].Job]; r != nil && r.Snapshot == own.Jobs[i].Has {
			own.Jobs[i].Why = r.Why
		}
	}
	return &own
}

// plainOffer is likewise an answer. Its texts are as the question wants them.
func plainOffer(f *coordinator.Offer, level uint32) *coordinator.Offer {
	if level >= coordinator.SettledLevel {
		return f
	}
	own := *f
	own.Moved = nil
	return &own
}

// want has the machine answer another site.
func (o *office) want(ctx context.Context, w *coordinator.Want) (*coordinator.Offer, error) {
	answer := make(chan *coordinator.Offer, 1)
	ok := o.inbox.post(func() {
		if o.ended {
			return // quit is closed
		}
		o.wishRef++
		o.wants[o.wishRef] = answer
		o.step(leader.Event{Wanted: &leader.Wanted{Ref: o.wishRef, Want: w}})
	})
	if !ok {
		return nil, ErrOver
	}
	select {
	case offer := <-answer:
		if offer == nil {
			return nil, fmt.Errorf("%w: it is about to", api.ErrNotLeader)
		}
		return offer, nil
	case <-o.quit:
		return nil, ErrOver
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// offers answers who asked.
func (o *office) offers(f *leader.Offer) {
	if ch := o.wants[f.Ref]; ch != nil {
		ch <- f.Offer
		delete(o.wants, f.Ref)
	}
}

// siteReplicas answers what another site is to keep of this one's jobs.
func (n *Node) siteReplicas(ctx context.Context, from mesh.Site, body []byte) ([]byte, error) {
	w, err := codec.DecodeWant(body)
	if err != nil {
		return nil, err
	}
	if w.Site != from {
		return nil, fmt.Errorf("site %s asks as site %q", from, w.Site)
	}
	o := n.leads()
	if o == nil {
		return nil, api.ErrNotLeader
	}
	o.hears(&coordinator.Want{Site: w.Site, Jobs: slices.DeleteFunc(slices.Clone(w.Jobs), func(j coordinator.WantedJob) bool { return j.At(n.id.Site()) })})
	offer, err := o.want(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrNotLeader, err)
	}
	return codec.EncodeOffer(plainOffer(offer, o.levelAt(from)))
}
