package codec

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A snapshot of the state: magic, version, records, SHA-256 of all before it. A
// record is its length in four bytes and CBOR.
const (
	stateMagic   = "TMST"
	stateVersion = 1
)

// wireRecord is one of its pointers, in the order in which they stand here and then of the
// names of what they hold. A job's checkpoints follow the job, a replica's Snapshot
// and Next the replica.
type wireRecord struct {
	Head       *wireHead              `cbor:"1,keyasint,omitempty"`
	Agent      *coordinator.Agent     `cbor:"2,keyasint,omitempty"`
	Token      *coordinator.Token     `cbor:"3,keyasint,omitempty"`
	Feed       *coordinator.Feed      `cbor:"4,keyasint,omitempty"`
	Savepoint  *coordinator.Snapshot  `cbor:"5,keyasint,omitempty"`
	Removed    *coordinator.Removed   `cbor:"9,keyasint,omitempty"`
	Departure  *coordinator.Departure `cbor:"10,keyasint,omitempty"`
	Arrival    *coordinator.Arrival   `cbor:"11,keyasint,omitempty"`
	Floor      *wireFloor             `cbor:"12,keyasint,omitempty"`
	Forgotten  *coordinator.Forgotten `cbor:"13,keyasint,omitempty"`
	Job        *coordinator.Job       `cbor:"6,keyasint,omitempty"`
	Checkpoint *coordinator.Snapshot  `cbor:"7,keyasint,omitempty"`
	Replica    *coordinator.Replica   `cbor:"20,keyasint,omitempty"`
	Replicated *coordinator.Snapshot  `cbor:"21,keyasint,omitempty"`
	Fetched    *coordinator.Snapshot  `cbor:"22,keyasint,omitempty"`
	End        *wireEnd               `cbor:"8,keyasint,omitempty"`
}

type wireHead struct {
	Index  uint64      `cbor:"1,keyasint"`
	Term   uint64      `cbor:"2,keyasint"`
	Leader mesh.NodeID `cbor:"3,keyasint"`
	Mesh   string      `cbor:"4,keyasint"`
	Site   mesh.Site   `cbor:"5,keyasint"`
	Level  uint32      `cbor:"6,keyasint"`
}

// wireFloor is one of Moves.Forgotten.
type wireFloor struct {
	Site  mesh.Site `cbor:"1,keyasint"`
	Index uint64    `cbor:"2,keyasint"`
}

type wireEnd struct {
	Records uint64 `cbor:"1,keyasint"` // before it
}

// EncodeState writes a snapshot. Nothing of the state is changed meanwhile.
func EncodeState(w io.Writer, s *coordinator.State) error {
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	if _, err := out.WriteString(stateMagic + string(rune(stateVersion))); err != nil {
		return err
	}
	var records uint64
	err := eachRecord(s, func(r wireRecord) error {
		if r.End != nil {
			r.End.Records = records
		}
		records++
		return writeRecord(out, r)
	})
	if err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

func writeRecord(out io.Writer, r wireRecord) error {
	data, err := encMode().Marshal(r)
	if err != nil {
		return fmt.Errorf("codec: the state: %w", err)
	}
	if len(data) > maxRecord {
		return fmt.Errorf("codec: a record of the state has %d bytes, at most %d are possible: %w", len(data), maxRecord, ErrTooLarge)
	}
	if _, err := out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(data)))); err != nil {
		return err
	}
	_, err = out.Write(data)
	return err
}

// eachRecord calls f for all that a state is made of, in the snapshot's order.
func eachRecord(s *coordinator.State, f func(wireRecord) error) error {
	records := []wireRecord{{Head: &wireHead{Index: s.Index, Term: s.Term, Leader: s.Leader, Mesh: s.Mesh, Site: s.Site, Level: s.Level}}}
	for _, k := range slices.Sorted(maps.Keys(s.Agents)) {
		records = append(records, wireRecord{Agent: s.Agents[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(s.Tokens)) {
		records = append(records, wireRecord{Token: s.Tokens[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(s.Feeds)) {
		records = append(records, wireRecord{Feed: s.Feeds[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(s.Savepoints)) {
		records = append(records, wireRecord{Savepoint: s.Savepoints[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(s.Removed)) {
		records = append(records, wireRecord{Removed: s.Removed[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(s.Moves.Departures)) {
		records = append(records, wireRecord{Departure: s.Moves.Departures[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(s.Moves.Arrivals)) {
		records = append(records, wireRecord{Arrival: s.Moves.Arrivals[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(s.Moves.Forgotten)) {
		records = append(records, wireRecord{Floor: &wireFloor{k, s.Moves.Forgotten[k]}})
	}
	for _, k := range slices.Sorted(maps.Keys(s.Forgotten)) {
		records = append(records, wireRecord{Forgotten: s.Forgotten[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(s.Jobs)) {
		job := *s.Jobs[k]
		job.Checkpoints = nil
		records = append(records, wireRecord{Job: &job})
		for _, c := range s.Jobs[k].Checkpoints {
			records = append(records, wireRecord{Checkpoint: c})
		}
	}
	records = append(records, replicaRecords(s)...)
	records = append(records, wireRecord{End: &wireEnd{}})
	for _, r := range records {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func replicaRecords(s *coordinator.State) (records []wireRecord) {
	for _, k := range slices.Sorted(maps.Keys(s.Replicas)) {
		r := *s.Replicas[k]
		r.Snapshot, r.Next = nil, nil
		records = append(records, wireRecord{Replica: &r})
		if kept := s.Replicas[k].Snapshot; kept != nil {
			records = append(records, wireRecord{Replicated: kept})
		}
		if next := s.Replicas[k].Next; next != nil {
			records = append(records, wireRecord{Fetched: next})
		}
	}
	return records
}

// DecodeState reads what EncodeState wrote, to its end.
func DecodeState(r io.Reader) (*coordinator.State, error) {
	sum := sha256.New()
	in := bufio.NewReaderSize(r, 1<<16)
	hashed := io.TeeReader(in, sum)
	head := make([]byte, len(stateMagic)+1)
	if _, err := io.ReadFull(hashed, head); err != nil || string(head[:len(stateMagic)]) != stateMagic {
		return nil, fmt.Errorf("codec: the state's snapshot is %w: it does not begin as one", ErrMalformed)
	}
	if v := head[len(stateMagic)]; v != stateVersion {
		return nil, fmt.Errorf("codec: the state's snapshot is of version %d, and this program reads version %d: use the program that wrote it, or a newer one", v, stateVersion)
	}
	b := builder{s: &coordinator.State{Agents: map[mesh.NodeID]*coordinator.Agent{}, Jobs: map[coordinator.JobID]*coordinator.Job{}, Names: map[string]coordinator.JobID{},
		Feeds: map[string]*coordinator.Feed{}, Savepoints: map[string]*coordinator.Snapshot{}, Tokens: map[string]*coordinator.Token{}, Removed: map[mesh.NodeID]*coordinator.Removed{},
		Replicas: map[coordinator.JobID]*coordinator.Replica{}, Forgotten: map[coordinator.JobID]*coordinator.Forgotten{}, Moves: coordinator.NewMoves()}}
	for !b.ended {
		rec, err := readRecord(hashed)
		if err == nil {
			err = b.add(rec)
		}
		if err != nil {
			return nil, fmt.Errorf("codec: the state's snapshot is %w: record %d: %w", ErrMalformed, b.records, err)
		}
	}
	want := sum.Sum(nil)
	got, err := io.ReadAll(io.LimitReader(in, sha256.Size+1))
	if err != nil {
		return nil, fmt.Errorf("codec: the state's snapshot: %w", err)
	}
	if !bytes.Equal(want, got) {
		return nil, fmt.Errorf("codec: the state's snapshot is %w: its checksum is not that of its bytes", ErrMalformed)
	}
	return b.s, nil
}

func readRecord(r io.Reader) (wireRecord, error) {
	var rec wireRecord
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return rec, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxRecord {
		return rec, fmt.Errorf("%d bytes, at most %d are possible: %w", n, maxRecord, ErrTooLarge)
	}
	var data bytes.Buffer // it grows as bytes come, not as they are promised
	if _, err := io.CopyN(&data, r, int64(n)); err != nil {
		return rec, err
	}
	if err := strictly(data.Bytes(), &rec); err != nil {
		return rec, err
	}
	if pointers(&rec) != 1 {
		return rec, errOther
	}
	return rec, nil
}

// builder puts a state together, and refuses records in another order than
// eachRecord's.
type builder struct {
	s       *coordinator.State
	records uint64
	kind    int    // place of the last record
	name    string // and the name in it
	job     *coordinator.Job
	replica *coordinator.Replica
	ended   bool
}

func (b *builder) add(r wireRecord) error {
	kind, name := r.order()
	inOrder := kind > b.kind || kind == b.kind && name > b.name
	switch {
	case r.Checkpoint != nil:
		inOrder = b.job != nil && b.replica == nil && r.Checkpoint.Job == b.job.ID
	case r.Job != nil && b.job != nil:
		inOrder = name > string(b.job.ID) && b.replica == nil
	case r.Replica != nil && b.replica != nil:
		inOrder = name > string(b.replica.Job.ID)
	case r.Replicated != nil, r.Fetched != nil:
		inOrder = b.ofReplica(r)
	case r.Head == nil:
		inOrder = inOrder && b.records > 0
	}
	if !inOrder {
		return fmt.Errorf("%w: %q is out of order", errOther, name)
	}
	b.kind, b.name = kind, name
	s := b.s
	switch {
	case r.Head != nil:
		s.Index, s.Term, s.Leader, s.Mesh, s.Site, s.Level = r.Head.Index, r.Head.Term, r.Head.Leader, r.Head.Mesh, r.Head.Site, r.Head.Level
	case r.Agent != nil:
		s.Agents[r.Agent.Node] = r.Agent
	case r.Token != nil:
		s.Tokens[r.Token.ID] = r.Token
	case r.Feed != nil:
		s.Feeds[r.Feed.Name] = r.Feed
	case r.Savepoint != nil:
		s.Savepoints[r.Savepoint.Name] = r.Savepoint
	case r.Removed != nil:
		s.Removed[r.Removed.Node] = r.Removed
	case r.Departure != nil, r.Arrival != nil, r.Floor != nil:
		if err := b.addMove(r); err != nil {
			return err
		}
	case r.Forgotten != nil:
		s.Forgotten[r.Forgotten.Job] = r.Forgotten
	case r.Job != nil:
		if !r.Job.Status.Known() || len(r.Job.Checkpoints) > 0 {
			return fmt.Errorf("%w: job %s", errOther, r.Job.ID)
		}
		s.Jobs[r.Job.ID], b.job = r.Job, r.Job
		if !r.Job.Status.Ended() {
			s.Names[coordinator.NameKey(r.Job.Namespace, r.Job.Name)] = r.Job.ID
		}
	case r.Checkpoint != nil:
		b.job.Checkpoints = append(b.job.Checkpoints, r.Checkpoint)
	case r.Replica != nil:
		if r.Replica.Snapshot != nil || r.Replica.Next != nil {
			return fmt.Errorf("%w: the replica of job %s", errOther, name)
		}
		s.Replicas[r.Replica.Job.ID], b.replica = r.Replica, r.Replica
	case r.Replicated != nil:
		b.replica.Snapshot = r.Replicated
	case r.Fetched != nil:
		b.replica.Next = r.Fetched
	case r.End.Records != b.records:
		return fmt.Errorf("%w: %d records of %d", errOther, b.records, r.End.Records)
	default:
		b.ended = true
	}
	b.records++
	return nil
}

func (b *builder) addMove(r wireRecord) error {
	m := &b.s.Moves
	switch {
	case r.Floor != nil:
		m.Forgotten[r.Floor.Site] = r.Floor.Index
	case r.Departure != nil && r.Departure.Phase.Known():
		m.Departures[r.Departure.ID] = r.Departure
	case r.Arrival != nil && r.Arrival.Phase.Known():
		m.Arrivals[r.Arrival.ID] = r.Arrival
	default:
		return fmt.Errorf("%w: a move in a phase that nobody knows", errOther)
	}
	return nil
}

// ofReplica tells whether a snapshot may follow the replica.
func (b *builder) ofReplica(r wireRecord) bool {
	last := b.replica
	switch {
	case last == nil:
		return false
	case r.Replicated != nil:
		return last.Snapshot == nil && last.Next == nil && r.Replicated.Job == last.Job.ID
	}
	return last.Next == nil && r.Fetched.Job == last.Job.ID
}

// order is a record's place in the snapshot.
func (r wireRecord) order() (kind int, name string) {
	switch {
	case r.Head != nil:
		return 1, ""
	case r.Agent != nil:
		return 2, string(r.Agent.Node)
	case r.Token != nil:
		return 3, r.Token.ID
	case r.Feed != nil:
		return 4, r.Feed.Name
	case r.Savepoint != nil:
		return 5, r.Savepoint.Name
	case r.Removed != nil:
		return 6, string(r.Removed.Node)
	case r.Departure != nil:
		return 7, string(r.Departure.ID)
	case r.Arrival != nil:
		return 8, string(r.Arrival.ID)
	case r.Floor != nil:
		return 9, string(r.Floor.Site)
	case r.Forgotten != nil:
		return 10, string(r.Forgotten.Job)
	case r.Job != nil:
		return 11, string(r.Job.ID)
	case r.Checkpoint != nil:
		return 12, r.Checkpoint.Name
	case r.Replica != nil:
		return 20, string(r.Replica.Job.ID)
	case r.Replicated != nil:
		return 21, r.Replicated.Name
	case r.Fetched != nil:
		return 22, r.Fetched.Name
	}
	return 23, ""
}
