package work

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/dataflow/task"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// shares are an agent's part in the checkpoints of an attempt: agent/durable's,
// with the same parts (Avro, named by their digests), without merging.
type shares struct {
	a      *attempt
	chains map[place]*chain
	queue  map[dataflow.SubtaskID][]*taken // the first is being stored
	open   dataflow.CheckpointID           // the first of which a share is in the chains since one has completed; zero: none
}

type place struct {
	operator dataflow.OperatorID
	table    string
	subtask  int
}

// chain is the parts that a table of a subtask is made of.
type chain struct {
	parts  []manifest.PartUse
	broken bool // rows are lost: until a full snapshot nothing builds on it
}

type taken struct {
	sub       dataflow.SubtaskID
	barrier   dataflow.Barrier
	state     []task.StateRows
	whole     []dataflow.OperatorID
	positions []task.SplitPosition
}

// mostParts of a chain; then the next snapshot is a whole one.
const mostParts = 12

func newShares(a *attempt) *shares {
	h := &shares{a: a, chains: make(map[place]*chain), queue: make(map[dataflow.SubtaskID][]*taken)}
	for _, id := range a.local() {
		for _, t := range a.spec.at[id] {
			h.chains[place{t.Operator, t.Name, id.Index}] = &chain{}
		}
		for op := range a.spec.par {
			for table, parts := range a.base(id, op) {
				h.chains[place{op, table, id.Index}].parts = slices.Clone(parts)
			}
		}
	}
	return h
}

// base is what an operator's first snapshot goes on from; nil: from nothing.
func (a *attempt) base(id dataflow.SubtaskID, op dataflow.OperatorID) map[string][]manifest.PartUse {
	var tables []operator.StateTable
	for _, t := range a.spec.at[id] {
		if t.Operator == op {
			tables = append(tables, t.StateTable)
		}
	}
	if a.rows == nil || len(tables) == 0 || a.rows.Operator(op) == nil {
		return nil
	}
	parts, _ := a.rows.Operator(op).Base(id.Index, tables)
	return parts
}

const pendingName = "task.pending"

func pendingSchema() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "target", Type: batch.String}, batch.Field{Name: "piece", Type: batch.Bigint}, batch.Field{Name: "data", Type: batch.Bytes})
}

func appendPending(dst []sensors.Pending, b *batch.Batch) []sensors.Pending {
	for k := range b.Len() {
		i := b.Position(k)
		dst = append(dst, sensors.Pending{Target: string(b.Cols[0].At(i)), Piece: b.Cols[1].Ints[i], Data: slices.Clone(b.Cols[2].At(i))})
	}
	return dst
}

func sortPending(p []sensors.Pending) {
	slices.SortFunc(p, func(a, b sensors.Pending) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Piece, b.Piece))
	})
}

// snapshot hands over the task's state and what its sinks have not committed;
// false: it must wait.
func (s *subtask) snapshot(e *task.Effect) bool {
	if !s.commitAll() {
		return false
	}
	t := &taken{sub: s.id(), barrier: e.Barrier, state: e.State, whole: e.Whole, positions: e.Positions}
	for i, w := range s.writers {
		tw, ok := w.(sensors.Transactional)
		if !ok {
			continue
		}
		bl := batch.NewBuilder(s.a.pool, pendingSchema())
		err := tw.Prepare(e.Barrier.ID, e.Barrier.Full || !s.prepared, func(p sensors.Pending) error {
			bl.SetString(0, p.Target)
			bl.SetInt(1, p.Piece)
			if !p.Gone {
				bl.SetBytes(2, p.Data)
			}
			bl.EndRow(0)
			if p.Gone {
				bl.Kind(batch.Delete)
			}
			return nil
		})
		if b := bl.Take(); b != nil {
			t.state = append(t.state, task.StateRows{Operator: s.sub.Config.Links[i].ID, Table: pendingName, Batch: b})
		}
		if err != nil && !held(err) {
			s.a.fail("sink: prepare: "+err.Error(), "")
			return false
		}
		if err != nil {
			s.a.shares.lose(s.id())
			s.a.notStored(s.id(), e.Barrier.ID, checkpoint.Declined, true, err)
			return true
		}
	}
	s.prepared = true
	event, _ := s.task.Watermark()
	s.a.x.p.Judge.Snapshot(s.a.ref.Job, s.id(), e.Barrier.ID, event)
	s.a.shares.take(t)
	return true
}

func (h *shares) take(t *taken) {
	h.queue[t.sub] = append(h.queue[t.sub], t)
	if len(h.queue[t.sub]) == 1 {
		h.next(t.sub)
	}
}

// madePart is a part of a share.
type madePart struct {
	at    place
	whole bool
	use   manifest.PartUse
	data  []byte
}

// next stores the oldest share of a subtask that waits.
func (h *shares) next(sub dataflow.SubtaskID) {
	if len(h.queue[sub]) == 0 {
		return
	}
	t := h.queue[sub][0]
	var parts []*madePart
	for _, tab := range h.a.spec.at[sub] {
		m, err := h.write(t, tab)
		if err != nil {
			h.a.x.p.W.Fail(0, "a part cannot be made: %v", err)
			return
		}
		parts = append(parts, m)
	}
	d := h.a.x.p.Disk
	h.a.x.p.Write(func() {
		for _, m := range parts {
			if m.use.Rows > 0 {
				d.Parts[m.use.Digest] = m.data
			}
		}
	}, func(err error) {
		if h.a.over {
			return
		}
		h.queue[sub] = h.queue[sub][1:]
		h.stored(t, parts, err)
		h.next(sub)
	})
}

// write makes the part of a table, as agent/durable does.
func (h *shares) write(t *taken, tab runtime.TableOf) (*madePart, error) {
	m := &madePart{at: place{tab.Operator, tab.Name, t.sub.Index}}
	m.whole = t.barrier.Full || tab.Identity == 0 || slices.Contains(t.whole, tab.Operator)
	first := !m.whole && len(h.chains[m.at].parts) == 0
	m.use.Delta = !m.whole && !first
	var buf bytes.Buffer
	w := avro.NewWriter(&buf, avro.Header{Table: tab.Name, Schema: tab.Schema, Keyed: tab.Keyed, Delta: m.use.Delta})
	for _, r := range t.state {
		if r.Operator != tab.Operator || r.Table != tab.Name {
			continue
		}
		b := r.Batch
		if first {
			b = present(b)
		}
		if err := w.Append(b); err != nil {
			return nil, err
		}
	}
	m.use.Rows = w.Rows()
	if err := w.Close(); err != nil {
		return nil, err
	}
	if m.data = buf.Bytes(); m.use.Rows > 0 {
		m.use.Part = store.Part{Digest: store.Digest(sha256.Sum256(m.data)), Size: int64(len(m.data))}
	}
	return m, nil
}

// present is b without the rows that are removed.
func present(b *batch.Batch) *batch.Batch {
	v := b.Pool().DeriveAll(b)
	if b.Kinds == nil {
		return v
	}
	sel := v.OwnSel(b.Len())
	for k := range b.Len() {
		if i := b.Position(k); b.Kinds[i] != batch.Delete {
			sel = append(sel, int32(i))
		}
	}
	v.Sel, v.Kinds = sel, nil
	return v
}

func (h *shares) lose(sub dataflow.SubtaskID) {
	for _, t := range h.a.spec.at[sub] {
		h.chains[place{t.Operator, t.Name, sub.Index}].broken = true
	}
}

// stored: a share is on this disk, or lost. Its copies follow.
func (h *shares) stored(t *taken, parts []*madePart, err error) {
	a, broken := h.a, false
	for _, m := range parts {
		ch := h.chains[m.at]
		if m.whole && err == nil {
			ch.parts, ch.broken = nil, false
		}
		if m.use.Rows > 0 && err == nil {
			ch.parts = append(ch.parts, m.use)
		}
		broken = broken || ch.broken
	}
	if err == nil && broken {
		err = errors.New("what changed before it is lost")
	}
	if err != nil {
		h.lose(t.sub)
		a.notStored(t.sub, t.barrier.ID, checkpoint.Async, true, err)
		return
	}
	m := manifest.Manifest{Kind: manifest.Checkpoint, Name: checkpoint.Name(t.barrier.ID), Job: a.asked.Job.Name, ID: t.barrier.ID, Mode: manifest.ExactlyOnce,
		MaxParallelism: a.spec.graph.Job.Stream.MaxParallelism, Operators: h.operators(t)}
	data, err := manifest.Encode(m)
	if err != nil {
		a.x.p.W.Fail(0, "a share cannot be encoded: %v", err)
		return
	}
	needed := manifest.Needed(m)
	for _, p := range needed {
		a.x.holds[p.Digest] = append(a.x.holds[p.Digest], hold{a.ref.Job, t.barrier.ID})
	}
	h.grows(t.barrier.ID)
	said := &coordinator.Stored{AttemptRef: a.ref, ID: t.barrier.ID, Subtask: t.sub, Share: coordinator.Share{Manifest: data}}
	a.copy(said, needed)
}

// operators are a subtask's share of a manifest.
func (h *shares) operators(t *taken) (all []manifest.Operator) {
	at := func(op dataflow.OperatorID) *manifest.Operator {
		for i := range all {
			if all[i].ID == op {
				return &all[i]
			}
		}
		all = append(all, manifest.Operator{ID: op, Parallelism: h.a.spec.par[op]})
		return &all[len(all)-1]
	}
	for _, tab := range h.a.spec.at[t.sub] {
		o := at(tab.Operator)
		m := manifest.Table{Name: tab.Name, Schema: avro.SchemaOf(tab.Name, tab.Schema, tab.Keyed), Keyed: tab.Keyed, Spread: uint8(tab.Spread), Identity: tab.Identity}
		for i := range o.Parallelism {
			m.Shards = append(m.Shards, manifest.Shard{Subtask: i})
		}
		m.Shards[t.sub.Index].Parts = slices.Clone(h.chains[place{tab.Operator, tab.Name, t.sub.Index}].parts)
		o.Tables = append(o.Tables, m)
	}
	for _, p := range t.positions {
		o := at(p.Operator)
		o.Positions = append(o.Positions, manifest.Position{Split: p.Split, Offset: p.Offset, Ended: p.Ended})
	}
	for i := range all {
		slices.SortFunc(all[i].Positions, func(a, b manifest.Position) int { return cmp.Compare(a.Split, b.Split) })
	}
	return all
}

// completed: a chain that is too long asks for a whole snapshot.
func (h *shares) completed() {
	h.open = dataflow.CheckpointID{}
	h.tooLong()
}

// grows is completed where the checkpoint before a share has not.
func (h *shares) grows(id dataflow.CheckpointID) {
	if h.open == (dataflow.CheckpointID{}) {
		h.open = id
	}
	if h.open != id {
		h.tooLong()
	}
}

func (h *shares) tooLong() {
	for _, c := range h.chains {
		if len(c.parts) >= mostParts {
			h.a.notStored(dataflow.SubtaskID{}, dataflow.CheckpointID{Token: h.a.ref.Token}, checkpoint.Subsumed, true, errors.New("too many parts"))
			return
		}
	}
}

func (a *attempt) notStored(sub dataflow.SubtaskID, id dataflow.CheckpointID, kind checkpoint.Failure, lost bool, why error) {
	a.x.say(worker.AttemptEvent{NotStored: &coordinator.NotStored{AttemptRef: a.ref, ID: id, Subtask: sub, Kind: uint8(kind), Lost: lost, Why: why.Error()}})
}

// copy pushes a share's parts to a peer that is alive, and says who has them: nobody
// else, if none takes them.
func (a *attempt) copy(said *coordinator.Stored, parts []store.Part) {
	p, w := a.x.p, a.x.p.W
	say := func(nodes ...mesh.NodeID) {
		for _, part := range parts {
			said.Share.Copies = append(said.Share.Copies, coordinator.PartCopies{Part: part.Digest, Nodes: nodes})
		}
		a.x.say(worker.AttemptEvent{Stored: said})
	}
	var peers []mesh.NodeID
	for _, n := range p.Peers() { // as gossip has it
		if n != p.Node && !n.Gone && n.P != nil && w.Hears(p.ID, n.ID) {
			peers = append(peers, n.ID)
		}
	}
	w.Rand.Shuffle(len(peers), func(i, k int) { peers[i], peers[k] = peers[k], peers[i] })
	if len(peers) == 0 || len(parts) == 0 {
		say(p.ID)
		return
	}
	if w.Bugs.StoredEarly {
		say(p.ID, peers[0])
		return
	}
	data := make(map[store.Digest][]byte)
	for _, part := range parts {
		data[part.Digest] = p.Disk.Parts[part.Digest]
	}
	var push func(to []mesh.NodeID)
	push = func(to []mesh.NodeID) {
		if a.over {
			return
		}
		if len(to) == 0 {
			say(p.ID)
			return
		}
		p.Call(to[0], "push", pushed{a.ref, said.ID, data}, func(taken any) {
			if taken.(bool) {
				say(p.ID, to[0])
			} else {
				push(to[1:])
			}
		}, func(string) { push(to[1:]) })
	}
	push(peers)
}

// pushed are parts that another agent pushes.
type pushed struct {
	ref  coordinator.AttemptRef
	id   dataflow.CheckpointID
	data map[store.Digest][]byte
}

// takeParts takes parts that another agent pushes, unless its attempt is an old
// one.
func (x *executor) takeParts(push pushed, reply func(taken any)) {
	ref := push.ref
	greatest := x.tokens[ref.Job]
	if j := x.p.State().Jobs[ref.Job]; j != nil && greatest.Less(j.Token(x.p.Site)) {
		greatest = j.Token(x.p.Site)
	}
	if ref.Token.Less(greatest) && !x.p.W.Bugs.IgnoreToken {
		reply(false)
		return
	}
	for d := range push.data {
		x.holds[d] = append(x.holds[d], hold{ref.Job, push.id})
	}
	x.p.Write(func() {
		for d, b := range push.data {
			x.p.Disk.Parts[d] = b
		}
	}, func(err error) {
		if err != nil {
			reply(false)
			return
		}
		x.p.Judge.TakesPart(x.p.ID, ref, greatest)
		reply(true)
	})
}

// keep lets parts go that no kept snapshot names and no checkpoint under way may.
func (x *executor) keep(k *worker.Kept) {
	x.kept[k.Job] = k
	if n := len(k.Snapshots); n > 0 && k.Job != "" {
		through := k.Snapshots[n-1].ID
		for d, hs := range x.holds {
			x.holds[d] = slices.DeleteFunc(hs, func(h hold) bool { return h.job == k.Job && h.id.Less(through) })
		}
	}
	if k.More {
		return
	}
	needed := make(map[store.Digest]bool)
	for _, k := range x.kept {
		for _, s := range k.Snapshots {
			for _, k := range s.Copies {
				needed[k.Part] = true
			}
		}
	}
	for d := range x.p.Disk.Parts {
		if !needed[d] && len(x.holds[d]) == 0 && !x.old[d] {
			x.p.Judge.Deletes(x.p.ID, d)
			delete(x.p.Disk.Parts, d)
		}
	}
}

// restoreRows gives a subtask the rows that are its own, as agent/durable does, of
// tables that were not given early.
func (a *attempt) restoreRows(id dataflow.SubtaskID, given func(runtime.TableOf) bool, give func(op dataflow.OperatorID, table string, b *batch.Batch) error) error {
	for _, t := range a.spec.at[id] {
		o := a.rows.Operator(t.Operator)
		if o == nil || given(t) {
			continue
		}
		i := slices.IndexFunc(o.Tables, func(p restore.TablePlan) bool { return p.Table.Name == t.Name })
		if i < 0 {
			continue
		}
		tp := &o.Tables[i]
		for _, sh := range o.Shares(t.Name, id.Index, nil) {
			if len(sh.Parts) == 0 {
				continue
			}
			first := int64(0)
			err := a.rowsOf(tp, sh.Parts, func(b *batch.Batch) (err error) {
				n := int64(b.Len())
				if a.x.p.W.Bugs.KeepForeign || sh.Filter(b, first) > 0 {
					err = give(t.Operator, t.Name, b)
				}
				first += n
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// rowsOf calls f with the rows of a chain of parts, as the job has the table.
func (a *attempt) rowsOf(t *restore.TablePlan, parts []manifest.PartUse, f func(*batch.Batch) error) error {
	var readers []io.Reader
	for _, u := range parts {
		data := a.x.p.Disk.Parts[u.Digest]
		if data == nil {
			return fmt.Errorf("part %s: %w", u.Digest, store.ErrMissing)
		}
		readers = append(readers, bytes.NewReader(data))
	}
	h, err := avro.ParseSchema(t.Saved.Schema)
	if err != nil {
		return err
	}
	pool, part := batch.NewPool(0, nil), readers[0]
	if len(parts) > 1 {
		h := avro.Header{Table: h.Table, Schema: h.Schema, Keyed: h.Keyed}
		if t.AsIs {
			h.Schema = t.Table.Schema
			return avro.EachMerged(h, readers, t.Saved.Identity, pool, f)
		}
		var out bytes.Buffer
		if _, err := avro.Merge(&out, h, readers, t.Saved.Identity, pool); err != nil {
			return err
		}
		part = &out
	}
	rd, err := avro.NewReader(part, pool)
	if err != nil {
		return err
	}
	if err := rd.ResolveTo(t.Reader, t.Table.Schema); err != nil {
		return err
	}
	for {
		b, err := rd.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = f(b)
		b.Release()
		if err != nil {
			return err
		}
	}
}
