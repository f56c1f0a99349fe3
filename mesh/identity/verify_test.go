package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

func TestRenewal(t *testing.T) {
	f := newBox(t, "2026-03-01")
	founder := f.found("plant", "hall")
	b := newBox(t, "2026-03-01")
	id := b.joins(founder)
	for day, want := range map[string]bool{"2026-03-02": false, "2026-10-25": false, "2026-11-01": true, "2027-02-28": true} {
		if got := id.NeedsRenewal(at(day)); got != want {
			t.Errorf("%s: needs renewal %v, want %v", day, got, want)
		}
	}
	f.clock, b.clock = at("2026-11-01"), at("2026-11-01")
	csr, err := id.Request()
	if err != nil {
		t.Fatal(err)
	}
	old := [][]byte{id.chain[0].Raw, id.chain[1].Raw}
	chain, err := founder.Issue(csr, id.Node(), id.Site(), f.clock)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(6) { // whenever the power fails, one of the two is there
		for cut := 1; cut <= 6; cut++ {
			c := &box{t: t, fs: b.fs.Crash(1), clock: b.clock}
			c.folder = OpenFolder(c.fs, where, b.folder.now)
			early, err := c.folder.Load()
			if err != nil {
				t.Fatal(err)
			}
			c.fs.PowerOffAt(cut)
			_ = early.Renew(chain)
			if _, err := OpenFolder(c.fs.Crash(seed), where, b.folder.now).Load(); err != nil {
				t.Fatalf("cut %d, seed %d: %v", cut, seed, err)
			}
		}
	}
	if err := id.Renew(chain); err != nil {
		t.Fatal(err)
	}
	if err := id.Renew(old); !errors.Is(err, ErrExpired) {
		t.Errorf("the old one again: %v", err)
	}
	if err := id.Renew([][]byte{founder.chain[0].Raw, founder.chain[1].Raw}); !errors.Is(err, ErrNode) {
		t.Errorf("another's: %v", err)
	}
	b.clock = at("2027-10-01")
	id, err = b.folder.Load()
	if err != nil || id.NeedsRenewal(at("2026-11-02")) {
		t.Fatalf("after a restart: %v", err)
	}
	b.clock = at("2028-01-01")
	if _, err := b.folder.Load(); !errors.Is(err, ErrExpired) || !strings.Contains(err.Error(), "2027-11-01") || !strings.Contains(err.Error(), "2028-01-01") {
		t.Errorf("after its end: %v", err)
	}
	f.clock = b.clock
	if founder, err = f.folder.Load(); !errors.Is(err, ErrExpired) {
		t.Errorf("the founder's: %v, %v", founder, err)
	}
}

// TestClocks: who meets whom when clocks are wrong.
func TestClocks(t *testing.T) {
	f := newBox(t, "2026-03-01")
	founder := f.found("plant", "hall")
	old := newBox(t, "2026-03-01")
	id := old.joins(founder)
	f.clock = at("2026-12-01")
	fresh := newBox(t, "2026-12-01").joins(founder)
	chain := fresh.chain
	for _, c := range []struct {
		clock string
		want  error
	}{
		{"1970-01-01", nil}, // a box without a clock
		{"2026-03-01", nil},
		{"2026-06-01", nil}, // one whose clock stood still while it was off
		{"2027-11-30", nil},
		{"2027-12-02", ErrExpired},
	} {
		old.clock = at(c.clock)
		if _, err := id.verify(chain, ""); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.clock, err, c.want)
		}
		if again, err := old.folder.Load(); c.clock < "2027-02" && (err != nil || again.Now().Before(at("2026-02-28"))) {
			t.Errorf("%s: loaded with %v", c.clock, err)
		}
	}
	// What it has seen counts also when the clock falls back.
	old.clock = at("2026-08-01")
	if err := id.Saw(old.clock); err != nil {
		t.Fatal(err)
	}
	ops := old.fs.Ops()
	if err := id.Saw(old.clock.Add(time.Hour)); err != nil || old.fs.Ops() != ops {
		t.Errorf("written again after an hour: %v", err)
	}
	old.clock = at("1970-01-01")
	id, err := old.folder.Load()
	if err != nil || !id.Now().Equal(at("2026-08-01")) {
		t.Errorf("%v is what it has seen (%v)", id.Now(), err)
	}
	// A clock that was far ahead for a moment does not lock the agent out.
	if err := id.Saw(at("2050-01-01")); err != nil {
		t.Fatal(err)
	}
	if _, err := old.folder.Load(); err != nil {
		t.Error(err)
	}
	if err := old.fs.Damage(filepath.Join(where, seenFile), func([]byte) []byte { return []byte("x") }); err != nil {
		t.Fatal(err)
	}
	if _, err := old.folder.Load(); err != nil {
		t.Errorf("a damaged %s: %v", seenFile, err)
	}
	// A voter whose clock is years ahead signs nothing; what another program made of
	// that nobody believes, or takes as its own.
	csr, err := old.folder.Request()
	if err != nil {
		t.Fatal(err)
	}
	for when, want := range map[string]error{"2027-03-01": nil, "2027-03-03": ErrExpired, "2030-01-01": ErrExpired} { // its own one ends on 2027-03-01
		if _, err := founder.Issue(csr, id.Node(), "hall", at(when)); !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), "2027-03-01") {
			t.Errorf("signed on %s: %v, want %v", when, err, want)
		}
	}
	made, err := newAgent(*founder.signer, "plant", "hall", id.key.Public().(ed25519.PublicKey), at("2030-01-01"))
	if err != nil {
		t.Fatal(err)
	}
	ahead := [][]byte{made.Raw, founder.chain[1].Raw}
	if err := id.Renew(ahead); !errors.Is(err, ErrNotYet) || !strings.Contains(err.Error(), "2029-12-31") {
		t.Errorf("one that begins in three years: %v, want ErrNotYet", err)
	}
	c := Credentials{Chain: ahead, Root: founder.root.Raw}
	certs, _, err := c.parse()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.verify(certs, ""); !errors.Is(err, ErrNotYet) || !strings.Contains(err.Error(), "2029-12-31") {
		t.Errorf("valid in three years: %v, want ErrNotYet", err)
	}
}

// An error about dates names the file from which the time is, if it is not the clock's.
func TestWhereATimeIsFrom(t *testing.T) {
	f := newBox(t, "2026-03-01")
	founder := f.found("plant", "hall")
	b := newBox(t, "2026-03-01")
	id := b.joins(founder)
	b.clock = at("1970-01-01")
	if text := id.clock(id.Now()); !strings.Contains(text, "1970-01-01") || !strings.Contains(text, "2026-02-28") || !strings.Contains(text, agentFile) {
		t.Error(text)
	}
	if text := id.clock(at("2027-01-01")); !strings.Contains(text, "2027-01-01") || strings.Contains(text, where) {
		t.Error(text)
	}
	if err := id.Saw(at("2026-08-01")); err != nil {
		t.Fatal(err)
	}
	if text := id.clock(id.Now()); !strings.Contains(text, "2026-08-01") || !strings.Contains(text, seenFile) {
		t.Error(text)
	}
}

func TestForeignCertificates(t *testing.T) {
	f := newBox(t, "2026-03-01")
	founder := f.found("plant", "hall")
	id := newBox(t, "2026-03-01").joins(founder)
	twin := newBox(t, "2026-03-01").found("plant", "hall")
	other := newBox(t, "2026-03-01").found("other", "hall")
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	make := func(change func(*x509.Certificate)) []*x509.Certificate {
		c, err := template(uri("plant", "hall", string(NodeOf(pub))), "x", f.clock, AgentLife)
		if err != nil {
			t.Fatal(err)
		}
		change(c)
		cert, err := sign(c, pub, *founder.signer)
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{cert, founder.chain[1]}
	}
	self, err := template(uri("plant", "hall", string(NodeOf(pub))), "x", f.clock, AgentLife)
	if err != nil {
		t.Fatal(err)
	}
	selfSigned, err := sign(self, pub, signer{self, key})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		certs []*x509.Certificate
		node  mesh.NodeID
		want  error
	}{
		"right":                   {id.chain, id.Node(), nil},
		"nothing":                 {nil, "", ErrNoCert},
		"another mesh":            {other.chain, "", ErrMesh},
		"same names, other root":  {twin.chain, "", ErrForeign},
		"mixed":                   {[]*x509.Certificate{twin.chain[0], founder.chain[1]}, "", ErrForeign},
		"without its site":        {id.chain[:1], "", ErrForeign},
		"a site's":                {[]*x509.Certificate{founder.chain[1], founder.root}, "", ErrForeign},
		"the root's":              {[]*x509.Certificate{founder.root, founder.root}, "", ErrForeign},
		"self-signed":             {[]*x509.Certificate{selfSigned, selfSigned}, "", ErrForeign},
		"another node":            {id.chain, founder.Node(), ErrNode},
		"a made one":              {make(func(*x509.Certificate) {}), "", nil},
		"another's name, own key": {make(func(c *x509.Certificate) { c.URIs[0] = uri("plant", "hall", string(id.Node())) }), "", ErrForeign},
		"no name":                 {make(func(c *x509.Certificate) { c.URIs = nil }), "", ErrForeign},
		"a web server's":          {make(func(c *x509.Certificate) { c.URIs[0].Scheme = "https" }), "", ErrForeign},
		"a name with a path":      {make(func(c *x509.Certificate) { c.URIs[0].Path += "/x" }), "", ErrForeign},
		"an empty site":           {make(func(c *x509.Certificate) { c.URIs[0].Path = "//" + string(NodeOf(pub)) }), "", ErrForeign},
	} {
		if _, err := founder.verify(c.certs, c.node); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	no := errors.New("it was removed from the site")
	founder.SetAllow(func(p mesh.Peer) error {
		if p.Node == id.Node() {
			return no
		}
		return nil
	})
	if _, err := founder.verify(id.chain, ""); !errors.Is(err, no) || !errors.Is(err, ErrRefused) {
		t.Errorf("refused by rule: %v", err)
	}
}
