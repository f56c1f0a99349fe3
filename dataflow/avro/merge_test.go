package avro_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/avro"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/optest"
	"github.com/tidemark-mesh/tidemark/store"
)

func mergeSchema() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "w", Type: batch.Double}, batch.Field{Name: "v", Type: batch.Bigint})
}

// parts makes a base and deltas of texts in the notation of optest.
func parts(t tb, p *batch.Pool, texts ...string) [][]byte {
	var all [][]byte
	for i, text := range texts {
		h := avro.Header{Table: "t", Schema: mergeSchema(), Delta: i > 0}
		var bs []*batch.Batch
		if text != "" {
			bs = optest.MustParse(t, h.Schema, text).Batches(p, 2)
		}
		all = append(all, write(t, h, bs...))
		for _, b := range bs {
			b.Release()
		}
	}
	return all
}

func merge(t tb, p *batch.Pool, identity int, parts ...[]byte) []byte {
	t.Helper()
	var readers []io.Reader
	for _, b := range parts {
		readers = append(readers, bytes.NewReader(b))
	}
	var out bytes.Buffer
	n, err := avro.Merge(&out, avro.Header{Table: "t", Schema: mergeSchema()}, readers, identity, p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readExact(t, p, out.Bytes())
	if err != nil || int64(strings.Count(got, "\n")) != n {
		t.Fatalf("%d rows, %v", n, err)
	}
	return out.Bytes()
}

func TestMerge(t *testing.T) {
	p := batch.NewPool(0, nil)
	p.PoisonReleased()
	cases := []struct {
		name     string
		identity int
		parts    []string
		want     string
	}{
		{"a base alone", 2, []string{`a@0 w=1 v=1; b@0 w=1 v=2; c@0 w=1 v=3`}, `a@0 w=1 v=1; b@0 w=1 v=2; c@0 w=1 v=3`},
		{"replaced in place, removed, new in order", 2, []string{`a@0 w=1 v=1; b@0 w=1 v=2; c@0 w=1 v=3`, `z@0 w=1 v=9; -D a@0 w=1; b@0 w=1 v=20; y@0 w=1 v=8`, `z@0 w=1 v=90`},
			`b@0 w=1 v=20; c@0 w=1 v=3; z@0 w=1 v=90; y@0 w=1 v=8`},
		{"removed and put again is new", 2, []string{`a@0 w=1 v=1; b@0 w=1 v=2`, `-D a@0 w=1; c@0 w=1 v=3`, `a@0 w=1 v=4`}, `b@0 w=1 v=2; c@0 w=1 v=3; a@0 w=1 v=4`},
		{"new, removed, new", 2, []string{``, `a@0 w=1 v=1; b@0 w=1 v=2`, `-D a@0 w=1`, `a@0 w=1 v=5`}, `b@0 w=1 v=2; a@0 w=1 v=5`},
		{"removed what is not there", 2, []string{`a@0 w=1 v=1`, `-D q@0 w=1`}, `a@0 w=1 v=1`},
		{"the identity is more than the key", 2, []string{`a@0 w=1 v=1; a@0 w=2 v=2; a@0 w=null v=3; @0 s=null w=1 v=4`, `a@0 w=2 v=20; -D a@0 w=null`}, ``},
		{"one column", 1, []string{`a@0 v=1; @0 k=null v=2; @0 k="" v=3`, `@0 k=null v=20`}, `a@0 v=1; @0 k=null v=20; @0 k="" v=3`},
		{"-0 is 0, all NaNs are one", 2, []string{`a@0 w=0 v=1; a@0 w=NaN v=2`, `a@0 w=-0 v=10; a@0 w=NaN v=20`}, `a@0 w=-0 v=10; a@0 w=NaN v=20`},
		{"all gone", 2, []string{`a@0 w=1 v=1`, `-D a@0 w=1`}, ``},
	}
	cases[5].parts[0] = `a@0 w=1 v=1; a@0 w=2 v=2; a@0 w=null v=3; @0 k=null w=1 v=4`
	cases[5].want = `a@0 w=1 v=1; a@0 w=2 v=20; @0 k=null w=1 v=4`
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			all := parts(t, p, c.parts...)
			got := merge(t, p, c.identity, all...)
			if want := parts(t, p, c.want)[0]; !bytes.Equal(got, want) {
				g, _ := readExact(t, p, got)
				w, _ := readExact(t, p, want)
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
			for i := 1; i < len(all); i++ { // in two goes: the same bytes
				if two := merge(t, p, c.identity, append([][]byte{merge(t, p, c.identity, all[:i]...)}, all[i:]...)...); !bytes.Equal(got, two) {
					t.Errorf("merged at %d first: other bytes", i)
				}
			}
			if p.Out() != 0 {
				t.Errorf("%d batches out", p.Out())
			}
		})
	}
	t.Run("without identity the last part counts", func(t *testing.T) {
		whole := parts(t, p, `b@0 v=2; b@0 v=2`)[0]
		if got := merge(t, p, 0, parts(t, p, `a@0 v=1`)[0], whole); !bytes.Equal(got, whole) {
			t.Error("other bytes")
		}
	})
}

// TestMergeModel compares with a list of rows.
func TestMergeModel(t *testing.T) {
	p := batch.NewPool(0, nil)
	p.PoisonReleased()
	rapid.Check(t, func(t *rapid.T) {
		type row struct{ k, v int }
		var model []row
		at := func(k int) int {
			for i, r := range model {
				if r.k == k {
					return i
				}
			}
			return -1
		}
		var texts []string
		for part := range rapid.IntRange(1, 5).Draw(t, "parts") {
			var lines []string
			for _, k := range rapid.SliceOfNDistinct(rapid.IntRange(0, 12), 0, 9, rapid.ID).Draw(t, "keys") {
				i, v := at(k), rapid.IntRange(0, 99).Draw(t, "v")
				switch {
				case part > 0 && rapid.IntRange(0, 2).Draw(t, "remove") == 0:
					lines = append(lines, fmt.Sprintf("-D k%d@0 w=1", k))
					if i >= 0 {
						model = append(model[:i], model[i+1:]...)
					}
					continue
				case i >= 0:
					model[i].v = v
				default:
					model = append(model, row{k, v})
				}
				lines = append(lines, fmt.Sprintf("k%d@0 w=1 v=%d", k, v))
			}
			texts = append(texts, strings.Join(lines, "; "))
		}
		var want []string
		for _, r := range model {
			want = append(want, fmt.Sprintf("k%d@0 w=1 v=%d", r.k, r.v))
		}
		got := merge(t, p, 2, parts(t, p, texts...)...)
		if !bytes.Equal(got, parts(t, p, strings.Join(want, "; "))[0]) {
			g, _ := readExact(t, p, got)
			t.Fatalf("%q\ngot\n%s\nwant\n%s", texts, g, strings.Join(want, "\n"))
		}
		if p.Out() != 0 {
			t.Fatalf("%d batches out", p.Out())
		}
	})
}

func TestMergeOfOldSchemas(t *testing.T) {
	p := batch.NewPool(0, nil)
	old := batch.MustSchema(batch.Field{Name: "k", Type: batch.String}, batch.Field{Name: "w", Type: batch.Double})
	base := write(t, avro.Header{Table: "t", Schema: old}, optest.MustParse(t, old, `a@0 w=1; b@0 w=1`).Batches(p, 9)...)
	got := merge(t, p, 2, base, parts(t, p, ``, `b@0 w=1 v=7`)[1])
	if want := parts(t, p, `a@0 w=1 v=null; b@0 w=1 v=7`)[0]; !bytes.Equal(got, want) {
		t.Error("other bytes")
	}
}

func TestMergeRefuses(t *testing.T) {
	p := batch.NewPool(0, nil)
	all := parts(t, p, `a@0 w=1 v=1`, `a@0 w=1 v=2`)
	h := avro.Header{Table: "t", Schema: mergeSchema()}
	cut := bytes.NewReader(all[1][:len(all[1])-1])
	for name, c := range map[string]struct {
		parts    []io.Reader
		identity int
		want     string
	}{
		"nothing":          {nil, 1, "no parts"},
		"a delta first":    {[]io.Reader{bytes.NewReader(all[1])}, 1, "must be whole"},
		"too much":         {[]io.Reader{bytes.NewReader(all[0])}, 4, "it has 3"},
		"a damaged delta":  {[]io.Reader{bytes.NewReader(all[0]), cut}, 2, store.ErrCorrupt.Error()},
		"a part unrelated": {[]io.Reader{bytes.NewReader(foreign(t))}, 2, "cannot change"},
	} {
		if _, err := avro.Merge(io.Discard, h, c.parts, c.identity, p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	if p.Out() != 0 {
		t.Errorf("%d batches out", p.Out())
	}
}
