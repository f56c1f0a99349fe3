package coordinator

import (
	"slices"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Mirror names the feed that another site's feed is a copy of: the same groups
// under the same sequence numbers, but for the epochs, which are each site's own.
type Mirror struct {
	Site mesh.Site `cbor:"1,keyasint"`
	Feed string    `cbor:"2,keyasint"`
}

// Reign is the time in which one site had the session of a feed: the log grew
// there and nowhere else. Entries from Start on, up to the start of the next, are
// that site's.
type Reign struct {
	Epoch uint64    `cbor:"1,keyasint"` // of the job at its owner; two reigns of a feed have different ones, or different sites
	Site  mesh.Site `cbor:"2,keyasint"`
	Start int64     `cbor:"3,keyasint"` // sequence number
}

// Fork is where a log left what it is to be: from At on it has entries that the
// newest reign does not have.
type Fork struct {
	At int64 `cbor:"1,keyasint"`
}

// LineageOf is the lineage of a feed of site: one that never was anywhere else had
// one reign.
func LineageOf(f *Feed, site mesh.Site) []Reign {
	if len(f.Lineage) > 0 || f.Mirror != nil {
		return slices.Clone(f.Lineage)
	}
	return []Reign{{Epoch: 1, Site: site}}
}

// Turned tells whether a log's present epoch is not as the feed is to be: another
// one must begin, whoever owns it.
func (f *Feed) Turned() bool {
	if f.Log.Epoch == 0 {
		return false
	}
	same := f.Mirror == nil && f.Log.Mirror == nil || f.Mirror != nil && f.Log.Mirror != nil && *f.Mirror == *f.Log.Mirror
	return !same || f.Reigns != 0 || f.Fork != nil
}
