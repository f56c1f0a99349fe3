package jobmanager

import (
	"bytes"
	"reflect"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// Keeps says why a site would refuse to keep what is offered, as its state is now.
// Where it does, nothing needs to be written to its log.
func Keeps(st *coordinator.State, c *coordinator.ReplicaOffered) error {
	_, err := (&apply{State: st, c: &coordinator.Command{ReplicaOffered: c}}).kept(c)
	return err
}

func (a *apply) replicaOffered(c *coordinator.ReplicaOffered) error {
	old := a.Replicas[c.Job.ID]
	next, err := a.kept(c)
	if err != nil || next == old {
		return err
	}
	if err := a.mirrors(c); err != nil {
		return err
	}
	a.putReplica(next)
	if old != nil && a.Level >= coordinator.SettledLevel && a.Arriving(c.Job.ID) == nil { // who has the job now may have its feeds elsewhere
		a.dropMirrors(func(f *coordinator.Feed) bool { return mirrorsFor(old, f) && !mirrorsFor(next, f) })
	}
	return nil
}

// kept is the record of a job as it is to be; the one that there is: nothing changes.
func (a *apply) kept(c *coordinator.ReplicaOffered) (*coordinator.Replica, error) {
	if err := a.checkOffered(c); err != nil {
		return nil, err
	}
	if err := a.checkPromised(c); err != nil {
		return nil, err
	}
	old := a.Replicas[c.Job.ID]
	next := &coordinator.Replica{Job: ownJob(&c.Job), From: c.From, Epoch: c.Epoch, Moving: c.Moving, Since: a.c.At}
	switch {
	case old == nil && len(a.Replicas) >= MaxReplicated:
		return nil, refuse(ErrRefused, "%d jobs of other sites are kept here: let some of them go there first", MaxReplicated)
	case old == nil:
	case c.Epoch < old.Epoch:
		return nil, refuse(ErrStale, "job %s: site %s has it at epoch %d, and this is of epoch %d", c.Job.ID, old.From, old.Epoch, c.Epoch)
	case c.Epoch == old.Epoch && c.From != old.From:
		return nil, refuse(ErrRefused, "job %s: sites %s and %s both say that they have it at epoch %d", c.Job.ID, old.From, c.From, c.Epoch)
	default:
		// What it could be restored from stays, whoever took it: until there is something
		// newer there is nothing else.
		next.Snapshot, next.Ends, next.Since, next.Cut = old.Snapshot, old.Ends, old.Since, old.Cut || a.cut(old, next)
		if c.Epoch == old.Epoch && !a.relived(old, next) {
			next.Next = old.Next
		}
		if l := old.Later; l != nil && (l.Epoch > c.Epoch || l.Epoch == c.Epoch && l.Site != c.From) {
			next.Later = l
		}
		if reflect.DeepEqual(next, old) {
			return old, nil
		}
	}
	return next, a.checkMirrors(c)
}

// checkPromised: what a prepared move needs stays as it is until that is decided. Who has
// the job by then, at the epoch at which it is to come or above, is followed afterwards.
func (a *apply) checkPromised(c *coordinator.ReplicaOffered) error {
	if arr := a.Arriving(c.Job.ID); a.Level >= coordinator.SettledLevel && arr != nil && arr.Holds(c) {
		return refuse(ErrStale, "job %s is prepared here, by %s, and needs what was fetched: site %s has it at epoch %d, and is followed when that is decided", c.Job.ID, arr.ID, c.From, c.Epoch)
	}
	return nil
}

// mirrorsFor tells whether what is kept of a job needs a mirror.
func mirrorsFor(r *coordinator.Replica, f *coordinator.Feed) bool {
	return slices.ContainsFunc(r.Job.Feeds, func(m coordinator.MovingFeed) bool { return m.Origin(r.From) == *f.Mirror })
}

// relived tells whether who has a job was recovered, and a log of it began a reign with
// that: what is being fetched may stand in what is in no log any more.
func (a *apply) relived(old, next *coordinator.Replica) bool {
	return a.Level >= coordinator.SettledLevel && slices.ContainsFunc(next.Job.Feeds, func(f coordinator.MovingFeed) bool {
		i := slices.IndexFunc(old.Job.Feeds, func(o coordinator.MovingFeed) bool { return o.Name == f.Name })
		return i >= 0 && newest(f.Reigns(next.From)).Relives(newest(old.Job.Feeds[i].Reigns(old.From)))
	})
}

// cut tells whether who has a job now, at a greater epoch or recovered, began with less of
// one of its logs than was here when a replica's snapshot came into force. Where in the logs
// that stands is known by lane only.
func (a *apply) cut(old, next *coordinator.Replica) bool {
	if a.Level < coordinator.SettledLevel || old.Snapshot == nil || next.Epoch == old.Epoch && !a.relived(old, next) {
		return false
	}
	for i := range old.Job.Feeds {
		f := &old.Job.Feeds[i]
		names := []string{f.Name, coordinator.MirrorName(f.Name, old.From)} // a shared one that was taken
		j := slices.IndexFunc(next.Job.Feeds, func(o coordinator.MovingFeed) bool { return slices.Contains(names, o.Name) })
		e := slices.IndexFunc(old.Ends, func(o coordinator.FeedEnd) bool { return o.Feed == f.Name })
		if j >= 0 && e >= 0 && logepoch.Common(f.Reigns(old.From), next.Job.Feeds[j].Reigns(next.From)) < old.Ends[e].End {
			return true
		}
	}
	return false
}

func (a *apply) checkOffered(c *coordinator.ReplicaOffered) error {
	m := &c.Job
	if err := manifest.CheckName(string(m.ID)); err != nil {
		return refuse(ErrRefused, "the job's id %q: it is none", m.ID)
	}
	switch here, known := a.Jobs[m.ID], a.Tenure(m.ID); {
	case c.From == a.Site || c.From == "" || len(c.From) > MaxName || c.Epoch == 0 || c.Epoch > a.maxEpoch():
		return refuse(ErrRefused, "job %s: a replica of site %q at epoch %d", m.ID, c.From, c.Epoch)
	case here != nil && !here.Status.Ended():
		return refuse(ErrRefused, "job %s is at this site, and %s: no other has it", m.ID, here.Status)
	case known.Epoch > c.Epoch:
		return refuse(ErrStale, "job %s: site %s had it at epoch %d, and site %s has it at %d", m.ID, known.Site, known.Epoch, c.From, c.Epoch)
	case max(len(m.Name), len(m.Namespace), len(c.Moving)) > MaxName || len(m.Spec) > MaxSpec:
		return refuse(ErrRefused, "job %s: the spec has more than %d bytes, or a text is too long", m.ID, MaxSpec)
	case m.Parallelism < 0 || m.Parallelism > dataflow.MaxMaxParallelism:
		return refuse(ErrRefused, "job %s: a parallelism of %d", m.ID, m.Parallelism)
	case len(m.Sets) > 2*MaxSets || slices.ContainsFunc(m.Sets, func(s string) bool { return len(s) > MaxText }):
		return refuse(ErrRefused, "job %s: more than %d settings, or one of more than %d bytes", m.ID, 2*MaxSets, MaxText)
	case max(len(m.Feeds), len(m.Reads), len(m.Adopted)) > 2*MaxSources || len(m.History) > MaxHistory:
		return refuse(ErrRefused, "job %s: more than %d feeds, or than %d sites that had it", m.ID, 2*MaxSources, MaxHistory)
	}
	for i, f := range m.Feeds {
		if manifest.CheckName(f.Name) != nil || len(f.Config) > MaxSpec || slices.ContainsFunc(m.Feeds[:i], func(o coordinator.MovingFeed) bool { return o.Name == f.Name }) {
			return refuse(ErrRefused, "job %s: feed %q is there twice, or its name or its config is too long", m.ID, f.Name)
		}
		if f.Replicas < 0 || f.Replicas > MaxReplicas {
			return refuse(ErrRefused, "job %s: feed %q has %d replicas; 1 to %d are possible", m.ID, f.Name, f.Replicas, MaxReplicas)
		}
	}
	return nil
}

// ownJob is a copy that nobody else can change.
func ownJob(m *coordinator.MovingJob) coordinator.MovingJob {
	own := *m
	own.Spec, own.Sets, own.Feeds = bytes.Clone(m.Spec), slices.Clone(m.Sets), slices.Clone(m.Feeds)
	own.Reads, own.Adopted, own.History = slices.Clone(m.Reads), slices.Clone(m.Adopted), slices.Clone(m.History)
	for i := range own.Feeds {
		own.Feeds[i].Config, own.Feeds[i].Lineage = bytes.Clone(own.Feeds[i].Config), slices.Clone(own.Feeds[i].Lineage)
	}
	return own
}

// replica finds the record that a command is about, as it was when it was decided.
func (a *apply) replica(job coordinator.JobID, from mesh.Site, epoch uint64) (*coordinator.Replica, error) {
	switch r := a.Replicas[job]; {
	case r == nil:
		return nil, refuse(ErrUnknown, "nothing is kept here of job %q of another site", job)
	case r.From != from || r.Epoch != epoch:
		return nil, refuse(ErrStale, "job %s: site %s has it at epoch %d, and this is of site %s at epoch %d", job, r.From, r.Epoch, from, epoch)
	default:
		return r, nil
	}
}

func (a *apply) putReplica(r *coordinator.Replica) {
	a.Replicas[r.Job.ID] = r
	delete(a.Forgotten, r.Job.ID)
	a.changed(Replica, string(r.Job.ID))
}

func (a *apply) replicaNext(c *coordinator.ReplicaNext) error {
	r, err := a.replica(c.Job, c.From, c.Epoch)
	if err != nil {
		return err
	}
	s := c.Snapshot
	if s == nil || s.Job != c.Job {
		return refuse(ErrRefused, "job %s: a snapshot of another job, or none", c.Job)
	}
	if err := checkSnapshot(s); err != nil {
		return err
	}
	old := r.Next
	switch {
	case old != nil && old.Name == s.Name:
		return nil // it was said before
	case r.Restorable() != nil && (r.Snapshot.Name == s.Name || s.ID.Less(r.Snapshot.ID)):
		return refuse(ErrStale, "job %s: %q is complete here, and %q is not newer", c.Job, r.Snapshot.Name, s.Name)
	case old != nil && !c.Replace:
		return refuse(ErrStale, "job %s: %q is being fetched", c.Job, old.Name)
	case old != nil && s.ID.Less(old.ID):
		return refuse(ErrStale, "job %s: %q is being fetched, and %q is older", c.Job, old.Name, s.Name)
	}
	next := *r
	next.Next = a.here(r, s)
	a.putReplica(&next)
	return nil
}

// here is a snapshot of another site with the copies that this one has of its
// parts already.
func (a *apply) here(r *coordinator.Replica, s *coordinator.Snapshot) *coordinator.Snapshot {
	kept := []*coordinator.Snapshot{r.Snapshot, r.Next}
	if j := a.Jobs[s.Job]; j != nil { // it was here once
		kept = append(kept, j.Checkpoints...)
	}
	copies := make(map[store.Digest][]mesh.NodeID)
	for _, k := range kept {
		if k != nil {
			for _, p := range k.Copies {
				copies[p.Part] = append(copies[p.Part], p.Nodes...)
			}
		}
	}
	own := ownSnapshot(s)
	for i := range own.Copies {
		p := &own.Copies[i]
		p.Nodes = slices.DeleteFunc(slices.Clone(copies[p.Part]), func(n mesh.NodeID) bool { return a.Agents[n] == nil })
		slices.Sort(p.Nodes)
		p.Nodes = slices.Compact(p.Nodes)
	}
	return own
}

func (a *apply) replicaAdvanced(c *coordinator.ReplicaAdvanced) error {
	r, err := a.replica(c.Job, c.From, c.Epoch)
	switch {
	case err != nil:
		return err
	case r.Restorable() != nil && r.Snapshot.Name == c.Name:
		return nil // it was said before
	case r.Next == nil || r.Next.Name != c.Name:
		return refuse(ErrStale, "job %s: %q is not what is being fetched", c.Job, c.Name)
	case len(c.Ends) != len(r.Job.Feeds):
		return refuse(ErrStale, "job %s: it has %d feeds, and the ends of %d are said", c.Job, len(r.Job.Feeds), len(c.Ends))
	}
	for _, f := range r.Job.Feeds {
		if !slices.ContainsFunc(c.Ends, func(e coordinator.FeedEnd) bool { return e.Feed == f.Name && e.End >= 0 }) {
			return refuse(ErrStale, "job %s: nothing is said of where the log of feed %q ends here", c.Job, f.Name)
		}
		if m := a.Feeds[r.Job.NameAt(&f, r.From, a.Site, r.Moving)]; f.Origin(r.From).Site != a.Site && (m == nil || m.Mirror == nil) {
			return refuse(ErrStale, "job %s: the log of feed %q here is no copy of site %s's any more", c.Job, f.Name, r.From)
		} else if a.Level >= coordinator.SettledLevel && m != nil && logepoch.Common(coordinator.LineageOf(m, a.Site), f.Reigns(r.From)) == 0 {
			return refuse(ErrStale, "job %s: the log of feed %q here is of another feed of that name", c.Job, f.Name)
		}
	}
	for _, p := range r.Next.Copies {
		if !slices.ContainsFunc(p.Nodes, func(n mesh.NodeID) bool { return a.Agents[n] != nil }) {
			return refuse(ErrStale, "job %s: no agent of this site has part %s of %q", c.Job, p.Part, c.Name)
		}
	}
	next := *r
	next.Snapshot, next.Ends, next.Next, next.Since, next.Cut = r.Next, slices.Clone(c.Ends), nil, a.c.At, false
	a.putReplica(&next)
	return nil
}

// replicaMoved notes who is said to have the job by now.
func (a *apply) replicaMoved(c *coordinator.ReplicaMoved) error {
	r, err := a.replica(c.Job, c.From, c.Epoch)
	switch {
	case err != nil:
		return err
	case c.To.Site == "" || c.To.Site == a.Site || len(c.To.Site) > MaxName || c.To.Epoch > coordinator.MaxEpoch:
		return refuse(ErrRefused, "job %s: site %q is said to have it, at epoch %d", c.Job, c.To.Site, c.To.Epoch)
	case c.To.Epoch <= r.Has().Epoch:
		return refuse(ErrStale, "job %s: site %s has it at epoch %d, and this is of epoch %d", c.Job, r.Has().Site, r.Has().Epoch, c.To.Epoch)
	case c.To.Epoch-r.Has().Epoch > coordinator.MaxEpochsAhead:
		return refuse(ErrRefused, "job %s: nobody has counted from epoch %d to %d", c.Job, r.Has().Epoch, c.To.Epoch)
	}
	next, to := *r, c.To
	next.Later = &to
	a.putReplica(&next)
	return nil
}

func (a *apply) replicaDropped(c *coordinator.ReplicaDropped) error {
	r, err := a.replica(c.Job, c.From, c.Epoch)
	if err != nil {
		return err
	}
	if arr := a.Moves.Arrivals[r.Moving]; arr != nil && !arr.Phase.Decided() {
		return refuse(ErrStale, "job %s is on its way here, by %s, and needs what was fetched", c.Job, r.Moving)
	}
	delete(a.Replicas, c.Job)
	a.changed(Replica, string(c.Job))
	a.dropFeeds()
	a.dropMirrors(func(f *coordinator.Feed) bool { return mirrorsFor(r, f) })
	return nil
}

// replicaCopies changes the copies of a replica's snapshots of this name.
func (a *apply) replicaCopies(r *coordinator.Replica, c *coordinator.CopiesChanged) error {
	next := *r
	for _, s := range []**coordinator.Snapshot{&next.Snapshot, &next.Next} {
		if *s == nil || (*s).Name != c.Name {
			continue
		}
		var err error
		if *s, err = withCopies(*s, c); err != nil {
			return err
		}
	}
	a.putReplica(&next)
	return nil
}
