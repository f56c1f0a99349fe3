package coordinator

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// The loss of a site: another one takes its job, and what comes of it when the
// first is back. docs/MIGRATION.md has the rules.

// MaxEpochsAhead is how far an epoch of a job may be above the one that is known of it
// at a site: what is further ahead nobody has counted to. MaxEpoch bounds one of a job
// that is not known. Commands are refused by them from GoesOnLevel on only.
const (
	MaxEpochsAhead = 1 << 20
	MaxEpoch       = 1 << 62
)

// JobFailedOver makes a job this site's, at a greater epoch than anybody is known
// to have had it, without the word of the site that has it. SitesLevel.
//
// From another site: the job begins with what is kept of it here, Snapshot. From
// this one: it is here, and is quarantined or isolated; a person says that it goes on here.
type JobFailedOver struct {
	Job      JobID     `cbor:"1,keyasint"`
	From     mesh.Site `cbor:"2,keyasint"`           // who has it, as is known here
	Was      uint64    `cbor:"3,keyasint"`           // the epoch at which From has it
	Epoch    uint64    `cbor:"4,keyasint"`           // at which it is to be here
	Snapshot string    `cbor:"5,keyasint,omitempty"` // of Replica.Snapshot, where From is another site
	Forced   bool      `cbor:"6,keyasint,omitempty"` // though From was reached, or others may have it, or two of its feeds have one client id
	Why      string    `cbor:"7,keyasint,omitempty"` // a person's words
}

// JobClaimed: all sites that keep an isolated job have said that they have not taken
// it. SitesLevel.
type JobClaimed struct {
	Job   JobID  `cbor:"1,keyasint"`
	Epoch uint64 `cbor:"2,keyasint"`
	Term  uint64 `cbor:"3,keyasint"` // of the leader that asked
}

// JobQuarantined: another site has the job at the same epoch. Nobody can tell which
// of the two is right: neither runs it until a person has decided. SitesLevel.
type JobQuarantined struct {
	Job   JobID     `cbor:"1,keyasint"`
	Epoch uint64    `cbor:"2,keyasint"`
	Other mesh.Site `cbor:"3,keyasint"`
}

// OwnerNews is what the leader of a site says to that of another one about who has
// a job: what is in its replicated state, so it stays true, or somebody has the job
// at a greater epoch. Each may be lost, come twice or late.
type OwnerNews struct {
	Job   JobID     `cbor:"1,keyasint"`
	Epoch uint64    `cbor:"2,keyasint,omitempty"` // 0: nothing is known of the job
	Owner mesh.Site `cbor:"3,keyasint,omitempty"` // who has it at Epoch
	// Ask: answer with what is known there. An answer has Term and At of the question,
	// and is never answered.
	Ask  bool          `cbor:"4,keyasint,omitempty"`
	Term uint64        `cbor:"5,keyasint"` // of the leader that asks
	At   dataflow.Time `cbor:"6,keyasint"` // of its steady clock
	// Since is when Owner got it, by the wall clock of its leader, for people; 0: that is
	// not known.
	Since dataflow.Time `cbor:"7,keyasint,omitempty"`
}

// Quarantine is why a job is quarantined, for people.
func Quarantine(other mesh.Site) string {
	return "site " + string(other) + " has it too, at the same epoch: look which of the two is to go on, and say so there, with force"
}
