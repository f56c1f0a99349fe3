package work

import (
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
)

// owner runs a feed in an epoch: it brings the members up to date, then opens
// the session, appends what comes, and acknowledges what all members have.
type owner struct {
	s       *feeds
	name    string
	topic   world.Topic
	epoch   coordinator.LogEpoch
	log     *world.Log
	members []*logMember
	ended   bool
	synced  bool // InSync was told since a member was away
	session *world.Session
	inbox   []world.Record
	known   map[int]int64 // messages that are in the log or on their way to it, by where
	next    int64         // where the next record goes
	staged  int64         // a group up to here is being written; its local write is done at written
	written int64
	shown   int64 // all members have everything before it
	owed    []world.Record
	acking  bool
	readers []*laneReader
	begun   bool // it takes a mirror, or is held: it has no session
	up      upstream
	mirrors []*mirrorAt
}

// logMember is another member of the epoch.
type logMember struct {
	node   mesh.NodeID
	stream *world.Stream
	acked  int64
	live   bool
	why    string
	since  dataflow.Time
	told   bool
	wait   dataflow.Time
}

func newOwner(s *feeds, name string, t world.Topic, e coordinator.LogEpoch, l *world.Log) *owner {
	if s.p.W.Bugs.ForgetMirror {
		e.Mirror = nil
	}
	o := &owner{s: s, topic: t, name: name, epoch: e, log: l, known: make(map[int]int64), next: l.End(), staged: l.End(), written: l.End()}
	for i, r := range l.Entries {
		o.known[r.Number] = int64(i)
	}
	for _, n := range e.Members {
		if n != e.Owner {
			o.members = append(o.members, &logMember{node: n, wait: 50 * ms, since: s.p.W.Now()})
		}
	}
	return o
}

func (o *owner) start() {
	for _, m := range o.members {
		o.dial(m)
	}
	o.settle()
	o.watch()
	if o.s.p.Sources != nil {
		o.beat()
	}
}

// stop ends it; readers are told.
func (o *owner) stop(why string) {
	if o.ended {
		return
	}
	o.ended = true
	if o.s.owned[o.name] == o {
		delete(o.s.owned, o.name)
	}
	if o.session != nil {
		o.session.Close(o)
	}
	o.closeMirrors()
	for _, m := range o.members {
		if m.stream != nil {
			m.stream.Close(0)
		}
	}
	for _, r := range o.readers {
		r.lose("feed " + o.name + ": this agent does not own its log any more: " + why)
	}
	o.readers = nil
}

// fail: it cannot go on.
func (o *owner) fail(why string) {
	if !o.ended {
		o.stop(why)
		o.s.failed(o.name, o.epoch.Epoch, why)
	}
}

// dial opens a stream to a member.
func (o *owner) dial(m *logMember) {
	p, w := o.s.p, o.s.p.W
	if o.ended {
		return
	}
	n := w.Node(m.node)
	if n == nil || !w.Linked(p.Node, n) {
		o.redial(m, "it is not reached")
		return
	}
	q := n.P
	st := p.Open("log", q)
	m.stream = st
	st.At(0, func(a any) { o.heard(m, st, a) }, func() {
		if m.stream == st {
			o.redial(m, "its stream broke")
		}
	})
	st.Send(0, logHello{o.name, o.epoch.Epoch, p.ID})
}

// redial tries again later.
func (o *owner) redial(m *logMember, why string) {
	m.live, m.stream, m.why = false, nil, why
	if m.since == 0 {
		m.since = o.s.p.W.Now()
	}
	o.s.p.After(m.wait, func() { o.dial(m) })
	m.wait = min(2*m.wait, sec)
}

func (o *owner) heard(m *logMember, st *world.Stream, a any) {
	if o.ended || m.stream != st {
		return
	}
	switch a := a.(type) {
	case logRefuse:
		if a.sealed {
			o.fail("member " + string(m.node) + ": " + a.why)
			return
		}
		st.Close(0)
		o.redial(m, a.why)
	case logState:
		own := copyOf(o.log)
		plan := logepoch.Join(&o.epoch, own, a.copy)
		o.s.p.W.Tell("%s: %s goes on from %d of %d (it has %d, anew %v)", o.name, m.node, plan.From, own.End, a.copy.End, plan.Anew)
		st.Send(0, logGroup{plan: &plan, id: own.ID, from: plan.From, records: o.log.Entries[plan.From:own.End]})
	case logAck:
		m.acked = a.end
		if !m.live && m.acked >= o.log.End() {
			m.live, m.since, m.told, m.why, m.wait = true, 0, false, "", 50*ms
			if o.staged > o.written || o.staged > m.acked { // it came while a group is under way
				st.Send(0, logGroup{from: m.acked, records: o.group(m.acked)})
			}
		}
		o.settle()
	}
}

// group is what was staged from a place on.
func (o *owner) group(from int64) []world.Record {
	var all []world.Record
	all = append(all, o.log.Entries[min(from, o.log.End()):]...)
	if o.log.End() < o.staged {
		all = append(all, o.inbox[:o.staged-o.log.End()]...)
	}
	return all
}

// settle looks how far all members are.
func (o *owner) settle() {
	if o.ended {
		return
	}
	all := true
	end := o.written
	for _, m := range o.members {
		all = all && m.live
		end = min(end, m.acked)
	}
	if o.s.p.W.Bugs.AckEarly {
		end = o.written
	}
	open := o.session != nil || o.begun
	if !all && !open {
		return
	}
	if all && !o.synced {
		o.synced = true
		o.s.tell(worker.LogEvent{InSync: &coordinator.InSync{Feed: o.name, Epoch: o.epoch.Epoch}})
	}
	if end > o.shown || !open {
		o.show(end)
	}
	if !open {
		o.opens()
	}
	o.stage()
}

// show makes visible what all members have, and acknowledges it.
func (o *owner) show(end int64) {
	for _, r := range o.log.Entries[min(o.shown, end):end] {
		if r.Epoch == o.epoch.Epoch && o.epoch.Mirror == nil {
			o.owed = append(o.owed, r)
		}
	}
	o.shown = end
	for _, r := range o.readers {
		r.wake()
	}
	for _, at := range o.mirrors {
		o.sendMirror(at)
	}
	o.ack()
}

// ack acknowledges what is owed, with a permit.
func (o *owner) ack() {
	if o.ended || o.acking || len(o.owed) == 0 {
		return
	}
	if (permit{o.s.p}).Err() != nil {
		o.acking = true
		o.s.p.After(50*ms, func() { o.acking = false; o.ack() })
		return
	}
	for _, r := range o.owed {
		if o.session == nil {
			continue
		}
		if o.session.Conn == o { // else nobody hears it
			o.s.p.Judge.Acts(o.s.p.ID, o.s.p.Lease, "acknowledges a message")
			o.s.p.Judge.Acks(o.s.p.ID, o.name, o.epoch.Members, r.Message, o.known[r.Number])
		}
		o.session.Ack(o, r.Message)
	}
	o.owed = nil
}

// connect opens the session, when this agent may.
func (o *owner) connect() {
	if o.ended || o.session != nil {
		return
	}
	if (permit{o.s.p}).Err() != nil {
		o.s.p.After(100*ms, o.connect)
		return
	}
	o.s.p.Judge.Acts(o.s.p.ID, o.s.p.Lease, "connects to the broker for feed "+o.name)
	o.s.p.Judge.Connects(o.s.p.ID, o.s.p.Site, o.name, &o.epoch)
	o.s.p.W.Tell("%s connects to the broker for %s (epoch %d)", o.s.p.ID, o.name, o.epoch.Epoch)
	o.session = o.s.p.W.Broker.Connect(o.name, o.topic, o)
}

// Live is world.Client's.
func (o *owner) Live(f func()) { o.s.p.Live(f) }

// Lost is world.Client's: another client has the session. It is asked for once more.
func (o *owner) Lost() {
	o.s.p.After(sec, func() {
		if !o.ended && o.session != nil && o.session.Conn != o {
			o.session = nil
			o.connect()
		}
	})
}

// Arrived is world.Client's: the broker has delivered a message.
func (o *owner) Arrived(m world.Message, dup bool) {
	r := world.Record{Message: m}
	if o.ended {
		return
	}
	if at, ok := o.known[r.Number]; ok && dup && !o.s.p.W.Bugs.AppendTwice {
		if at < o.shown { // it is safe, and the broker has not heard so
			o.owed = append(o.owed, r)
			o.ack()
		}
		return
	}
	r.Epoch, r.Arrival = o.epoch.Epoch, o.s.p.W.Now()
	o.known[r.Number] = o.next
	o.next++
	o.inbox = append(o.inbox, r)
	o.stage()
}

// stage writes a group, here and on all members at the same time, when the last
// one is everywhere.
func (o *owner) stage() {
	if o.ended || len(o.inbox) == 0 || o.staged > o.written || o.shown < o.written {
		return
	}
	g := append([]world.Record(nil), o.inbox...)
	from := o.log.End()
	o.staged = from + int64(len(g))
	for _, m := range o.members {
		if m.live {
			m.stream.Send(0, logGroup{from: from, records: g})
		}
	}
	o.s.p.Write(func() { o.log.Entries = append(o.log.Entries, g...) }, func(err error) {
		if o.ended {
			return
		}
		if err != nil {
			o.fail("the log cannot be written: " + err.Error())
			return
		}
		o.inbox = o.inbox[len(g):]
		o.written = o.staged
		o.settle()
	})
}

// watch tells the leader who is away for long.
func (o *owner) watch() {
	if o.ended {
		return
	}
	w := o.s.p.W
	o.s.p.After(200*ms, o.watch)
	for _, m := range o.members {
		if !m.live {
			o.synced = false
		}
		if !m.live && !m.told && m.why != "" && w.Now() >= m.since+sec {
			m.told = true
			o.s.tell(worker.LogEvent{OutOfSync: &coordinator.OutOfSync{Feed: o.name, Epoch: o.epoch.Epoch, Member: m.node, Why: m.why}})
		}
	}
}
