package identity

import (
	"errors"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// another is what the founder of site "depot" gets.
func another(t *testing.T, b *box, id *Identity) (Token, Credentials, []byte) {
	t.Helper()
	key, err := b.folder.RootKey()
	if err != nil {
		t.Fatal(err)
	}
	_, made, err := SignSite(key, "depot", b.clock)
	if err != nil {
		t.Fatal(err)
	}
	token, sealed, err := NewSiteToken(key, "depot", made)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(sealed), string(made[40:60])) {
		t.Error("it is not sealed")
	}
	return token, Credentials{Mesh: id.Mesh(), Site: "depot", Root: id.Root().Raw, Gossip: id.GossipKey()}, sealed
}

func nothing(mesh.NodeID) error { return nil }

func TestFoundSite(t *testing.T) {
	first := newBox(t, "2026-03-01")
	plant := first.found("plant", "hall")
	token, c, sealed := another(t, first, plant)
	again, err := ParseToken(token.String())
	if err != nil || again != token || !again.Founds || !strings.HasPrefix(token.String(), "ts1-") {
		t.Fatalf("%v, %v", again, err)
	}
	if token.Shown() == token.Secret || token.SecretHash() == (Token{ID: token.ID, Secret: token.Secret}).SecretHash() {
		t.Error("who is shown the token could open what is sealed")
	}

	b := newBox(t, "2026-03-01")
	told := mesh.NodeID("")
	id, err := b.folder.FoundSite(token, c, sealed, func(n mesh.NodeID) error { told = n; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if id.Site() != "depot" || id.Mesh() != "plant" || !id.CanIssue() || told != id.Node() || string(id.GossipKey()) != string(plant.GossipKey()) {
		t.Errorf("site %s of mesh %s, issues %v, node %s, told %s", id.Site(), id.Mesh(), id.CanIssue(), id.Node(), told)
	}
	if _, err := b.folder.RootKey(); !errors.Is(err, ErrNoKey) {
		t.Errorf("it has the root's key: %v", err)
	}
	if other := newBox(t, "2026-03-01").joins(id); other.Site() != "depot" { // it lets others in
		t.Errorf("of site %s", other.Site())
	}
	if _, err := b.folder.FoundSite(token, c, sealed, nothing); !errors.Is(err, ErrTaken) {
		t.Errorf("founded twice: %v", err)
	}

	other := newBox(t, "2026-03-01")
	foreign := other.found("plant", "hall")
	wrong, _, _ := another(t, first, plant)
	bent := append([]byte(nil), sealed...)
	bent[7] ^= 1
	elsewhere := c
	elsewhere.Site = "yard"
	stranger := c
	stranger.Root = foreign.Root().Raw
	for what, f := range map[string]struct {
		token  Token
		c      Credentials
		sealed []byte
		want   error
	}{
		"another token": {wrong, c, sealed, ErrDamaged},
		"damage":        {token, c, bent, ErrDamaged},
		"nothing":       {token, c, nil, ErrDamaged},
		"another site":  {token, elsewhere, sealed, ErrDamaged},
		"another mesh":  {token, stranger, sealed, ErrForeign},
	} {
		b := newBox(t, "2026-03-01")
		if _, err := b.folder.FoundSite(f.token, f.c, f.sealed, nothing); !errors.Is(err, f.want) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := b.folder.Load(); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := newBox(t, "1970-01-02").folder.FoundSite(token, c, sealed, nothing); err == nil {
		t.Error("founded with a clock that is wrong")
	}
}

// TestFoundSiteCrash cuts the power at each write, and founds again.
func TestFoundSiteCrash(t *testing.T) {
	first := newBox(t, "2026-03-01")
	token, c, sealed := another(t, first, first.found("plant", "hall"))
	whole := newBox(t, "2026-03-01")
	if _, err := whole.folder.FoundSite(token, c, sealed, nothing); err != nil {
		t.Fatal(err)
	}
	for op := 1; op <= whole.fs.Ops(); op++ {
		for seed := range uint64(6) {
			b := newBox(t, "2026-03-01")
			b.fs.PowerOffAt(op)
			if _, err := b.folder.FoundSite(token, c, sealed, nothing); err == nil {
				t.Fatalf("op %d: founded without power", op)
			}
			b.fs = b.fs.Crash(seed)
			b.folder = OpenFolder(b.fs, where, b.folder.now)
			id, err := b.folder.Load()
			if errors.Is(err, ErrNone) {
				id, err = b.folder.FoundSite(token, c, sealed, nothing)
			}
			if err != nil {
				t.Fatalf("op %d, seed %d: %v", op, seed, err)
			}
			if node, err := b.folder.Node(); err != nil || node != id.Node() || !id.CanIssue() || id.Site() != "depot" {
				t.Fatalf("op %d, seed %d: node %s, identity of %s: %v", op, seed, node, id.Node(), err)
			}
		}
	}
}
