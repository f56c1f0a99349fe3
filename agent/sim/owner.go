package sim

import (
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
	epoch   coordinator.LogEpoch
	log     *flog
	members []*logMember
	ended   bool
	synced  bool // InSync was told since a member was away
	session *session
	inbox   []record
	known   map[int]int64 // messages that are in the log or on their way to it, by where
	next    int64         // where the next record goes
	staged  int64         // a group up to here is being written; its local write is done at written
	written int64
	shown   int64 // all members have everything before it
	owed    []record
	acking  bool
	readers []*laneReader
}

// logMember is another member of the epoch.
type logMember struct {
	node   mesh.NodeID
	stream *stream
	acked  int64
	live   bool
	why    string
	since  dataflow.Time
	told   bool
	wait   dataflow.Time
}

func newOwner(s *feeds, name string, e coordinator.LogEpoch, l *flog) *owner {
	o := &owner{s: s, name: name, epoch: e, log: l, known: make(map[int]int64), next: l.end(), staged: l.end(), written: l.end()}
	for i, r := range l.entries {
		o.known[r.message] = int64(i)
	}
	for _, n := range e.Members {
		if n != e.Owner {
			o.members = append(o.members, &logMember{node: n, wait: 50 * ms, since: s.p.n.w.now})
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
		o.session.close(o)
	}
	for _, m := range o.members {
		if m.stream != nil {
			m.stream.close(0)
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
	p, w := o.s.p, o.s.p.n.w
	if o.ended {
		return
	}
	again := func(why string) {
		m.live, m.stream, m.why = false, nil, why
		if m.since == 0 {
			m.since = w.now
		}
		p.after(m.wait, func() { o.dial(m) })
		m.wait = min(2*m.wait, sec)
	}
	n := w.node(m.node)
	if n == nil || !w.linked(p.n, n) {
		again("it is not reached")
		return
	}
	q := n.p
	st := w.newStream("log", p, q)
	m.stream = st
	st.at(0, func(a any) { o.heard(m, st, a) }, func() {
		if m.stream == st {
			again("its stream broke")
		}
	})
	st.at(1, func(a any) { q.feeds.take(st, a.(logHello)) }, func() {})
	st.send(0, logHello{o.name, o.epoch.Epoch, p.n.id})
}

func (o *owner) heard(m *logMember, st *stream, a any) {
	if o.ended || m.stream != st {
		return
	}
	switch a := a.(type) {
	case logRefuse:
		if a.sealed {
			o.fail("member " + string(m.node) + ": " + a.why)
			return
		}
		st.close(0)
		st.lost[0]()
		m.why = a.why
	case logState:
		own := o.log.copy()
		plan := logepoch.Join(&o.epoch, own, a.copy)
		o.s.p.n.w.trace("%s: %s goes on from %d of %d (it has %d, anew %v)", o.name, m.node, plan.From, own.End, a.copy.End, plan.Anew)
		st.send(0, logGroup{plan: &plan, id: own.ID, from: plan.From, records: o.log.entries[plan.From:own.End]})
	case logAck:
		m.acked = a.end
		if !m.live && m.acked >= o.log.end() {
			m.live, m.since, m.told, m.why, m.wait = true, 0, false, "", 50*ms
			if o.staged > o.written || o.staged > m.acked { // it came while a group is under way
				st.send(0, logGroup{from: m.acked, records: o.group(m.acked)})
			}
		}
		o.settle()
	}
}

// group is what was staged from a place on.
func (o *owner) group(from int64) []record {
	var all []record
	all = append(all, o.log.entries[min(from, o.log.end()):]...)
	if o.log.end() < o.staged {
		all = append(all, o.inbox[:o.staged-o.log.end()]...)
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
	if o.s.p.n.w.cfg.Bugs.AckEarly {
		end = o.written
	}
	if !all && o.session == nil {
		return
	}
	if all && !o.synced {
		o.synced = true
		o.s.tell(worker.LogEvent{InSync: &coordinator.InSync{Feed: o.name, Epoch: o.epoch.Epoch}})
	}
	if end > o.shown || o.session == nil {
		o.show(end)
	}
	if o.session == nil {
		o.connect()
	}
	o.stage()
}

// show makes visible what all members have, and acknowledges it.
func (o *owner) show(end int64) {
	for _, r := range o.log.entries[min(o.shown, end):end] {
		if r.epoch == o.epoch.Epoch {
			o.owed = append(o.owed, r)
		}
	}
	o.shown = end
	for _, r := range o.readers {
		r.wake()
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
		o.s.p.after(50*ms, func() { o.acking = false; o.ack() })
		return
	}
	for _, r := range o.owed {
		o.s.p.n.w.check.acks(o, r)
		if o.session != nil {
			o.session.ack(o, r)
		}
	}
	o.owed = nil
}

// connect opens the session, when this agent may.
func (o *owner) connect() {
	if o.ended || o.session != nil {
		return
	}
	if (permit{o.s.p}).Err() != nil {
		o.s.p.after(100*ms, o.connect)
		return
	}
	o.session = o.s.p.n.w.broker.connect(o)
}

// arrived: the broker has delivered a message.
func (o *owner) arrived(r record, dup bool) {
	if o.ended {
		return
	}
	if at, ok := o.known[r.message]; ok && dup {
		if at < o.shown { // it is safe, and the broker has not heard so
			o.owed = append(o.owed, r)
			o.ack()
		}
		return
	}
	r.epoch, r.arrival = o.epoch.Epoch, o.s.p.n.w.now
	o.known[r.message] = o.next
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
	g := append([]record(nil), o.inbox...)
	from := o.log.end()
	o.staged = from + int64(len(g))
	for _, m := range o.members {
		if m.live {
			m.stream.send(0, logGroup{from: from, records: g})
		}
	}
	o.s.p.write(func() { o.log.entries = append(o.log.entries[:len(o.log.entries):len(o.log.entries)], g...) }, func(err error) {
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
	w := o.s.p.n.w
	o.s.p.after(200*ms, o.watch)
	for _, m := range o.members {
		if !m.live {
			o.synced = false
		}
		if !m.live && !m.told && m.why != "" && w.now >= m.since+sec {
			m.told = true
			o.s.tell(worker.LogEvent{OutOfSync: &coordinator.OutOfSync{Feed: o.name, Epoch: o.epoch.Epoch, Member: m.node, Why: m.why}})
		}
	}
}
