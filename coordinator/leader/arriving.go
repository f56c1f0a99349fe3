package leader

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/migration"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// tellTarget says what is so of an arrival. arr is its record; nil: there is none
// yet, or none any more.
func (l *Leader) tellTarget(m *moveRun, arr *coordinator.Arrival) {
	m.warm.waits = false // unless what was fetched does, below
	if arr != m.arrival {
		m.arrival = arr
		if r := l.jobs[m.job]; r != nil && arr != nil && arr.Phase == coordinator.ArrivalActive {
			r.out = output{} // what it put out when it was here before is no row of now
		}
		l.stepMove(m, migration.Event{Record: &migration.Record{Arrival: arr}})
	}
	if arr == nil {
		return
	}
	r := l.st.Replicas[m.job]
	if r != nil && m.want != nil && r.Restorable() != nil && r.Snapshot != m.fetched &&
		(r.Snapshot.Name == m.want.Name || m.want.ID.Less(r.Snapshot.ID)) && !l.awaited(m, r.Snapshot) {
		m.fetched = r.Snapshot
		l.stepMove(m, migration.Event{Fetched: &migration.Fetched{Snapshot: r.Snapshot, Bytes: m.lacks, Took: dataflow.Duration(l.now - m.wantedAt)}})
	}
	if ends, lag := l.endsHere(arr); len(ends) > 0 && (lag != m.lag || !slices.Equal(ends, m.logs)) {
		m.logs, m.lag = ends, lag
		l.stepMove(m, migration.Event{Logs: &migration.Logs{Ends: ends, Lag: lag}})
	}
	if r := l.jobs[m.job]; arr.Phase == coordinator.ArrivalActive && r != nil && r.out.last != 0 && !m.rowed {
		m.rowed = true
		l.stepMove(m, migration.Event{First: true})
	}
}

// endsHere is how far the logs are here that come with a job, and the bytes that
// they lack.
func (l *Leader) endsHere(arr *coordinator.Arrival) (ends []coordinator.FeedEnd, lag int64) {
	for i := range arr.Job.Feeds {
		f := &arr.Job.Feeds[i]
		name := arr.Job.NameAt(f, arr.From, l.cfg.Site, arr.ID)
		if e, ok := l.moving.ends[name]; ok {
			ends, lag = append(ends, coordinator.FeedEnd{Feed: f.Name, End: e.End}), lag+l.moving.lag[name]
		}
	}
	return ends, lag
}

// mirrored: logs here have come further.
func (l *Leader) mirrored(e *Mirrored) {
	for _, end := range e.Ends {
		l.moving.ends[end.Feed], l.moving.lag[end.Feed] = end, e.Lag[end.Feed]
	}
	l.markMoves("")
	for _, end := range e.Ends {
		for id := range l.replicating.feeds[end.Feed] {
			l.mark(l.replicating.index[id].from, id)
		}
	}
}

// sitesReached: these are, and no others.
func (l *Leader) sitesReached(sites []mesh.Site) {
	was := maps.Clone(l.moving.reached)
	clear(l.moving.reached)
	for _, s := range sites {
		l.moving.reached[s] = true
		if !was[s] && l.leads {
			l.mark(s)
			l.markFetches(s)
		}
	}
}

// fetch has what an arriving job is to be restored from kept here: first what the
// job is, then the snapshot, whatever else was being fetched of it. What is kept
// of a job that is here is not needed any more.
func (l *Leader) fetch(m *moveRun) {
	arr, r := m.arrival, l.st.Replicas[m.job]
	if m.target == nil || arr == nil || m.fetching || l.now < m.retry {
		return
	}
	epoch := arr.Epoch - 1
	switch ours := r != nil && r.From == arr.From && r.Epoch == epoch; {
	case arr.Phase == coordinator.ArrivalActive && ours && r.Moving == m.id:
		l.replicate(m, coordinator.Command{ReplicaDropped: &coordinator.ReplicaDropped{Job: m.job, From: arr.From, Epoch: epoch, Why: "the job is here"}})
	case arr.Phase != coordinator.ArrivalReceiving || m.want == nil:
	case !ours || r.Moving != m.id:
		l.replicate(m, coordinator.Command{ReplicaOffered: &coordinator.ReplicaOffered{Job: arr.Job, From: arr.From, Epoch: epoch, Moving: m.id}})
	case r.Named(m.want.Name) == nil && newer(m.want, r):
		l.replicate(m, coordinator.Command{ReplicaNext: &coordinator.ReplicaNext{Job: m.job, From: arr.From, Epoch: epoch, Snapshot: nowhere(m.want), Replace: true}})
	}
}

// newer tells whether a snapshot may be fetched next.
func newer(s *coordinator.Snapshot, r *coordinator.Replica) bool {
	return !slices.ContainsFunc([]*coordinator.Snapshot{r.Restorable(), r.Next}, func(o *coordinator.Snapshot) bool { return o != nil && s.ID.Less(o.ID) })
}

// nowhere is a snapshot of which no agent of this site is said to have anything.
func nowhere(s *coordinator.Snapshot) *coordinator.Snapshot {
	next := *s
	next.Copies = nil
	for _, p := range s.Copies {
		next.Copies = append(next.Copies, coordinator.PartCopies{Part: p.Part, Nodes: []mesh.NodeID{}})
	}
	return &next
}

// replicate proposes a command about what is kept of an arriving job.
func (l *Leader) replicate(m *moveRun, c coordinator.Command) {
	m.fetching = true
	l.propose(c, func(err error) {
		m.fetching = false
		if err != nil {
			m.retry = l.now.Add(migrationRetry)
		}
		l.markMove(m.id)
	})
}

// migrationRetry is when what a site would not keep is tried again: another one
// may be about to change it.
const migrationRetry = dataflow.Second

// lacks is how many bytes of a snapshot were not here, whether they come over the
// link or are merged of what is.
func (l *Leader) lacks(s *coordinator.Snapshot) (bytes int64) {
	m, err := manifest.Decode(s.Manifest)
	if err != nil {
		return s.Bytes
	}
	var kept []*coordinator.Snapshot
	if r := l.st.Replicas[s.Job]; r != nil {
		kept = append(kept, r.Snapshot, r.Next)
	}
	if j := l.st.Jobs[s.Job]; j != nil { // it was here once
		kept = append(kept, j.Checkpoints...)
	}
	has := make(map[store.Digest]bool)
	for _, k := range kept {
		if k != nil {
			for _, p := range k.Copies {
				has[p.Part] = has[p.Part] || len(p.Nodes) > 0
			}
		}
	}
	for _, o := range m.Operators {
		for _, t := range o.Tables {
			for _, sh := range t.Shards {
				for _, p := range sh.Parts {
					if !has[p.Digest] {
						has[p.Digest] = true
						bytes += p.Size
					}
				}
			}
		}
	}
	return bytes
}

// checkMove says why a job cannot run here; empty: as far as the state tells it can,
// and at these places.
func (l *Leader) checkMove(ask *coordinator.MovePropose) (p *Parsed, places schedule.Placement, why string) {
	m := &ask.Job
	if l.st.Level < coordinator.SitesLevel {
		return nil, nil, fmt.Sprintf("agents of site %s have a program that knows nothing of moves: upgrade them all", l.cfg.Site)
	}
	facts := jobmanager.Facts(l.st)
	switch here := facts.Job(m.ID); {
	case here.Here || here.Epoch >= ask.Epoch:
		return nil, nil, fmt.Sprintf("site %s has job %s itself, or had it at epoch %d", l.cfg.Site, m.ID, here.Epoch)
	case !facts.NameFree(m.Namespace, m.Name):
		return nil, nil, fmt.Sprintf("a job %q is at site %s already: stop it first", m.Name, l.cfg.Site)
	}
	j := m.As(ask.Epoch)
	p, err := l.cfg.Parse(j)
	if err != nil {
		return nil, nil, fmt.Sprintf("the job cannot be read at site %s: %v", l.cfg.Site, err)
	}
	for _, use := range p.Feeds {
		if !slices.ContainsFunc(m.Feeds, func(f coordinator.MovingFeed) bool { return f.Name == use.Feed }) {
			return nil, nil, fmt.Sprintf("with the settings of site %s it reads feed %s, which it does not read now", l.cfg.Site, use.Feed)
		}
	}
	for i := range m.Feeds {
		f, of := &m.Feeds[i], m.Feeds[i].Of
		switch {
		case l.st.Level < coordinator.SettledLevel && ask.NeedsSettled(f):
			return nil, nil, fmt.Sprintf("site %s is at feature level %d, and cannot take the session of the shared feed %s: upgrade all its agents, or let the session stay (--feed stay)", l.cfg.Site, l.st.Level, f.Name)
		case l.taken(m, f, ask.From) != "":
			return nil, nil, l.taken(m, f, ask.From)
		case of == nil || l.moving.reached[of.Site]:
		case of.Site != l.cfg.Site:
			return nil, nil, fmt.Sprintf("the session of feed %s is at site %s, which site %s does not reach", of.Feed, of.Site, l.cfg.Site)
		case l.st.Feeds[of.Feed] == nil || l.st.Feeds[of.Feed].Mirror != nil || l.st.Feeds[of.Feed].Owner != "":
			return nil, nil, fmt.Sprintf("the session of feed %s is not at site %s any more", of.Feed, of.Site)
		}
	}
	if why := restorable(p, ask.Newest); why != "" {
		return nil, nil, why
	}
	r := l.newRun(j)
	r.used = l.reserved(m.ID)
	places, why = l.place(r, j, p, nil)
	if why != "" && len(r.used) > 0 {
		why += "; others are for jobs that are on their way here"
	}
	return p, places, why
}

// taken says why a feed of a job that is to come from a site cannot have its session here;
// empty: it can.
func (l *Leader) taken(m *coordinator.MovingJob, f *coordinator.MovingFeed, from mesh.Site) string {
	const stay, other = "let the session stay (--feed stay)", "give the source another id (--set sources.ID.mqtt.client_id=NEW)"
	want := l.st.Comes(m, f, from)
	is := fmt.Sprintf("client id %q at broker %s, with which feed %s would come to site %s, is that of", want.Client, want.Broker, f.Name, l.cfg.Site)
	if o := l.st.ComesTwice(m, f, from); o != nil {
		return fmt.Sprintf("%s feed %s of the job, too, and two sessions of one id throw each other out for ever: %s; or %s", is, o.Name, stay, other)
	}
	if by := l.st.SessionTaken(want, f.Name); by != nil {
		return is + " " + l.st.Occupies(by, stay, other)
	}
	return ""
}

// reserved are the slots that the other jobs on their way here will take, below zero:
// so as a run that has fewer than none leaves them to those.
func (l *Leader) reserved(but coordinator.JobID) map[mesh.NodeID]int {
	taken := make(map[mesh.NodeID]int)
	var all []*coordinator.Job
	for _, id := range sorted(l.st.Moves.Arrivals) {
		if arr := l.st.Moves.Arrivals[id]; !arr.Phase.Decided() && arr.Job.ID != but {
			all = append(all, arr.Job.As(arr.Epoch))
		}
	}
	for _, id := range sorted(l.moving.runs) { // those that were checked, and are about to be on record
		if m := l.moving.runs[id]; m.fits != nil && l.st.Moves.Arrivals[id] == nil && m.job != but {
			all = append(all, m.fits.Job.As(m.fits.Epoch))
		}
	}
	for _, j := range all {
		p, err := l.cfg.Parse(j)
		if err != nil {
			continue
		}
		r := l.newRun(j)
		r.used = taken
		if places, why := l.place(r, j, p, nil); why == "" {
			for node, n := range schedule.Used(p.Slots, places) {
				taken[node] -= n
			}
		}
	}
	return taken
}

// restorable says what of a snapshot the job would not know.
func restorable(p *Parsed, s *coordinator.Snapshot) string {
	if s == nil {
		return ""
	}
	m, err := manifest.Decode(s.Manifest)
	if err != nil {
		return fmt.Sprintf("snapshot %s cannot be read: %v", s.Name, err)
	}
	known := make(map[dataflow.OperatorID]bool)
	for i := range p.Graph.Subtasks {
		for _, link := range p.Graph.Subtasks[i].Task.Links {
			known[link.Node.ID] = true
		}
	}
	for _, o := range m.Operators {
		if !known[o.ID] && len(o.Tables) > 0 {
			return fmt.Sprintf("operator %q has state, and with the settings of the move the job has no such operator", o.ID)
		}
	}
	return ""
}
