package leader

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// probing is a job of another site that asks whether it can run here, while the
// agents at its places look whether they reach what it is connected with. What they
// find is of that moment: it spares a job a move that is in vain, and promises
// nothing.
type probing struct {
	ask   coordinator.Probe
	of    *coordinator.MovePropose
	waits map[mesh.NodeID]bool // has not answered yet
	then  func(why string)
}

// probeLimit is how long agents have to look, mostProbes of how many jobs at once.
const (
	probeLimit = 10 * dataflow.Second
	mostProbes = 8
)

// probeManifest is how large a manifest may be that is sent along, in bytes: each agent
// that is asked gets it.
const probeManifest = 4 << 20

// probe finds out whether a job can run here: from the state, and from the agents
// that would run it. then is called once, now or later; an empty why: it can.
func (l *Leader) probe(id coordinator.MoveID, ask *coordinator.MovePropose, then func(why string)) {
	for _, order := range sorted(l.moving.probes) {
		switch p := l.moving.probes[order]; {
		case p.ask.Move != id:
		case p.of.Dry && ask.Dry && same(p.of, ask):
			return // it is asked again, as there was no answer yet
		default:
			l.forgetProbe(p) // dry runs of a program of before have one id: this is about something else
		}
	}
	if len(l.moving.probes) >= mostProbes {
		then(fmt.Sprintf("too many jobs ask site %s at once whether they can run there: try again", l.cfg.Site))
		return
	}
	parsed, places, why := l.checkMove(ask)
	if why != "" || l.st.Level < coordinator.GoesOnLevel {
		then(why)
		return
	}
	l.moving.probed++
	p := &probing{
		ask: coordinator.Probe{Order: l.moving.probed, Move: id, Job: ask.Job, Epoch: ask.Epoch, Places: places, Sessions: sessions(parsed, &ask.Job)},
		of:  ask, waits: make(map[mesh.NodeID]bool), then: then,
	}
	if s := ask.Newest; s != nil && len(s.Manifest) <= probeManifest {
		p.ask.From = &coordinator.Snapshot{Name: s.Name, ID: s.ID, Job: s.Job, Manifest: s.Manifest}
	}
	l.moving.probes[p.ask.Order] = p
	l.wakes.set(aboutProbe(p.ask.Order), l.now.Add(probeLimit))
	for _, at := range places {
		p.waits[at.Node] = true
	}
	for _, node := range sorted(p.waits) {
		l.send(node, coordinator.ToAgent{Probe: &p.ask})
	}
}

// same tells whether two questions are one, though the job has a newer checkpoint.
func same(a, b *coordinator.MovePropose) bool {
	x, y := *a, *b
	x.Newest, y.Newest = nil, nil
	return reflect.DeepEqual(x, y)
}

func aboutProbe(order uint64) subject { return subject{aProbe, strconv.FormatUint(order, 10)} }

// sessions are the sources of a job whose feed's session would come with it.
func sessions(p *Parsed, m *coordinator.MovingJob) (all []dataflow.OperatorID) {
	for _, use := range p.Feeds {
		i := slices.IndexFunc(m.Feeds, func(f coordinator.MovingFeed) bool { return f.Name == use.Feed })
		if f := &m.Feeds[i]; f.Of == nil && !f.Stay {
			all = append(all, use.Source)
		}
	}
	return all
}

// heardProbed: an agent has looked.
func (l *Leader) heardProbed(node mesh.NodeID, said *coordinator.Probed) {
	p := l.moving.probes[said.Order]
	if p == nil || p.ask.Move != said.Move || !p.waits[node] {
		return // of a leader before, or twice
	}
	delete(p.waits, node)
	switch {
	case said.Why != "":
		l.probedAll(p, fmt.Sprintf("agent %s of site %s: %s", l.name(node), l.cfg.Site, said.Why))
	case len(p.waits) == 0:
		l.probedAll(p, "")
	}
}

func (l *Leader) probedAll(p *probing, why string) {
	l.forgetProbe(p)
	p.then(why)
}

func (l *Leader) forgetProbe(p *probing) {
	delete(l.moving.probes, p.ask.Order)
	l.wakes.set(aboutProbe(p.ask.Order), dataflow.MaxTime)
}

// probedInVain: not all agents have answered in time.
func (l *Leader) probedInVain(order string) {
	n, _ := strconv.ParseUint(order, 10, 64)
	if p := l.moving.probes[n]; p != nil {
		l.probedAll(p, fmt.Sprintf("agent %s of site %s does not say whether it reaches what the job is connected with", l.name(sorted(p.waits)[0]), l.cfg.Site))
	}
}

// probeAgain: an agent has begun a new stream, and may have heard nothing.
func (l *Leader) probeAgain(node mesh.NodeID) {
	for _, order := range sorted(l.moving.probes) {
		if p := l.moving.probes[order]; p.waits[node] {
			l.send(node, coordinator.ToAgent{Probe: &p.ask})
		}
	}
}
