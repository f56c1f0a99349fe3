package jobmanager_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/migration"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// pair is two sites of a mesh whose leaders propose what they like, as often as
// they like, and as late: only what one hears of the other was true once.
type pair struct {
	r        *rand.Rand
	bug      string
	force    bool
	m        [2]*jobmanager.Machine
	index    [2]uint64
	pool     [2][]*coordinator.Command
	prepared map[coordinator.MoveID]string // that the target has said
	verdicts map[coordinator.MoveID]coordinator.MoveDecision
	forced   map[coordinator.JobID]bool
	token    map[coordinator.JobID]dataflow.FencingToken // the greatest that anybody deployed
	seen     map[string]int                              // what came about
}

var pairNames = [...]mesh.Site{"a", "b"}

func newPair(seed uint64, bug string, seen map[string]int) *pair {
	p := &pair{r: rand.New(rand.NewPCG(seed, 7)), bug: bug, force: seed%3 == 0, prepared: map[coordinator.MoveID]string{}, verdicts: map[coordinator.MoveID]coordinator.MoveDecision{},
		forced: map[coordinator.JobID]bool{}, token: map[coordinator.JobID]dataflow.FencingToken{}, seen: seen}
	for s := range p.m {
		p.m[s] = jobmanager.New()
		level := [...]int{coordinator.SitesLevel, coordinator.Level}[seed%2]
		for _, line := range []string{"leader 2 n1", "found m " + string(pairNames[s]), fmt.Sprintf("agent n%d name=x level=%d", s+1, level), fmt.Sprintf("level %d", level), "leader 3 n1"} {
			p.index[s]++
			p.m[s].Apply(p.index[s], parse(nil, nil, line))
		}
	}
	return p
}

func (p *pair) chance(percent int) bool { return p.r.IntN(100) < percent }

func oneOf[V any](p *pair, m map[string]V) (string, V) {
	keys := slices.Sorted(maps.Keys(m))
	if len(keys) == 0 {
		var none V
		return "", none
	}
	k := keys[p.r.IntN(len(keys))]
	return k, m[k]
}

func byText[K ~string, V any](m map[K]V) map[string]V {
	all := make(map[string]V, len(m))
	for k, v := range m {
		all[string(k)] = v
	}
	return all
}

// step proposes something at one of the sites.
func (p *pair) step() error {
	s := p.r.IntN(2)
	var c *coordinator.Command
	switch n := p.r.IntN(100); {
	case n < 8 && len(p.pool[s]) > 0:
		c = p.pool[s][p.r.IntN(len(p.pool[s]))]
	case n < 45:
		c = p.ofJob(s)
	case n < 60:
		c = p.ofFeed(s)
	case n < 80:
		c = wrap(p.ofDeparture(s))
	case n < 85:
		c = p.ofReplica(s)
	default:
		c = wrap(p.ofArrival(s))
	}
	if c == nil {
		return nil
	}
	p.pool[s] = append(p.pool[s], c)
	return p.apply(s, c)
}

func wrap(m *coordinator.MoveCommand) *coordinator.Command {
	if m == nil {
		return nil
	}
	return &coordinator.Command{Move: m}
}

// ofJob is a command about a job, which may hold or not.
func (p *pair) ofJob(s int) *coordinator.Command {
	st := p.m[s].State()
	if len(p.m[0].State().Names)+len(p.m[1].State().Names) < 2 && p.chance(10) {
		if st.Feeds["line"] == nil {
			return &coordinator.Command{FeedCreated: &coordinator.Feed{Name: "line"}}
		}
		c := &coordinator.JobSubmitted{Name: []string{"x", "y"}[p.r.IntN(2)], Spec: []byte("x"), Feeds: []coordinator.Feed{{Name: "in"}}}
		if p.chance(40) {
			c.Reads = []string{"line"}
		}
		return &coordinator.Command{JobSubmitted: c}
	}
	_, j := oneOf(p, byText(st.Jobs))
	if j == nil {
		return nil
	}
	c := &coordinator.Command{}
	switch n := p.r.IntN(100); {
	case n < 25:
		c.JobDeployed = &coordinator.JobDeployed{Job: j.ID, Attempt: j.Attempt + 1, Term: 3, Places: []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "in"}, Node: st.Agents[mesh.NodeID(fmt.Sprintf("n%d", s+1))].Node}}}
		if newest := j.Newest(); newest != nil {
			c.JobDeployed.From = newest.Name
		}
	case n < 65:
		c.JobBecame = p.became(st, j)
	case n < 80:
		return p.done(s, j)
	case n < 90:
		through := dataflow.CheckpointID{Token: j.Token(pairNames[s]), Counter: p.r.Uint64N(3)}
		if from := st.Snapshot(j, j.From); from != nil && p.chance(30) {
			through = from.ID
		}
		c.SinkCommitted = &coordinator.SinkCommitted{Job: j.ID, Attempt: j.Attempt, Commits: []coordinator.SinkCommit{{Operator: "out", Node: mesh.NodeID(fmt.Sprintf("n%d", s+1)),
			Target: fmt.Sprintf("%s-%d", j.ID, p.r.IntN(3)), Through: through, Length: p.r.Int64N(100)}}}
	case n < 91:
		c.JobTold = &coordinator.JobTold{Job: j.ID, Then: dataflow.Halt, Cancel: p.chance(50)}
	case n < 94:
		c.JobRescaled = &coordinator.JobRescaled{Job: j.ID, Parallelism: 1 + p.r.IntN(4)}
	case n < 97 && j.Status.Ended() && (j.Status != coordinator.Moved || p.chance(5)):
		c.JobForgotten = &coordinator.JobForgotten{Job: j.ID}
	default:
		name, _ := oneOf(p, st.Savepoints)
		c.SavepointDeleted = &coordinator.SavepointDeleted{Name: name}
	}
	return c
}

// became is mostly what the leader would say.
func (p *pair) became(st *coordinator.State, j *coordinator.Job) *coordinator.JobBecame {
	b := &coordinator.JobBecame{Job: j.ID, Attempt: j.Attempt, Status: coordinator.Status(p.r.IntN(12))}
	if p.chance(75) {
		b.Status = map[coordinator.Status]coordinator.Status{coordinator.Restoring: coordinator.Running, coordinator.Running: coordinator.Restarting,
			coordinator.Stopping: coordinator.Suspended, coordinator.Restarting: coordinator.Suspended}[j.Status]
		if j.Status == coordinator.Running && j.Then != dataflow.GoOn {
			b.Status = coordinator.Stopping
		}
	}
	if b.Status.Ended() && p.chance(90) {
		b.Status = coordinator.Restarting
	}
	for _, name := range slices.Sorted(maps.Keys(st.Savepoints)) {
		if n := j.Newest(); n != nil && st.Savepoints[name].ID == n.ID && (b.Status == coordinator.Suspended || b.Status == coordinator.Stopped) {
			b.Savepoint = name
		}
	}
	return b
}

func (p *pair) done(s int, j *coordinator.Job) *coordinator.Command {
	id := dataflow.CheckpointID{Token: j.Token(pairNames[s]), Counter: uint64(1 + p.r.IntN(1000))}
	copies := []coordinator.PartCopies{{Part: digest("aa"), Nodes: []mesh.NodeID{mesh.NodeID(fmt.Sprintf("n%d", s+1))}}}
	snap := func(name string) *coordinator.Snapshot {
		return &coordinator.Snapshot{Name: name, Job: j.ID, ID: id, Manifest: []byte{1}, Copies: copies}
	}
	d := &coordinator.CheckpointDone{Attempt: j.Attempt, Checkpoint: snap(fmt.Sprintf("chk-%d-%d", j.Attempt, id.Counter))}
	if j.Status == coordinator.Stopping {
		d.Savepoint = snap(fmt.Sprintf("sp-%s-%d-%d", j.ID, j.Attempt, id.Counter))
	}
	if len(j.Checkpoints) > 2 {
		d.Release = []string{j.Checkpoints[0].Name}
	}
	return &coordinator.Command{CheckpointDone: d}
}

// ofFeed begins an epoch of a log.
func (p *pair) ofFeed(s int) *coordinator.Command {
	st := p.m[s].State()
	_, f := oneOf(p, st.Feeds)
	if f == nil {
		return nil
	}
	node := mesh.NodeID(fmt.Sprintf("n%d", s+1))
	log := coordinator.LogEpoch{Epoch: f.Log.Epoch + 1, Owner: node, Members: []mesh.NodeID{node}, Start: f.Log.Start, Held: st.Holds(f) != p.chance(10)}
	if !f.Log.Held || f.Owner != "" {
		log.Start += int64(p.r.IntN(5))
	}
	return &coordinator.Command{LogEpochBegun: &coordinator.LogEpochBegun{Feed: f.Name, Term: 3, Log: log}}
}

// ofDeparture is what the source's leader proposes, or one of before.
func (p *pair) ofDeparture(s int) *coordinator.MoveCommand {
	st, other := p.m[s].State(), p.m[1-s].State()
	id, d := oneOf(p, byText(st.Moves.Departures))
	if d == nil || p.chance(15) || p.force && p.chance(20) {
		_, j := oneOf(p, byText(st.Jobs))
		if j == nil {
			return nil
		}
		if p.force && p.chance(60) && other.Jobs[j.ID] != nil && !other.Jobs[j.ID].Status.Ended() {
			return &coordinator.MoveCommand{Fenced: &coordinator.JobFenced{Job: j.ID, Epoch: other.Jobs[j.ID].Epoch, Owner: pairNames[1-s]}}
		}
		began := &coordinator.MoveBegan{Job: j.ID, Epoch: j.Epoch, To: pairNames[1-s], Request: []string{"", "r"}[p.r.IntN(2)]}
		if m, _ := st.MovingTo(j.ID, nil, nil, nil); p.chance(50) {
			for _, f := range m.Feeds {
				began.Stay = append(began.Stay, f.Name)
			}
		}
		return &coordinator.MoveCommand{Began: began}
	}
	switch n := p.r.IntN(100); {
	case n < 25:
		return &coordinator.MoveCommand{Halting: &coordinator.MoveHalting{ID: d.ID}}
	case n < 60:
		var ends []coordinator.FeedEnd
		for _, name := range slices.Sorted(maps.Keys(st.Feeds)) {
			ends = append(ends, coordinator.FeedEnd{Feed: name, End: st.Feeds[name].Log.Start})
		}
		offer := &coordinator.MoveOffered{ID: d.ID, Ends: ends}
		if j := st.Jobs[d.Job]; j != nil {
			offer.Savepoint = j.Savepoint
		}
		return &coordinator.MoveCommand{Offered: offer}
	case n < 85 && p.force && p.prepared[d.ID] != "" && p.chance(50): // so that the target, which does not know, may be forced
		return &coordinator.MoveCommand{Decided: &coordinator.MoveDecided{ID: d.ID, Why: "no time"}}
	case n < 85:
		if d.Savepoint != "" && p.prepared[d.ID] == d.Savepoint || p.bug == "decides without the target" {
			return &coordinator.MoveCommand{Decided: &coordinator.MoveDecided{ID: d.ID, HandedOver: true}}
		}
	case n < 89:
		return &coordinator.MoveCommand{Decided: &coordinator.MoveDecided{ID: d.ID, Why: "cancelled"}}
	default:
		if a := other.Moves.Arrivals[coordinator.MoveID(id)]; d.Phase.Decided() && (a == nil || a.Phase.Decided()) {
			return &coordinator.MoveCommand{Forgotten: &coordinator.MoveForgotten{ID: d.ID, Taken: a != nil && a.Phase == coordinator.ArrivalActive && st.Level >= coordinator.SettledLevel}}
		}
	}
	return nil
}

// ofReplica has what comes with a job kept, and let go.
func (p *pair) ofReplica(s int) *coordinator.Command {
	st := p.m[s].State()
	_, a := oneOf(p, byText(st.Moves.Arrivals))
	switch {
	case a == nil:
		return nil
	case a.Phase == coordinator.ArrivalReceiving:
		return &coordinator.Command{ReplicaOffered: &coordinator.ReplicaOffered{Job: a.Job, From: a.From, Epoch: a.Epoch - 1, Moving: a.ID}}
	}
	return &coordinator.Command{ReplicaDropped: &coordinator.ReplicaDropped{Job: a.Job.ID, From: a.From, Epoch: a.Epoch - 1}}
}

// ofArrival is what the target's leader proposes of what it has heard.
func (p *pair) ofArrival(s int) *coordinator.MoveCommand {
	st, other := p.m[s].State(), p.m[1-s].State()
	id, d := oneOf(p, byText(other.Moves.Departures))
	_, a := oneOf(p, byText(st.Moves.Arrivals))
	if d != nil && st.Moves.Arrivals[coordinator.MoveID(id)] == nil && p.chance(50) {
		if job, ok := other.Moving(d); ok {
			return &coordinator.MoveCommand{ArrivalBegan: &coordinator.Arrival{ID: d.ID, From: pairNames[1-s], Epoch: d.Epoch + 1, Job: job}}
		}
	}
	if a == nil {
		return nil
	}
	d = other.Moves.Departures[a.ID]
	switch n := p.r.IntN(100); {
	case n < 40 && d != nil && d.Phase == coordinator.DepartureOffered && other.Savepoints[d.Savepoint] != nil && st.Replicas[d.Job] != nil && st.Replicas[d.Job].Moving == d.ID:
		snap := *other.Savepoints[d.Savepoint]
		snap.Copies = []coordinator.PartCopies{{Part: digest("aa"), Nodes: []mesh.NodeID{mesh.NodeID(fmt.Sprintf("n%d", s+1))}}}
		return &coordinator.MoveCommand{ArrivalPrepared: &coordinator.ArrivalIsReady{ID: a.ID, Savepoint: &snap, Ends: d.Ends}}
	case n < 85 && !(p.force && a.Phase == coordinator.ArrivalPrepared && p.chance(50)):
		v := p.verdicts[a.ID]
		if p.bug == "makes a verdict up" {
			v = coordinator.DecisionHandedOver
		}
		if v != 0 && a.Phase != coordinator.ArrivalReceiving || v != 0 && v != coordinator.DecisionHandedOver {
			return &coordinator.MoveCommand{ArrivalDecided: &coordinator.ArrivalDecided{ID: a.ID, Verdict: v}}
		}
	case n < 87:
		return &coordinator.MoveCommand{ArrivalDecided: &coordinator.ArrivalDecided{ID: a.ID, Why: "not wanted"}}
	case n < 96 && p.force:
		return &coordinator.MoveCommand{ArrivalDecided: &coordinator.ArrivalDecided{ID: a.ID, Forced: true}}
	case n > 96:
		return &coordinator.MoveCommand{ArrivalForgotten: &coordinator.ArrivalForgotten{ID: a.ID}}
	}
	return nil
}

// apply applies a command at one site, and judges what came of it.
func (p *pair) apply(s int, c *coordinator.Command) error {
	c.Level, c.At = c.Needs(), 100
	st := p.m[s].State()
	before, was := st.Clone(), ""
	p.index[s]++
	if p.r.IntN(8) == 0 {
		was = show(st)
	}
	r, changes := p.m[s].Apply(p.index[s], c)
	if r.Err != nil && len(changes) > 0 {
		return fmt.Errorf("refused (%v), and changed %v", r.Err, changes)
	}
	if r.Err != nil && was != "" {
		st.Index--
		now := show(st)
		if st.Index++; now != was {
			return fmt.Errorf("refused (%v), and changed\n%s\nto\n%s", r.Err, was, now)
		}
	}
	p.plant(s, before)
	for id, d := range st.Moves.Departures {
		p.seen["departure "+d.Phase.String()]++
		if v := map[coordinator.DeparturePhase]coordinator.MoveDecision{coordinator.DepartureHandedOver: coordinator.DecisionHandedOver,
			coordinator.DepartureAborted: coordinator.DecisionAborted, coordinator.DepartureFenced: coordinator.DecisionFenced}[d.Phase]; v != 0 {
			p.verdicts[id] = v
		}
	}
	for id, a := range st.Moves.Arrivals {
		p.seen["arrival "+a.Phase.String()]++
		if a.Phase == coordinator.ArrivalPrepared {
			p.prepared[id] = a.Savepoint.Name
		}
		p.forced[a.Job.ID] = p.forced[a.Job.ID] || a.Forced
		if index, _, _ := id.Parts(); p.verdicts[id] == 0 && p.m[1-s].State().Moves.Departures[id] == nil && p.index[1-s] > index {
			p.verdicts[id] = coordinator.DecisionUnknown
		}
	}
	if err := p.deployed(s, c, r.Err); err != nil {
		return err
	}
	if err := p.judge(s, before); err != nil {
		return err
	}
	return nil
}

// plant breaks what a command has just done.
func (p *pair) plant(s int, before *coordinator.State) {
	st := p.m[s].State()
	for id, j := range st.Jobs {
		old := before.Jobs[id]
		if old == nil || old == j {
			continue
		}
		next := *j
		switch {
		case p.bug == "loses the files" && old.Status == coordinator.Moved && j.Status == coordinator.Created:
			next.Sinks = nil
		case p.bug == "counts attempts anew" && old.Status == coordinator.Moved && j.Status == coordinator.Created:
			next.Attempt = 1
		case p.bug == "keeps the name" && j.Status == coordinator.Moved:
			st.Names[j.Name] = id
		case p.bug == "goes on in spite of the offer" && j.Status == coordinator.Suspended && p.chance(50):
			next.Status = coordinator.Restarting
		case p.bug == "opens the log" && j.Status == coordinator.Suspended:
			for name, f := range st.Feeds {
				if open := *f; f.Job == id {
					open.Log.Held = false
					st.Feeds[name] = &open
				}
			}
		}
		st.Jobs[id] = &next
	}
}

// deployed: tokens ascend, wherever the job is deployed.
func (p *pair) deployed(s int, c *coordinator.Command, err error) error {
	if c.JobDeployed == nil || err != nil {
		return nil
	}
	id := c.JobDeployed.Job
	now := p.m[s].State().Jobs[id].Token(pairNames[s])
	if last := p.token[id]; !p.forced[id] && !last.Less(now) {
		return fmt.Errorf("%s is deployed at %v after %v", id, now, last)
	}
	p.token[id] = now
	p.seen[fmt.Sprintf("deployed at epoch %d", now.Epoch)]++
	return nil
}

// judge looks at what must be so at all times.
func (p *pair) judge(s int, before *coordinator.State) error {
	st, other := p.m[s].State(), p.m[1-s].State()
	live := 0
	for id, j := range st.Jobs {
		if !j.Status.Ended() {
			if live++; st.Names[j.Name] != id {
				return fmt.Errorf("%s is live, and its name is %s's", id, st.Names[j.Name])
			}
			if o := other.Jobs[id]; !p.forced[id] && may(st, j) && o != nil && may(other, o) {
				return fmt.Errorf("both sites may run %s: %s at %d, and %s at %d", id, j.Status, j.Epoch, o.Status, o.Epoch)
			}
		}
		if (j.Move != "") != (st.Leaving(id) != nil && st.Leaving(id).Phase != coordinator.DepartureCopying && !j.Status.Ended()) {
			return fmt.Errorf("%s is %s, and halts for %q", id, j.Status, j.Move)
		}
		old := before.Jobs[id]
		if old == nil {
			continue
		}
		if j.Epoch < old.Epoch || j.Attempt < old.Attempt {
			return fmt.Errorf("%s: %d/%d after %d/%d", id, j.Epoch, j.Attempt, old.Epoch, old.Attempt)
		}
		for _, c := range old.Sinks {
			if !slices.ContainsFunc(j.Sinks, func(n coordinator.SinkCommit) bool { return n.Target == c.Target && goesOn(st, j, c, n) }) {
				return fmt.Errorf("%s: what is on record of %s is gone", id, c.Target)
			}
		}
		if old != j {
			p.seen[old.Status.String()+" -> "+j.Status.String()]++
			if may(before, old) && j.Status == coordinator.Moved {
				p.seen["live -> moved"]++
			}
		}
	}
	if err := p.judgeFeeds(s); err != nil {
		return err
	}
	if live != len(st.Names) {
		return fmt.Errorf("%d live jobs, %d names", live, len(st.Names))
	}
	if err := p.judgeForgotten(st, other); err != nil {
		return err
	}
	return p.judgeMoves(st, other)
}

// judgeFeeds: a feed has one session; a job that runs reads the feed that has it, or
// a mirror of that.
func (p *pair) judgeFeeds(s int) error {
	st, other := p.m[s].State(), p.m[1-s].State()
	session := func(st *coordinator.State, f *coordinator.Feed) bool {
		return f != nil && f.Mirror == nil && f.Owner == "" && !st.Rests(f)
	}
	for name, f := range st.Feeds {
		if id, own := coordinator.Own(name); own && !p.forced[id] && session(st, f) && session(other, other.Feeds[name]) {
			return fmt.Errorf("feed %s has two sessions", name)
		}
	}
	for id, j := range st.Jobs {
		if !may(st, j) || p.forced[id] {
			continue
		}
		for _, name := range append(slices.Clone(j.Reads), string(id)+".in") {
			f := st.Feeds[name]
			own := name == string(id)+".in"
			switch {
			case f == nil || own && f.Job != id:
				return fmt.Errorf("%s runs, and feed %s is not there, or another one's", id, name)
			case f.Mirror == nil && !session(st, f), f.Mirror != nil && (st.Rests(f) || !session(other, other.Feeds[f.Mirror.Feed])):
				return fmt.Errorf("%s runs at %s, and nobody has the session of feed %s", id, pairNames[s], name)
			case f.Mirror != nil:
				p.seen["reads a mirror"]++
			case j.Epoch > 1 && len(f.Lineage) == 0 && own:
				p.seen["is home again"]++
			}
		}
	}
	return nil
}

// may tells whether a site may deploy a job, or go on with it.
func may(st *coordinator.State, j *coordinator.Job) bool {
	return !j.Status.Ended() && j.Status != coordinator.Suspended && migration.MayRun(&st.Moves, j.ID, j.Epoch) == nil
}

func (p *pair) judgeMoves(st, other *coordinator.State) error {
	for id, d := range st.Moves.Departures {
		j := st.Jobs[d.Job]
		if index, from, _ := id.Parts(); d.Phase == coordinator.DepartureHandedOver && index > other.Moves.Forgotten[from] {
			if a := other.Moves.Arrivals[id]; a == nil || a.Phase != coordinator.ArrivalPrepared && a.Phase != coordinator.ArrivalActive {
				return fmt.Errorf("%s is handed over, and nobody has it", id)
			}
		}
		if d.Phase != coordinator.DepartureOffered {
			continue
		}
		if j == nil || j.Status != coordinator.Suspended || st.Savepoints[d.Savepoint] == nil {
			return fmt.Errorf("%s is offered, and the job or its savepoint is not there", id)
		}
		for name, f := range st.Feeds {
			i := slices.IndexFunc(d.Ends, func(e coordinator.FeedEnd) bool { return e.Feed == name })
			if d.Takes(j, f) && (!f.Log.Held || d.Ends[i].End != f.Log.Start) {
				return fmt.Errorf("%s is offered, and the log of %s goes on", id, name)
			}
		}
	}
	for id, a := range st.Moves.Arrivals {
		if a.Phase == coordinator.ArrivalPrepared && st.Savepoints[a.Savepoint.Name] == nil {
			return fmt.Errorf("%s is prepared, and the savepoint is gone", id)
		}
	}
	for name, f := range st.Feeds {
		if f.Move != "" && st.ArrivingFeed(f) == nil {
			return fmt.Errorf("feed %s came with %s, which is over", name, f.Move)
		}
	}
	return nil
}

// Whatever comes at two sites, and in whatever order: a job may run at one of them
// at most, unless it was forced; names are of live jobs; tokens ascend; what is on
// record of files stays; what an offer needs stays; each state comes back from its
// snapshot. All of it comes about: jobs go there and back.
func TestMovesOfTwoSites(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(36) {
		p := newPair(seed, "", seen)
		for n := range 4000 {
			if err := p.step(); err != nil {
				t.Fatalf("seed %d, step %d: %v\n%s\n%s", seed, n, err, show(p.m[0].State()), show(p.m[1].State()))
			}
			if n%30 == 0 {
				comesBack(t, p.m[n/30%2])
			}
		}
	}
	for _, what := range []string{"departure copying", "departure halting", "departure offered", "departure handed-over", "departure aborted", "departure fenced",
		"arrival receiving", "arrival prepared", "arrival active", "arrival dropped", "stopping -> suspended", "restarting -> suspended", "suspended -> restarting",
		"stopping -> restarting", "suspended -> moved", "live -> moved", "moved -> created", "deployed at epoch 2", "deployed at epoch 3", "reads a mirror", "is home again", "forgotten, of here", "forgotten, of elsewhere"} {
		if seen[what] == 0 {
			t.Errorf("never: %s", what)
		}
	}
}

// goesOn tells whether what is on record of a file may follow what was: no shorter, or
// through something newer, or what the present attempt found that does not go on from it.
func goesOn(st *coordinator.State, j *coordinator.Job, was, now coordinator.SinkCommit) bool {
	if was.Through == now.Through {
		return now.Length >= was.Length
	}
	from := st.Snapshot(j, j.From)
	return was.Through.Less(now.Through) || from != nil && now.Through == from.ID && from.ID.Less(was.Through) && was.Through.Token != j.Token(st.Site)
}

// The judges see what is broken.
func TestPlantedBugsOfMoves(t *testing.T) {
	for _, bug := range []string{"decides without the target", "makes a verdict up", "loses the files", "counts attempts anew", "keeps the name", "opens the log", "goes on in spite of the offer"} {
		t.Run(bug, func(t *testing.T) {
			for seed := range uint64(40) {
				p := newPair(3*seed+1, bug, map[string]int{})
				for range 1500 {
					if err := p.step(); err != nil {
						t.Logf("after %d commands: %v", p.index, err)
						return
					}
				}
			}
			t.Error("nobody saw it")
		})
	}
}
