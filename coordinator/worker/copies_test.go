package worker

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// TestCopy: an order is passed on behind what is kept, when the state is as new as
// the leader's was.
func TestCopy(t *testing.T) {
	b := newBench(t)
	order := &coordinator.Copy{Order: 3, Index: 12, Name: "sp"}
	b.step(Event{Leader: ptr(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: ptr(true)}, "hello", "beat 1")
	b.step(Event{Message: &coordinator.ToAgent{Term: 5, Copy: order}}) // it does not know what the leader knew
	b.step(Event{Message: &coordinator.ToAgent{Term: 5, Granted: &coordinator.Granted{Seq: 1, Lease: 1000, Index: 10}}}, "kept 0")
	b.st.Index = 11
	b.step(Event{State: true})
	b.st.Index, b.st.Savepoints["sp"] = 12, &coordinator.Snapshot{Name: "sp"}
	b.step(Event{State: true}, "kept 1", "copy 1 of sp") // by its own count
	b.step(Event{State: true})                           // once
	b.step(Event{Copied: &coordinator.Copied{Order: 1, Name: "sp"}}, "copied 3 of sp")
	gone := &coordinator.Copy{Order: 4, Index: 12, Name: "sp", Job: "j9"}
	b.step(Event{Message: &coordinator.ToAgent{Term: 5, Copy: gone}}, "copied 4 of sp: it is not kept any more")
	b.step(Event{Message: &coordinator.ToAgent{Term: 4, Copy: order}}) // of a leader of before
	// Another leader, who has an order of the same number, takes no answer to the old one.
	b.step(Event{Message: &coordinator.ToAgent{Term: 5, Copy: &coordinator.Copy{Order: 5, Index: 12, Name: "sp"}}}, "copy 2 of sp")
	b.step(Event{Leader: ptr(mesh.NodeID("n3"))}, "connect n3")
	b.step(Event{Connected: ptr(true)}, "hello", "beat 2")
	b.step(Event{Message: &coordinator.ToAgent{Term: 6, Copy: &coordinator.Copy{Order: 5, Index: 12, Name: "sp"}}}, "copy 3 of sp")
	b.step(Event{Copied: &coordinator.Copied{Order: 2, Name: "sp", Why: "another order came"}})
	b.step(Event{Copied: &coordinator.Copied{Order: 3, Name: "sp"}}, "copied 5 of sp")
}

// TestLacks: what the disk lacks is said where the level is in force, on each
// stream, until the state knows it or it is there again.
func TestLacks(t *testing.T) {
	b := newBench(t)
	part := func(n byte) (d store.Digest) { d[0] = n; return d }
	on := func(n byte, nodes ...mesh.NodeID) coordinator.PartCopies {
		return coordinator.PartCopies{Part: part(n), Nodes: nodes}
	}
	says := func(c ...coordinator.PartCopies) {
		b.st.Savepoints["sp"] = &coordinator.Snapshot{Name: "sp", Copies: c}
	}
	says(on(1, "n1", "n2"), on(2, "n1"), on(3, "n1"))
	b.step(Event{Leader: ptr(mesh.NodeID("n2"))}, "connect n2")
	b.step(Event{Connected: ptr(true)}, "hello", "beat 1")
	b.step(Event{Message: &coordinator.ToAgent{Term: 5, Granted: &coordinator.Granted{Seq: 1, Lease: 1000, Index: 10}}}, "kept 1")
	b.step(Event{Copied: &coordinator.Copied{Name: "sp", Lacks: []coordinator.PartCopies{on(1, "n1"), on(2, "n1")}}})
	b.st.Level = coordinator.CopiesLevel
	b.step(Event{State: true}, "lacks 2 of sp")
	b.step(Event{State: true})
	again := func(want ...string) {
		t.Helper()
		b.step(Event{Connected: ptr(false)})
		b.now += 1_000_000
		b.step(Event{}, "connect n2")
		b.step(Event{Connected: ptr(true)}, append([]string{"hello"}, want...)...)
	}
	again("beat 2", "lacks 2 of sp")
	b.step(Event{Copied: &coordinator.Copied{Order: 1, Name: "sp", Parts: []store.Digest{part(2)}}}) // who asked for it is not there any more
	again("beat 3", "lacks 1 of sp")
	says(on(1, "n2"), on(2, "n1"), on(3, "n1"))
	b.step(Event{State: true}, "kept 1")
	again("beat 4")
}

func ptr[T any](v T) *T { return &v }
