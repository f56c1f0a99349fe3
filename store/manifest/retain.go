package manifest

import (
	"bytes"
	"sort"

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
	sort.Slice(parts, func(i, j int) bool { return bytes.Compare(parts[i].Digest[:], parts[j].Digest[:]) < 0 })
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
