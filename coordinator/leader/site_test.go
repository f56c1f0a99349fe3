package leader_test

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

const ms = dataflow.Time(dataflow.Millisecond)

// site is a whole site in one goroutine: a leader, workers and replicated states
// that are the real ones; streams, consensus and executors that are not.
type site struct {
	*clock
	name   mesh.Site
	other  *site      // that it has a link to; nil: there is none
	rng    *rand.Rand // nil: everything takes the same time
	nodes  map[mesh.NodeID]*node
	log    []entry // committed commands
	judged int     // so many were looked at
	term   uint64
	leads  *lead
	stale  []*lead // leaders that do not know that they are none any more
	trace  func(format string, args ...any)
	fail   func(format string, args ...any)
	acked  map[string]int64 // of each feed's log, by any owner
	cuts   map[[2]mesh.NodeID]bool
	newest map[coordinator.JobID]dataflow.CheckpointID
	wishes map[int]string
	// before is what the sinks of a subtask had committed when its share was stored.
	before    map[sharing][]coordinator.SinkCommit
	large     string // what cannot be sent: begin, prepared
	noCommits bool   // no SinkCommitted comes into the log

	losses  losses
	asked   int                  // questions of other sites
	answers map[int]question     // who asked
	crossed map[store.Digest]int // how often parts came from other sites

	level  uint32 // feature level of all programs; 0: the first
	timing leader.Timing

	dirty   bool // what check looks at has changed
	checked dataflow.Time
}

// clock is the time of all sites, and what is to come.
type clock struct {
	now   dataflow.Time
	queue events
	seq   int
	sites []*site
	wan   wan
}

// sharing is a subtask's share of a checkpoint.
type sharing struct {
	job     coordinator.JobID
	id      dataflow.CheckpointID
	subtask dataflow.SubtaskID
}

type entry struct {
	command *coordinator.Command
	by      *lead
	ref     int
}

// lead is a leader on a node.
type lead struct {
	*leader.Leader
	journal *jobmanager.Journal
	term    uint64
	node    *node
	boot    uint64
	timer   int
	dead    bool
}

// node is an agent: what is on its disk, and its process.
type node struct {
	site    *site
	id      mesh.NodeID
	agent   coordinator.Agent
	disk    map[string]coordinator.LogNow
	parts   map[store.Digest]bool
	wiped   bool  // its parts are lost: the state may not know it yet
	free    int64 // bytes on its disk, as every second heartbeat says; 0: none says it
	beats   int
	up      bool
	frozen  bool // the process stands still, as after SIGSTOP
	froze   dataflow.Time
	leaving bool // it has said that it is about to end
	held    []func()
	boot    uint64
	machine *jobmanager.Machine
	journal *jobmanager.Journal // for the worker
	applied int
	worker  *worker.Worker
	exec    *executor
	timer   int
	lease   dataflow.Time
	stream  *stream
}

// stream is an agent's to its leader.
type stream struct {
	from  *node
	boot  uint64
	to    *lead
	since dataflow.Time
	dead  bool
}

type event struct {
	at  dataflow.Time
	seq int
	f   func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newSite(rng *rand.Rand, fail, trace func(string, ...any)) *site {
	return newSiteOf(&clock{}, "s", rng, fail, trace)
}

func newSiteOf(c *clock, name mesh.Site, rng *rand.Rand, fail, trace func(string, ...any)) *site {
	founded := entry{command: &coordinator.Command{Level: coordinator.BaseLevel, SiteFounded: &coordinator.SiteFounded{Mesh: "m", Site: name}}}
	s := &site{clock: c, name: name, log: []entry{founded}, rng: rng, fail: fail, trace: trace, nodes: make(map[mesh.NodeID]*node), acked: make(map[string]int64), crossed: make(map[store.Digest]int), cuts: make(map[[2]mesh.NodeID]bool),
		newest: make(map[coordinator.JobID]dataflow.CheckpointID), wishes: make(map[int]string), answers: make(map[int]question), losses: newLosses(), before: make(map[sharing][]coordinator.SinkCommit), timing: leader.DefaultTiming()}
	c.sites = append(c.sites, s)
	return s
}

// after does something later: between least and twice that, or just then.
func (s *site) after(least dataflow.Time, f func()) {
	d := least
	if s.rng != nil {
		d += dataflow.Time(s.rng.Int64N(int64(least) + 1))
	}
	s.seq++
	heap.Push(&s.queue, event{s.now + d, s.seq, f})
}

// run lets time pass.
func (s *site) run(until dataflow.Time) {
	for len(s.queue) > 0 && s.queue[0].at <= until {
		e := heap.Pop(&s.queue).(event)
		s.now = max(s.now, e.at)
		e.f()
		for _, s := range s.sites {
			if s.dirty || s.now >= s.checked+5*ms {
				s.dirty, s.checked = false, s.now
				s.check()
			}
		}
	}
	s.now = max(s.now, until)
}

// add makes an agent that is not started.
func (s *site) add(id mesh.NodeID, slots int) *node {
	n := &node{site: s, id: id, agent: coordinator.Agent{Node: id, Name: string(id), Host: string(id), Slots: slots, Level: max(s.level, coordinator.BaseLevel)}, disk: make(map[string]coordinator.LogNow), parts: make(map[store.Digest]bool)}
	s.nodes[id] = n
	return n
}

// life runs f if the process of now still is that of then; one that stands still
// does it when it goes on.
func (n *node) life(f func()) func() {
	boot := n.boot
	var g func()
	g = func() {
		switch {
		case !n.up || n.boot != boot:
		case n.frozen:
			n.held = append(n.held, g)
		default:
			f()
		}
	}
	return g
}

func (n *node) start() {
	n.up, n.frozen, n.leaving, n.boot, n.applied = true, false, false, n.boot+1, 0
	n.machine, n.held, n.lease, n.stream = jobmanager.New(), nil, dataflow.MinTime, nil
	n.journal = jobmanager.NewJournal()
	n.exec = newExecutor(n)
	n.worker = worker.New(worker.Config{Agent: n.agent, Site: n.site.name, Boot: n.boot, Timing: worker.DefaultTiming()})
	var feeds []string
	for feed := range n.disk {
		feeds = append(feeds, feed)
	}
	slices.Sort(feeds)
	for _, feed := range feeds {
		now := n.disk[feed]
		n.step(worker.Event{Log: &worker.LogEvent{Opened: &now}})
	}
	n.site.after(10*ms, n.life(n.replicate))
	n.site.after(5*ms, n.life(n.hearLeader))
}

// remove takes an agent out of the site, which is gone for good.
func (n *node) remove() {
	n.crash()
	n.site.log = append(n.site.log, entry{command: &coordinator.Command{Level: coordinator.BaseLevel, AgentLeft: &coordinator.AgentLeft{Node: n.id}}})
}

func (n *node) crash() {
	n.up = false
	n.breakStream()
	if l := n.site.leads; l != nil && l.node == n {
		n.site.leads = nil
		l.dead = true
	}
}

// leave is the beginning of an end in order.
func (n *node) leave() {
	n.leaving = true
	n.step(worker.Event{Leave: true})
}

// left tells whether all that was here is elsewhere.
func (n *node) left() bool { return n.worker.Left(n.machine.State()) }

// freeze stops the process, as SIGSTOP does.
func (n *node) freeze() { n.frozen, n.froze = true, n.site.now }

func (n *node) thaw() {
	if !n.frozen {
		return
	}
	n.frozen = false
	if l := n.site.leads; l != nil && l.node == n && l.boot == n.boot {
		l.step(leader.Event{Stood: dataflow.Duration(n.site.now - n.froze)})
	}
	held := n.held
	n.held = nil
	for _, f := range held {
		f()
	}
}

func (n *node) breakStream() {
	if st := n.stream; st != nil && !st.dead {
		st.dead = true
		n.site.after(20*ms, n.life(func() {
			if n.stream == st {
				n.step(worker.Event{Connected: new(false)})
			}
		}))
		if l := st.to; !l.dead {
			n.site.after(20*ms, l.node.life(func() { l.step(leader.Event{Gone: &leader.Gone{Node: n.id, Boot: st.boot}}) }))
		}
	}
}

func (n *node) hearLeader() {
	if l := n.site.leads; l != nil {
		n.step(worker.Event{Leader: &l.node.id})
	}
}

// replicate applies what is committed, one command at a time.
func (n *node) replicate() {
	if n.applied == len(n.site.log) || n.site.cuts[[2]mesh.NodeID{n.id, "raft"}] {
		n.site.after(5*ms, n.life(n.replicate))
		return
	}
	e := n.site.log[n.applied]
	n.applied++
	result, changes := n.machine.Apply(uint64(n.applied), e.command)
	n.journal.Add(changes)
	for _, l := range append(slices.Clone(n.site.stale), n.site.leads) {
		if l != nil {
			l.journal.Add(changes)
		}
	}
	if result.Err == nil && n.applied > n.site.judged {
		n.site.judged = n.applied
		n.site.observe(n.machine.State(), e.command)
	}
	n.step(worker.Event{State: true})
	for _, l := range append(slices.Clone(n.site.stale), n.site.leads) {
		if l == nil || l.dead || l.node != n || l.boot != n.boot {
			continue
		}
		a := &leader.Applied{Index: uint64(n.applied), Command: e.command, Err: result.Err}
		if e.by == l {
			a.Ref = e.ref
		}
		l.step(leader.Event{Applied: a})
	}
	n.site.after(ms/2, n.life(n.replicate))
}

// step gives the worker an event and does what it says.
func (n *node) step(e worker.Event) {
	e.Now = n.site.now
	for _, f := range n.worker.Step(n.machine.State(), n.journal.Take(), e) {
		n.perform(f)
	}
	n.timer++
	timer, wake := n.timer, n.worker.Wake()
	if wake == dataflow.MaxTime {
		return
	}
	n.site.seq++
	heap.Push(&n.site.queue, event{max(wake, n.site.now+1), n.site.seq, n.life(func() {
		if n.timer == timer {
			n.step(worker.Event{})
		}
	})})
}

func (n *node) perform(f worker.Effect) {
	switch {
	case f.Connect != nil:
		n.connect(*f.Connect)
	case f.Send != nil:
		n.send(*f.Send)
	case f.Lease != nil:
		n.lease, n.site.dirty = *f.Lease, true
	default:
		n.exec.perform(f)
	}
}

func (n *node) cut(to mesh.NodeID) bool {
	return n.site.cuts[[2]mesh.NodeID{n.id, to}] || n.site.cuts[[2]mesh.NodeID{to, n.id}]
}

func (n *node) connect(to mesh.NodeID) {
	if n.stream != nil {
		n.stream.dead = true
	}
	l := n.site.leads
	if l == nil || l.node.id != to || n.cut(to) {
		n.stream = nil
		n.site.after(30*ms, n.life(func() {
			if n.stream == nil {
				n.step(worker.Event{Connected: new(false)})
			}
		}))
		return
	}
	st := &stream{from: n, boot: n.boot, to: l, since: n.site.now}
	n.stream = st
	n.site.after(5*ms, n.life(func() {
		if n.stream == st && !st.dead {
			n.step(worker.Event{Connected: new(true)})
		}
	}))
}

func (n *node) send(m coordinator.ToLeader) {
	if n.beats++; m.Heartbeat != nil && n.beats%2 == 0 {
		beat := *m.Heartbeat
		beat.Disk, m.Heartbeat = n.free, &beat
	}
	st := n.stream
	if st == nil || st.dead {
		return
	}
	if n.site.large == "prepared" && m.Prepared != nil {
		n.site.after(0, n.life(func() { n.step(worker.Event{Unsent: &worker.Unsent{Message: m, Err: errLarge}}) }))
		return
	}
	n.site.deliver(st, func() {
		l := st.to
		l.node.life(func() {
			if !l.dead && !st.dead && l.boot == l.node.boot {
				l.step(leader.Event{From: &leader.From{Node: n.id, Message: m}})
			}
		})()
	})
}

// deliver keeps the order of a stream: each message takes as long.
func (s *site) deliver(st *stream, f func()) {
	s.seq++
	heap.Push(&s.queue, event{s.now + 2*ms, s.seq, func() {
		switch {
		case st.dead:
		case st.from.cut(st.to.node.id): // nothing is lost of a stream but its end
			if st.from.stream == st {
				st.from.breakStream()
			}
		default:
			f()
		}
	}})
}

// lead makes a node the leader of the next term; the one before goes on for a
// while, and does not know it.
func (s *site) lead(id mesh.NodeID) {
	if old := s.leads; old != nil {
		s.stale = append(s.stale, old)
		s.after(200*ms, func() { old.dead = true })
		for _, n := range s.sorted() {
			if n.stream != nil && n.stream.to == old {
				n.breakStream()
			}
		}
	}
	s.term++
	n := s.nodes[id]
	l := &lead{term: s.term, node: n, boot: n.boot, journal: jobmanager.NewJournal()}
	l.Leader = leader.New(leader.Config{Term: s.term, Self: id, Site: s.name, Level: max(s.level, coordinator.BaseLevel), Timing: s.timing,
		Lapsed: s.losses.bug != "never isolated" && (n.lease == dataflow.MinTime || s.now > n.lease.Add(s.timing.Lapse))})
	s.leads = l
	l.step(leader.Event{})
	s.after(5*ms, n.life(l.confirm))
	for _, n := range s.sorted() {
		if n.up {
			s.after(20*ms, n.life(n.hearLeader))
		}
	}
}

// confirm is what a majority says again and again.
func (l *lead) confirm() {
	if l.dead || l.node.site.leads != l {
		return
	}
	l.step(leader.Event{Confirmed: new(l.node.site.now)})
	l.node.site.after(100*ms, l.node.life(l.confirm))
}

func (s *site) sorted() []*node {
	var all []*node
	for _, n := range s.nodes {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *node) int { return strings.Compare(string(a.id), string(b.id)) })
	return all
}

// step gives a leader an event and does what it says.
func (l *lead) step(e leader.Event) {
	s := l.node.site
	e.Now = s.now
	effects := l.Step(l.node.machine.State(), l.journal.Take(), e)
	if missed := l.Overlooked(l.node.machine.State()); missed != "" {
		s.fail("the leader has overlooked something: %s", missed)
	}
	for _, f := range effects {
		l.perform(f)
	}
	l.timer++
	timer, wake := l.timer, l.Wake()
	if wake == dataflow.MaxTime {
		return
	}
	s.seq++
	heap.Push(&s.queue, event{max(wake, s.now+1), s.seq, l.node.life(func() {
		if l.timer == timer && !l.dead && l.boot == l.node.boot {
			l.step(leader.Event{})
		}
	})})
}

var (
	errLost  = errors.New("leadership was lost")
	errLarge = errors.New("it is too large")
)

func (l *lead) perform(f leader.Effect) {
	s := l.node.site
	switch {
	case f.Propose != nil:
		ref := f.Propose.Ref
		if d := f.Propose.Command.CheckpointDone; d != nil {
			s.judgeCopies(l, d)
		}
		s.after(3*ms, l.node.life(func() {
			ok := s.leads == l && !l.dead
			if s.rng != nil && s.rng.IntN(50) == 0 {
				ok = !ok && l.term == s.term // a disk that is full for a moment; or lost, and applied all the same
			}
			if s.noCommits && f.Propose.Command.SinkCommitted != nil {
				ok = false
			}
			if ok {
				s.log = append(s.log, entry{&f.Propose.Command, l, ref})
			} else if !l.dead {
				l.step(leader.Event{Refused: &leader.Refused{Ref: ref, Err: errLost}})
			}
		}))
	case f.Send != nil && s.large == "begin" && f.Send.Message.Begin != nil:
		s.after(0, l.node.life(func() { l.step(leader.Event{Unsent: &leader.Unsent{Send: *f.Send, Err: errLarge}}) }))
	case f.Send != nil:
		to := s.nodes[f.Send.To]
		if st := to.stream; st != nil && !st.dead && st.to == l {
			m := f.Send.Message
			boot := to.boot
			s.deliver(st, func() {
				to.life(func() {
					if to.boot == boot && to.stream == st && !st.dead {
						to.step(worker.Event{Message: &m})
					}
				})()
			})
		}
	case f.Drop != nil:
		if to := s.nodes[*f.Drop]; to != nil && to.stream != nil && to.stream.to == l {
			to.breakStream()
		}
	case f.Answer != nil:
		text := f.Answer.Savepoint + string(f.Answer.Move)
		if o := f.Answer.FailedOver; o != nil {
			text = fmt.Sprintf("epoch %d, from %s of site %s, lag %d entries of %d bytes", o.Epoch, o.Snapshot, o.From, o.Lag.Rows, o.Lag.Bytes)
			if o.Needs != nil {
				text += "; it needs force: " + o.Needs.Error()
			}
			if o.Refused != nil {
				text += "; it is impossible: " + o.Refused.Error()
			}
		}
		if f.Answer.Err != nil {
			text = f.Answer.Err.Error()
		}
		s.wishes[f.Answer.Ref] = text
		s.trace("answer %d: %s", f.Answer.Ref, text)
	case f.ToSite != nil:
		s.toSite(f.ToSite)
	case f.Ask != nil:
		s.askSite(f.Ask)
	case f.Offer != nil:
		s.offered(f.Offer)
	case f.Moving != nil:
	case f.Tell != "":
		s.trace("%s", f.Tell)
	}
}

// submit puts a job into the log, as the API does.
func (s *site) submit(name, spec, from string, feeds ...coordinator.Feed) {
	s.log = append(s.log, entry{command: &coordinator.Command{Level: coordinator.BaseLevel, JobSubmitted: &coordinator.JobSubmitted{Name: name, Spec: []byte(spec), From: from, Feeds: feeds}}})
}

// state is that of the agent that has applied most.
func (s *site) state() *coordinator.State {
	var best *node
	for _, n := range s.sorted() {
		if n.machine != nil && (best == nil || n.machine.State().Index > best.machine.State().Index) {
			best = n
		}
	}
	return best.machine.State()
}

// job is the last one that was submitted under a name.
func (s *site) job(name string) *coordinator.Job {
	var last *coordinator.Job
	younger := func(a, b coordinator.JobID) bool { return len(a) > len(b) || len(a) == len(b) && a > b }
	for id, j := range s.state().Jobs {
		if j.Name == name && (last == nil || younger(id, last.ID)) {
			last = j
		}
	}
	return last
}

func refText(r coordinator.AttemptRef) string { return fmt.Sprintf("%s/%d", r.Job, r.Token.Attempt) }
