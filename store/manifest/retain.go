package manifest

import (
	"bytes"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
)

// Less orders checkpoints by when they were taken: by fencing token, then by
// counter.
func Less(a, b dataflow.CheckpointID) bool {
	if a.Token != b.Token {
		return a.Token.Less(b.Token)
	}
	return a.Counter < b.Counter
}

// Restored is from where the present deployment of a job began.
type Restored struct {
	Name  string                // of the checkpoint; empty: from none, or from a savepoint
	Token dataflow.FencingToken // of the present deployment
}

// Retain says which of a job's completed checkpoints to let go, oldest first:
// all but the n newest, at least one. As long as the present deployment has
// completed none, everything stays: the one it was restored from is what a
// failure goes back to, and who restored an older one may want the newer. Then
// those go that are newer than the one restored and of an earlier deployment:
// what followed is not made from them.
//
// Savepoints among ms do not count and are never let go.
func Retain(ms []Manifest, n int, r Restored) []string {
	var own, old []Manifest
	var from *dataflow.CheckpointID
	for _, m := range ms {
		switch {
		case m.Kind != Checkpoint:
		case m.ID.Token.Less(r.Token):
			old = append(old, m)
			if m.Name == r.Name {
				from = &m.ID
			}
		default:
			own = append(own, m)
		}
	}
	if len(own) == 0 {
		return nil
	}
	byAge := func(a, b Manifest) int {
		switch {
		case Less(a.ID, b.ID):
			return -1
		case Less(b.ID, a.ID):
			return 1
		}
		return 0
	}
	slices.SortStableFunc(old, byAge)
	slices.SortStableFunc(own, byAge)
	var drop []string
	line := make([]Manifest, 0, len(ms))
	for _, m := range old {
		if from != nil && Less(*from, m.ID) {
			drop = append(drop, m.Name)
			continue
		}
		line = append(line, m)
	}
	line = append(line, own...)
	past := line[:max(0, len(line)-max(1, n))]
	gone := make([]string, 0, len(past)+len(drop))
	for _, m := range past {
		gone = append(gone, m.Name)
	}
	return append(gone, drop...)
}

// Needed are the parts that manifests name, each once, in order of their
// digests.
func Needed(ms ...Manifest) []store.Part {
	sizes := make(map[store.Digest]int64)
	for _, m := range ms {
		for _, o := range m.Operators {
			for _, t := range o.Tables {
				for _, s := range t.Shards {
					for _, p := range s.Parts {
						sizes[p.Digest] = p.Size
					}
				}
			}
		}
	}
	parts := make([]store.Part, 0, len(sizes))
	for d, n := range sizes {
		parts = append(parts, store.Part{Digest: d, Size: n})
	}
	slices.SortFunc(parts, func(a, b store.Part) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	return parts
}

// Size is how much a manifest names.
type Size struct {
	Parts int   // different ones
	Bytes int64 // of them
	Rows  int64 // of all shards, deltas' included
	New   int64 // bytes of parts that the manifests before it do not name
}

// Sizes measures a manifest; before are those that were kept when it was taken.
func Sizes(m Manifest, before ...Manifest) Size {
	var s Size
	for _, o := range m.Operators {
		for _, t := range o.Tables {
			for _, shard := range t.Shards {
				for _, p := range shard.Parts {
					s.Rows += p.Rows
				}
			}
		}
	}
	known := make(map[store.Digest]bool)
	for _, p := range Needed(before...) {
		known[p.Digest] = true
	}
	for _, p := range Needed(m) {
		s.Parts++
		s.Bytes += p.Size
		if !known[p.Digest] {
			s.New += p.Size
		}
	}
	return s
}
