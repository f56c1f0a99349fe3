package work

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// This file is the owner of a log that is a mirror: in place of a session it has a
// stream to whoever owns the log at the source's site, as agent/feed's mirror.go and
// source.go have it. Logs here are never cut at their beginning, so a mirror begins
// anew only where it has nothing.

// What a mirror and its source say.
type (
	mirrorHello struct {
		feed  string
		reign coordinator.Reign
		id    [16]byte
		end   int64
	}
	mirrorFrom struct {
		id   [16]byte // of the log: who has nothing takes it
		from int64
	}
	mirrorGroup struct {
		from    int64
		records []world.Record
		end     int64 // of the source's log
	}
	mirrorNo struct {
		owner mesh.NodeID // who owns it; empty: it is not known, or cannot be taken now
		why   string
	}
)

// mostSent are the records of one message to a mirror.
const mostSent = 40

// upstream is where a mirror takes its log from.
type upstream struct {
	stream *world.Stream
	node   mesh.NodeID
	next   mesh.NodeID // that was named as the owner
	end    int64       // of the source's log, as it said last; -1: it never did
}

// mirrorAt is a stream to another site's mirror.
type mirrorAt struct {
	stream *world.Stream
	sent   int64
}

// opens is what the owner does when all members have everything for the first time.
func (o *owner) opens() {
	switch {
	case o.epoch.Mirror != nil:
		o.begun = true
		o.up.end = -1
		o.takeMirror()
	case o.epoch.Held && !o.s.p.W.Bugs.OpenHeld:
		o.begun = true
	default:
		o.connect()
	}
}

// takeMirror opens a stream to an agent of the source's site.
func (o *owner) takeMirror() {
	p := o.s.p
	if o.ended || o.up.stream != nil {
		return
	}
	all := p.Sources(o.epoch.Mirror.Site, p.Node)
	if o.staged > o.written || len(all) == 0 {
		p.After(200*ms, o.takeMirror)
		return
	}
	o.inbox, o.next = nil, o.log.End() // what was not begun to be written comes again
	to := all[p.W.Rand.IntN(len(all))]
	for _, n := range all {
		if n.ID == o.up.next {
			to = n
		}
	}
	o.up.next = ""
	st := p.Open("mirror", to.P)
	o.up.stream, o.up.node = st, to.ID
	st.At(0, func(m any) { o.heardSource(st, m) }, func() { o.lostSource(st) })
	h := mirrorHello{feed: o.epoch.Mirror.Feed, id: o.log.ID, end: o.log.End()}
	if r := o.epoch.Reign; r != nil {
		h.reign = *r
	}
	st.Send(0, h)
}

func (o *owner) lostSource(st *world.Stream) {
	if o.up.stream == st {
		o.up.stream = nil
		o.s.p.After(200*ms, o.takeMirror)
	}
}

func (o *owner) heardSource(st *world.Stream, m any) {
	if o.ended || o.up.stream != st {
		return
	}
	switch m := m.(type) {
	case mirrorNo:
		o.up.next = m.owner
		o.s.p.W.Tell("%s: mirror of %s: %s", o.s.p.ID, o.name, m.why)
		st.Close(0)
		o.up.stream = nil
		o.s.p.After(300*ms, o.takeMirror)
	case mirrorFrom:
		if m.id != o.log.ID {
			o.anew(m.id)
		}
	case mirrorGroup:
		o.up.end = max(o.up.end, m.end)
		if m.from > o.next {
			o.s.p.W.Fail(9, "mirror of %s: it sends from %d on, and %d is lacking", o.name, m.from, o.next)
			return
		}
		for _, r := range m.records[min(o.next-m.from, int64(len(m.records))):] {
			r.Epoch = o.epoch.Epoch
			o.inbox = append(o.inbox, r)
			o.next++
		}
		o.stage()
	}
}

// anew has the mirror begin as its source's log did, and then its members.
func (o *owner) anew(id [16]byte) {
	if o.log.End() > 0 {
		o.s.p.W.Fail(9, "mirror of %s: it has %d records, and its source another log", o.name, o.log.End())
		return
	}
	o.log.ID, o.synced = id, false
	for _, m := range o.members {
		if m.stream != nil {
			m.stream.Close(0)
			o.redial(m, "it begins anew")
		}
	}
}

// closeMirrors ends the streams of a mirror, and to mirrors.
func (o *owner) closeMirrors() {
	if st := o.up.stream; st != nil {
		o.up.stream = nil
		st.Close(0)
	}
	for _, at := range o.mirrors {
		at.stream.Close(1)
	}
	o.mirrors = nil
}

// serveMirror takes a stream that another site's mirror opened.
func (s *feeds) serveMirror(st *world.Stream, h mirrorHello) {
	o := s.owned[h.feed]
	no := mirrorNo{}
	switch {
	case o == nil:
		no.why = "its log is not owned here"
		if f := s.p.State().Feeds[h.feed]; f != nil && f.Log.Owner != s.p.ID {
			no.owner = f.Log.Owner
		}
	case o.session == nil && !o.begun:
		no.why = "its members are being brought up to date"
	default:
		no.why = o.refuses(&h)
	}
	if no.why != "" {
		st.At(1, func(any) {}, func() {})
		st.Send(1, no)
		return
	}
	at := &mirrorAt{stream: st, sent: h.end}
	o.mirrors = append(o.mirrors, at)
	gone := func() {
		for i, m := range o.mirrors {
			if m == at {
				o.mirrors = append(o.mirrors[:i:i], o.mirrors[i+1:]...)
				return
			}
		}
	}
	st.At(1, func(any) {}, gone)
	st.Send(1, mirrorFrom{o.log.ID, h.end})
	o.sendMirror(at)
}

// refuses says why a mirror cannot go on from where it is; empty: it can.
func (o *owner) refuses(h *mirrorHello) string {
	mine, only := o.epoch.Reign, coordinator.Reign{Epoch: 1, Site: h.reign.Site}
	switch {
	case mine == nil && h.reign != only || mine != nil && *mine != h.reign:
		return fmt.Sprintf("it knows of another time with the feed than that of epoch %d from %d on", h.reign.Epoch, h.reign.Start)
	case h.end > 0 && h.id != o.log.ID:
		return "its log is another one"
	case h.end > o.shown:
		return fmt.Sprintf("its log ends at %d", o.shown)
	}
	return ""
}

// sendMirror sends what a mirror lacks, at most what all members have.
func (o *owner) sendMirror(at *mirrorAt) {
	for first := true; first || at.sent < o.shown; first = false {
		to := min(o.shown, at.sent+mostSent)
		at.stream.Send(1, mirrorGroup{from: at.sent, records: o.log.Entries[at.sent:to:to], end: o.shown})
		at.sent = to
	}
}

// beat says where the log is now and then.
func (o *owner) beat() {
	if o.ended {
		return
	}
	o.s.p.After(sec, o.beat)
	for _, at := range o.mirrors {
		o.sendMirror(at)
	}
}

// Owned are the logs that are owned here, as a heartbeat says it.
func (p *Agent) Owned() (all []coordinator.LogStatus) {
	for _, name := range slices.Sorted(maps.Keys(p.feeds.owned)) {
		o := p.feeds.owned[name]
		if o.session == nil && !o.begun {
			continue
		}
		s := coordinator.LogStatus{Feed: name, Epoch: o.epoch.Epoch, End: o.log.End(), Payload: o.shown * recordSize, Shown: o.shown}
		for range o.topic.Lanes() {
			s.Lanes = append(s.Lanes, coordinator.LaneAt{})
		}
		for _, r := range o.log.Entries[:min(o.shown, o.log.End())] {
			s.Lanes[r.Lane].Next++
		}
		if o.epoch.Mirror != nil {
			s.Of = &coordinator.MirrorOf{Node: o.up.node}
		}
		if s.Of != nil && o.up.end >= 0 {
			s.Of.End, s.Of.Payload, s.Of.Heard = o.up.end, o.up.end*recordSize, p.Now()
		}
		if s.Of != nil && p.W.Bugs.MirrorAhead {
			s.Shown, s.Payload = max(s.Shown, s.Of.End), max(s.Payload, s.Of.Payload)
		}
		all = append(all, s)
	}
	return all
}

// recordSize is what lag counts for a record, in bytes.
const recordSize = 30
