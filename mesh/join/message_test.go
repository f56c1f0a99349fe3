package join

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
)

// TestGolden: the bytes of docs/SECURITY.md.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		message any
		want    string
	}{
		{request{Protocol: 1, Token: "abcdefgh", Secret: []byte{1, 2}, Node: "n1", Name: "box", CSR: []byte{3}, Version: "v1", Level: 1},
			"00000023" + "a8" + "0101" + "02686162636465666768" + "03420102" + "04626e31" + "0563626f78" + "064103" + "07627631" + "0801"},
		{request{Protocol: 1, Node: "n1", Name: "box", CSR: []byte{3}, Link: "a:1"},
			"00000014" + "a5" + "0101" + "04626e31" + "0563626f78" + "064103" + "0963613a31"},
		{request{Protocol: 1, Node: "n1", Name: "box", CSR: []byte{3}, Site: "s"}, "00000012" + "a5" + "0101" + "04626e31" + "0563626f78" + "064103" + "0a6173"},
		{answer{Protocol: 1, Code: 4, Why: "no"}, "00000009" + "a3" + "0101" + "0204" + "03626e6f"},
		{answer{Protocol: 1, Grant: &Grant{Mesh: "m", Site: "s", Chain: [][]byte{{1}, {2}}, Root: []byte{3}, Gossip: []byte{4}, Members: []Contact{{Node: "n1", Link: "a:1", Gossip: "a:2"}}}},
			"00000028" + "a2" + "0101" + "04a6" + "01616d" + "026173" + "038241014102" + "044103" + "054104" + "0681a301626e310263613a310363613a32"},
		{answer{Protocol: 1, Grant: &Grant{Mesh: "m", Site: "s", Root: []byte{3}, Gossip: []byte{4}, Sealed: []byte{5}}},
			"00000016" + "a2" + "0101" + "04a6" + "01616d" + "026173" + "03f6" + "044103" + "054104" + "074105"},
	} {
		var b bytes.Buffer
		if err := write(&b, c.message); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b.Bytes()); got != c.want {
			t.Errorf("%+v:\n got %s\nwant %s", c.message, got, c.want)
		}
	}
}

func TestBounds(t *testing.T) {
	if err := write(io.Discard, answer{Why: strings.Repeat("x", maxMessage)}); !errors.Is(err, ErrProtocol) {
		t.Errorf("a long message written: %v", err)
	}
	var r request
	if err := read(strings.NewReader("\xff\xff\xff\xff"), &r); !errors.Is(err, ErrProtocol) {
		t.Errorf("a long message read: %v", err)
	}
	if err := read(strings.NewReader("\x00\x00\x00\x05a"), &r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a message cut off: %v", err)
	}
	f := folder(t)
	s := found(t, "plant")
	a := applicant(t, f, s.id.NewToken())
	for name, c := range map[string]struct {
		change func(*request)
		want   error
	}{
		"right":           {func(*request) {}, nil},
		"version":         {func(r *request) { r.Protocol = 2 }, ErrProtocol},
		"short secret":    {func(r *request) { r.Secret = r.Secret[1:] }, ErrProtocol},
		"long token":      {func(r *request) { r.Token = strings.Repeat("a", 64) }, ErrProtocol},
		"token of bells":  {func(r *request) { r.Token = "\a" }, ErrProtocol},
		"no name":         {func(r *request) { r.Name = "" }, ErrRequest},
		"long name":       {func(r *request) { r.Name = strings.Repeat("a", 64) }, ErrRequest},
		"name of lines":   {func(r *request) { r.Name = "a\nb" }, ErrRequest},
		"name not UTF-8":  {func(r *request) { r.Name = "\xff" }, ErrRequest},
		"version of dust": {func(r *request) { r.Version = "\x00" }, ErrRequest},
		"long address":    {func(r *request) { r.Link = strings.Repeat("a", 256) }, ErrRequest},
		"address of dust": {func(r *request) { r.Link = "a:1\n" }, ErrRequest},
		"site of dust":    {func(r *request) { r.Site = "hall\n" }, ErrRequest},
		"long site":       {func(r *request) { r.Site = mesh.Site(strings.Repeat("a", 64)) }, ErrRequest},
		"no request":      {func(r *request) { r.CSR = nil }, ErrRequest},
		"another node":    {func(r *request) { r.Node = s.id.Node() }, ErrRequest},
	} {
		r := request{Protocol: protocol, Token: a.Token.ID, Secret: a.Token.Secret[:], Node: a.Node, Name: a.Name, CSR: a.CSR}
		c.change(&r)
		if err := r.check(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestReasons: each kind is the same on the other side.
func TestReasons(t *testing.T) {
	for code, kind := range codes {
		if kind == nil {
			continue
		}
		a := refusal(errors.Join(errors.New("at hall"), kind))
		if a.Code != code || !errors.Is(a.err(), kind) || Code(kind) != code || Kind(code) != kind {
			t.Errorf("%v became code %d, %v", kind, a.Code, a.err())
		}
	}
	for _, a := range []answer{{Code: 99}, {Code: 8, Why: "\x1b[2J"}} {
		if err := a.err(); !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%+v: %q", a, err)
		}
	}
	for _, code := range []int{-1, 0, 99} {
		if Kind(code) != ErrUnavailable {
			t.Errorf("code %d is %v", code, Kind(code))
		}
	}
	if err := refusal(identity.ErrNoKey); err.Code != 8 {
		t.Errorf("%+v", err)
	}
}

func FuzzRequest(f *testing.F) {
	var b bytes.Buffer
	if err := write(&b, request{Protocol: 1, Token: "abcdefgh", Secret: make([]byte, 20), Node: "n1", Name: "box", CSR: []byte{3}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("\x00\x00\x00\x01\xa0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r request
		if read(bytes.NewReader(data), &r) == nil {
			_ = r.check()
			var again bytes.Buffer
			if err := write(&again, r); err != nil && len(data) < maxMessage/2 {
				t.Error(err)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, a := range []answer{
		{Protocol: 1, Code: 4, Why: "no"},
		{Protocol: 1, Grant: &Grant{Mesh: "m", Site: "s", Chain: [][]byte{{1}, {2}}, Root: []byte{3}, Gossip: []byte{4}, Members: []Contact{{Node: "n1", Link: "a:1", Gossip: "a:2"}}}},
	} {
		var b bytes.Buffer
		if err := write(&b, a); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var a answer
		if read(bytes.NewReader(data), &a) == nil && a.check() == nil && a.Grant == nil && a.err() == nil {
			t.Error("neither a grant nor a refusal")
		}
	})
}
