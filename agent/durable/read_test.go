package durable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors/encode"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
	"github.com/tidemark-mesh/tidemark/store/part"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// row is a row of the table that these tests keep; its identity is key and at.
type row struct {
	key  string
	at   float64 // NaN is a value
	mean float64
	none bool // mean is null
	gone bool // of a delta: it is removed
}

var readColumns = batch.MustSchema(batch.Field{Name: "key", Type: batch.String}, batch.Field{Name: "at", Type: batch.Double}, batch.Field{Name: "mean", Type: batch.Double})

// same is exact equality, as Diff's.
func (r row) same(o row) bool {
	return r.key == o.key && math.Float64bits(r.at) == math.Float64bits(o.at) && r.none == o.none && (r.none || math.Float64bits(r.mean) == math.Float64bits(o.mean))
}

// sameIdentity is equality as keys are equal.
func (r row) sameIdentity(o row) bool {
	return r.key == o.key && (r.at == o.at || math.IsNaN(r.at) && math.IsNaN(o.at))
}

func batchOf(rows []row, delta bool) *batch.Batch {
	bl := batch.NewBuilder(batch.NewPool(0, nil), readColumns)
	for _, r := range rows {
		bl.SetString(0, r.key)
		bl.SetDouble(1, r.at)
		if !r.none {
			bl.SetDouble(2, r.mean)
		}
		bl.EndRow(0)
		if delta && r.gone {
			bl.Kind(batch.Delete)
		} else if delta {
			bl.Kind(batch.Insert)
		}
	}
	b := bl.Take()
	b.OwnHashes(b.Rows)
	return b
}

// text is a row as JSON.
func (r row) text() string {
	return string(encode.NewJSON(readColumns, encode.Options{}).AppendRow(nil, batchOf([]row{r}, false), 0))
}

// readFolder is a state folder in memory, and what these tests put there.
type readFolder struct {
	t interface {
		Fatalf(string, ...any)
		Helper()
	}
	*State
	disk *storetest.FS
}

func (f readFolder) part(rows []row, h avro.Header) manifest.PartUse {
	f.t.Helper()
	use := manifest.PartUse{Rows: int64(len(rows)), Delta: h.Delta}
	var err error
	use.Part, err = f.parts.Put(func(w io.Writer) error {
		aw := avro.NewWriter(w, h)
		if err := aw.Append(batchOf(rows, h.Delta)); err != nil {
			return err
		}
		return aw.Close()
	})
	if err != nil {
		f.t.Fatalf("%v", err)
	}
	return use
}

// saved is a savepoint of one table, in shards of chains.
func (f readFolder) saved(name string, keyed bool, identity int, shards ...[][]row) *Saved {
	f.t.Helper()
	h := avro.Header{Table: "means", Schema: readColumns, Keyed: keyed}
	t := manifest.Table{Name: "means", Schema: avro.SchemaOf("means", readColumns, keyed), Keyed: keyed, Identity: identity}
	for i, chain := range shards {
		sh := manifest.Shard{Subtask: i}
		for n, rows := range chain {
			if h.Delta = n > 0; len(rows) > 0 {
				sh.Parts = append(sh.Parts, f.part(rows, h))
			}
		}
		t.Shards = append(t.Shards, sh)
	}
	m := manifest.Manifest{Kind: manifest.Checkpoint, Name: name, Job: "job", ID: dataflow.CheckpointID{Counter: 1}, Mode: manifest.ExactlyOnce, MaxParallelism: 8,
		Operators: []manifest.Operator{{ID: "sums", Parallelism: max(1, len(shards)), Tables: []manifest.Table{t}}}}
	return &Saved{Manifest: m, from: f.parts}
}

func newReadFolder(t *testing.T) readFolder {
	t.Helper()
	disk := storetest.New()
	s, err := Open(filepath.Join(t.TempDir(), "state"), disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return readFolder{t, s, disk}
}

// differences are what Diff says, a line each, sorted.
func differences(t interface{ Fatalf(string, ...any) }, a, b *Saved, memory int64) (lines []string) {
	err := Diff(a, b, memory, func(d Difference) error {
		if d.Operator != "sums" || d.State != "means" {
			return fmt.Errorf("%+v", d)
		}
		lines = append(lines, fmt.Sprintf("%s %s -> %s", d.Change, d.Before, d.After))
		return nil
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	slices.Sort(lines)
	return lines
}

// merged applies deltas.
func merged(chain [][]row) (rows []row) {
	for _, part := range chain {
		for _, r := range part {
			rows = slices.DeleteFunc(rows, r.sameIdentity)
			if !r.gone {
				rows = append(rows, r)
			}
		}
	}
	return rows
}

// wanted compares one by one.
func wanted(a, b []row, identity int) (lines []string) {
	found := make([]bool, len(a))
	for _, r := range b {
		match := func(o row) bool { return r.same(o) }
		if identity > 0 {
			match = r.sameIdentity
		}
		i := 0
		for i < len(a) && (found[i] || !match(a[i])) {
			i++
		}
		switch {
		case i == len(a):
			lines = append(lines, "added  -> "+r.text())
			continue
		case !r.same(a[i]):
			lines = append(lines, "changed "+a[i].text()+" -> "+r.text())
		}
		found[i] = true
	}
	for i, r := range a {
		if !found[i] {
			lines = append(lines, "removed "+r.text()+" -> ")
		}
	}
	slices.Sort(lines)
	return lines
}

// Diff is what comparing every row with every row gives, in one pass or many,
// with deltas or without, however the rows are dealt out.
func TestDiffIsExact(t *testing.T) {
	f := newReadFolder(t)
	value := rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1, math.NaN(), math.Float64frombits(0x7ff8000000000007), math.Inf(1)})
	rapid.Check(t, func(r *rapid.T) {
		f.t = r
		one := rapid.Custom(func(r *rapid.T) row {
			return row{key: rapid.SampledFrom([]string{"", "a", "b", "ab"}).Draw(r, "key"), at: value.Draw(r, "at"), mean: value.Draw(r, "mean"), none: rapid.Bool().Draw(r, "none")}
		})
		changes := rapid.Map(rapid.SliceOfN(one, 0, 6), func(rows []row) []row {
			for i := range rows {
				rows[i].gone = i%3 == 2
			}
			return rows
		})
		keyed := rapid.Bool().Draw(r, "keyed")
		identity := rapid.SampledFrom([]int{0, 2}).Draw(r, "identity")
		saved := func(name string) (*Saved, []row) {
			chain := [][]row{rapid.SliceOfN(one, 0, 12).Draw(r, name)}
			if identity > 0 {
				chain[0] = merged(chain)
				if len(chain[0]) > 0 {
					chain = append(chain, changes.Draw(r, "delta"), changes.Draw(r, "delta"))
				}
			}
			if identity > 0 && !keyed {
				return f.saved(name, keyed, identity, chain), merged(chain)
			}
			shards := make([][][]row, rapid.IntRange(1, 3).Draw(r, "subtasks"))
			for n, part := range chain { // a row's identity decides where it is
				for _, x := range part {
					at := len(x.key) % len(shards)
					for len(shards[at]) <= n {
						shards[at] = append(shards[at], nil)
					}
					shards[at][n] = append(shards[at][n], x)
				}
			}
			for i, s := range shards {
				if len(s) > 1 && len(s[0]) == 0 { // a delta needs something before it
					shards[i] = [][]row{merged(s)}
				}
			}
			rows := chain[0]
			if identity > 0 {
				rows = merged(chain)
			}
			return f.saved(name, keyed, identity, shards...), rows
		}
		a, inA := saved("a")
		b, inB := saved("b")
		want := wanted(inA, inB, identity)
		for _, memory := range []int64{0, 300} {
			if got := differences(r, a, b, memory); !slices.Equal(got, want) {
				r.Fatalf("memory %d: got\n%s\nwant\n%s", memory, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		if got := differences(r, a, a, 0); got != nil {
			r.Fatalf("itself: %v", got)
		}
	})
}

// Columns that came are said, and the rows compared in the new form.
func TestDiffOfOtherColumns(t *testing.T) {
	f := newReadFolder(t)
	a := f.saved("a", true, 2, [][]row{{{key: "a", mean: 1}, {key: "b", mean: 2}}})
	b := f.saved("b", true, 2, [][]row{{{key: "a", mean: 1}, {key: "b", none: true}}})
	wide := batch.MustSchema(append(slices.Clone(readColumns.Fields()), batch.Field{Name: "n", Type: batch.Bigint})...)
	table := &b.Manifest.Operators[0].Tables[0]
	table.Schema = avro.SchemaOf("means", wide, true)
	bl := batch.NewBuilder(batch.NewPool(0, nil), wide)
	for _, k := range []string{"a", "b"} {
		bl.SetString(0, k)
		bl.SetDouble(1, 0)
		bl.SetDouble(2, map[string]float64{"a": 1, "b": 2}[k])
		if k == "b" {
			bl.SetInt(3, 7)
		}
		bl.EndRow(0)
	}
	rows := bl.Take()
	rows.OwnHashes(rows.Rows)
	var err error
	table.Shards[0].Parts[0].Part, err = f.parts.Put(func(w io.Writer) error {
		aw := avro.NewWriter(w, avro.Header{Table: "means", Schema: wide, Keyed: true})
		return errors.Join(aw.Append(rows), aw.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`changed {"key":"b","at":0,"mean":2,"n":null} -> {"key":"b","at":0,"mean":2,"n":7}`,
		`columns "key string, at double, mean double" -> "key string, at double, mean double, n bigint"`,
	}
	if got := differences(t, a, b, 0); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// Where a source stands, and operators that only one has.
func TestDiffOfPositions(t *testing.T) {
	f := newReadFolder(t)
	a, b := f.saved("a", true, 2), f.saved("b", true, 2)
	at := func(split string, offset int64) manifest.Position {
		return manifest.Position{Split: split, Offset: offset}
	}
	a.Manifest.Operators = append(a.Manifest.Operators, manifest.Operator{ID: "in", Positions: []manifest.Position{at("x", 1), at("y", 2), at("z", 3)}})
	b.Manifest.Operators = []manifest.Operator{{ID: "in", Positions: []manifest.Position{at("w", 9), at("y", 5), at("z", 3)}}}
	var got []string
	err := Diff(a, b, 0, func(d Difference) error {
		line, err := json.Marshal(d)
		got = append(got, string(line))
		return err
	})
	want := []string{
		`{"operator":"in","state":"positions","change":"removed","before":{"split":"x","offset":1,"ended":false}}`,
		`{"operator":"in","state":"positions","change":"changed","before":{"split":"y","offset":2,"ended":false},"after":{"split":"y","offset":5,"ended":false}}`,
		`{"operator":"in","state":"positions","change":"added","after":{"split":"w","offset":9,"ended":false}}`,
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, got\n%s", err, strings.Join(got, "\n"))
	}
}

// ReadState gives a table's rows with its deltas, from the folder and from the
// file that it was exported to; what is damaged is told before any row is out.
func TestReadState(t *testing.T) {
	f := newReadFolder(t)
	v := f.saved("chk-1-1", true, 2,
		[][]row{{{key: "a", mean: 1}, {key: "b", mean: 2}}, {{key: "b", gone: true}, {key: "c", mean: 3}}, {{key: "a", none: true}}},
		[][]row{{{key: "z", mean: math.NaN()}}}, nil)
	want := `{"key":"a","at":0,"mean":null}
{"key":"c","at":0,"mean":3}
{"key":"z","at":0,"mean":null}
`
	var exported bytes.Buffer
	if err := part.Export(&exported, v.Manifest, f.parts); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "chk.savepoint")
	if err := os.WriteFile(name, exported.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := f.Saved(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, from := range []*Saved{v, file} {
		var out strings.Builder
		if n, err := from.ReadState(&out, "sums", "means"); err != nil || n != 3 || out.String() != want {
			t.Errorf("%d rows, %v:\n%s", n, err, out.String())
		}
	}
	for _, c := range []struct{ op, table, says string }{{"sums", "nonsense", "the operator has means"}, {"nobody", "means", "there is sums/means"}} {
		if _, err := v.ReadState(io.Discard, dataflow.OperatorID(c.op), c.table); !errors.Is(err, store.ErrMissing) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v", err)
		}
	}
	p := v.Manifest.Operators[0].Tables[0].Shards[1].Parts[0]
	err = f.disk.Damage(filepath.Join(f.dir, "parts", p.Digest.String()[:2], p.Digest.String()+".avro"), func(b []byte) []byte {
		b[len(b)/2] ^= 1
		return b
	})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if _, err := v.ReadState(&out, "sums", "means"); !errors.Is(err, store.ErrCorrupt) || out.Len() > 0 {
		t.Errorf("%v, after\n%s", err, out.String())
	}
}

// Saved says what there is where a name is wrong.
func TestSavedNames(t *testing.T) {
	f := newReadFolder(t)
	if _, err := f.Saved("sp-1"); !errors.Is(err, store.ErrMissing) || !strings.Contains(err.Error(), "no savepoint and no checkpoint") {
		t.Errorf("%v", err)
	}
	j, err := f.OpenJob("job")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := f.Saved("job"); !errors.Is(err, store.ErrMissing) || !strings.Contains(err.Error(), "no checkpoint yet") {
		t.Errorf("%v", err)
	}
	if err := j.checkpoints.Put(f.saved("chk-1-1", true, 2, [][]row{{{key: "a"}}}).Manifest); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"job", "job/chk-1-1"} {
		if v, err := f.Saved(name); err != nil || v.Manifest.Name != "chk-1-1" || v.Verify() != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"job/chk-1-2", "sp-2", "other/chk-1-1", "../state/LOCK/x"} {
		if _, err := f.Saved(name); !errors.Is(err, store.ErrMissing) || !strings.Contains(err.Error(), "job/chk-1-1") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.Saved(filepath.Join(f.dir, "LOCK")); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("no export: %v", err)
	}
	if _, err := f.Saved(f.dir); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder: %v", err)
	}
}
