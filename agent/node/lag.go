package node

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
)

// What there is to say of what sites keep of each other's jobs: of those that are kept
// here from the logs' mirrors, of this site's from what the others say that they have.
// The leader knows it, and forgets it with its term.

// heardWant is what a site asked last.
type heardWant struct {
	at   dataflow.Time // of the wall clock
	jobs map[coordinator.JobID]coordinator.WantedJob
}

// hears notes what another site says that it has.
func (o *office) hears(w *coordinator.Want) {
	h := heardWant{at: o.wall(), jobs: make(map[coordinator.JobID]coordinator.WantedJob)}
	for _, j := range w.Jobs {
		h.jobs[j.Job] = j
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heardWants[w.Site] = h
}

// Replicas is api.Backend's.
func (n *Node) Replicas() (all []api.Replica) {
	o := n.leads()
	if o == nil {
		return nil
	}
	var jobs []*coordinator.Job
	var self mesh.Site
	n.replica.view(func(st *coordinator.State) { jobs, self = keepable(st), st.Site })
	s := said{now: sensors.Wall{}.Now(), keepers: o.keepers(jobs, self)}
	o.mu.Lock()
	s.logs, s.wants = maps.Clone(o.logs), maps.Clone(o.heardWants)
	o.mu.Unlock()
	n.replica.view(func(st *coordinator.State) { all = replicasOf(st, &s) })
	sort.Slice(all, func(i, j int) bool {
		a, b := &all[i], &all[j]
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Job, b.Job)) < 0
	})
	return all
}

// said is what a leader was told.
type said struct {
	now     dataflow.Time // by the clock of mirrors
	logs    map[string]coordinator.LogStatus
	wants   map[mesh.Site]heardWant
	keepers map[coordinator.JobID][]mesh.Site // the other sites that are to keep a live job
}

// replicasOf is what is kept here, and what others keep of this site's jobs, or are to.
// What they keep of one that has moved away its new site knows.
func replicasOf(st *coordinator.State, said *said) (all []api.Replica) {
	all = keptOf(st, "", said)
	own := make(map[coordinator.JobID][]string)
	for name, f := range st.Feeds {
		own[f.Job] = append(own[f.Job], name)
	}
	for site, w := range said.wants {
		for id, j := range w.jobs {
			if job := st.Jobs[id]; job != nil && job.Status != coordinator.Moved {
				feeds := slices.Sorted(slices.Values(own[id]))
				for _, name := range job.Reads {
					if f := st.Feeds[name]; f != nil && f.Job == "" {
						feeds = append(feeds, name)
					}
				}
				all = append(all, keptThere(st, job, site, &j, w.at, feeds, said.logs))
			}
		}
	}
	for id, sites := range said.keepers {
		for _, site := range sites {
			w, heard := said.wants[site]
			if _, named := w.jobs[id]; !named && st.Jobs[id] != nil {
				all = append(all, notKept(st, st.Jobs[id], site, heard, w.at))
			}
		}
	}
	return all
}

// keptSaid is what is kept of a site's jobs, as other sites were told last.
type keptSaid struct {
	at  dataflow.Time // of the wall clock
	all []api.Replica
}

// saidAgain is from when on what was told is looked at anew: that reads a manifest of each
// job, and a site is asked every second.
const saidAgain = 5 * dataflow.Second

// keptHere is what is kept of a site's jobs, as it was some seconds ago at most.
func (o *office) keptHere(from mesh.Site, now dataflow.Time) []api.Replica {
	o.mu.Lock()
	last := o.keptSaid[from]
	if last.at <= now && now < last.at.Add(saidAgain) {
		o.mu.Unlock()
		return last.all
	}
	logs := maps.Clone(o.logs)
	o.mu.Unlock()
	next := keptSaid{at: now}
	o.view(func(st *coordinator.State) {
		next.all = keptOf(st, from, &said{now: now, logs: logs})
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keptSaid[from] = next
	return next.all
}

// keptOf is what is kept here of the jobs of a site; empty: of all.
func keptOf(st *coordinator.State, from mesh.Site, said *said) (all []api.Replica) {
	asks := jobmanager.NewFailovers(st)
	for id, r := range st.Replicas {
		if from != "" && r.From != from {
			continue
		}
		row := keptHere(st, id, r, said)
		if row.Restorable {
			row.Why = refusedHere(st, asks, r)
			row.Restorable = row.Why == ""
		}
		all = append(all, row)
	}
	return all
}

// refusedHere is why a failover of a job would be refused as things are; empty: it would
// not. One that is prepared here goes on with its move.
func refusedHere(st *coordinator.State, asks *jobmanager.Failovers, r *coordinator.Replica) string {
	if arr := st.Arriving(r.Job.ID); arr != nil && arr.Phase == coordinator.ArrivalPrepared {
		return ""
	}
	if err := asks.Check(r); err != nil {
		return err.Error()
	}
	return ""
}

// keptHere is what is kept of a job of another site, as far as its snapshot and its logs
// tell.
func keptHere(st *coordinator.State, id coordinator.JobID, r *coordinator.Replica, said *said) api.Replica {
	out := api.Replica{Job: string(id), Name: r.Job.Name, From: string(r.From), To: string(st.Site)}
	if r.Next != nil {
		out.Fetching = r.Next.Name
	}
	switch {
	case r.Snapshot == nil:
		out.Why = "nothing is complete yet"
	case r.Restorable() == nil:
		out.Why = fmt.Sprintf("site %s went on with less of a log than %s may stand in", r.From, r.Snapshot.Name)
	default:
		out.Snapshot = r.Snapshot.Name
	}
	first := dataflow.MaxTime // heard of all logs: what was said of the others may be newer
	for i := range r.Job.Feeds {
		name := r.Job.NameAt(&r.Job.Feeds[i], r.From, st.Site, r.Moving)
		l, heard := said.logs[name]
		f := st.Feeds[name]
		switch {
		case f == nil:
		case f.Log.Epoch == 0:
			heard = heard && l.Epoch >= f.Made // what is known may be of a feed that had the name before
		case logepoch.Deserted(&f.Log, func(node mesh.NodeID) bool { return st.Agents[node] == nil }):
			out.Why, out.Unknown = cmp.Or(out.Why, fmt.Sprintf("no agent that has the log of feed %s is here", name)), true
			continue
		case st.Agents[f.Log.Owner] == nil || l.Epoch < f.Log.Epoch:
			heard = false // what is known is of a copy that is gone, or not of the one that counts now
		}
		home := r.Job.Feeds[i].Origin(r.From).Site == st.Site
		if !heard || l.Of == nil && !home {
			out.Why, out.Unknown = cmp.Or(out.Why, fmt.Sprintf("nothing is known of the log of feed %s yet", name)), true
			continue
		}
		if !home {
			entries, bytes, ms := api.LagOf(&l, said.now)
			out.Entries, out.Bytes, out.Time = out.Entries+entries, out.Bytes+bytes, max(out.Time, ms)
			out.Unknown = out.Unknown || l.Of.Heard == 0
			first = min(first, l.Of.Heard)
		}
		source, reads := sourceOf(st, id, name)
		if r.Restorable() == nil || !reads {
			continue
		}
		lanes := 0 // nobody knows
		if f != nil {
			if c, err := feed.ParseConfig(name, f.Config); err == nil {
				lanes = max(1, c.Lanes)
			}
		}
		for _, from := range standsIn(r, r.Job.Feeds[i].Name, source) {
			out.Why = cmp.Or(out.Why, lacking(name, lanesOf(&l, lanes), home, from))
		}
	}
	if first != dataflow.MaxTime {
		out.Heard = int64(first)
	}
	out.Restorable = out.Why == ""
	return out
}

// standsIn is where the sources of a replica's job that read a feed stand, by lane: name
// is what the job's site calls it. Only where the record does not say which source that
// is the job's text is read.
func standsIn(r *coordinator.Replica, name string, source dataflow.OperatorID) (all []map[int]int64) {
	sources := perSource(r.Snapshot)
	if source != "" || len(sources) < 2 {
		return []map[int]int64{positions(r.Snapshot, source)}
	}
	p, err := leader.Parse(r.Job.As(0))
	if err != nil {
		return []map[int]int64{positions(r.Snapshot, source)}
	}
	for _, use := range p.Feeds {
		if use.Feed == name {
			all = append(all, sources[use.Source])
		}
	}
	return all
}

// lanesOf is where a log is, by lane; nil: it is not known. An agent below GoesOnLevel
// does not say so: of a log of one lane it is the same as over all.
func lanesOf(l *coordinator.LogStatus, lanes int) []coordinator.LaneAt {
	if l.Lanes == nil && lanes == 1 {
		return []coordinator.LaneAt{{First: l.First, Next: l.Shown}}
	}
	return l.Lanes
}

// lacking is why a job cannot go on in a log from where it stands in each lane; empty:
// it can. home: the log is the one of which the job read a mirror, so it reaches as far.
func lacking(name string, lanes []coordinator.LaneAt, home bool, from map[int]int64) string {
	for _, lane := range slices.Sorted(maps.Keys(from)) {
		at := from[lane]
		switch {
		case lane >= len(lanes) && !home:
			return fmt.Sprintf("nothing is known of lane %d of the log of feed %s yet", lane, name)
		case lane < len(lanes):
			if why := lanes[lane].Lacks(name, lane, at, home); why != "" {
				return why
			}
		}
	}
	return ""
}

// keptThere is what another site says that it has of a job of this one, which reads these
// feeds.
func keptThere(st *coordinator.State, j *coordinator.Job, site mesh.Site, w *coordinator.WantedJob, at dataflow.Time, feeds []string, logs map[string]coordinator.LogStatus) api.Replica {
	out := api.Replica{Job: string(j.ID), Name: j.Name, From: string(st.Site), To: string(site), Snapshot: w.Has, Fetching: w.Next, Heard: int64(at)}
	if out.Why = w.Why; w.Has == "" {
		out.Why = cmp.Or(w.Why, "nothing is complete yet")
	}
	for _, name := range feeds {
		i := slices.IndexFunc(w.Ends, func(e coordinator.FeedEnd) bool { return e.Feed == name })
		if i < 0 {
			out.Why, out.Unknown = cmp.Or(out.Why, fmt.Sprintf("nothing is known there of the log of feed %s", name)), true
			continue
		}
		l, known := logs[name]
		out.Entries += max(0, l.End-w.Ends[i].End)
		out.Unknown = out.Unknown || !known
	}
	out.Restorable = out.Why == ""
	return out
}

// notKept is what there is to say of a job that another site is to keep, and does not name.
func notKept(st *coordinator.State, j *coordinator.Job, site mesh.Site, heard bool, at dataflow.Time) api.Replica {
	out := api.Replica{Job: string(j.ID), Name: j.Name, From: string(st.Site), To: string(site), Heard: int64(at), Unknown: true}
	if out.Why = fmt.Sprintf("site %s says nothing of it", site); !heard {
		out.Why = fmt.Sprintf("site %s has not said yet what it keeps", site)
	}
	return out
}
