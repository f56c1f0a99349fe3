package coordinator

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// The leader of a site asks that of another one, again and again, what it should
// keep of its jobs: Want, answered by Offer. Each may be lost, come twice or late:
// both say what is in a replicated state. docs/REPLICATION.md has the bytes.

// Want is what a site asks, and what it has.
type Want struct {
	Site mesh.Site   `cbor:"1,keyasint"` // that asks
	Jobs []WantedJob `cbor:"2,keyasint,omitempty"`
	// Settled: its state is at SettledLevel, and takes a job's whole text; else as
	// MovingJob.Plain has it. Who knows SettledLevel is told.
	Settled bool `cbor:"3,keyasint,omitempty"`
}

// WantedJob is the record of a job of the site that is asked, at the one that asks.
type WantedJob struct {
	Job   JobID        `cbor:"1,keyasint"`
	Epoch uint64       `cbor:"2,keyasint"`
	Text  store.Digest `cbor:"3,keyasint"`           // of the MovingJob that it knows, as codec.TextOf makes it
	Has   string       `cbor:"4,keyasint,omitempty"` // the snapshot that is complete there
	Next  string       `cbor:"5,keyasint,omitempty"` // the one that is fetched: it is to be kept until it is
	Where bool         `cbor:"6,keyasint,omitempty"` // who has parts of Next is not known there, or is not so
	Ends  []FeedEnd    `cbor:"7,keyasint,omitempty"` // of the logs there
	Why   string       `cbor:"9,keyasint,omitempty"` // the job could not go on there, as was found some seconds ago, for people; who knows SettledLevel is told
	// Later is Replica.Later. If it is the site that is asked, that is asked only whether
	// the copy is to stay. Who knows SettledLevel is told.
	Later *Tenure `cbor:"10,keyasint,omitempty"`
}

// Known is the greatest epoch at which somebody is known there to have the job.
func (w *WantedJob) Known() uint64 {
	if w.Later != nil {
		return w.Later.Epoch
	}
	return w.Epoch
}

// At tells whether the job is a site's by what was heard of it only: what is kept was not
// offered by that.
func (w *WantedJob) At(site mesh.Site) bool { return w.Later != nil && w.Later.Site == site }

// Offer is what a site has for the one that asked.
type Offer struct {
	Site  mesh.Site    `cbor:"1,keyasint"`
	Index uint64       `cbor:"2,keyasint"` // of the state that it is made of
	Jobs  []OfferedJob `cbor:"3,keyasint,omitempty"`
	Gone  []GoneJob    `cbor:"4,keyasint,omitempty"`
	Moved []MovedJob   `cbor:"5,keyasint,omitempty"` // who knows SettledLevel is told
}

// OfferedJob is a job that is to be kept at the site that asked.
type OfferedJob struct {
	Job    JobID      `cbor:"1,keyasint"`
	Epoch  uint64     `cbor:"2,keyasint"`
	Moving MoveID     `cbor:"3,keyasint,omitempty"` // it is to go there
	Text   *MovingJob `cbor:"4,keyasint,omitempty"` // nil: it is as the one who asked knows it
	// Newest are complete snapshots that are newer than the one that is complete there,
	// oldest first, with the agents here that have their parts: the newest, and before
	// it one that has what the newest was merged from, if there is one.
	Newest []*Snapshot `cbor:"5,keyasint,omitempty"`
	// Copies are the agents here that have parts of WantedJob.Next, where that was
	// asked for.
	Copies []PartCopies `cbor:"6,keyasint,omitempty"`
	Lost   bool         `cbor:"7,keyasint,omitempty"` // WantedJob.Next is not kept here any more
}

// GoneJob is a job that is not to be kept there any more.
type GoneJob struct {
	Job   JobID  `cbor:"1,keyasint"`
	Epoch uint64 `cbor:"2,keyasint"` // of the record at the site that asked
	Why   string `cbor:"3,keyasint"`
}

// MovedJob is a job that was here, and that another site has by now.
type MovedJob struct {
	Job   JobID  `cbor:"1,keyasint"`
	Epoch uint64 `cbor:"2,keyasint"` // of the record at the site that asked
	To    Tenure `cbor:"3,keyasint"`
}

// Lag is how far a site is behind with the logs of a job of another one, as far as
// was heard.
type Lag struct {
	Rows  int64             // sequence numbers, of all its feeds
	Bytes int64             // of payloads and topics
	Time  dataflow.Duration // of the arrival clock, of the feed that is most behind
}
