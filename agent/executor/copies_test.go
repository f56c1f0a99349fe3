package executor_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
	"github.com/tidemark-mesh/tidemark/store/part/peers"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// ask has an agent copy parts, behind what it is told to keep.
func (s *site) ask(node mesh.NodeID, order uint64, snap *coordinator.Snapshot, parts []coordinator.PartCopies) coordinator.Copied {
	s.t.Helper()
	x := s.agents[node].x
	x.Do(worker.Effect{Kept: &worker.Kept{Job: snap.Job, Snapshots: []*coordinator.Snapshot{snap}}})
	x.Do(worker.Effect{Copy: &worker.Copy{Order: &coordinator.Copy{Order: order, Name: snap.Name, Job: snap.Job, Parts: parts}, Snapshot: snap}})
	for {
		if c := <-s.copied; c.node == node && c.Order == order {
			return c.Copied
		}
	}
}

func partsOf(t *testing.T, snap *coordinator.Snapshot) []store.Part {
	t.Helper()
	m, err := manifest.Decode(snap.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Needed(m)
}

func pathOf(dir string, p store.Part) string {
	return filepath.Join(dir, "parts", p.Digest.String()[:2], p.Digest.String()+".avro")
}

// running is a site in which a and b run the job.
func running(t *testing.T) *site {
	t.Helper()
	s := newSite(t, fmt.Sprintf(countsJob, "out.jsonl"), "a", "b")
	if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "b")); f != nil {
		t.Fatal(f.Why)
	}
	return s
}

// save takes a checkpoint, and starts c, which has nothing of it.
func (s *site) save() *coordinator.Snapshot {
	s.t.Helper()
	snap := s.trigger(true)
	s.complete(snap, 2)
	s.committed(snap.ID)
	s.start("c", s.t.TempDir())
	s.t.Cleanup(func() { s.stop("c") })
	return snap
}

// What was copied is there, is whole, and is kept as long as the checkpoint is.
func TestCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t)
		time.Sleep(time.Second)
		snap := s.save()
		c := s.agents["c"]
		parts := partsOf(t, snap)
		if len(parts) < 3 {
			t.Fatalf("%d parts are too few for this test", len(parts))
		}
		// One is here, and damaged; of one only a is asked, which has lost it.
		bad, lost := parts[0], parts[1]
		if err := os.MkdirAll(filepath.Dir(pathOf(c.dir, bad)), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(pathOf(c.dir, bad), make([]byte, bad.Size), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(pathOf(s.agents["a"].dir, lost)); err != nil {
			t.Fatal(err)
		}
		var orders []coordinator.PartCopies
		for _, p := range parts {
			orders = append(orders, coordinator.PartCopies{Part: p.Digest, Nodes: []mesh.NodeID{"a", "b"}})
			if p == lost {
				orders[len(orders)-1].Nodes = []mesh.NodeID{"a"}
			}
		}
		said := s.ask("c", 1, snap, orders)
		if len(said.Parts) != len(parts)-1 || slices.Contains(said.Parts, lost.Digest) || said.Why == "" {
			t.Errorf("%d parts of %d are said to be there: %s", len(said.Parts), len(parts), said.Why)
		}
		if len(said.Lacks) != 1 || said.Lacks[0].Part != lost.Digest || !slices.Equal(said.Lacks[0].Nodes, []mesh.NodeID{"a"}) {
			t.Errorf("lacking: %v", said.Lacks)
		}
		orders[1].Nodes = []mesh.NodeID{"a", "b"}
		said = s.ask("c", 2, snap, orders)
		if len(said.Parts) != len(parts) || said.Why != "" || len(said.Lacks) != 1 {
			t.Errorf("%+v", said)
		}
		time.Sleep(2 * time.Hour) // collections, and the end of what the start held
		for _, p := range parts {
			if err := c.state.Parts().Verify(p); err != nil {
				t.Error(err)
			}
		}
		c.x.Do(worker.Effect{Kept: &worker.Kept{Job: snap.Job}})
		time.Sleep(10 * time.Second)
		for _, p := range parts {
			if c.state.Parts().Has(p) {
				t.Errorf("part %v is still here", p.Digest)
			}
		}
	})
}

// An order takes the place of the one before it, which says how far it came.
func TestCopyIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t)
		time.Sleep(time.Second)
		snap := s.save()
		x := s.agents["c"].x
		x.Do(worker.Effect{Kept: &worker.Kept{Job: snap.Job, Snapshots: []*coordinator.Snapshot{snap}}})
		var orders []coordinator.PartCopies
		for _, p := range partsOf(t, snap) {
			orders = append(orders, coordinator.PartCopies{Part: p.Digest, Nodes: []mesh.NodeID{"nobody", "a"}})
		}
		for n := range uint64(3) {
			x.Do(worker.Effect{Copy: &worker.Copy{Order: &coordinator.Copy{Order: n + 1, Name: snap.Name, Job: snap.Job, Parts: orders}, Snapshot: snap}})
		}
		for {
			if c := <-s.copied; c.Order == 3 {
				if len(c.Parts) != len(orders) || c.Why != "" {
					t.Errorf("%+v", c)
				}
				return
			}
		}
	})
}

// A disk that has lost parts says so when its agent starts, once.
func TestLostParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t)
		time.Sleep(time.Second)
		snap := s.save()
		s.closeAll()
		dir := s.agents["b"].dir
		parts := partsOf(t, snap)
		s.stop("b")
		for _, p := range parts[:2] {
			if err := os.Remove(pathOf(dir, p)); err != nil {
				t.Fatal(err)
			}
		}
		b := s.start("b", dir)
		for range 2 {
			b.x.Do(worker.Effect{Kept: &worker.Kept{Job: snap.Job, Snapshots: []*coordinator.Snapshot{snap}}})
		}
		synctest.Wait()
		var got []store.Digest
		for range len(s.copied) {
			c := <-s.copied
			if c.node != "b" || c.Order != 0 || c.Name != snap.Name || c.Job != snap.Job {
				t.Errorf("%+v", c)
			}
			for _, l := range c.Lacks {
				got = append(got, l.Part)
			}
		}
		if !slices.Equal(got, []store.Digest{parts[0].Digest, parts[1].Digest}) {
			t.Errorf("%v is said to be missing", got)
		}
	})
}

// What was merged elsewhere is merged here, if what it was made of is: nobody is
// asked for it.
func TestCopyMerges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t)
		c := s.start("c", t.TempDir())
		defer s.stop("c")
		h := avro.Header{Table: "rows", Schema: batch.MustSchema(batch.Field{Name: "key", Type: batch.String}, batch.Field{Name: "n", Type: batch.Double})}
		var from []store.Digest
		var readers []io.Reader
		for n, keys := range [][]string{{"a", "b"}, {"a"}} {
			delta := h
			delta.Delta = n > 0
			b := new(bytes.Buffer)
			w := avro.NewWriter(b, delta)
			bl := batch.NewBuilder(batch.NewPool(0, nil), h.Schema)
			for _, key := range keys {
				bl.SetString(0, key)
				bl.SetDouble(1, float64(n))
				if bl.EndRow(0); delta.Delta {
					bl.Kind(batch.Insert)
				}
			}
			rows := bl.Take()
			rows.OwnHashes(rows.Rows)
			err := w.Append(rows)
			if rows.Release(); err == nil {
				err = w.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.state.Parts().Put(func(w io.Writer) error { _, err := w.Write(b.Bytes()); return err })
			if err != nil {
				t.Fatal(err)
			}
			from, readers = append(from, p.Digest), append(readers, b)
		}
		var merged bytes.Buffer
		rows, err := avro.Merge(&merged, h, readers, 1, batch.NewPool(0, nil))
		if err != nil {
			t.Fatal(err)
		}
		use := manifest.PartUse{Part: store.Part{Digest: sha256.Sum256(merged.Bytes()), Size: int64(merged.Len())}, Rows: rows, From: from}
		m := manifest.Manifest{Kind: manifest.Checkpoint, Name: "next", Job: "j", MaxParallelism: 8, Mode: "exactly-once", Operators: []manifest.Operator{{ID: "op", Parallelism: 1,
			Tables: []manifest.Table{{Name: "rows", Schema: avro.SchemaOf(h.Table, h.Schema, false), Identity: 1, Shards: []manifest.Shard{{Parts: []manifest.PartUse{use}}}}}}}}
		data, err := manifest.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		said := s.ask("c", 2, &coordinator.Snapshot{Name: "next", Job: "j9-far", Manifest: data}, []coordinator.PartCopies{{Part: use.Digest, Nodes: []mesh.NodeID{"nobody"}}})
		if len(said.Parts) != 1 || said.Why != "" || !c.state.Parts().Has(use.Part) {
			t.Errorf("%+v", said)
		}

		// The same where what it was made of is in the order before it.
		if err := os.Remove(pathOf(c.dir, use.Part)); err != nil {
			t.Fatal(err)
		}
		d := s.start("d", t.TempDir())
		defer s.stop("d")
		inputs := manifest.Shard{}
		orders := []coordinator.PartCopies{}
		for i, part := range from {
			p, err := c.state.Parts().Find(part)
			if err != nil {
				t.Fatal(err)
			}
			inputs.Parts = append(inputs.Parts, manifest.PartUse{Part: p, Rows: 1, Delta: i > 0})
			orders = append(orders, coordinator.PartCopies{Part: part, Nodes: []mesh.NodeID{"c"}})
		}
		m.Operators[0].Parallelism = 2
		m.Operators[0].Tables[0].Shards = []manifest.Shard{inputs, {Subtask: 1, Parts: []manifest.PartUse{use}}}
		if data, err = manifest.Encode(m); err != nil {
			t.Fatal(err)
		}
		said = s.ask("d", 3, &coordinator.Snapshot{Name: "next", Job: "j9-far", Manifest: data}, append(orders, coordinator.PartCopies{Part: use.Digest, Nodes: []mesh.NodeID{"c"}}))
		if len(said.Parts) != 3 || said.Why != "" || len(said.Lacks) != 0 || !d.state.Parts().Has(use.Part) {
			t.Errorf("%+v", said)
		}
	})
}

// counted is the disk of a node that counts how often each part is read.
type counted struct {
	store.FS
	mu    sync.Mutex // guards reads
	reads map[string]int
}

func (c *counted) Open(name string, flag int) (store.File, error) {
	c.mu.Lock()
	c.reads[filepath.Base(name)]++
	c.mu.Unlock()
	return c.FS.Open(name, flag)
}

// farAway is a node of another site with parts, a long way off, and a snapshot of them.
type farAway struct {
	disk  *counted
	store *part.Store
	parts []store.Part
	snap  *coordinator.Snapshot
}

func newFarAway(t *testing.T, s *site, sizes ...int) *farAway {
	t.Helper()
	f := &farAway{disk: &counted{FS: storetest.New(), reads: make(map[string]int)}}
	var err error
	if f.store, err = part.Open(f.disk, "/parts"); err != nil {
		t.Fatal(err)
	}
	tr := s.net.New("far", "away")
	p := peers.New(peers.Options{Transport: tr, Site: "away", Store: f.store, Holds: part.NewHolds(f.store)})
	tr.Start()
	t.Cleanup(func() {
		if err := errors.Join(p.Close(), tr.Close()); err != nil {
			t.Error(err)
		}
	})
	shard := manifest.Shard{}
	for i, size := range sizes {
		text := []byte(fmt.Sprintf("%06d", i) + strings.Repeat("x", size))
		one, err := f.store.Put(storetest.Bytes(text))
		if err != nil {
			t.Fatal(err)
		}
		f.parts = append(f.parts, one)
		shard.Parts = append(shard.Parts, manifest.PartUse{Part: one, Rows: 1, Delta: i > 0})
	}
	m := manifest.Manifest{Kind: manifest.Checkpoint, Name: "far", Job: "j", MaxParallelism: 8, Mode: "exactly-once", Operators: []manifest.Operator{{ID: "op", Parallelism: 1,
		Tables: []manifest.Table{{Name: "rows", Schema: `"x"`, Identity: 1, Shards: []manifest.Shard{shard}}}}}}
	f.snap = &coordinator.Snapshot{Name: "far", Job: "j9-away"}
	if f.snap.Manifest, err = manifest.Encode(m); err != nil {
		t.Fatal(err)
	}
	for _, n := range slices.Sorted(maps.Keys(s.agents)) {
		s.net.Delay(n, "far", 50*time.Millisecond)
	}
	return f
}

func (f *farAway) wants(nodes ...mesh.NodeID) (all []coordinator.PartCopies) {
	for _, p := range f.parts {
		all = append(all, coordinator.PartCopies{Part: p.Digest, Nodes: nodes})
	}
	return all
}

// Of another site small parts come several at a time, in a few round trips, each once,
// whatever the order says twice; large ones come too, and what one node lacks others are
// asked for.
func TestCopyOfManyParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, fmt.Sprintf(countsJob, "out.jsonl"), "a", "b")
		sizes := slices.Repeat([]int{1000}, 200)
		sizes[3], sizes[77] = peers.SmallBytes, peers.SmallBytes-6
		f := newFarAway(t, s, sizes...)
		lost := []store.Part{f.parts[50], f.parts[60]}
		for i, p := range lost {
			f.store.Unpin(p)
			if gone, err := f.store.Remove(p); err != nil || !gone {
				t.Fatal(err)
			}
			had, err := s.agents["b"].state.Parts().Put(storetest.Bytes([]byte(fmt.Sprintf("%06d", 50+10*i) + strings.Repeat("x", 1000))))
			if err != nil || had != p {
				t.Fatal(err)
			}
		}
		orders := f.wants("gone", "far", "b")
		orders = append(orders, orders[4:9]...)
		clear(f.disk.reads)
		began := time.Now()
		said := s.ask("a", 1, f.snap, orders)
		if len(said.Parts) != len(orders) || said.Parts[77] != f.parts[77].Digest || said.Why != "" {
			t.Errorf("%d parts of %d: %s", len(said.Parts), len(orders), said.Why)
		}
		if len(said.Lacks) != 2 || said.Lacks[0].Part != lost[0].Digest || said.Lacks[1].Part != lost[1].Digest || !slices.Equal(said.Lacks[0].Nodes, []mesh.NodeID{"far"}) {
			t.Errorf("lacking: %v", said.Lacks)
		}
		if took := time.Since(began); took > 3*time.Second { // of the fake clock
			t.Errorf("%d parts took %v", len(f.parts), took)
		}
		for name, n := range f.disk.reads {
			if n > 1 && !strings.HasPrefix(name, lost[0].Digest.String()) && !strings.HasPrefix(name, lost[1].Digest.String()) {
				t.Errorf("%s was sent %d times", name, n)
			}
		}
		for _, p := range f.parts {
			if err := s.agents["a"].state.Parts().Verify(p); err != nil {
				t.Error(err)
			}
		}
	})
}

// Where a line breaks again and again what has come stays, and the order goes on: after
// the fourth time with one part at a time, until the node is not reached for one of them.
func TestCopyOfManyPartsBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, fmt.Sprintf(countsJob, "out.jsonl"), "a")
		f := newFarAway(t, s, slices.Repeat([]int{60_000}, 100)...)
		x := s.agents["a"].x
		x.Do(worker.Effect{Kept: &worker.Kept{Job: f.snap.Job, Snapshots: []*coordinator.Snapshot{f.snap}}})
		copies := func(n uint64) {
			x.Do(worker.Effect{Copy: &worker.Copy{Order: &coordinator.Copy{Order: n, Name: f.snap.Name, Job: f.snap.Job, Parts: f.wants("far")}, Snapshot: f.snap}})
		}
		here := func() (n int) {
			for _, p := range f.parts {
				if s.agents["a"].state.Parts().Has(p) {
					n++
				}
			}
			return n
		}
		copies(1)
		var had []int
		for range 7 {
			<-time.After(400 * time.Millisecond)
			s.net.Break("a", "far")
			synctest.Wait()
			had = append(had, here())
		}
		said := <-s.copied
		if len(said.Parts) != here() || len(said.Lacks) != 0 {
			t.Errorf("%d parts are said to be here, %d are; lacking: %v; %s", len(said.Parts), here(), said.Lacks, said.Why)
		}
		for i := range 3 {
			if had[i] >= had[i+1] {
				t.Errorf("nothing came between two breaks: %v", had)
			}
		}
		if several, one := had[3]-had[1], had[6]-had[4]; several < 2*one {
			t.Errorf("between breaks came %v: it does not go over to one at a time", had)
		}
		copies(2)
		if said = <-s.copied; said.Order != 2 || len(said.Parts) != len(f.parts) || said.Why != "" {
			t.Errorf("%d parts of %d: %s", len(said.Parts), len(f.parts), said.Why)
		}
	})
}

// Another order ends one of many parts, too: what was asked for comes, and no more.
func TestCopyOfManyPartsIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, fmt.Sprintf(countsJob, "out.jsonl"), "a")
		f := newFarAway(t, s, slices.Repeat([]int{200_000}, 100)...)
		x := s.agents["a"].x
		x.Do(worker.Effect{Kept: &worker.Kept{Job: f.snap.Job, Snapshots: []*coordinator.Snapshot{f.snap}}})
		for n := range uint64(2) {
			x.Do(worker.Effect{Copy: &worker.Copy{Order: &coordinator.Copy{Order: n + 1, Name: f.snap.Name, Job: f.snap.Job, Parts: f.wants("far")[90*n:]}, Snapshot: f.snap}})
			<-time.After(time.Second)
		}
		first, second := <-s.copied, <-s.copied
		if first.Order != 1 || len(first.Parts) < 3 || len(first.Parts) > 30 || !strings.Contains(first.Why, "something else meanwhile") {
			t.Errorf("the first: %d parts, %s", len(first.Parts), first.Why)
		}
		if second.Order != 2 || len(second.Parts) != 10 || second.Why != "" {
			t.Errorf("the second: %d parts, %s", len(second.Parts), second.Why)
		}
	})
}
