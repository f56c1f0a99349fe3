package coordinator

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Replica is what a site keeps of a job that another one has, so that it could go
// on with it: for replicate_to, and for what an arriving job brings.
//
// Invariants: Snapshot only advances, unless it is cut, and is never taken away while
// the record is there; within an epoch Next only advances. Each part of Snapshot has a
// copy at this site, and, unless it is cut, the logs are here at least up to where it
// stands: the job could be restored from it at any time. It and its logs stay until
// another one is in force.
type Replica struct {
	Job   MovingJob `cbor:"1,keyasint"`
	From  mesh.Site `cbor:"2,keyasint"` // who has the job
	Epoch uint64    `cbor:"3,keyasint"` // at which From has it
	// Snapshot is the newest that is complete here: Copies are agents of this site.
	// nil: none is yet.
	Snapshot *Snapshot `cbor:"4,keyasint,omitempty"`
	// Ends is how far the logs were here when Snapshot came into force, at least. By
	// feed, as they are called at From.
	Ends []FeedEnd `cbor:"5,keyasint,omitempty"`
	// Next is what is being fetched: Copies has all its parts, with the agents of this
	// site that have them by now, which may be none. nil: nothing is.
	Next   *Snapshot     `cbor:"6,keyasint,omitempty"`
	Moving MoveID        `cbor:"7,keyasint,omitempty"` // an arrival keeps it; empty: replicate_to does
	Since  dataflow.Time `cbor:"8,keyasint"`           // when Snapshot came into force, or the record began, of the leader's wall clock, for people
	// Cut: who has the job now began with less of a log than was here when Snapshot came
	// into force, so that may stand in what is in no log any more. Its parts are of use.
	// SettledLevel.
	Cut bool `cbor:"9,keyasint,omitempty"`
	// Later is another site that is said to have the job, above Epoch, or at it: From may
	// not have it any more, and what is kept may be of no use. nil: none is. SettledLevel.
	Later *Tenure `cbor:"11,keyasint,omitempty"`
}

// Has is who is on record to have the job, at the greatest epoch.
func (r *Replica) Has() Tenure {
	if r.Later != nil {
		return *r.Later
	}
	return Tenure{Epoch: r.Epoch, Site: r.From}
}

// Restorable is its Snapshot, if the job can be restored from it; else nil.
func (r *Replica) Restorable() *Snapshot {
	if r.Cut {
		return nil
	}
	return r.Snapshot
}

// Named is its Snapshot or Next; nil: neither has the name.
func (r *Replica) Named(name string) *Snapshot {
	for _, s := range []*Snapshot{r.Snapshot, r.Next} {
		if s != nil && s.Name == name {
			return s
		}
	}
	return nil
}

// Kept are the snapshots that are kept of a job, without savepoints: its
// checkpoints here, and those of its replica, each name once, oldest first.
func (s *State) Kept(job JobID) (all []*Snapshot) {
	j, r := s.Jobs[job], s.Replicas[job]
	switch {
	case r == nil && j == nil:
		return nil
	case r == nil:
		return j.Checkpoints
	case j != nil:
		all = slices.Clone(j.Checkpoints)
	}
	for _, k := range []*Snapshot{r.Snapshot, r.Next} {
		if k != nil && !slices.ContainsFunc(all, func(o *Snapshot) bool { return o.Name == k.Name }) {
			all = append(all, k)
		}
	}
	slices.SortStableFunc(all, func(a, b *Snapshot) int {
		switch {
		case a.ID.Less(b.ID):
			return -1
		case b.ID.Less(a.ID):
			return 1
		}
		return 0
	})
	return all
}

// ReplicaOffered begins the record of a job that another site has, or changes what
// it says of it. A greater Epoch than the record's is another owner's, or that of
// the same one after a move: it replaces what was said of the job, and what was
// being fetched; a lower one is stale.
type ReplicaOffered struct {
	Job    MovingJob `cbor:"1,keyasint"`
	From   mesh.Site `cbor:"2,keyasint"`
	Epoch  uint64    `cbor:"3,keyasint"`
	Moving MoveID    `cbor:"4,keyasint,omitempty"`
}

// ReplicaNext begins to fetch a snapshot, which is not older than the one that is
// complete. Of its Copies the parts count, not the agents: who has a part here the
// state knows.
type ReplicaNext struct {
	Job      JobID     `cbor:"1,keyasint"`
	From     mesh.Site `cbor:"2,keyasint"`
	Epoch    uint64    `cbor:"3,keyasint"`
	Snapshot *Snapshot `cbor:"4,keyasint"`
	Replace  bool      `cbor:"5,keyasint,omitempty"` // another one that is being fetched, and cannot be had any more
}

// ReplicaAdvanced: each part of Next has its copies here, and the logs are durable
// here up to Ends, which is not before where it stands. It becomes Snapshot.
type ReplicaAdvanced struct {
	Job   JobID     `cbor:"1,keyasint"`
	From  mesh.Site `cbor:"2,keyasint"`
	Epoch uint64    `cbor:"3,keyasint"`
	Name  string    `cbor:"4,keyasint"` // of Next
	Ends  []FeedEnd `cbor:"5,keyasint,omitempty"`
}

// ReplicaMoved: the job of a record is said to be at another site, above the epoch that is
// known. What is kept stays until that site says something of it. SettledLevel.
type ReplicaMoved struct {
	Job   JobID     `cbor:"1,keyasint"`
	From  mesh.Site `cbor:"2,keyasint"`
	Epoch uint64    `cbor:"3,keyasint"` // of the record that is meant
	To    Tenure    `cbor:"4,keyasint"`
}

// ReplicaDropped drops the record of a job that its site does not want here any
// more, with all that was fetched.
type ReplicaDropped struct {
	Job   JobID     `cbor:"1,keyasint"`
	From  mesh.Site `cbor:"2,keyasint"`
	Epoch uint64    `cbor:"3,keyasint"` // of the record that is meant
	Why   string    `cbor:"4,keyasint,omitempty"`
}
