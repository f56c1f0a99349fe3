package codec_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// large is a snapshot of so many parts, each on so many agents.
func large(parts int, nodes ...mesh.NodeID) *coordinator.Snapshot {
	id := dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "s", Attempt: 3}, Counter: 18}
	s := &coordinator.Snapshot{Name: "chk-3-18", Job: "j7-s", ID: id, Manifest: make([]byte, 44*parts)}
	for i := range parts {
		var d store.Digest
		binary.BigEndian.PutUint64(d[:], uint64(i))
		s.Copies = append(s.Copies, coordinator.PartCopies{Part: d, Nodes: nodes})
	}
	return s
}

// A command that no agent could read is refused before it is in the log: an agent that
// cannot read one stops, and so would all of the site. What can be on record can be said
// to another site.
func TestTheLargestSnapshot(t *testing.T) {
	nodes := []mesh.NodeID{"n0123456789abcdefghij", "n1123456789abcdefghij", "n2123456789abcdefghij", "n3123456789abcdefghij", "n4123456789abcdefghij"}
	for _, c := range []struct {
		parts, copies int
		fits          bool
	}{{coordinator.MaxParts, 5, true}, {coordinator.MaxParts + 1, 1, false}, {coordinator.MaxParts, 9, false}} {
		s := large(c.parts, append(nodes, nodes...)[:c.copies]...)
		data, err := codec.EncodeCommand(&coordinator.Command{Level: 1, CheckpointDone: &coordinator.CheckpointDone{Attempt: 3, Checkpoint: s}})
		if (err == nil) != c.fits || err != nil && !errors.Is(err, codec.ErrTooLarge) {
			t.Errorf("%d parts, %d copies: %d bytes, %v", c.parts, c.copies, len(data), err)
		}
		if err != nil {
			continue
		}
		if _, err := codec.DecodeCommand(data); err != nil {
			t.Errorf("%d parts, %d copies: written, and not read: %v", c.parts, c.copies, err)
		}
		if testing.Short() {
			continue // it takes seconds, and a minute under the race detector
		}
		said, err := codec.EncodeToTarget(&coordinator.ToTarget{Move: "m40-s", Propose: &coordinator.MovePropose{Job: coordinator.MovingJob{ID: "j7-s", Spec: make([]byte, 1<<19)}, From: "s", Epoch: 2, Newest: s}})
		if err == nil {
			_, err = codec.DecodeToTarget(said)
		}
		if err != nil {
			t.Errorf("%d parts, %d copies are not proposed: %v", c.parts, c.copies, err)
		}
		said, err = codec.EncodeOffer(&coordinator.Offer{Site: "s", Jobs: []coordinator.OfferedJob{{Job: "j7-s", Newest: []*coordinator.Snapshot{s}}}})
		if err == nil {
			_, err = codec.DecodeOffer(said)
		}
		if err != nil {
			t.Errorf("%d parts, %d copies are not offered: %v", c.parts, c.copies, err)
		}
	}
}
