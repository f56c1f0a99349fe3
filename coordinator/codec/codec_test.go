package codec_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
)

var update = flag.Bool("update", false, "rewrite the blocks of the documents")

// encodings are the three kinds of values, by the name of their Go type.
type encoding struct {
	doc      string
	examples func() []any
	encode   func(any) ([]byte, error)
	decode   func([]byte) (any, error)
}

func encodings() map[string]encoding {
	return map[string]encoding{
		"Command": {"../../docs/COMMANDS.md", commands,
			func(v any) ([]byte, error) { return codec.EncodeCommand(v.(*coordinator.Command)) },
			func(b []byte) (any, error) { return codec.DecodeCommand(b) }},
		"ToLeader": {"../../docs/CONTROL.md", toLeader,
			func(v any) ([]byte, error) { return codec.EncodeToLeader(v.(*coordinator.ToLeader)) },
			func(b []byte) (any, error) { return codec.DecodeToLeader(b) }},
		"ToAgent": {"../../docs/CONTROL.md", toAgent,
			func(v any) ([]byte, error) { return codec.EncodeToAgent(v.(*coordinator.ToAgent)) },
			func(b []byte) (any, error) { return codec.DecodeToAgent(b) }},
		"Want": {"../../docs/REPLICATION.md", func() []any { return []any{new(want())} },
			func(v any) ([]byte, error) { return codec.EncodeWant(v.(*coordinator.Want)) },
			func(b []byte) (any, error) { return codec.DecodeWant(b) }},
		"Offer": {"../../docs/REPLICATION.md", func() []any { return []any{new(offer())} },
			func(v any) ([]byte, error) { return codec.EncodeOffer(v.(*coordinator.Offer)) },
			func(b []byte) (any, error) { return codec.DecodeOffer(b) }},
		"ToTarget": {"../../docs/MIGRATION.md", toTarget,
			func(v any) ([]byte, error) { return codec.EncodeToTarget(v.(*coordinator.ToTarget)) },
			func(b []byte) (any, error) { return codec.DecodeToTarget(b) }},
		"ToSource": {"../../docs/MIGRATION.md", toSource,
			func(v any) ([]byte, error) { return codec.EncodeToSource(v.(*coordinator.ToSource)) },
			func(b []byte) (any, error) { return codec.DecodeToSource(b) }},
	}
}

// saying is the name of the one pointer that is set.
func saying(v any) string {
	s := reflect.ValueOf(v).Elem()
	for i := range s.NumField() {
		if f := s.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			if name := s.Type().Field(i).Name; name != "Move" {
				return name
			}
			return "Move " + saying(f.Interface())
		}
	}
	return ""
}

// block is what stands between the fences of a document: the value in
// diagnostic notation as a comment, then bytes.
func block(t *testing.T, data []byte) string {
	t.Helper()
	diag, err := cbor.Diagnose(data)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", diag)
	for row := range slices.Chunk(data, 32) {
		fmt.Fprintf(&b, "% x\n", row)
	}
	return b.String()
}

// fields is a table of a struct's keys, as the document has it.
func fields(typ reflect.Type, depth int) string {
	var b strings.Builder
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Anonymous {
			b.WriteString(fields(f.Type, depth))
			continue
		}
		key, rest, _ := strings.Cut(f.Tag.Get("cbor"), ",")
		optional := ""
		if strings.Contains(rest, "omitempty") {
			optional = " optional"
		}
		fmt.Fprintf(&b, "%s%s %s: %s%s\n", strings.Repeat("  ", depth), key, f.Name, typeName(f.Type), optional)
	}
	return b.String()
}

func typeName(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Pointer:
		return typeName(t.Elem())
	case t.Kind() == reflect.Map:
		return "map of " + typeName(t.Key()) + " to " + typeName(t.Elem())
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8, t.Kind() == reflect.Array:
		return "bytes"
	case t.Kind() == reflect.Slice:
		return "array of " + typeName(t.Elem())
	case t.Kind() == reflect.Struct:
		return t.Name()
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "boolean"
	}
	return "integer"
}

// structs are all that a type is made of, each once, itself first.
func structs(t reflect.Type, seen map[reflect.Type]bool) (all []reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return structs(t.Elem(), seen)
	case reflect.Struct:
		if seen[t] {
			return nil
		}
		seen[t] = true
		all = append(all, t)
		for i := range t.NumField() {
			all = append(all, structs(t.Field(i).Type, seen)...)
		}
	}
	return all
}

// blocks are what the documents must say, by document and the word after the
// fence.
func blocks(t *testing.T) map[string]map[string]string {
	t.Helper()
	want := map[string]map[string]string{}
	roots := map[string][]reflect.Type{
		"../../docs/COMMANDS.md":    {reflect.TypeFor[coordinator.Command](), reflect.TypeFor[coordinator.Job](), reflect.TypeFor[coordinator.Replica](), reflect.TypeFor[coordinator.Departure]()},
		"../../docs/CONTROL.md":     {reflect.TypeFor[coordinator.ToLeader](), reflect.TypeFor[coordinator.ToAgent]()},
		"../../docs/REPLICATION.md": {reflect.TypeFor[coordinator.Want](), reflect.TypeFor[coordinator.Offer]()},
		"../../docs/MIGRATION.md":   {reflect.TypeFor[coordinator.ToTarget](), reflect.TypeFor[coordinator.ToSource](), reflect.TypeFor[coordinator.OwnerNews]()},
	}
	for doc, types := range roots {
		want[doc] = map[string]string{}
		seen := map[reflect.Type]bool{}
		var b strings.Builder
		for _, root := range types {
			for _, typ := range structs(root, seen) {
				if text := fields(typ, 1); text != "" && typ.Name() != "AttemptRef" {
					fmt.Fprintf(&b, "%s\n%s", typ.Name(), text)
				}
			}
		}
		want[doc]["fields"] = b.String()
	}
	for name, e := range encodings() {
		for _, v := range e.examples() {
			data, err := e.encode(v)
			if err != nil {
				t.Fatal(err)
			}
			want[e.doc][strings.TrimSpace("hex "+name+" "+saying(v))] = block(t, data)
		}
	}
	for name, st := range map[string]*coordinator.State{"hex state": state1(), "hex state with moves": state2()} {
		var state bytes.Buffer
		if err := codec.EncodeState(&state, st); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for row := range slices.Chunk(state.Bytes(), 32) {
			fmt.Fprintf(&b, "% x\n", row)
		}
		want["../../docs/COMMANDS.md"][name] = b.String()
	}
	return want
}

var fence = regexp.MustCompile("(?ms)^```((?:hex|fields)[^\n]*)\n(.*?)^```$")

// The documents have the fields of everything and the bytes of an example of
// each command and message, and nothing else. -update writes the blocks that are
// there anew.
func TestGoldenBytesOfTheDocuments(t *testing.T) {
	for doc, want := range blocks(t) {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			text = fence.ReplaceAllFunc(text, func(b []byte) []byte {
				name := string(fence.FindSubmatch(b)[1])
				return []byte("```" + name + "\n" + want[name] + "```")
			})
			if err := os.WriteFile(doc, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got := map[string]string{}
		for _, m := range fence.FindAllSubmatch(text, -1) {
			got[string(m[1])] = string(m[2])
		}
		for name, w := range want {
			if got[name] != w {
				t.Errorf("%s: %s is\n%s\nthe document says\n%s", doc, name, w, got[name])
			}
		}
		for name := range got {
			if _, ok := want[name]; !ok {
				t.Errorf("%s: nothing is called %q", doc, name)
			}
		}
	}
}

// The bytes of the documents are what the values are decoded from.
func TestGoldenBytesDecode(t *testing.T) {
	for name, e := range encodings() {
		text, err := os.ReadFile(e.doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range e.examples() {
			for _, m := range fence.FindAllSubmatch(text, -1) {
				if string(m[1]) != strings.TrimSpace("hex "+name+" "+saying(v)) {
					continue
				}
				_, digits, _ := strings.Cut(string(m[2]), "\n")
				data, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
				if err != nil {
					t.Fatal(err)
				}
				if back, err := e.decode(data); err != nil || !reflect.DeepEqual(back, v) {
					t.Errorf("%s %s: %v, decoded as\n%+v\nwant\n%+v", name, saying(v), err, back, v)
				}
			}
		}
	}
}

// Each command and message has an example.
func TestExamplesAreComplete(t *testing.T) {
	for name, e := range encodings() {
		typ := reflect.TypeOf(e.examples()[0]).Elem()
		said := map[string]bool{}
		for _, v := range e.examples() {
			said[saying(v)] = true
		}
		for i := range typ.NumField() {
			if f := typ.Field(i); f.Type.Kind() == reflect.Pointer && f.Name != "Move" && !said[f.Name] {
				t.Errorf("%s has no example of %s", name, f.Name)
			}
		}
		for moves := reflect.TypeFor[coordinator.MoveCommand](); name == "Command" && len(said) > 0; said = nil {
			for i := range moves.NumField() {
				if !said["Move "+moves.Field(i).Name] {
					t.Errorf("no example of Move %s", moves.Field(i).Name)
				}
			}
		}
	}
}

// Every field that is encoded has a key: a name in its place would be another
// format.
func TestEveryFieldHasAKey(t *testing.T) {
	seen := map[reflect.Type]bool{}
	for _, root := range []reflect.Type{reflect.TypeFor[coordinator.Command](), reflect.TypeFor[coordinator.Job](), reflect.TypeFor[coordinator.Replica](), reflect.TypeFor[coordinator.ToLeader](), reflect.TypeFor[coordinator.ToAgent]()} {
		for _, typ := range structs(root, seen) {
			keys := map[string]bool{}
			for line := range strings.Lines(fields(typ, 0)) {
				key, _, _ := strings.Cut(line, " ")
				if key == "" || keys[key] || strings.Trim(key, "0123456789") != "" {
					t.Errorf("%s: the key of %q", typ, strings.TrimSpace(line))
				}
				keys[key] = true
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := codec.EncodeCommand(commands()[0].(*coordinator.Command))
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := codec.DecodeCommand(good[:n]); !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("torn after %d of %d bytes: %v", n, len(good), err)
		}
	}
	for name, data := range map[string][]byte{
		"bytes left over":    append(bytes.Clone(good), 0),
		"an unknown key":     {0xa3, 1, 1, 2, 0, 0x18, 0x63, 0},
		"a key twice":        {0xa3, 1, 1, 1, 1, 2, 0},
		"nothing said":       {0xa2, 1, 1, 2, 0},
		"two things":         {0xa4, 1, 1, 2, 0, 0x0d, 0xa1, 1, 0x60, 0x0e, 0xa1, 1, 1},
		"another order":      {0xa3, 2, 0, 1, 1, 0x0e, 0xa1, 1, 1},
		"a longer number":    {0xa3, 1, 0x18, 1, 2, 0, 0x0e, 0xa1, 1, 1},
		"an indefinite map":  {0xbf, 1, 1, 2, 0, 0x0e, 0xa1, 1, 1, 0xff},
		"a tag":              {0xa3, 1, 1, 2, 0xc0, 0, 0x0e, 0xa1, 1, 1},
		"a float":            {0xa3, 1, 0xf9, 0x3c, 0, 2, 0, 0x0e, 0xa1, 1, 1},
		"a move, and no say": {0xa3, 1, 4, 2, 0, 0x18, 50, 0xa0},
		"two about a move":   {0xa3, 1, 4, 2, 0, 0x18, 50, 0xa2, 2, 0xa1, 1, 0x60, 5, 0xa1, 1, 0x60},
		"null":               {0xf6},
		"a null in an array": {0xa3, 1, 1, 2, 0, 0x14, 0xa5, 1, 0x60, 2, 0x60, 3, 0x40, 4, 0x81, 0xf6, 8, 0x60},
	} {
		if _, err := codec.DecodeCommand(data); !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := codec.DecodeCommand([]byte{0xa3, 1, 1, 2, 0, 0x0e, 0xa1, 1, 1}); err != nil {
		t.Errorf("what the others spoil is not good itself: %v", err)
	}
	if _, err := codec.DecodeCommand(make([]byte, codec.MaxCommand+1)); !errors.Is(err, codec.ErrTooLarge) {
		t.Errorf("too many bytes: %v", err)
	}
	if _, err := codec.EncodeToAgent(&coordinator.ToAgent{Refused: &coordinator.Refused{Why: strings.Repeat("x", codec.MaxMessage)}}); !errors.Is(err, codec.ErrTooLarge) {
		t.Errorf("a long text: %v", err)
	}
	if _, err := codec.EncodeToAgent(&coordinator.ToAgent{Refused: &coordinator.Refused{}, Seal: &coordinator.Seal{}}); err == nil {
		t.Error("two things at once were encoded")
	}
}

// The cause of an error may hold any bytes; it must not end a stream.
func TestTextThatIsNoUTF8(t *testing.T) {
	m := &coordinator.ToLeader{Failed: &coordinator.AttemptFailed{Why: "payload \xff\xfe"}}
	data, err := codec.EncodeToLeader(m)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := codec.DecodeToLeader(data); err != nil || back.Failed.Why != m.Failed.Why {
		t.Errorf("%v, %+v", err, back)
	}
}

func TestStateComesBack(t *testing.T) {
	for _, st := range []func() *coordinator.State{state1, state2} {
		comesBack(t, st)
	}
}

func comesBack(t *testing.T, st func() *coordinator.State) {
	t.Helper()
	var one, two bytes.Buffer
	if err := codec.EncodeState(&one, st()); err != nil {
		t.Fatal(err)
	}
	data := one.Bytes()
	back, err := codec.DecodeState(bytes.NewReader(data))
	if err != nil || !reflect.DeepEqual(back, st()) {
		t.Fatalf("%v\n%+v\nwant\n%+v", err, back, st())
	}
	if err := codec.EncodeState(&two, back); err != nil || !bytes.Equal(data, two.Bytes()) {
		t.Errorf("another encoding, %v", err)
	}
	for n := range data {
		if _, err := codec.DecodeState(bytes.NewReader(data[:n])); err == nil {
			t.Fatalf("torn after %d of %d bytes: no error", n, len(data))
		}
		spoilt := bytes.Clone(data)
		spoilt[n] ^= 4
		if _, err := codec.DecodeState(bytes.NewReader(spoilt)); err == nil {
			t.Fatalf("a flipped bit in byte %d: no error", n)
		}
	}
	if _, err := codec.DecodeState(bytes.NewReader(append(bytes.Clone(data), 0))); err == nil {
		t.Error("bytes left over: no error")
	}
}

// A snapshot of a program before SitesLevel is read, and written again as it was.
func TestOldStateDecodes(t *testing.T) {
	text, err := os.ReadFile("testdata/state-level3.hex")
	if err != nil {
		t.Fatal(err)
	}
	data, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	s, err := codec.DecodeState(bytes.NewReader(data))
	if err != nil || len(s.Jobs) != 2 || s.Replicas == nil || len(s.Replicas) > 0 || s.Forgotten == nil {
		t.Fatalf("%v, %+v", err, s)
	}
	var again bytes.Buffer
	if err := codec.EncodeState(&again, s); err != nil || !bytes.Equal(again.Bytes(), data) {
		t.Errorf("%v: it is written otherwise", err)
	}
}

// nil and no elements are one value with one encoding.
func TestNilIsEmpty(t *testing.T) {
	encodeIt := func(places []coordinator.Place) []byte {
		data, err := codec.EncodeCommand(&coordinator.Command{JobDeployed: &coordinator.JobDeployed{Job: "j7", Places: places}})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	if one, two := encodeIt(nil), encodeIt([]coordinator.Place{}); !bytes.Equal(one, two) {
		t.Errorf("% x\nand\n% x", one, two)
	}
	if _, err := codec.DecodeCommand(encodeIt(nil)); err != nil {
		t.Error(err)
	}
}

// A state has one snapshot: records in another order, twice or left out are
// refused, though the checksum is right.
func TestStateRefusesOtherOrders(t *testing.T) {
	var b bytes.Buffer
	if err := codec.EncodeState(&b, state2()); err != nil {
		t.Fatal(err)
	}
	head, rest := b.Bytes()[:5], b.Bytes()[5:b.Len()-32]
	var records [][]byte
	for len(rest) > 0 {
		n := 4 + int(binary.BigEndian.Uint32(rest))
		records, rest = append(records, rest[:n]), rest[n:]
	}
	put := func(records [][]byte) error {
		_, err := codec.DecodeState(bytes.NewReader(seal(slices.Concat(head, slices.Concat(records...)))))
		return err
	}
	if err := put(records); err != nil {
		t.Fatal(err)
	}
	for i := range records {
		if err := put(slices.Delete(slices.Clone(records), i, i+1)); err == nil {
			t.Errorf("without record %d: no error", i)
		}
		for j := range i {
			swapped := slices.Clone(records)
			swapped[i], swapped[j] = swapped[j], swapped[i]
			// Checkpoints of a job have the order in which they were taken.
			if err := put(swapped); err == nil && !checkpoints(records[i], records[j]) {
				t.Errorf("records %d and %d the other way round: no error", j, i)
			}
		}
	}
}

func checkpoints(records ...[]byte) bool {
	for _, r := range records {
		if r[4] != 0xa1 || r[5] != 7 {
			return false
		}
	}
	return true
}

// Of a move one thing is said at a time.
func TestOneThingOfAMove(t *testing.T) {
	for _, m := range []coordinator.ToTarget{{Move: "m1-s"}, {Move: "m1-s", Verdict: 9}, {Move: "m1-s", Verdict: coordinator.DecisionAborted, Newest: &coordinator.MoveNewest{Snapshot: snapshot("chk-3-17", 17)}}} {
		if _, err := codec.EncodeToTarget(&m); err == nil {
			t.Errorf("%+v was encoded", m)
		}
		data, err := cbor.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := codec.DecodeToTarget(data); !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("%+v: %v", m, err)
		}
	}
	if _, err := codec.EncodeToSource(&coordinator.ToSource{Move: "m1-s"}); err == nil {
		t.Error("nothing was encoded")
	}
}

func FuzzDecode(f *testing.F) {
	kinds := []string{"Command", "ToLeader", "ToAgent", "Want", "Offer", "ToTarget", "ToSource"}
	for i, name := range kinds {
		e := encodings()[name]
		for _, v := range e.examples() {
			data, err := e.encode(v)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), data)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		e := encodings()[kinds[int(kind)%len(kinds)]]
		v, err := e.decode(data)
		if err != nil {
			return
		}
		again, err := e.encode(v)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("decoded, but %v, encoded otherwise", err)
		}
		if back, err := e.decode(again); err != nil || !reflect.DeepEqual(back, v) {
			t.Fatalf("%v: it came back as %+v, not %+v", err, back, v)
		}
	})
}

func FuzzDecodeState(f *testing.F) {
	var b bytes.Buffer
	if err := codec.EncodeState(&b, state1()); err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(b.Bytes()[:b.Len()-32]))
	b.Reset()
	if err := codec.EncodeState(&b, state2()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes()[:b.Len()-32])
	f.Fuzz(func(t *testing.T, data []byte) {
		data = seal(data) // the checksum would keep the fuzzer out
		s, err := codec.DecodeState(bytes.NewReader(data))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := codec.EncodeState(&again, s); err != nil || !bytes.Equal(again.Bytes(), data) {
			t.Fatalf("decoded, but %v, encoded otherwise", err)
		}
	})
}
