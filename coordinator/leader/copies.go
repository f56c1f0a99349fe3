package leader

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Copies of parts are made anew where fewer agents have them than the job asks
// for: an agent that had them was taken out, or is lost for long, or said that
// its disk lacks them; or there were too few when the snapshot was taken.
//
// A snapshot is looked at when it is recorded or changed in the state; all are
// when an agent was taken out or forsaken. That is not done at once, but when
// Timing.Gather has passed, and then a few parts at a time: one order to one
// agent in the whole site, and a rest as long as it took, so that live work
// comes first. What agents say counts when CopiesChanged is in the state; the
// next order is made from that.

const (
	maxCopyParts     = 256
	maxCopyBytes     = 64 << 20  // of an order, but for one part that is larger
	copyReserve      = 256 << 20 // bytes that stay free on the disk of who gets copies
	copyRest         = dataflow.Second
	maxLookedAt      = 50_000 // parts in a step
	lookedAtForParse = 1_000  // what the reading of a job's text counts for
)

// snapshotRef names a kept snapshot. Its name says less: checkpoints of two jobs
// may have one.
type snapshotRef struct {
	job  coordinator.JobID // empty: a savepoint
	name string
}

// copying is what is known of copies that are missing.
type copying struct {
	jobs       map[coordinator.JobID]bool // whose checkpoints are to be looked at, from due on
	savepoints map[string]bool
	due        dataflow.Time
	// short are snapshots that lack copies which nobody can make now: they are looked
	// at again when an agent comes, and at again. Until then nobody is asked again who
	// was in vain.
	short    map[snapshotRef]bool
	tried    map[copyTry]bool
	again    dataflow.Time
	order    *copyOrder // nil: none
	orders   uint64
	void     map[coordinator.JobID]uint64 // the last order from before what was kept of a job was let go; of all that were in this term
	found    map[snapshotRef]*copyFound   // what agents said, and the state does not know yet
	proposed bool                         // a CopiesChanged is under way
	retry    dataflow.Time
	replicas map[coordinator.JobID]int

	next    map[coordinator.JobID]bool // whose Replica.Next is to be looked at (fetching.go)
	fetched map[coordinator.JobID]*fetched
	turn    bool // a repair that is due comes first
}

// copyOrder is what an agent was asked to copy.
type copyOrder struct {
	id    uint64
	ref   snapshotRef
	node  mesh.NodeID
	since dataflow.Time
	parts []coordinator.PartCopies
	bytes int64
	next  bool // of a Replica.Next
}

// copyTry is a snapshot and the agent that was to have parts of it.
type copyTry struct {
	snapshotRef
	node mesh.NodeID
}

// copyFound is who has parts of a snapshot, and who lacks some.
type copyFound struct {
	has, lacks map[store.Digest][]mesh.NodeID
}

func newCopying() copying {
	return copying{
		jobs: make(map[coordinator.JobID]bool), savepoints: make(map[string]bool), short: make(map[snapshotRef]bool), found: make(map[snapshotRef]*copyFound),
		tried: make(map[copyTry]bool), replicas: make(map[coordinator.JobID]int), due: dataflow.MinTime, again: dataflow.MaxTime, retry: dataflow.MinTime,
		void: make(map[coordinator.JobID]uint64), next: make(map[coordinator.JobID]bool), fetched: make(map[coordinator.JobID]*fetched),
	}
}

// markCopies has a job's checkpoints, or a savepoint, looked at.
func (l *Leader) markCopies(ref snapshotRef) {
	c := &l.copying
	if l.st.Level < coordinator.CopiesLevel {
		return
	}
	if len(c.jobs)+len(c.savepoints) == 0 {
		c.due = max(c.due, l.now.Add(l.cfg.Timing.Gather))
	}
	if ref.job != "" {
		c.jobs[ref.job] = true
	} else {
		c.savepoints[ref.name] = true
	}
	l.marks.copies = true
}

// markAllCopies: holders may be fewer.
func (l *Leader) markAllCopies() {
	for id := range l.st.Jobs {
		l.markCopies(snapshotRef{job: id})
	}
	for id := range l.st.Replicas {
		l.markCopies(snapshotRef{job: id})
		l.markFetch(id)
	}
	for name := range l.st.Savepoints {
		l.markCopies(snapshotRef{name: name})
	}
}

// markShort: somebody may be able now to make the copies that are missing.
func (l *Leader) markShort() {
	for ref := range l.copying.short {
		l.markCopies(ref)
	}
	clear(l.copying.short)
	l.markFetches("")
	if len(l.copying.tried) == 0 {
		l.copying.again = dataflow.MaxTime
	}
}

// copyAgain has what cannot be done now tried again in a while.
func (l *Leader) copyAgain() {
	l.copying.again = min(l.copying.again, l.now.Add(l.cfg.Timing.Again))
}

// lookAtCopies records what was found, and orders the next copies.
func (l *Leader) lookAtCopies() {
	c := &l.copying
	at := dataflow.MaxTime
	if l.st.Level >= coordinator.CopiesLevel && l.settled() {
		l.recordCopies()
		if o := c.order; o != nil && l.now >= o.since.Add(l.cfg.Timing.Copy) {
			l.copyFailed(o, "it has not answered")
		}
		if l.now >= c.again {
			clear(c.tried)
			l.markShort()
		}
		fetch := l.fetchWake()
		l.copyNext()
		switch {
		case c.proposed:
		case len(c.found) > 0:
			at = c.retry
		case c.order != nil:
			at = c.order.since.Add(l.cfg.Timing.Copy)
		case len(c.jobs)+len(c.savepoints) > 0:
			at = c.due
		}
		at = min(at, c.again, fetch)
	}
	l.wakes.set(subject{kind: theCopies}, at)
}

// recordCopies proposes what agents have said, one snapshot at a time.
func (l *Leader) recordCopies() {
	c := &l.copying
	if c.proposed || l.now < c.retry {
		return
	}
	refs := slices.Collect(maps.Keys(c.found))
	sort.Slice(refs, func(i, j int) bool { return compareRefs(refs[i], refs[j]) < 0 })
	for _, ref := range refs {
		f := c.found[ref]
		delete(c.found, ref)
		s := l.st.Of(ref.job, ref.name)
		if s == nil {
			continue
		}
		changed := l.corrected(s, f)
		if len(changed) == 0 {
			continue
		}
		c.proposed = true
		l.propose(coordinator.Command{CopiesChanged: &coordinator.CopiesChanged{Name: ref.name, Job: ref.job, Copies: changed}}, func(err error) {
			c.proposed = false
			if errors.Is(err, errRefused) {
				c.retry = l.now.Add(l.cfg.Timing.Retry)
				l.found(ref).add(f)
			}
		})
		return
	}
}

// corrected are the parts of a snapshot whose agents are others than the state
// says. The last that is said to have a part stays: if that is there once more
// after all, somebody must ask it.
func (l *Leader) corrected(s *coordinator.Snapshot, f *copyFound) (all []coordinator.PartCopies) {
	for _, p := range s.Copies {
		has, lacks := f.has[p.Part], f.lacks[p.Part]
		if len(has)+len(lacks) == 0 {
			continue
		}
		var nodes []mesh.NodeID
		for _, node := range p.Nodes {
			if l.st.Agents[node] != nil && (!slices.Contains(lacks, node) || slices.Contains(has, node)) {
				nodes = append(nodes, node)
			}
		}
		for _, node := range has {
			if l.st.Agents[node] != nil {
				nodes = append(nodes, node)
			}
		}
		slices.Sort(nodes)
		if nodes = slices.Compact(nodes); len(nodes) > 0 && !slices.Equal(nodes, p.Nodes) {
			all = append(all, coordinator.PartCopies{Part: p.Part, Nodes: nodes})
		}
	}
	return all
}

// copyNext orders the next copies, if it is time for them.
func (l *Leader) copyNext() {
	c := &l.copying
	if c.order != nil || c.proposed || len(c.found) > 0 {
		return
	}
	due := l.now >= c.due
	if due && c.turn {
		c.turn, due = false, false
		if l.repair(); c.order != nil {
			return
		}
	}
	if !l.fetchNext() && due {
		l.repair()
	}
}

// repair orders the next copies that are missing of what is complete.
func (l *Leader) repair() {
	c := &l.copying
	left := maxLookedAt
	for _, id := range sorted(c.jobs) {
		for _, s := range l.copied(id) {
			if l.copyOf(snapshotRef{id, s.Name}, s, &left) {
				return
			}
		}
		delete(c.jobs, id)
	}
	for _, name := range sorted(c.savepoints) {
		if s := l.st.Savepoints[name]; s != nil && l.copyOf(snapshotRef{name: name}, s, &left) {
			return
		}
		delete(c.savepoints, name)
	}
}

// copied are those snapshots of a job, and of its replica, that are to have all their
// copies.
func (l *Leader) copied(id coordinator.JobID) []*coordinator.Snapshot {
	all := copied(l.st.Jobs[id])
	if r := l.st.Replicas[id]; r != nil && r.Snapshot != nil && !slices.ContainsFunc(all, func(s *coordinator.Snapshot) bool { return s.Name == r.Snapshot.Name }) {
		all = append(slices.Clip(all), r.Snapshot)
	}
	return all
}

// copied are those checkpoints of a job that are to have all their copies, the
// newest first. Of a job that runs it is the newest: the others go soon.
func copied(j *coordinator.Job) []*coordinator.Snapshot {
	switch {
	case j == nil || len(j.Checkpoints) == 0:
		return nil
	case j.Deployed():
		return j.Checkpoints[len(j.Checkpoints)-1:]
	}
	all := slices.Clone(j.Checkpoints)
	slices.Reverse(all)
	return all
}

// copyOf orders copies of a snapshot, if it needs some that can be made; false:
// go on with the next. left is how many parts may still be looked at.
func (l *Leader) copyOf(ref snapshotRef, s *coordinator.Snapshot, left *int) bool {
	c := &l.copying
	if *left <= 0 {
		c.due = l.now.Add(l.cfg.Timing.Retry)
		return true
	}
	if _, known := c.replicas[s.Job]; !known && l.jobs[s.Job] == nil {
		*left -= lookedAtForParse
	}
	*left -= len(s.Copies) + 1
	o, short := l.copyPlan(ref, s)
	switch {
	case o != nil:
		c.orders++
		o.id, o.since, c.order = c.orders, l.now, o
		l.send(o.node, coordinator.ToAgent{Copy: &coordinator.Copy{Order: o.id, Index: l.st.Index, Name: ref.name, Job: ref.job, Parts: o.parts}})
		return true
	case short:
		c.short[ref] = true
		l.copyAgain()
	}
	return false
}

// copyPlan is the next copies of a snapshot; nil: none are missing, or, if it is
// short, nobody can make them now.
func (l *Leader) copyPlan(ref snapshotRef, s *coordinator.Snapshot) (o *copyOrder, short bool) {
	want := l.replicas(s.Job)
	var sizes map[store.Digest]int64
	targets := make(map[string]mesh.NodeID) // by who has a part
	for _, p := range s.Copies {
		living, from := l.holdersOf(p)
		if len(living) >= want {
			continue
		}
		if short = true; len(from) == 0 {
			continue
		}
		key := fmt.Sprint(p.Nodes)
		node, known := targets[key]
		if !known {
			node = l.copyTarget(ref, s.Job, p.Nodes, living, 0)
			targets[key] = node
		}
		if node == "" {
			continue
		}
		if sizes == nil {
			m, err := manifest.Decode(s.Manifest)
			if err != nil {
				return nil, false
			}
			sizes = make(map[store.Digest]int64)
			for _, n := range manifest.Needed(m) {
				sizes[n.Digest] = n.Size
			}
		}
		size := sizes[p.Part]
		if !l.hasRoom(node, size) { // another one may, and this one for a smaller part
			node = l.copyTarget(ref, s.Job, p.Nodes, living, size)
		}
		if node == "" {
			continue
		}
		if o == nil {
			o = &copyOrder{ref: ref, node: node}
		}
		if node == o.node && (len(o.parts) == 0 || len(o.parts) < maxCopyParts && o.bytes+size <= maxCopyBytes && l.hasRoom(node, o.bytes+size)) {
			o.parts, o.bytes = append(o.parts, coordinator.PartCopies{Part: p.Part, Nodes: from}), o.bytes+size
		}
	}
	return o, short
}

// holdersOf are the agents whose copy of a part counts, and those of whom it can
// be had now.
func (l *Leader) holdersOf(p coordinator.PartCopies) (living, there []mesh.NodeID) {
	for _, node := range p.Nodes {
		a := l.agents[node]
		if a == nil || l.st.Agents[node] == nil {
			continue
		}
		if !a.forsaken {
			living = append(living, node)
		}
		if a.there {
			there = append(there, node)
		}
	}
	return living, there
}

// copyTarget is who is to have a copy of a part too; empty: nobody can. Who is on
// a machine that has none comes first; among those each job has an order of its
// own, so that copies are spread, and snapshots that share parts agree.
func (l *Leader) copyTarget(ref snapshotRef, job coordinator.JobID, nodes, living []mesh.NodeID, size int64) (best mesh.NodeID) {
	hosts := make(map[string]bool)
	for _, node := range living {
		if h := l.st.Agents[node].Host; h != "" {
			hosts[h] = true
		}
	}
	var most uint64
	for _, node := range sorted(l.st.Agents) {
		if l.copying.tried[copyTry{ref, node}] || slices.Contains(nodes, node) || !l.usable(node) || !l.hasRoom(node, size) {
			continue
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(cmp.Or(string(job), ref.name) + "\x00" + string(node))) // it never fails
		score := h.Sum64() >> 1
		if !hosts[l.st.Agents[node].Host] {
			score |= 1 << 63
		}
		if best == "" || score > most {
			best, most = node, score
		}
	}
	return best
}

// hasRoom tells whether so many bytes more fit on an agent's disk, as far as it
// has said.
func (l *Leader) hasRoom(node mesh.NodeID, bytes int64) bool {
	free := l.agents[node].disk
	return free == 0 || free-bytes >= copyReserve
}

// replicas is how many copies of each part a job asks for. It never changes.
func (l *Leader) replicas(id coordinator.JobID) int {
	j := l.st.Jobs[id]
	if r := l.st.Replicas[id]; j == nil && r != nil {
		j = r.Job.As(0)
	}
	if j == nil {
		return coordinator.DefaultReplicas
	}
	n, known := l.copying.replicas[id]
	if !known {
		n = coordinator.DefaultReplicas
		var p *Parsed
		var err error
		if r := l.jobs[id]; r != nil {
			p, err = l.parse(r, j)
		} else {
			p, err = l.cfg.Parse(j)
		}
		if err == nil && p.Replicas > 0 {
			n = p.Replicas
		}
		l.copying.replicas[id] = n
	}
	return n
}

// errShort: a snapshot does not count, as it could have more copies.
var errShort = errors.New("others could have one")

// copiedEnough refuses a snapshot of which a part has fewer copies than the job asks for,
// while agents are there that have none. An agent that is cut off from the others
// finds nobody to give copies to, and its own is all there is: if it counted, and
// that disk were lost, the job could not go on. With when_short: degrade it counts,
// as what is in the log does. Who is about to end is not asked for a copy, and has
// those that it has.
func (l *Leader) copiedEnough(r *jobRun, parts []coordinator.PartCopies) error {
	if r.parsed.Degrade {
		return nil
	}
	want := l.replicas(r.id)
	var there []mesh.NodeID // those that could have a copy
	for _, node := range sorted(l.st.Agents) {
		if !l.away(node) {
			there = append(there, node)
		}
	}
	for _, p := range parts {
		living, _ := l.holdersOf(p)
		if len(living) >= want {
			continue
		}
		var others []string
		for _, node := range there {
			if !slices.Contains(p.Nodes, node) && len(others) < 3 { // for people
				others = append(others, l.name(node))
			}
		}
		if len(others) > 0 {
			var names []string
			for _, node := range p.Nodes {
				names = append(names, l.name(node))
			}
			return fmt.Errorf("part %.12s has %d of %d copies, on %s, and %w: %s", p.Part, len(living), want, strings.Join(names, ", "), errShort, strings.Join(others, ", "))
		}
	}
	return nil
}

// heardCopied: an agent says what it has, or who lacks something.
func (l *Leader) heardCopied(node mesh.NodeID, m *coordinator.Copied) {
	ref := snapshotRef{m.Job, m.Name}
	s, news := l.st.Of(ref.job, ref.name), false
	parts := m.Parts
	if m.Order <= l.copying.void[m.Job] { // the same snapshot is kept once more, and the agent may have let go what came before
		parts = nil
	}
	if s != nil && len(parts)+len(m.Lacks) > 0 {
		f := l.found(ref)
		for _, p := range parts {
			f.has[p] = append(f.has[p], node)
		}
		var names []string
		for _, p := range m.Lacks {
			f.lacks[p.Part] = append(f.lacks[p.Part], p.Nodes...)
			for _, of := range p.Nodes {
				names = append(names, l.name(of))
			}
		}
		slices.Sort(names)
		if news = len(l.corrected(s, f)) > 0; news && len(names) > 0 {
			l.tell("%d copies of parts of %s are gone or damaged, says agent %s; they were on: %s", len(names), ref.name, l.name(node), strings.Join(slices.Compact(names), ", "))
		}
	}
	o := l.copying.order
	if o == nil || o.id != m.Order || o.node != node {
		return
	}
	if len(m.Parts) > 0 && !o.next {
		l.tell("agent %s has copies of %d parts of %s now: too few agents had them", l.name(node), len(m.Parts), ref.name)
	}
	switch {
	case o.next:
		l.fetchOver(o, m.Why)
	case m.Why == "" || s == nil:
		l.copyOver()
	case news: // it is another order next time
		l.tell("not all parts of %s could be copied to agent %s: %s", ref.name, l.name(node), m.Why)
		l.copyOver()
	default:
		l.copyFailed(o, m.Why)
	}
}

// found is what was said of a snapshot.
func (l *Leader) found(ref snapshotRef) *copyFound {
	f := l.copying.found[ref]
	if f == nil {
		f = &copyFound{has: make(map[store.Digest][]mesh.NodeID), lacks: make(map[store.Digest][]mesh.NodeID)}
		l.copying.found[ref] = f
	}
	return f
}

func (f *copyFound) add(more *copyFound) {
	for p, nodes := range more.has {
		f.has[p] = append(f.has[p], nodes...)
	}
	for p, nodes := range more.lacks {
		f.lacks[p] = append(f.lacks[p], nodes...)
	}
}

// copyOver: the order has ended. The next one waits as long as it took.
func (l *Leader) copyOver() { l.copyRests(dataflow.Duration(l.now - l.copying.order.since)) }

func (l *Leader) copyRests(d dataflow.Duration) {
	c := &l.copying
	c.order, c.due = nil, max(c.due, l.now.Add(max(copyRest, d)))
	l.marks.copies = true
}

// copyFailed: nothing came of the order. Others are asked.
func (l *Leader) copyFailed(o *copyOrder, why string) {
	if o.next {
		l.fetchOver(o, why)
		return
	}
	l.tell("parts of %s could not be copied to agent %s: %s", o.ref.name, l.name(o.node), why)
	l.copying.tried[copyTry{o.ref, o.node}] = true
	l.copyAgain()
	l.copyOver()
}

// copierGone: an agent is lost, was taken out, or begins anew. What it was asked
// for it may do or not; nobody waits for it.
func (l *Leader) copierGone(node mesh.NodeID) {
	if o := l.copying.order; o != nil && o.node == node {
		if o.next {
			l.fetchOver(o, "")
			return
		}
		l.copyRests(copyRest)
	}
}

func compareRefs(a, b snapshotRef) int {
	return cmp.Or(cmp.Compare(a.job, b.job), cmp.Compare(a.name, b.name))
}
