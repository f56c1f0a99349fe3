package jobmanager

import (
	"bytes"
	"cmp"
	"slices"
	"sort"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

func (a *apply) checkpointDone(c *coordinator.CheckpointDone) error {
	if c.Checkpoint == nil && c.Savepoint == nil {
		return refuse(ErrRefused, "neither a checkpoint nor a savepoint")
	}
	of := c.Checkpoint
	if of == nil {
		of = c.Savepoint
	}
	job, err := a.job(of.Job)
	if err != nil {
		return err
	}
	if newest := job.Newest(); newest != nil && c.Checkpoint != nil && newest.ID == of.ID && newest.Name == c.Checkpoint.Name {
		return nil // it was said before
	}
	if err := a.checkDone(job, of.ID, c); err != nil {
		return err
	}
	if c.Checkpoint != nil {
		next := *job
		next.Begin = "" // not needed any more
		if a.Level >= coordinator.AdoptLevel {
			next.Completed++
		}
		next.Checkpoints = nil
		for _, k := range job.Checkpoints {
			if !slices.Contains(c.Release, k.Name) || a.begun(job, k) {
				next.Checkpoints = append(next.Checkpoints, k)
			}
		}
		next.Checkpoints = append(next.Checkpoints, ownSnapshot(c.Checkpoint))
		next.Checkpoints = slices.Clone(next.Checkpoints[max(0, len(next.Checkpoints)-MaxCheckpoints):])
		a.put(&next)
	}
	if c.Savepoint != nil {
		s := ownSnapshot(c.Savepoint)
		s.Stands = a.stands(job)
		a.Savepoints[s.Name] = s
		a.changed(Savepoint, c.Savepoint.Name)
	}
	return nil
}

// begun tells whether a live job still begins with a checkpoint of another one.
func (a *apply) begun(job *coordinator.Job, c *coordinator.Snapshot) bool {
	name := string(job.ID) + "/" + c.Name
	return a.Level >= coordinator.AdoptLevel && a.beginsWith(func(from string) bool { return from == name }) != ""
}

func (a *apply) checkDone(job *coordinator.Job, id dataflow.CheckpointID, c *coordinator.CheckpointDone) error {
	switch newest := job.Newest(); {
	case c.Attempt != job.Attempt || id.Token != job.Token(a.Site):
		return refuse(ErrStale, "job %s: a checkpoint of attempt %d, and %d is the present one", job.ID, c.Attempt, job.Attempt)
	case job.Status != coordinator.Running && job.Status != coordinator.Stopping:
		return refuse(ErrStale, "job %s is %s: no checkpoint of it can complete", job.ID, job.Status)
	case newest != nil && !newest.ID.Less(id):
		return refuse(ErrStale, "job %s: checkpoint %d is not newer than %q", job.ID, id.Counter, newest.Name)
	}
	for _, s := range []*coordinator.Snapshot{c.Checkpoint, c.Savepoint} {
		if s == nil {
			continue
		}
		if s.Job != job.ID || s.ID != id {
			return refuse(ErrRefused, "job %s: the checkpoint and the savepoint are of two barriers", job.ID)
		}
		if err := checkSnapshot(s); err != nil {
			return err
		}
	}
	if c.Checkpoint != nil && job.Checkpoint(c.Checkpoint.Name) != nil {
		return refuse(ErrExists, "job %s: checkpoint %q is there already", job.ID, c.Checkpoint.Name)
	}
	if c.Savepoint != nil {
		return a.roomFor(c.Savepoint.Name)
	}
	return nil
}

// roomFor checks that a savepoint of this name can be kept.
func (a *apply) roomFor(name string) error {
	switch {
	case a.Savepoints[name] != nil:
		return refuse(ErrExists, "savepoint %q is there already", name)
	case len(a.Savepoints) >= MaxSavepoints:
		return refuse(ErrRefused, "there are %d savepoints: delete some first", MaxSavepoints)
	}
	return nil
}

func checkSnapshot(s *coordinator.Snapshot) error {
	if err := manifest.CheckName(s.Name); err != nil {
		return refuse(ErrRefused, "the name %q: use 1 to 128 letters, digits, '-', '_', '.', and a letter or digit first", s.Name)
	}
	if len(s.Manifest) > manifest.MaxBytes || max(len(s.Job), len(s.Request)) > MaxName || len(s.ID.Token.Site) > MaxName {
		return refuse(ErrRefused, "%q: a text is too long, or the manifest has more than %d bytes", s.Name, manifest.MaxBytes)
	}
	return nil
}

// ownSnapshot is a copy that nobody else can change.
func ownSnapshot(s *coordinator.Snapshot) *coordinator.Snapshot {
	own := *s
	own.Manifest = bytes.Clone(s.Manifest)
	own.Copies, own.Stands = slices.Clone(s.Copies), nil // nobody says where it stands but this site
	for i := range own.Copies {
		own.Copies[i].Nodes = cloneNodes(own.Copies[i].Nodes)
	}
	return &own
}

func (a *apply) sinkCommitted(c *coordinator.SinkCommitted) error {
	job, err := a.job(c.Job)
	if err != nil {
		return err
	}
	if c.Attempt != job.Attempt {
		return refuse(ErrStale, "job %s: commits of attempt %d, and %d is the present one", job.ID, c.Attempt, job.Attempt)
	}
	present := job.Token(a.Site)
	for _, s := range c.Commits {
		switch {
		case present.Less(s.Through.Token):
			return refuse(ErrRefused, "job %s: a commit of attempt %d, which has not begun", job.ID, s.Through.Token.Attempt)
		case len(s.Target) > MaxText || len(s.Operator) > MaxName || len(s.Through.Token.Site) > MaxName || s.Length < 0:
			return refuse(ErrRefused, "job %s: a commit of a target that is too long, or of less than nothing", job.ID)
		}
	}
	type key struct {
		operator dataflow.OperatorID
		node     string
		target   string
	}
	at := make(map[key]int, len(job.Sinks))
	sinks := slices.Clone(job.Sinks)
	for i, s := range sinks {
		at[key{s.Operator, string(s.Node), s.Target}] = i
	}
	for _, s := range c.Commits {
		if a.Agents[s.Node] == nil {
			continue // it left: what it has is nobody's business any more
		}
		k := key{s.Operator, string(s.Node), s.Target}
		if i, ok := at[k]; !ok {
			a.disown(s.Node, s.Target)
			at[k] = len(sinks)
			sinks = append(sinks, s)
		} else if old := sinks[i]; !s.Through.Less(old.Through) || a.undone(job, old, s) {
			if a.Level < coordinator.SettledLevel || s.Through == old.Through {
				s.Length = max(s.Length, old.Length)
			}
			sinks[i] = s
		}
	}
	sinks = trimSinks(sinks)
	if slices.Equal(sinks, job.Sinks) {
		return nil
	}
	next := *job
	next.Sinks = sinks
	a.put(&next)
	return nil
}

// undone tells whether what is on record of a target is of what the job did not go on
// from: it began with an older savepoint, or was taken with less than was committed here.
// The present attempt says what it found, and that counts, as long as it has committed
// nothing itself.
func (a *apply) undone(job *coordinator.Job, old, now coordinator.SinkCommit) bool {
	from := a.Snapshot(job, job.From)
	return a.Level >= coordinator.SettledLevel && from != nil && now.Through == from.ID && from.ID.Less(old.Through) && old.Through.Token != job.Token(a.Site)
}

// disown takes a target from jobs that have ended: a live one has it now, and it
// must not be cut back to what they made of it.
func (a *apply) disown(node mesh.NodeID, target string) {
	if a.Level < coordinator.AdoptLevel {
		return
	}
	of := func(s coordinator.SinkCommit) bool { return s.Node == node && s.Target == target }
	for _, id := range sorted(a.Jobs) {
		if old := a.Jobs[id]; old.Status.Ended() && slices.ContainsFunc(old.Sinks, of) {
			next := *old
			next.Sinks = slices.DeleteFunc(slices.Clone(old.Sinks), of)
			a.put(&next)
		}
	}
}

// trimSinks puts commits in order, and lets those go that are oldest where there
// are too many.
func trimSinks(sinks []coordinator.SinkCommit) []coordinator.SinkCommit {
	byName := func(i, j int) bool {
		x, y := &sinks[i], &sinks[j]
		return cmp.Or(cmp.Compare(x.Operator, y.Operator), cmp.Compare(x.Node, y.Node), cmp.Compare(x.Target, y.Target)) < 0
	}
	sort.Slice(sinks, byName)
	if len(sinks) <= MaxSinks {
		return sinks
	}
	sort.SliceStable(sinks, func(i, j int) bool { return sinks[j].Through.Less(sinks[i].Through) })
	sinks = slices.Clone(sinks[:MaxSinks])
	sort.Slice(sinks, byName)
	return sinks
}

func (a *apply) savepointAdded(c *coordinator.Snapshot) error {
	if err := checkSnapshot(c); err != nil {
		return err
	}
	if err := a.roomFor(c.Name); err != nil {
		return err
	}
	a.Savepoints[c.Name] = ownSnapshot(c)
	a.changed(Savepoint, c.Name)
	return nil
}

func (a *apply) savepointDeleted(c *coordinator.SavepointDeleted) error {
	if a.Savepoints[c.Name] == nil {
		return refuse(ErrUnknown, "no savepoint %q", c.Name)
	}
	if by := a.beginsWith(func(from string) bool { return from == c.Name }); by != "" {
		return refuse(ErrRefused, "savepoint %q: job %s begins with it, and has no checkpoint of its own yet", c.Name, by)
	}
	if by := a.movesWith(c.Name); by != "" {
		return refuse(ErrRefused, "savepoint %q: a job moves with it, by %s", c.Name, by)
	}
	delete(a.Savepoints, c.Name)
	a.changed(Savepoint, c.Name)
	a.dropFeeds()
	return nil
}

// halted are the savepoints with which jobs were stopped for moves that are not decided.
func (a *apply) halted() map[coordinator.MoveID]string {
	all := make(map[coordinator.MoveID]string)
	for id, d := range a.Moves.Departures {
		switch j := a.Jobs[d.Job]; {
		case d.Phase.Decided():
		case d.Savepoint != "":
			all[id] = d.Savepoint
		case j == nil || j.Move != id || j.Newest() == nil:
		case j.Status == coordinator.Suspended:
			all[id] = j.Savepoint
		default: // it has stopped, and not all of its agents have ended it
			all[id] = a.savepointAt(j)
		}
	}
	return all
}

// savepointAt is the savepoint of the barrier of a job's newest checkpoint; empty: there
// is none.
func (a *apply) savepointAt(j *coordinator.Job) string {
	for _, name := range sorted(a.Savepoints) {
		if s := a.Savepoints[name]; s.Job == j.ID && s.ID == j.Newest().ID {
			return name
		}
	}
	return ""
}

// dropHalted drops those of moves that are decided now. The job has a checkpoint of the
// same barrier, or another site has the job; log and parts would be kept for it until a
// person deletes it. One that somebody asked for, or begins with, stays.
func (a *apply) dropHalted(halted map[coordinator.MoveID]string) {
	if a.Level < coordinator.SettledLevel {
		return
	}
	for _, id := range sorted(halted) {
		d, name := a.Moves.Departures[id], halted[id]
		s := a.Savepoints[name]
		if d == nil || !d.Phase.Decided() || s == nil || s.Job != d.Job || s.Request != "" || a.movesWith(name) != "" || a.beginsWith(func(from string) bool { return from == name }) != "" {
			continue
		}
		delete(a.Savepoints, name)
		a.changed(Savepoint, name)
		a.dropFeeds()
	}
}

func (a *apply) copiesChanged(c *coordinator.CopiesChanged) error {
	if a.Of(c.Job, c.Name) == nil {
		return refuse(ErrUnknown, "no snapshot %q is kept", c.Name)
	}
	if c.Job == "" {
		next, err := withCopies(a.Savepoints[c.Name], c)
		if err == nil {
			a.Savepoints[c.Name] = next
			a.changed(Savepoint, c.Name)
		}
		return err
	}
	// What a job and its replica keep under one name is one snapshot, of the same
	// parts: if the first is refused the second would be, too.
	if job := a.Jobs[c.Job]; job != nil && job.Checkpoint(c.Name) != nil {
		old := job.Checkpoint(c.Name)
		next, err := withCopies(old, c)
		if err != nil {
			return err
		}
		changed := *job
		changed.Checkpoints = slices.Clone(job.Checkpoints)
		changed.Checkpoints[slices.Index(job.Checkpoints, old)] = next
		a.put(&changed)
	}
	if r := a.Replicas[c.Job]; r != nil && r.Named(c.Name) != nil {
		return a.replicaCopies(r, c)
	}
	return nil
}

// withCopies is a snapshot with the copies that a command says.
func withCopies(old *coordinator.Snapshot, c *coordinator.CopiesChanged) (*coordinator.Snapshot, error) {
	next := ownSnapshot(old)
	next.Stands = old.Stands
	at := make(map[[32]byte]int, len(next.Copies))
	for i, p := range next.Copies {
		at[p.Part] = i
	}
	for _, p := range c.Copies {
		i, ok := at[p.Part]
		switch {
		case !ok:
			return nil, refuse(ErrUnknown, "snapshot %q has no part %s", c.Name, p.Part)
		case len(p.Nodes) > MaxAgents:
			return nil, refuse(ErrRefused, "snapshot %q: part %s is to be on %d agents", c.Name, p.Part, len(p.Nodes))
		}
		next.Copies[i].Nodes = cloneNodes(p.Nodes)
	}
	return next, nil
}
