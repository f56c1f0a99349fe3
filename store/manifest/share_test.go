package manifest_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// shareOf is what one subtask of the example adds to it.
func shareOf(operator, subtask int) manifest.Share {
	m := example()
	m.Operators = m.Operators[operator : operator+1]
	for i := range m.Operators[0].Tables {
		shards := m.Operators[0].Tables[i].Shards
		for k := range shards {
			if shards[k].Subtask != subtask {
				shards[k].Parts = nil
			}
		}
	}
	return manifest.Share{Subtask: subtask, Manifest: m}
}

// The shares of all subtasks, each a manifest that can be encoded, make the
// manifest that they were cut from, in whatever order they come.
func TestSharesMakeTheWhole(t *testing.T) {
	shares := []manifest.Share{shareOf(1, 1), shareOf(0, 0), shareOf(1, 0)}
	for i := range shares {
		data, err := manifest.Encode(shares[i].Manifest)
		if err != nil {
			t.Fatal(err)
		}
		if shares[i].Manifest, err = manifest.Decode(data); err != nil {
			t.Fatal(err)
		}
	}
	m, err := manifest.Assemble(example(), shares)
	if err != nil {
		t.Fatal(err)
	}
	got, err := manifest.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := manifest.Encode(example())
	if !bytes.Equal(got, want) {
		t.Errorf("%+v", m)
	}
	drained := example()
	drained.Drained = true
	if m, err = manifest.Assemble(drained, shares); err != nil || !m.Operators[1].Positions[0].Ended {
		t.Errorf("%v; a drained job's splits have ended: %+v", err, m.Operators)
	}
	if m, err = manifest.Assemble(example(), shares[:2]); err != nil || m.Check() == nil {
		t.Errorf("%v; one share is missing, and nobody says so", err)
	}
}

func TestSharesThatDoNotBelongTogether(t *testing.T) {
	for want, spoil := range map[string]func(*manifest.Operator){
		"others of 2":          func(o *manifest.Operator) { o.Parallelism = 3 },
		"other columns":        func(o *manifest.Operator) { o.Tables[0].Schema = `"y"` },
		"its own shard is not": func(o *manifest.Operator) { o.Tables[0].Shards = o.Tables[0].Shards[:1] },
	} {
		bad := shareOf(1, 1)
		spoil(&bad.Manifest.Operators[0])
		if _, err := manifest.Assemble(example(), []manifest.Share{shareOf(1, 0), bad}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
