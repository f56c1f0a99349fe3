package manifest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

func part(c byte, size int64) store.Part {
	var p store.Part
	for i := range p.Digest {
		p.Digest[i] = c
	}
	p.Size = size
	return p
}

// example is the checkpoint of docs/MANIFEST_FORMAT.md.
func example() manifest.Manifest {
	base := manifest.PartUse{Part: part(0xaa, 4096), Rows: 100, From: []store.Digest{part(0xcc, 0).Digest}}
	delta := manifest.PartUse{Part: part(0xbb, 300), Rows: 3, Delta: true}
	return manifest.Manifest{
		Kind: manifest.Checkpoint, Name: "chk-3-17", Job: "door", Created: 1_700_000_000_000_000,
		ID:             dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "s", Attempt: 3}, Counter: 17},
		MaxParallelism: 128, Mode: manifest.ExactlyOnce,
		Operators: []manifest.Operator{
			{ID: "in", Parallelism: 1, Positions: []manifest.Position{{Split: "0", Offset: 500}, {Split: "1", Offset: 7, Ended: true}}},
			{ID: "win", Parallelism: 2, Tables: []manifest.Table{
				{Name: "keys", Schema: `"x"`, Keyed: true, Identity: 1, Shards: []manifest.Shard{
					{Subtask: 0, Parts: []manifest.PartUse{base, delta}}, {Subtask: 1}}},
			}},
		},
	}
}

func savepoint() manifest.Manifest {
	m := example()
	m.Kind, m.Name, m.Drained, m.Finished, m.Mode = manifest.Savepoint, "sp-2f9c41d0", true, true, manifest.AtLeastOnce
	m.Operators = m.Operators[1:]
	m.Operators[0].Tables[0].Spread = 2
	m.Operators[0].Tables[0].Shards = []manifest.Shard{{Subtask: 0, Parts: []manifest.PartUse{{Part: part(0xdd, 9), Rows: 1}}}, {Subtask: 1}}
	return m
}

// golden reads the blocks of the document: bytes in hex, comments after #.
func golden(t *testing.T) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("../../docs/MANIFEST_FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string][]byte)
	name := ""
	for _, line := range strings.Split(string(text), "\n") {
		switch rest, fence := strings.CutPrefix(line, "```"); {
		case fence && name == "":
			name, _ = strings.CutPrefix(rest, "hex ")
		case fence:
			name = ""
		case name != "":
			digits, _, _ := strings.Cut(line, "#")
			b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
			if err != nil {
				t.Fatalf("block %q: %q: %v", name, line, err)
			}
			blocks[name] = append(blocks[name], b...)
		}
	}
	return blocks
}

func TestGoldenBytesOfTheDocument(t *testing.T) {
	blocks := golden(t)
	for name, m := range map[string]manifest.Manifest{"checkpoint": example(), "savepoint": savepoint()} {
		got, err := manifest.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, blocks[name]) {
			t.Errorf("%s: encoded as\n%s\nthe document says\n%s", name, hex.Dump(got), hex.Dump(blocks[name]))
			continue
		}
		if back, err := manifest.Decode(blocks[name]); err != nil || !reflect.DeepEqual(back, m) {
			t.Errorf("%s: %v, decoded as\n%+v\nwant\n%+v", name, err, back, m)
		}
	}
	if len(blocks) != 2 {
		t.Errorf("%d examples in the document", len(blocks))
	}
}

// seal gives bytes the checksum that they need.
func seal(data []byte) []byte {
	sum := sha256.Sum256(data)
	return append(bytes.Clone(data), sum[:]...)
}

func TestDecodeRefuses(t *testing.T) {
	good, err := manifest.Encode(example())
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := manifest.Decode(good[:n]); !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("torn after %d of %d bytes: error %v", n, len(good), err)
		}
	}
	for i := range good {
		spoilt := bytes.Clone(good)
		spoilt[i] ^= 4
		if _, err := manifest.Decode(spoilt); !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("a flipped bit in byte %d: error %v", i, err)
		}
	}
	body := good[:len(good)-sha256.Size]
	newer := bytes.Clone(body)
	newer[4] = 2
	if _, err := manifest.Decode(seal(newer)); err == nil || errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("of another version: error %v", err)
	}
	for name, b := range map[string][]byte{
		"bytes left over":    append(bytes.Clone(body), 0),
		"no body":            body[:5],
		"an unknown field":   append(append(bytes.Clone(body[:5]), 0xab), append(bytes.Clone(body[6:]), 0x18, 0x63, 0)...),
		"a float for a name": bytes.Replace(body, []byte("\x02\x68chk-3-17"), []byte("\x02\xfa\x00\x00\x00\x00"), 1),
		"a short digest":     bytes.Replace(body, append([]byte{0x58, 0x20}, bytes.Repeat([]byte{0xbb}, 32)...), append([]byte{0x58, 0x1f}, bytes.Repeat([]byte{0xbb}, 31)...), 1),
		"a long number":      bytes.Replace(body, []byte{0x06, 0x18, 0x80}, []byte{0x06, 0x19, 0x00, 0x80}, 1),
	} {
		if bytes.Equal(b, body) {
			t.Errorf("%s: nothing was changed", name)
		}
		if _, err := manifest.Decode(seal(b)); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestInvariants breaks a good manifest in one way after another.
func TestInvariants(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(m *manifest.Manifest)
		want  string
	}{
		{"nothing", func(m *manifest.Manifest) {}, ""},
		{"kind", func(m *manifest.Manifest) { m.Kind = 3 }, "kind 3"},
		{"name", func(m *manifest.Manifest) { m.Name = "../x" }, "no file's name"},
		{"hidden name", func(m *manifest.Manifest) { m.Name = ".x" }, "no file's name"},
		{"job", func(m *manifest.Manifest) { m.Job = "" }, "job"},
		{"site", func(m *manifest.Manifest) { m.ID.Token.Site = "\xff" }, "site"},
		{"max parallelism", func(m *manifest.Manifest) { m.MaxParallelism = 0 }, "max parallelism 0"},
		{"mode", func(m *manifest.Manifest) { m.Mode = "twice" }, `mode "twice"`},
		{"operator twice", func(m *manifest.Manifest) { m.Operators[1].ID = "in" }, `"in" is there twice`},
		{"parallelism", func(m *manifest.Manifest) { m.Operators[0].Parallelism = 0 }, "parallelism 0"},
		{"split twice", func(m *manifest.Manifest) { m.Operators[0].Positions[1].Split = "0" }, `split "0" is there twice`},
		{"table twice", func(m *manifest.Manifest) {
			m.Operators[1].Tables = append(m.Operators[1].Tables, m.Operators[1].Tables[0])
		}, `table "keys" is there twice`},
		{"schema", func(m *manifest.Manifest) { m.Operators[1].Tables[0].Schema = "" }, "no schema"},
		{"spread", func(m *manifest.Manifest) { m.Operators[1].Tables[0].Spread = 3 }, "spread 3"},
		{"a shard missing", func(m *manifest.Manifest) { m.Operators[1].Tables[0].Shards = m.Operators[1].Tables[0].Shards[:1] }, "1 shards for 2 subtasks"},
		{"a shard twice", func(m *manifest.Manifest) { m.Operators[1].Tables[0].Shards[1].Subtask = 0 }, "subtask 0 is there twice"},
		{"a delta first", func(m *manifest.Manifest) { parts(m)[0].Delta = true }, "the first part is whole"},
		{"two bases", func(m *manifest.Manifest) { parts(m)[1].Delta = false }, "the first part is whole"},
		{"no digest", func(m *manifest.Manifest) { parts(m)[1].Digest = store.Digest{} }, "no digest"},
		{"no bytes", func(m *manifest.Manifest) { parts(m)[1].Size = 0 }, "in 0 bytes"},
		{"negative rows", func(m *manifest.Manifest) { parts(m)[1].Rows = -1 }, "-1 rows"},
		{"two sizes", func(m *manifest.Manifest) { parts(m)[1].Digest = parts(m)[0].Digest }, "has 4096 and 300 bytes"},
		{"deltas without identity", func(m *manifest.Manifest) { m.Operators[1].Tables[0].Identity = 0 }, "2 parts"},
		{"deltas in a savepoint of a move", func(m *manifest.Manifest) { m.Kind = manifest.Savepoint }, ""},
	}
	for _, c := range cases {
		m := example()
		c.spoil(&m)
		_, err := manifest.Encode(m)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

func parts(m *manifest.Manifest) []manifest.PartUse { return m.Operators[1].Tables[0].Shards[0].Parts }

// TestOneEncoding: the order of what has none does not matter, and what is
// decoded is what was encoded.
func TestOneEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := example()
		m.Operators = nil
		for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "é"}), 0, 4, rapid.ID).Draw(t, "ids") {
			o := manifest.Operator{ID: dataflow.OperatorID(id), Parallelism: rapid.IntRange(1, 3).Draw(t, "p")}
			for _, s := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"", "x", "\xff/y"}), 0, 3, rapid.ID).Draw(t, "splits") {
				o.Positions = append(o.Positions, manifest.Position{Split: s, Offset: rapid.Int64().Draw(t, "offset"), Ended: rapid.Bool().Draw(t, "ended")})
			}
			for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"t", "u", "task.v"}), 0, 3, rapid.ID).Draw(t, "tables") {
				table := manifest.Table{Name: name, Schema: "{}", Keyed: rapid.Bool().Draw(t, "keyed"), Identity: rapid.IntRange(0, 2).Draw(t, "identity"), Spread: uint8(rapid.IntRange(0, 2).Draw(t, "spread"))}
				for i := range o.Parallelism {
					s := manifest.Shard{Subtask: i}
					for k := range rapid.IntRange(0, min(1, table.Identity)*2).Draw(t, "parts") {
						s.Parts = append(s.Parts, manifest.PartUse{Part: part(byte(rapid.IntRange(1, 200).Draw(t, "digest")), 5), Delta: k > 0})
					}
					table.Shards = append(table.Shards, s)
				}
				o.Tables = append(o.Tables, table)
			}
			m.Operators = append(m.Operators, o)
		}
		one, err := manifest.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		back, err := manifest.Decode(one)
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(m.Operators)
		for i := range m.Operators {
			slices.Reverse(m.Operators[i].Positions)
			slices.Reverse(m.Operators[i].Tables)
			for j := range m.Operators[i].Tables {
				slices.Reverse(m.Operators[i].Tables[j].Shards)
			}
		}
		before := fmt.Sprint(m)
		two, err := manifest.Encode(m)
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("another order makes other bytes, %v", err)
		}
		if fmt.Sprint(m) != before {
			t.Fatal("Encode changed its argument")
		}
		if three, err := manifest.Encode(back); err != nil || !bytes.Equal(one, three) {
			t.Fatalf("it does not come back: %v", err)
		}
	})
}

func TestNeededAndSizes(t *testing.T) {
	a, b := example(), savepoint()
	var names []string
	for _, p := range manifest.Needed(b, a, a) {
		names = append(names, p.Digest.String()[:2])
	}
	if got := strings.Join(names, " "); got != "aa bb dd" { // what a part was merged from is not needed
		t.Errorf("needed %s", got)
	}
	if s := manifest.Sizes(a); s != (manifest.Size{Parts: 2, Bytes: 4396, Rows: 103, New: 4396}) {
		t.Errorf("%+v", s)
	}
	later := example()
	parts(&later)[1].Part = part(0xee, 11)
	if s := manifest.Sizes(later, a, b); s.New != 11 || s.Bytes != 4107 {
		t.Errorf("%+v", s)
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []manifest.Manifest{example(), savepoint()} {
		b, err := manifest.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-sha256.Size])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := manifest.Decode(seal(data)) // the checksum would keep the fuzzer out
		if err != nil {
			return
		}
		if again, err := manifest.Encode(m); err != nil || !bytes.Equal(again, seal(data)) {
			t.Fatalf("decoded, but %v, encoded otherwise", err)
		}
	})
}
