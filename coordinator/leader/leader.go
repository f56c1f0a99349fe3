package leader

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Leader is what one term of leadership knows and has under way. Not safe for
// concurrent use.
type Leader struct {
	cfg         Config
	st          *coordinator.State // during a Step
	now, wall   dataflow.Time
	start       dataflow.Time // of the term
	begun       bool          // LeaderBegan was proposed, and it is not known what became of it
	retry       dataflow.Time // when it is proposed again
	lapsed      bool          // nobody had led for long, and which jobs another site may have taken is not on record yet
	lapses      int           // how often it stood still for so long
	leads       bool          // it is applied: the state here has all that was decided before this term
	ledFrom     uint64        // the index that was applied then
	confirmed   dataflow.Time // a majority has said that this leader leads, later than this
	wake        dataflow.Time
	refs        int
	proposals   map[int]proposal
	early       []*From // heard before leads; at most maxEarly
	ahead       []*From // about what the state here does not have yet; at most maxEarly
	agents      map[mesh.NodeID]*agent
	jobs        map[coordinator.JobID]*jobRun
	feeds       map[string]*feedRun
	apart       map[schedule.Pair]dataflow.Time // agents that did not reach each other, since when; at most maxApart
	raising     bool                            // LevelRaised was proposed
	news        bool                            // the state has changed since the last Step
	marks       marks
	copying     copying
	moving      migrating
	replicating replicating
	heard       map[coordinator.JobID]heardOf // of other sites that have jobs of this one, or that are kept here
	contests    map[coordinator.JobID]bool    // a command about such a claim is under way
	wakes       wakes
	effects     []Effect
}

// proposal is a command of which it is not known yet what became of it.
type proposal struct {
	at      dataflow.Time
	command *coordinator.Command
	done    func(err error)
}

const maxEarly = 1024

// New makes the leader of a term. Its first Step begins the term.
func New(cfg Config) *Leader {
	if cfg.Parse == nil {
		cfg.Parse = Parse
	}
	return &Leader{
		cfg: cfg, lapsed: cfg.Lapsed, confirmed: dataflow.MinTime, start: dataflow.MinTime, retry: dataflow.MinTime, wake: dataflow.MinTime, proposals: make(map[int]proposal),
		agents: make(map[mesh.NodeID]*agent), jobs: make(map[coordinator.JobID]*jobRun), feeds: make(map[string]*feedRun),
		apart: make(map[schedule.Pair]dataflow.Time), marks: newMarks(), copying: newCopying(), moving: newMigrating(), replicating: newReplicating(),
		heard: make(map[coordinator.JobID]heardOf), contests: make(map[coordinator.JobID]bool), wakes: wakes{index: make(map[subject]int)},
	}
}

// Step takes one event and returns what must be done, in order. st is the
// replicated state of this agent, as it is now; it is not kept, but what its
// pointers lead to is. changed is what is not as it was at the last Step.
func (l *Leader) Step(st *coordinator.State, changed jobmanager.Changed, e Event) []Effect {
	l.effects, l.st = nil, st
	defer func() { l.st = nil }()
	l.now, l.wall = max(l.now, e.Now), e.Wall
	if l.start == dataflow.MinTime {
		l.start = l.now
	}
	if st.Term > l.cfg.Term {
		return nil // another one leads
	}
	if l.leads {
		l.sync(changed)
	}
	l.lead()
	if e.Stood > 0 {
		l.stood(e.Stood)
	}
	l.hear(e)
	l.lead()
	l.begin()
	if l.leads {
		l.catchUp()
		l.due()
		l.lookAtMoves()
		l.lookAtSites()
		l.look()
	}
	l.wake = l.next()
	return l.effects
}

// lead begins to lead when the term has begun. Not before: the state may be an old
// one.
func (l *Leader) lead() {
	if l.leads || l.st.Term != l.cfg.Term || len(l.lapsing()) > 0 {
		return
	}
	l.leads, l.lapsed, l.ledFrom = true, false, l.st.Index
	l.sync(jobmanager.Changed{All: true})
	l.markSites() // it was told before which are reached
	for _, f := range l.early {
		l.from(f)
	}
	l.early = nil
}

// lapsing are the jobs that another site may have taken, if nobody had led this one
// for long, and that is not on record yet. Nobody gets a lease before it is: what
// runs of the jobs would act, and the next leader would know nothing of it.
func (l *Leader) lapsing() []coordinator.JobID {
	if !l.lapsed {
		return nil
	}
	return l.takeable()
}

// Wake is when a tick is wanted; MaxTime: not until something else happens.
func (l *Leader) Wake() dataflow.Time { return l.wake }

func (l *Leader) hear(e Event) {
	switch {
	case e.From != nil && !l.leads:
		if l.early = append(l.early, e.From); len(l.early) > maxEarly {
			l.early = l.early[:maxEarly]
			l.drop(e.From.Node)
		}
	case e.From != nil:
		l.catchUp()
		l.from(e.From)
	case e.Gone != nil && l.leads:
		l.gone(e.Gone)
	case e.Applied != nil:
		l.applied(e.Applied)
	case e.Refused != nil:
		if p, ok := l.proposals[e.Refused.Ref]; ok {
			delete(l.proposals, e.Refused.Ref)
			l.about(p.command)
			p.done(fmt.Errorf("%w: %w", errRefused, e.Refused.Err))
		}
	case e.Wish != nil && !l.leads:
		l.put(Effect{Answer: &Answer{Ref: e.Wish.Ref, Err: ErrEarly}})
	case e.Wish != nil:
		l.wish(e.Wish)
	case e.FromSite != nil && l.leads:
		l.heardSite(e.FromSite)
	case e.Mirrored != nil && l.leads:
		l.mirrored(e.Mirrored)
	case e.Sites != nil:
		l.sitesReached(*e.Sites)
	case e.Offered != nil && l.leads:
		l.offered(e.Offered)
	case e.Wanted != nil && !l.leads:
		l.put(Effect{Offer: &Offer{Ref: e.Wanted.Ref}})
	case e.Wanted != nil:
		l.catchUp()
		l.answerSite(e.Wanted)
	case e.Unsent != nil && l.leads:
		l.unsent(e.Unsent)
	case e.Confirmed != nil:
		l.confirmed = max(l.confirmed, *e.Confirmed)
	}
}

func (l *Leader) applied(a *Applied) {
	l.about(a.Command)
	if t := a.Command.JobTold; t != nil && a.Err == nil {
		l.told(t)
	}
	if d := a.Command.ReplicaDropped; d != nil && a.Err == nil {
		l.letGo(d.Job)
	}
	if o := a.Command.ReplicaOffered; o != nil && a.Err == nil { // at another epoch nothing is fetched any more
		l.letGo(o.Job.ID)
	}
	if p, ok := l.proposals[a.Ref]; ok {
		delete(l.proposals, a.Ref)
		l.confirmed = max(l.confirmed, p.at) // a majority took it
		p.done(a.Err)
	}
}

// begin says that the term has begun, and which jobs another site may have taken,
// until that is applied.
func (l *Leader) begin() {
	if l.begun || l.now < l.retry || l.leads && !l.lapsed {
		return
	}
	c := &coordinator.LeaderBegan{Term: l.cfg.Term, Node: l.cfg.Self}
	if l.st.Term == l.cfg.Term { // then the state has all jobs
		c.Isolated = l.lapsing()
	}
	l.begun = true
	lapses := l.lapses
	l.propose(coordinator.Command{LeaderBegan: c}, func(err error) {
		if l.begun, l.retry = false, l.now; err != nil {
			l.retry = l.now.Add(l.cfg.Timing.Retry)
			return
		}
		// What was on its way before it is in force by now.
		l.lapsed = l.lapsed && (lapses != l.lapses || len(l.lapsing()) > 0)
	})
}

// propose puts a command into the log. done is called in the Step in which it is
// known what became of it: nil if it is in force. A proposal that was refused may
// still be applied some day; then only the state says so.
func (l *Leader) propose(c coordinator.Command, done func(err error)) {
	c.Level, c.At = c.Needs(), l.wall
	l.refs++
	l.proposals[l.refs] = proposal{at: l.now, command: &c, done: done}
	l.put(Effect{Propose: &Propose{Ref: l.refs, Command: c}})
}

func (l *Leader) put(e Effect) { l.effects = append(l.effects, e) }

func (l *Leader) send(to mesh.NodeID, m coordinator.ToAgent) {
	m.Term = l.cfg.Term
	l.put(Effect{Send: &Send{To: to, Message: m}})
}

func (l *Leader) drop(node mesh.NodeID) { l.put(Effect{Drop: &node}) }

func (l *Leader) tell(format string, args ...any) {
	l.put(Effect{Tell: fmt.Sprintf(format, args...)})
}

// next is when something may change by time alone.
func (l *Leader) next() dataflow.Time {
	at := dataflow.MaxTime
	if l.leads {
		at = l.wakes.first()
	}
	if (!l.leads || l.lapsed) && !l.begun && l.retry > l.now {
		at = min(at, l.retry)
	}
	return at
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
