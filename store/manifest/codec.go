package manifest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
)

// The bytes: magic, version, body in CBOR, SHA-256 of all before it.
const (
	magic     = "TMMF"
	version   = 1
	headBytes = len(magic) + 1
)

// MaxBytes is how large a manifest may be: half a million parts.
const MaxBytes = 64 << 20

// What a body is in CBOR: maps with these numbers as keys, arrays where the
// fields can never be more. The numbers are never used for something else.
type (
	wireManifest struct {
		Kind           uint8          `cbor:"1,keyasint"`
		Name           string         `cbor:"2,keyasint"`
		Job            string         `cbor:"3,keyasint"`
		ID             wireID         `cbor:"4,keyasint"`
		Created        int64          `cbor:"5,keyasint"`
		MaxParallelism int            `cbor:"6,keyasint"`
		Mode           string         `cbor:"7,keyasint"`
		Drained        bool           `cbor:"8,keyasint,omitempty"`
		Finished       bool           `cbor:"9,keyasint,omitempty"`
		Operators      []wireOperator `cbor:"10,keyasint,omitempty"`
		Took           int64          `cbor:"11,keyasint,omitempty"`
	}
	wireID struct {
		_       struct{} `cbor:",toarray"`
		Epoch   uint64
		Site    string
		Attempt uint64
		Counter uint64
	}
	wireOperator struct {
		ID          string         `cbor:"1,keyasint"`
		Parallelism int            `cbor:"2,keyasint"`
		Positions   []wirePosition `cbor:"3,keyasint,omitempty"`
		Tables      []wireTable    `cbor:"4,keyasint,omitempty"`
	}
	wirePosition struct {
		_      struct{} `cbor:",toarray"`
		Split  []byte   // a path may be no UTF-8
		Offset int64
		Ended  bool
	}
	wireTable struct {
		Name     string       `cbor:"1,keyasint"`
		Schema   string       `cbor:"2,keyasint"`
		Keyed    bool         `cbor:"3,keyasint,omitempty"`
		Spread   uint8        `cbor:"4,keyasint,omitempty"`
		Identity int          `cbor:"5,keyasint,omitempty"`
		Shards   [][]wirePart `cbor:"6,keyasint"` // by subtask
	}
	wirePart struct {
		Digest []byte   `cbor:"1,keyasint"`
		Size   int64    `cbor:"2,keyasint"`
		Rows   int64    `cbor:"3,keyasint"`
		Delta  bool     `cbor:"4,keyasint,omitempty"`
		From   [][]byte `cbor:"5,keyasint,omitempty"`
	}
)

// modes are made once; they cannot change.
var encMode = sync.OnceValue(func() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return m
})

var decMode = sync.OnceValue(func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   16,
		MaxArrayElements:  1 << 21,
		MaxMapPairs:       64,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
})

// Encode is the manifest's bytes: equal manifests have equal ones, in whatever
// order operators, positions and tables are. One that breaks an invariant is
// refused.
func Encode(m Manifest) ([]byte, error) {
	m = sorted(m)
	if err := m.Check(); err != nil {
		return nil, err
	}
	body, err := encMode().Marshal(toWire(m))
	if err != nil {
		return nil, fmt.Errorf("manifest: %q: %w", m.Name, err)
	}
	out := make([]byte, 0, headBytes+len(body)+sha256.Size)
	out = append(append(append(out, magic...), version), body...)
	sum := sha256.Sum256(out)
	if out = append(out, sum[:]...); len(out) > MaxBytes {
		return nil, fmt.Errorf("manifest: %q has %d bytes, at most %d are possible", m.Name, len(out), MaxBytes)
	}
	return out, nil
}

// Decode reads what Encode wrote. Damaged bytes are store.ErrCorrupt; an
// unknown version is another error. Each manifest has one encoding, and no
// other is taken.
func Decode(data []byte) (Manifest, error) {
	bad := func(format string, args ...any) (Manifest, error) {
		return Manifest{}, fmt.Errorf("manifest: %w: %s", store.ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if len(data) < headBytes+sha256.Size || string(data[:len(magic)]) != magic {
		return bad("it does not begin as a manifest")
	}
	if len(data) > MaxBytes {
		return bad("%d bytes, at most %d are possible", len(data), MaxBytes)
	}
	signed := data[:len(data)-sha256.Size]
	if sum := sha256.Sum256(signed); !bytes.Equal(sum[:], data[len(signed):]) {
		return bad("its checksum is not that of its bytes")
	}
	if v := data[len(magic)]; v != version {
		return Manifest{}, fmt.Errorf("manifest: version %d; this program reads version %d: use the program that wrote it, or a newer one", v, version)
	}
	var w wireManifest
	if err := decMode().Unmarshal(signed[headBytes:], &w); err != nil {
		return bad("%v", err)
	}
	m, err := fromWire(w)
	if err != nil {
		return bad("%v", err)
	}
	if err := m.Check(); err != nil {
		return bad("%v", err)
	}
	if again, err := Encode(m); err != nil || !bytes.Equal(again, data) {
		return bad("it is not encoded as this version does it")
	}
	return m, nil
}

// sorted is a copy with everything in the order in which it is written.
func sorted(m Manifest) Manifest {
	m.Operators = slices.Clone(m.Operators)
	sort.SliceStable(m.Operators, func(i, j int) bool { return m.Operators[i].ID < m.Operators[j].ID })
	for i := range m.Operators {
		o := &m.Operators[i]
		o.Positions = slices.Clone(o.Positions)
		sort.SliceStable(o.Positions, func(i, j int) bool { return o.Positions[i].Split < o.Positions[j].Split })
		o.Tables = slices.Clone(o.Tables)
		sort.SliceStable(o.Tables, func(i, j int) bool { return o.Tables[i].Name < o.Tables[j].Name })
		for j := range o.Tables {
			t := &o.Tables[j]
			t.Shards = slices.Clone(t.Shards)
			sort.SliceStable(t.Shards, func(i, j int) bool { return t.Shards[i].Subtask < t.Shards[j].Subtask })
		}
	}
	return m
}

func toWire(m Manifest) wireManifest {
	id := wireID{Epoch: m.ID.Token.Epoch, Site: m.ID.Token.Site, Attempt: m.ID.Token.Attempt, Counter: m.ID.Counter}
	w := wireManifest{Kind: uint8(m.Kind), Name: m.Name, Job: m.Job, ID: id, Created: int64(m.Created), Took: int64(m.Took),
		MaxParallelism: m.MaxParallelism, Mode: m.Mode, Drained: m.Drained, Finished: m.Finished}
	for _, o := range m.Operators {
		wo := wireOperator{ID: string(o.ID), Parallelism: o.Parallelism}
		for _, p := range o.Positions {
			wo.Positions = append(wo.Positions, wirePosition{Split: []byte(p.Split), Offset: p.Offset, Ended: p.Ended})
		}
		for _, t := range o.Tables {
			wt := wireTable{Name: t.Name, Schema: t.Schema, Keyed: t.Keyed, Spread: t.Spread, Identity: t.Identity}
			for _, s := range t.Shards {
				parts := make([]wirePart, 0, len(s.Parts))
				for _, p := range s.Parts {
					wp := wirePart{Digest: p.Digest[:], Size: p.Size, Rows: p.Rows, Delta: p.Delta}
					for _, d := range p.From {
						wp.From = append(wp.From, d[:])
					}
					parts = append(parts, wp)
				}
				wt.Shards = append(wt.Shards, parts)
			}
			wo.Tables = append(wo.Tables, wt)
		}
		w.Operators = append(w.Operators, wo)
	}
	return w
}

var errDigest = errors.New("a digest that has not 32 bytes")

func fromWire(w wireManifest) (Manifest, error) {
	token := dataflow.FencingToken{Epoch: w.ID.Epoch, Site: w.ID.Site, Attempt: w.ID.Attempt}
	m := Manifest{Kind: Kind(w.Kind), Name: w.Name, Job: w.Job, ID: dataflow.CheckpointID{Token: token, Counter: w.ID.Counter},
		Created: dataflow.Time(w.Created), Took: dataflow.Duration(w.Took), MaxParallelism: w.MaxParallelism, Mode: w.Mode, Drained: w.Drained, Finished: w.Finished}
	for _, wo := range w.Operators {
		o := Operator{ID: dataflow.OperatorID(wo.ID), Parallelism: wo.Parallelism}
		for _, p := range wo.Positions {
			o.Positions = append(o.Positions, Position{Split: string(p.Split), Offset: p.Offset, Ended: p.Ended})
		}
		for _, wt := range wo.Tables {
			t := Table{Name: wt.Name, Schema: wt.Schema, Keyed: wt.Keyed, Spread: wt.Spread, Identity: wt.Identity}
			for i, parts := range wt.Shards {
				s := Shard{Subtask: i}
				for _, wp := range parts {
					p, err := partFromWire(wp)
					if err != nil {
						return m, err
					}
					s.Parts = append(s.Parts, p)
				}
				t.Shards = append(t.Shards, s)
			}
			o.Tables = append(o.Tables, t)
		}
		m.Operators = append(m.Operators, o)
	}
	return m, nil
}

func partFromWire(w wirePart) (PartUse, error) {
	p := PartUse{Part: store.Part{Size: w.Size}, Rows: w.Rows, Delta: w.Delta}
	if copy(p.Digest[:], w.Digest) != len(p.Digest) || len(w.Digest) != len(p.Digest) {
		return p, errDigest
	}
	for _, d := range w.From {
		var from store.Digest
		if copy(from[:], d) != len(from) || len(d) != len(from) {
			return p, errDigest
		}
		p.From = append(p.From, from)
	}
	return p, nil
}
