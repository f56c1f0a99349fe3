package identity

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

const where = "/data/identity"

func at(s string) time.Time {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return t
}

// box is a machine with a clock that the test sets.
type box struct {
	t      *testing.T
	fs     *storetest.FS
	clock  time.Time
	folder *Folder
}

func newBox(t *testing.T, clock string) *box {
	b := &box{t: t, fs: storetest.New(), clock: at(clock)}
	b.folder = OpenFolder(b.fs, where, func() time.Time { return b.clock })
	return b
}

func (b *box) found(meshName string, site mesh.Site) *Identity {
	b.t.Helper()
	id, err := b.folder.Found(meshName, site)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

// joins gives the box an identity that by signs.
func (b *box) joins(by *Identity) *Identity {
	b.t.Helper()
	id, err := b.join(by)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

func (b *box) join(by *Identity) (*Identity, error) {
	b.t.Helper()
	node, err := b.folder.Node()
	if err != nil {
		b.t.Fatal(err)
	}
	csr, err := b.folder.Request()
	if err != nil {
		b.t.Fatal(err)
	}
	chain, err := by.Issue(csr, node, by.Site(), by.folder.now())
	if err != nil {
		b.t.Fatal(err)
	}
	return b.folder.Keep(Credentials{by.Mesh(), by.Site(), chain, by.Root().Raw, by.GossipKey()})
}

func TestFounding(t *testing.T) {
	b := newBox(t, "2026-03-01")
	if _, err := b.folder.Load(); !errors.Is(err, ErrNone) {
		t.Errorf("before: %v, want ErrNone", err)
	}
	node, err := b.folder.Node()
	if err != nil {
		t.Fatal(err)
	}
	id := b.found("plant", "hall")
	again, err := b.folder.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []*Identity{id, again} {
		if i.Mesh() != "plant" || i.Site() != "hall" || i.Node() != node || !i.CanIssue() || !bytes.Equal(i.GossipKey(), id.GossipKey()) {
			t.Errorf("got mesh %s, site %s, node %s, issues %v", i.Mesh(), i.Site(), i.Node(), i.CanIssue())
		}
	}
	if _, err := b.folder.Found("plant", "hall"); !errors.Is(err, ErrTaken) {
		t.Errorf("founded twice: %v, want ErrTaken", err)
	}
	m, s, n, err := PeerOf(id.chain[0])
	if m != "plant" || s != "hall" || n != node || err != nil {
		t.Errorf("PeerOf: %s, %s, %s, %v", m, s, n, err)
	}
	for _, bad := range []string{"", "Plant", "1st", "a_b", "a.b", "a-", strings.Repeat("a", 64), "a/b"} {
		if _, err := newBox(t, "2026-03-01").folder.Found(bad, "hall"); !errors.Is(err, ErrName) {
			t.Errorf("mesh %q: %v, want ErrName", bad, err)
		}
	}
	if _, err := newBox(t, "1970-01-01").folder.Found("plant", "hall"); !errors.Is(err, errWrongClock) {
		t.Errorf("founded in 1970: %v", err)
	}
}

// TestFoundingCrash cuts the power at each write of a founding, finds what may be
// on the disk then, and goes on.
func TestFoundingCrash(t *testing.T) {
	whole := newBox(t, "2026-03-01")
	whole.found("plant", "hall")
	for op := 1; op <= whole.fs.Ops(); op++ {
		for seed := range uint64(6) {
			b := newBox(t, "2026-03-01")
			b.fs.PowerOffAt(op)
			if _, err := b.folder.Found("plant", "hall"); err == nil {
				t.Fatalf("op %d: founded without power", op)
			}
			b.fs = b.fs.Crash(seed)
			b.folder = OpenFolder(b.fs, where, b.folder.now)
			id, err := b.folder.Load()
			if errors.Is(err, ErrNone) {
				id, err = b.folder.Found("plant", "hall")
			}
			if err != nil {
				t.Fatalf("op %d, seed %d: %v", op, seed, err)
			}
			node, err := b.folder.Node()
			if err != nil || node != id.Node() || !id.CanIssue() {
				t.Fatalf("op %d, seed %d: node %s, identity of %s, issues %v: %v", op, seed, node, id.Node(), id.CanIssue(), err)
			}
			if _, err := b.folder.RootKey(); err != nil {
				t.Fatalf("op %d, seed %d: %v", op, seed, err)
			}
		}
	}
}

// TestNodeIsBornOnce: whatever the power does, a node that was told is the same
// ever after.
func TestNodeIsBornOnce(t *testing.T) {
	b := newBox(t, "2026-03-01")
	node, err := b.folder.Node()
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(6) {
		f := OpenFolder(b.fs.Crash(seed), where, b.folder.now)
		if again, err := f.Node(); again != node || err != nil {
			t.Errorf("seed %d: %s, %v, want %s", seed, again, err, node)
		}
	}
}

// TestJoinCrash: the same for what a join keeps, in a folder in which a founding
// of another mesh was cut off.
func TestJoinCrash(t *testing.T) {
	founder := newBox(t, "2026-03-01").found("plant", "hall")
	for cut := 1; ; cut++ {
		b := newBox(t, "2026-03-01")
		if _, err := b.folder.Node(); err != nil {
			t.Fatal(err)
		}
		b.fs.PowerOffAt(14) // of a founding: root.key and site.pem are there
		if _, err := b.folder.Found("other", "hall"); err == nil {
			t.Fatal("founded without power")
		}
		b.fs = b.fs.Crash(1)
		b.folder = OpenFolder(b.fs, where, b.folder.now)
		before, err := b.folder.Node()
		if err != nil {
			t.Fatal(err)
		}
		b.fs.PowerOffAt(cut)
		_, kept := b.join(founder)
		for seed := range uint64(6) {
			c := &box{t: t, fs: b.fs.Crash(seed), clock: b.clock}
			c.folder = OpenFolder(c.fs, where, b.folder.now)
			id, err := c.folder.Load()
			if errors.Is(err, ErrNone) && kept != nil {
				id, err = c.join(founder)
			}
			if err != nil {
				t.Fatalf("cut %d, seed %d: %v", cut, seed, err)
			}
			if id.Node() != before || id.Mesh() != "plant" || id.CanIssue() {
				t.Fatalf("cut %d, seed %d: node %s of mesh %s, issues %v", cut, seed, id.Node(), id.Mesh(), id.CanIssue())
			}
		}
		if kept == nil {
			return
		}
	}
}

func TestJoining(t *testing.T) {
	founder := newBox(t, "2026-03-01").found("plant", "hall")
	b := newBox(t, "2026-03-02")
	id := b.joins(founder)
	if id.Mesh() != "plant" || id.Site() != "hall" || id.CanIssue() || !bytes.Equal(id.GossipKey(), founder.GossipKey()) {
		t.Errorf("got mesh %s, site %s, issues %v", id.Mesh(), id.Site(), id.CanIssue())
	}
	if _, err := b.folder.RootKey(); !errors.Is(err, ErrNoKey) {
		t.Errorf("the root key of a joiner: %v", err)
	}
	csr, err := id.Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.Issue(csr, id.Node(), "hall", b.clock); !errors.Is(err, ErrNoKey) {
		t.Errorf("signed without a key: %v", err)
	}
	for _, c := range []struct {
		node mesh.NodeID
		site mesh.Site
		csr  []byte
		want error
	}{
		{founder.Node(), "hall", csr, ErrRequest},
		{id.Node(), "depot", csr, ErrSite},
		{id.Node(), "hall", csr[:len(csr)-1], ErrRequest},
		{id.Node(), "hall", append(slices.Clone(csr[:len(csr)-1]), csr[len(csr)-1]^1), ErrRequest},
	} {
		if _, err := founder.Issue(c.csr, c.node, c.site, b.clock); !errors.Is(err, c.want) {
			t.Errorf("node %s, site %s: %v, want %v", c.node, c.site, err, c.want)
		}
	}
	other := newBox(t, "2026-03-01").found("plant", "hall")
	if _, err := b.join(other); !errors.Is(err, ErrTaken) {
		t.Errorf("joined another mesh of the same name: %v, want ErrTaken", err)
	}
	b.joins(founder) // again, as after its certificate expired
}

func TestVotersKey(t *testing.T) {
	b := newBox(t, "2026-03-01")
	founder := b.found("plant", "hall")
	voter := newBox(t, "2026-03-01")
	id := voter.joins(founder)
	key, err := founder.Intermediate()
	if err != nil {
		t.Fatal(err)
	}
	root, err := b.folder.RootKey()
	if err != nil {
		t.Fatal(err)
	}
	_, depot, err := SignSite(root, "depot", b.clock)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := newBox(t, "2026-03-01").found("plant", "hall").Intermediate()
	if err != nil {
		t.Fatal(err)
	}
	other, err := newBox(t, "2026-03-01").found("other", "hall").Intermediate()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key  Intermediate
		want error
	}{{depot, ErrSite}, {foreign, ErrForeign}, {other, ErrMesh}, {root, ErrSite}, {key[:len(key)/2], ErrDamaged}, {nil, ErrDamaged}} {
		if err := id.AddIntermediate(c.key); !errors.Is(err, c.want) || id.CanIssue() {
			t.Errorf("%v, want %v", err, c.want)
		}
	}
	if err := id.AddIntermediate(key); err != nil {
		t.Fatal(err)
	}
	if id, err = voter.folder.Load(); err != nil || !id.CanIssue() {
		t.Fatalf("after a restart it issues: %v, %v", id.CanIssue(), err)
	}
	newBox(t, "2026-03-01").joins(id)
	// A new one, signed years later, takes the old one's place, and never the other way round.
	_, fresh, err := SignSite(root, "hall", b.clock.Add(5*365*day))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []Intermediate{fresh, key} {
		if err := id.AddIntermediate(k); err != nil {
			t.Fatal(err)
		}
		if got, err := id.Intermediate(); err != nil || !bytes.Equal(got, fresh) {
			t.Errorf("it is not the new one that is in force (%v)", err)
		}
	}
	if err := errors.Join(id.DropIntermediate(), id.DropIntermediate()); err != nil || id.CanIssue() {
		t.Errorf("dropped: %v, issues %v", err, id.CanIssue())
	}
	if id, err = voter.folder.Load(); err != nil || id.CanIssue() {
		t.Errorf("after another restart: %v", err)
	}
}

func TestSiteOfItsOwn(t *testing.T) {
	b := newBox(t, "2026-03-01")
	founder := b.found("plant", "hall")
	root, err := b.folder.RootKey()
	if err != nil {
		t.Fatal(err)
	}
	meshName, key, err := SignSite(root, "depot", b.clock)
	if err != nil || meshName != "plant" {
		t.Fatal(meshName, err)
	}
	s, err := decodeSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	d := newBox(t, "2026-03-01")
	csr, err := d.folder.Request()
	if err != nil {
		t.Fatal(err)
	}
	agentKey, err := requestedKey(csr)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := newAgent(s, "plant", "depot", agentKey, d.clock)
	if err != nil {
		t.Fatal(err)
	}
	id, err := d.folder.Keep(Credentials{"plant", "depot", [][]byte{cert.Raw, s.cert.Raw}, founder.Root().Raw, founder.GossipKey()})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := founder.verify(id.chain, id.Node()); err != nil || p.Site != "depot" {
		t.Errorf("the founder sees %v, %v", p, err)
	}
	// The depot's key cannot make agents of the hall.
	if cert, err = newAgent(s, "plant", "hall", agentKey, d.clock); err != nil {
		t.Fatal(err)
	}
	if _, err := founder.verify([]*x509.Certificate{cert, s.cert}, ""); !errors.Is(err, ErrForeign) {
		t.Errorf("an agent of the hall signed by the depot: %v", err)
	}
	site, err := founder.Intermediate()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := SignSite(site, "x", b.clock); !errors.Is(err, ErrNoKey) {
		t.Errorf("a site signed by a site: %v", err)
	}
	if _, _, err := SignSite(root, "x", at("1970-01-01")); !errors.Is(err, ErrExpired) {
		t.Errorf("a site signed in 1970: %v", err)
	}
}

// TestDamage changes each file in several ways: Load says which, and of what
// kind it is.
func TestDamage(t *testing.T) {
	half := func(d []byte) []byte { return d[:len(d)/2] }
	flip := func(d []byte) []byte { d[len(d)/2] ^= 0x20; return d }
	none := func([]byte) []byte { return nil }
	other := newBox(t, "2026-03-01")
	other.found("other", "hall")
	theirs := func(name string) func([]byte) []byte {
		return func([]byte) []byte {
			d, err := other.folder.read(name, false)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
	}
	for _, name := range []string{keyFile, agentFile, gossipFile, siteFile} {
		for i, change := range []func([]byte) []byte{half, none, theirs(name), flip} {
			b := newBox(t, "2026-03-01")
			b.found("plant", "hall")
			if name == gossipFile && i >= 2 {
				continue // another key of the right length: nobody understands us, but here it looks right
			}
			if err := b.fs.Damage(filepath.Join(where, name), change); err != nil {
				t.Fatal(err)
			}
			_, err := b.folder.Load()
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), where) {
				t.Errorf("%s, change %d: %v, want ErrDamaged", name, i, err)
			}
		}
	}
	for _, name := range []string{keyFile, gossipFile} {
		b := newBox(t, "2026-03-01")
		b.found("plant", "hall")
		if err := b.fs.Remove(filepath.Join(where, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.folder.Load(); !errors.Is(err, ErrDamaged) {
			t.Errorf("without %s: %v, want ErrDamaged", name, err)
		}
	}
}

func TestDiskModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are not kept by Windows")
	}
	dir := filepath.Join(t.TempDir(), "data", "identity")
	f := OpenFolder(disk.Secret, dir, func() time.Time { return at("2026-03-01") })
	if _, err := f.Found("plant", "hall"); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", st.Mode(), err)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 5 {
		t.Fatalf("%d files, %v", len(list), err)
	}
	for _, e := range list {
		if st, err := e.Info(); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), st.Mode(), err)
		}
	}
	for _, name := range []string{keyFile, siteFile, gossipFile} {
		if err := os.Chmod(filepath.Join(dir, name), 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Load(); !errors.Is(err, ErrOpen) {
			t.Errorf("%s readable by the group: %v", name, err)
		}
		if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
