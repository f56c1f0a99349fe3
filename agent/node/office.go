package node

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// office is the JobManager while this agent leads: it drives the leader.Leader
// of one term. One goroutine owns the machine; all else is handed to it.
type office struct {
	term    uint64
	leader  *leader.Leader
	view    func(func(*coordinator.State))
	look    func(func(*coordinator.State, jobmanager.Changed)) // what changed since the last look
	now     func() dataflow.Time
	wall    func() dataflow.Time
	propose func(context.Context, coordinator.Command) proposal // in the order of the calls
	confirm func(context.Context) error                         // a majority says that this agent leads
	events  func(string)
	sites   func() []mesh.Site // others that are seen, in order
	moving  func(api.MoveTold) // tells people
	courier courier
	// callSite asks another site's leader.
	callSite func(ctx context.Context, site mesh.Site, path string, body []byte) ([]byte, error)
	// levelAt is the feature level that all agents of another site know that are seen; 0:
	// none is.
	levelAt func(mesh.Site) uint32

	inbox *mailbox[func()]
	done  sync.WaitGroup
	quit  chan struct{} // closed when the term has ended here

	// Of the goroutine of run.
	ctx     context.Context
	talks   map[mesh.NodeID]*desk
	wishes  map[int]chan<- leader.Answer
	wishRef int
	wants   map[int]chan<- *coordinator.Offer // of other sites that ask
	offered map[mesh.Site]bool                // are asked what they offer
	asking  bool                              // confirm is under way
	turned  dataflow.Time                     // when its last turn began; before the first one, when it was found out whether nobody led before
	ended   bool
	reached []mesh.Site // that the leader was told

	mu       sync.Mutex // guards what follows: what agents said of themselves, for people
	statuses map[coordinator.JobID]map[dataflow.SubtaskID]coordinator.SubtaskStatus
	logs     map[string]coordinator.LogStatus
	// heardWants is what other sites said last of what they keep.
	heardWants map[mesh.Site]heardWant
	keepTexts  map[coordinator.JobID]keepText // of the jobs that other sites are to keep
	keptSaid   map[mesh.Site]keptSaid
	told       []api.MoveTold
}

// proposal waits for a command that was put into the Raft log.
type proposal func() (index uint64, err, refused error) // err: it changed nothing; refused: it may never be applied

// desk is one agent's end of its talk.
type desk struct {
	*talk
	node mesh.NodeID
}

// ErrOver answers who asked a leader that leads no more.
var ErrOver = errors.New("this agent has stopped leading; ask again")

func newOffice(term uint64) *office {
	return &office{
		term: term, inbox: newMailbox[func()](0), quit: make(chan struct{}), talks: make(map[mesh.NodeID]*desk),
		wishes: make(map[int]chan<- leader.Answer), wants: make(map[int]chan<- *coordinator.Offer), heardWants: make(map[mesh.Site]heardWant), offered: make(map[mesh.Site]bool),
		statuses: make(map[coordinator.JobID]map[dataflow.SubtaskID]coordinator.SubtaskStatus), logs: make(map[string]coordinator.LogStatus), keptSaid: make(map[mesh.Site]keptSaid),
	}
}

const (
	// confirmEvery is how often a majority is asked whether this agent still leads.
	confirmEvery = 200 * time.Millisecond
	// standstill is the pause between two turns of run from which on it stood still.
	standstill = 500 * dataflow.Millisecond
)

// run leads until ctx ends.
func (o *office) run(ctx context.Context) {
	o.ctx = ctx
	defer o.end()
	confirm := time.NewTicker(confirmEvery)
	defer confirm.Stop()
	o.askMajority()
	o.step(leader.Event{})
	o.reach()
	for ctx.Err() == nil {
		var wake <-chan time.Time
		t := time.NewTimer(time.Hour)
		if at := o.leader.Wake(); at != dataflow.MaxTime {
			t.Reset(max(0, dataflow.Duration(at-o.now()).Go()))
			wake = t.C
		}
		var due func()
		select {
		case <-ctx.Done():
		case <-wake:
			due = func() { o.step(leader.Event{}) }
		case <-confirm.C:
			due = func() { o.askMajority(); o.reach() }
		case <-o.inbox.filled:
		}
		t.Stop()
		o.turn()
		for _, f := range o.inbox.take() { // what was said comes before what is due
			f()
		}
		if due != nil {
			due()
		}
	}
}

// turn says that the process stood still, if a turn comes long after the one before:
// there is one at each confirmEvery at least.
func (o *office) turn() {
	before := o.turned
	o.turned = o.now()
	if d := dataflow.Duration(o.turned - before); d >= standstill {
		o.step(leader.Event{Stood: d - dataflow.Duration(confirmEvery.Microseconds())})
	}
}

// askMajority asks, at most once at a time.
func (o *office) askMajority() {
	if o.asking {
		return
	}
	o.asking = true
	asked := o.now()
	o.done.Go(func() {
		err := o.confirm(o.ctx)
		o.inbox.post(func() {
			o.asking = false
			if err == nil {
				o.step(leader.Event{Confirmed: &asked})
			}
		})
	})
}

// end waits for everything that this began, and answers who waits.
func (o *office) end() {
	close(o.quit)
	o.ended = true
	for _, f := range o.inbox.close() { // nothing comes of it, but streams are closed
		f()
	}
	for _, d := range o.talks {
		d.end()
	}
	o.done.Wait()
	for _, d := range o.talks {
		d.close()
	}
	for _, ch := range o.wishes {
		ch <- leader.Answer{Err: ErrOver}
	}
	clear(o.wishes)
}

func (o *office) step(e leader.Event) {
	if o.ended {
		return
	}
	e.Now, e.Wall = o.now(), o.wall()
	var effects []leader.Effect
	o.look(func(st *coordinator.State, changed jobmanager.Changed) {
		effects = slices.Clone(o.leader.Step(st, changed, e))
	})
	for _, f := range effects {
		o.perform(f)
	}
}

func (o *office) perform(f leader.Effect) {
	switch {
	case f.Propose != nil:
		o.proposes(*f.Propose)
	case f.Send != nil:
		o.send(*f.Send)
	case f.Drop != nil:
		if d := o.talks[*f.Drop]; d != nil {
			d.end()
		}
	case f.Answer != nil:
		if ch := o.wishes[f.Answer.Ref]; ch != nil {
			ch <- *f.Answer
			delete(o.wishes, f.Answer.Ref)
		}
	case f.ToSite != nil:
		o.courier.send(o, f.ToSite)
	case f.Moving != nil:
		o.moves(*f.Moving)
	case f.Ask != nil:
		o.askOffer(f.Ask)
	case f.Offer != nil:
		o.offers(f.Offer)
	case f.Tell != "":
		o.events(f.Tell)
	}
}

func (o *office) proposes(p leader.Propose) {
	p.Command.At = o.wall()
	wait := o.propose(o.ctx, p.Command)
	o.done.Go(func() {
		index, err, refused := wait()
		o.inbox.post(func() {
			if refused != nil {
				o.step(leader.Event{Refused: &leader.Refused{Ref: p.Ref, Err: refused}})
				return
			}
			o.step(leader.Event{Applied: &leader.Applied{Index: index, Command: &p.Command, Err: err, Ref: p.Ref}})
		})
	})
}

// applied tells the leader of a command that somebody else proposed.
func (o *office) applied(index uint64, c *coordinator.Command, err error) {
	o.inbox.post(func() { o.step(leader.Event{Applied: &leader.Applied{Index: index, Command: c, Err: err}}) })
}

func (o *office) send(s leader.Send) {
	d := o.talks[s.To]
	if d == nil {
		return
	}
	b, err := codec.EncodeToAgent(&s.Message)
	if err != nil {
		o.inbox.post(func() { o.step(leader.Event{Unsent: &leader.Unsent{Send: s, Err: err}}) })
		return
	}
	d.say(b)
}

// take takes a control stream that an agent opened.
func (o *office) take(s mesh.Stream) {
	if !o.inbox.post(func() { o.welcome(s) }) {
		_ = s.Close()
	}
}

func (o *office) welcome(s mesh.Stream) {
	if o.ended {
		_ = s.Close()
		return
	}
	node := s.Peer().Node
	if old := o.talks[node]; old != nil {
		delete(o.talks, node)
		o.done.Go(old.close)
	}
	d := &desk{node: node}
	o.talks[node] = d
	d.talk = newTalk(s, o.inbox, func(m []byte) (func(), error) { return o.hear(d, m) }, func() { o.parted(d) })
}

// hear is called by a talk's goroutine.
func (o *office) hear(d *desk, message []byte) (func(), error) {
	m, err := codec.DecodeToLeader(message)
	if err != nil {
		return nil, err
	}
	if m.Heartbeat != nil {
		o.note(m.Heartbeat)
	}
	return func() {
		switch {
		case o.talks[d.node] != d:
		case m.Hello != nil && !o.belongs(d.node):
			o.send(leader.Send{To: d.node, Message: coordinator.ToAgent{Term: o.term, Refused: &coordinator.Refused{
				Why: "this agent does not belong to the site any more: stop it, remove its data folder, and let it join with a token"}}})
		default:
			o.step(leader.Event{From: &leader.From{Node: d.node, Message: *m}})
		}
	}, nil
}

// belongs tells whether a node is one of the site's agents: who joins is made one
// before it gets its certificate, and who left is none.
func (o *office) belongs(node mesh.NodeID) (yes bool) {
	o.view(func(st *coordinator.State) { yes = st.Agents[node] != nil || len(st.Agents) == 0 })
	return yes
}

// parted: an agent's stream ended.
func (o *office) parted(d *desk) {
	if o.ended {
		return
	}
	o.done.Go(d.close)
	if o.talks[d.node] != d {
		return
	}
	delete(o.talks, d.node)
	o.step(leader.Event{Gone: &leader.Gone{Node: d.node}})
}

// gone is a hint from gossip.
func (o *office) gone(g leader.Gone) { o.inbox.post(func() { o.step(leader.Event{Gone: &g}) }) }

// ask has the machine do what a person wishes.
func (o *office) ask(ctx context.Context, w leader.Wish) (leader.Answer, error) {
	answer := make(chan leader.Answer, 1)
	ok := o.inbox.post(func() {
		if o.ended {
			return // quit is closed
		}
		o.wishRef++
		w.Ref = o.wishRef
		o.wishes[w.Ref] = answer
		o.step(leader.Event{Wish: &w})
	})
	if !ok {
		return leader.Answer{}, ErrOver
	}
	select {
	case a := <-answer:
		return a, a.Err
	case <-o.quit:
		return leader.Answer{}, ErrOver
	case <-ctx.Done():
		return leader.Answer{}, context.Cause(ctx)
	}
}

// note keeps what an agent says of itself.
func (o *office) note(b *coordinator.Heartbeat) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range b.Status {
		all := o.statuses[s.Job]
		if all == nil {
			all = make(map[dataflow.SubtaskID]coordinator.SubtaskStatus)
			o.statuses[s.Job] = all
		}
		if old, there := all[s.Subtask]; !there || !s.Token.Less(old.Token) {
			all[s.Subtask] = s
		}
	}
	for _, l := range b.Logs {
		if old, there := o.logs[l.Feed]; !there || l.Epoch >= old.Epoch {
			o.logs[l.Feed] = l
		}
	}
}

// forget drops what is known of jobs and feeds that are no more.
func (o *office) forget(st *coordinator.State) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.statuses, func(j coordinator.JobID, _ map[dataflow.SubtaskID]coordinator.SubtaskStatus) bool {
		return st.Jobs[j] == nil
	})
	maps.DeleteFunc(o.logs, func(f string, _ coordinator.LogStatus) bool { return st.Feeds[f] == nil })
}

// statusOf is what agents said last of a job's subtasks, in their order.
func (o *office) statusOf(j coordinator.JobID) []coordinator.SubtaskStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := slices.Collect(maps.Values(o.statuses[j]))
	sort.Slice(all, func(i, j int) bool {
		a, b := &all[i].Subtask, &all[j].Subtask
		return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.Index, b.Index)) < 0
	})
	return all
}

func (o *office) logStatus() []coordinator.LogStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []coordinator.LogStatus
	for _, name := range slices.Sorted(maps.Keys(o.logs)) {
		all = append(all, o.logs[name])
	}
	return all
}
