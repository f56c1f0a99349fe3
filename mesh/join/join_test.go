package join

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func now() time.Time { return time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) }

func folder(t *testing.T) *identity.Folder {
	return identity.OpenFolder(disk.Secret, filepath.Join(t.TempDir(), "data", "identity"), now)
}

// site is an issuer as a site of one voter is.
type site struct {
	t  *testing.T
	id *identity.Identity

	mu      sync.Mutex // guards what follows
	tokens  map[string]*Token
	removed map[mesh.NodeID]bool
	joined  map[mesh.NodeID]string
	fail    error
	spoil   func(*Grant)
}

func found(t *testing.T, meshName string) *site {
	t.Helper()
	id, err := folder(t).Found(meshName, "hall")
	if err != nil {
		t.Fatal(err)
	}
	return &site{t: t, id: id, tokens: make(map[string]*Token), removed: make(map[mesh.NodeID]bool), joined: make(map[mesh.NodeID]string)}
}

// token makes a token that lets one agent join; change may change what the site
// keeps of it.
func (s *site) token(change func(*Token)) identity.Token {
	tok := s.id.NewToken()
	hash := tok.SecretHash()
	k := &Token{Hash: hash[:], Expires: now().Add(time.Hour), Uses: 1}
	if change != nil {
		change(k)
	}
	s.tokens[tok.ID] = k
	return tok
}

func (s *site) Issue(_ context.Context, r Request) (Grant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return Grant{}, s.fail
	}
	if err := CheckSite(s.id.Site(), r); err != nil {
		return Grant{}, err
	}
	if s.removed[r.Node] {
		return Grant{}, ErrRemoved
	}
	if !r.Renewal() && s.joined[r.Node] == "" {
		tok := s.tokens[r.Token]
		if err := CheckToken(tok, r, now()); err != nil {
			return Grant{}, err
		}
		if tok.Uses > 0 {
			tok.Uses--
		}
	}
	chain, err := s.id.Issue(r.CSR, r.Node, s.id.Site(), now())
	if err != nil {
		return Grant{}, err
	}
	s.joined[r.Node] = r.Name
	g := Grant{
		Mesh: s.id.Mesh(), Site: s.id.Site(), Chain: chain, Root: s.id.Root().Raw, Gossip: s.id.GossipKey(),
		Members: []Contact{{Node: s.id.Node(), Link: "127.0.0.1:7071", Gossip: "127.0.0.1:7072"}},
	}
	if s.spoil != nil {
		s.spoil(&g)
	}
	return g, nil
}

// pair is a connection within this machine: unlike net.Pipe it has buffers, as
// all real ones have.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// listener answers at the other ends of pairs.
type listener struct {
	t      *testing.T
	server *Server
	config *tls.Config
	served chan error // of each conversation, in order
	asked  chan Request
}

func (s *site) listen() *listener {
	return &listener{t: s.t, server: NewServer(s), config: s.id.ListenTLS("tidemark/1"), served: make(chan error, 64), asked: make(chan Request, 64)}
}

// dial is a Dial to the listener.
func (l *listener) dial(ctx context.Context, config *tls.Config) (io.ReadWriteCloser, tls.ConnectionState, error) {
	a, b := pair(l.t)
	go func() {
		s := tls.Server(b, l.config)
		if err := s.HandshakeContext(context.Background()); err != nil {
			b.Close()
			l.served <- err
			return
		}
		r, err := l.server.Serve(context.Background(), s, s.ConnectionState())
		l.asked <- r
		l.served <- err
	}()
	c := tls.Client(a, config)
	if err := c.HandshakeContext(ctx); err != nil {
		a.Close()
		return nil, tls.ConnectionState{}, err
	}
	return c, c.ConnectionState(), nil
}

func applicant(t *testing.T, f *identity.Folder, tok identity.Token) Applicant {
	t.Helper()
	node, err := f.Node()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := f.Request()
	if err != nil {
		t.Fatal(err)
	}
	return Applicant{Token: tok, Node: node, CSR: csr, Name: "box-1", Version: "v1", Level: 3, Now: now}
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestJoin(t *testing.T) {
	s := found(t, "plant")
	l := s.listen()
	tok := s.token(nil)
	f := folder(t)
	g, err := Join(bounded(t), l.dial, applicant(t, f, tok))
	if err != nil {
		t.Fatal(err)
	}
	if err := <-l.served; err != nil {
		t.Error(err)
	}
	if r := <-l.asked; r.Name != "box-1" || r.Version != "v1" || r.Level != 3 || r.Token != tok.ID || r.SecretHash != tok.SecretHash() {
		t.Errorf("asked for %+v", r)
	}
	id, err := f.Keep(g.Credentials())
	if err != nil {
		t.Fatal(err)
	}
	if id.Mesh() != "plant" || id.Site() != "hall" || len(g.Members) != 1 || g.Members[0].Node != s.id.Node() {
		t.Errorf("joined mesh %s, site %s, members %v", id.Mesh(), id.Site(), g.Members)
	}
	// The answer was lost: the same node asks again.
	if _, err := Join(bounded(t), l.dial, applicant(t, f, tok)); err != nil {
		t.Errorf("again: %v", err)
	}
	<-l.served
	// Another node: the token was for one.
	if _, err := Join(bounded(t), l.dial, applicant(t, folder(t), tok)); !errors.Is(err, ErrUsed) {
		t.Errorf("another node: %v", err)
	}
	<-l.served

	contacts, err := Renew(bounded(t), l.dial, id, "box-1", "v2")
	if err != nil || len(contacts) != 1 {
		t.Errorf("renewal: %v, %v", contacts, err)
	}
	if err := <-l.served; err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	s := found(t, "plant")
	l := s.listen()
	past := func(k *Token) { k.Expires = now() }
	for name, c := range map[string]struct {
		token identity.Token
		want  error
	}{
		"unknown":    {s.id.NewToken(), ErrToken},
		"expired":    {s.token(past), ErrExpired},
		"revoked":    {s.token(func(k *Token) { k.Revoked = true }), ErrRevoked},
		"used up":    {s.token(func(k *Token) { k.Uses = 0 }), ErrUsed},
		"for ever":   {s.token(func(k *Token) { k.Uses, k.Expires = -1, time.Time{} }), nil},
		"wrong word": {wrong(s.token(nil)), ErrToken},
		// Who does not know the secret does not learn that it has expired.
		"wrong word of an old one": {wrong(s.token(past)), ErrToken},
	} {
		_, err := Join(bounded(t), l.dial, applicant(t, folder(t), c.token))
		served := <-l.served
		if !errors.Is(err, c.want) || !errors.Is(served, c.want) || (c.want != nil && !strings.Contains(err.Error(), c.token.ID)) {
			t.Errorf("%s: applicant %v, server %v, want %v", name, err, served, c.want)
		}
	}
	f := folder(t)
	a := applicant(t, f, s.token(nil))
	s.removed[a.Node] = true
	if _, err := Join(bounded(t), l.dial, a); !errors.Is(err, ErrRemoved) || !errors.Is(<-l.served, ErrRemoved) {
		t.Errorf("a removed node: %v", err)
	}
	s.fail = errors.New("a secret of the inside")
	if _, err := Join(bounded(t), l.dial, applicant(t, f, s.token(nil))); !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "inside") {
		t.Errorf("an error of the inside: %v", err)
	}
	if err := <-l.served; !errors.Is(err, s.fail) {
		t.Errorf("the server's own log: %v", err)
	}
}

// TestAnotherSite: who wants to join another site is refused before its token is
// looked at; an issuer that does not know of the wish gets nobody who has it.
func TestAnotherSite(t *testing.T) {
	s := found(t, "plant")
	l := s.listen()
	tok := s.token(nil)
	f := folder(t)
	a := applicant(t, f, tok)
	a.Site = "depot"
	_, err := Join(bounded(t), l.dial, a)
	for _, err := range []error{err, <-l.served} {
		if !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), "to join site depot, and this is site hall") {
			t.Errorf("error %v", err)
		}
	}
	if k := s.tokens[tok.ID]; k.Uses != 1 || len(s.joined) != 0 {
		t.Errorf("%d uses are left, %d have joined", k.Uses, len(s.joined))
	}
	a.Site = "hall"
	s.spoil = func(g *Grant) { g.Site = "depot" }
	if _, err := Join(bounded(t), l.dial, a); !errors.Is(err, identity.ErrSite) || !strings.Contains(err.Error(), "to join site hall, and was let into site depot") {
		t.Errorf("let into another site: %v", err)
	}
	<-l.served
	s.spoil = nil
	if _, err := Join(bounded(t), l.dial, a); err != nil {
		t.Error(err)
	}
	<-l.served
}

func wrong(t identity.Token) identity.Token {
	t.Secret[3] ^= 1
	return t
}

// TestWrongMesh: the joiner sees by the hash that it is the wrong one, and the
// secret stays with it.
func TestWrongMesh(t *testing.T) {
	s, other := found(t, "plant"), found(t, "plant")
	l := other.listen()
	_, err := Join(bounded(t), l.dial, applicant(t, folder(t), s.token(nil)))
	if !errors.Is(err, identity.ErrMesh) || <-l.served == nil {
		t.Errorf("%v, want ErrMesh", err)
	}
	// Also when dial checks nothing.
	careless := func(ctx context.Context, config *tls.Config) (io.ReadWriteCloser, tls.ConnectionState, error) {
		c := config.Clone()
		c.VerifyConnection = nil
		return l.dial(ctx, c)
	}
	_, err = Join(bounded(t), careless, applicant(t, folder(t), s.token(nil)))
	if !errors.Is(err, identity.ErrMesh) {
		t.Errorf("%v, want ErrMesh", err)
	}
	if r := <-l.asked; r.Token != "" {
		t.Error("it sent its token")
	}
	<-l.served
}

// TestPlainText: nothing is sent and nothing served without TLS.
func TestPlainText(t *testing.T) {
	s := found(t, "plant")
	a, b := pair(t)
	plain := func(context.Context, *tls.Config) (io.ReadWriteCloser, tls.ConnectionState, error) {
		return a, tls.ConnectionState{}, nil
	}
	got := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(b)
		got <- all
	}()
	if _, err := Join(bounded(t), plain, applicant(t, folder(t), s.token(nil))); !errors.Is(err, identity.ErrPlain) {
		t.Errorf("%v, want ErrPlain", err)
	}
	if all := <-got; len(all) > 0 {
		t.Errorf("sent %q", all)
	}
	b.Close()

	a, b = pair(t)
	done := make(chan error, 1)
	go func() {
		_, err := NewServer(s).Serve(context.Background(), b, tls.ConnectionState{})
		done <- err
	}()
	var reply answer
	if err := read(a, &reply); err != nil || reply.Grant != nil || !errors.Is(reply.err(), ErrProtocol) {
		t.Errorf("%+v, %v", reply, err)
	}
	a.Close()
	if err := <-done; !errors.Is(err, identity.ErrPlain) {
		t.Errorf("the server: %v", err)
	}
}

// TestAnotherNodesName: an applicant cannot have a certificate of a node whose
// key it has not, neither by token nor by renewal.
func TestAnotherNodesName(t *testing.T) {
	s := found(t, "plant")
	l := s.listen()
	a := applicant(t, folder(t), s.token(nil))
	a.Node = s.id.Node()
	if _, err := Join(bounded(t), l.dial, a); !errors.Is(err, ErrRequest) {
		t.Errorf("an honest program: %v", err)
	}
	raw := func(r request, config *tls.Config) error {
		t.Helper()
		conn, _, err := l.dial(bounded(t), config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var reply answer
		if err := errors.Join(write(conn, r), read(conn, &reply)); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if served := <-l.served; !errors.Is(served, ErrRequest) {
			t.Errorf("the server: %v", served)
		}
		return reply.err()
	}
	base := identity.JoinTLS(a.Token, now)
	r := request{Protocol: 1, Token: a.Token.ID, Secret: a.Token.Secret[:], Node: a.Node, Name: "x", CSR: a.CSR}
	if err := raw(r, base); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), "cannot be another one's") {
		t.Errorf("by token: %v", err)
	}
	member := folder(t)
	g, err := Join(bounded(t), l.dial, applicant(t, member, s.token(nil)))
	if err != nil {
		t.Fatal(err)
	}
	<-l.served
	id, err := member.Keep(g.Credentials())
	if err != nil {
		t.Fatal(err)
	}
	b := applicant(t, folder(t), a.Token)
	r = request{Protocol: 1, Node: b.Node, Name: "x", CSR: b.CSR}
	if err := raw(r, id.ClientTLS("", identity.JoinALPN)); !errors.Is(err, ErrRequest) {
		t.Errorf("by renewal: %v", err)
	}
	if err := raw(r, base); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), "neither a token nor a certificate") {
		t.Errorf("by nothing: %v", err)
	}
}

// TestSpoiledGrant: an answer that does not fit the token's root or the request
// is not kept.
func TestSpoiledGrant(t *testing.T) {
	s, other := found(t, "plant"), found(t, "plant")
	for name, c := range map[string]struct {
		spoil func(*Grant)
		want  error
	}{
		"another root":  {func(g *Grant) { g.Root = other.id.Root().Raw }, identity.ErrForeign},
		"another mesh":  {func(g *Grant) { g.Mesh = "other" }, identity.ErrMesh},
		"another site":  {func(g *Grant) { g.Site = "depot" }, identity.ErrSite},
		"no chain":      {func(g *Grant) { g.Chain = nil }, identity.ErrDamaged},
		"no gossip key": {func(g *Grant) { g.Gossip = nil }, identity.ErrDamaged},
	} {
		s.spoil = c.spoil
		l := s.listen()
		f := folder(t)
		g, err := Join(bounded(t), l.dial, applicant(t, f, s.token(nil)))
		if err == nil {
			_, err = f.Keep(g.Credentials())
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if _, err := f.Load(); !errors.Is(err, identity.ErrNone) {
			t.Errorf("%s: something was kept: %v", name, err)
		}
		<-l.served
	}
	// Members beyond the bound are left out.
	s.spoil = func(g *Grant) { g.Members = make([]Contact, 1000) }
	l := s.listen()
	if g, err := Join(bounded(t), l.dial, applicant(t, folder(t), s.token(nil))); err != nil || len(g.Members) != maxMembers {
		t.Errorf("%d members, %v", len(g.Members), err)
	}
}

// TestSilence: neither side waits for ever for one that says nothing.
func TestSilence(t *testing.T) {
	s := found(t, "plant")
	l := s.listen()
	ctx, cancel := context.WithCancel(t.Context())
	mute := func(ctx context.Context, config *tls.Config) (io.ReadWriteCloser, tls.ConnectionState, error) {
		conn, cs, err := l.dial(ctx, config)
		return &deaf{conn, cancel}, cs, err
	}
	if _, err := Join(ctx, mute, applicant(t, folder(t), s.token(nil))); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	if err := <-l.served; err == nil {
		t.Error("the server granted to nobody")
	}
}

// deaf loses what is written, and cancels.
type deaf struct {
	io.ReadWriteCloser
	cancel func()
}

func (d *deaf) Write(p []byte) (int, error) { d.cancel(); return len(p), nil }

func TestBusy(t *testing.T) {
	s := found(t, "plant")
	l := s.listen()
	for range maxConcurrent {
		l.server.slots <- struct{}{}
	}
	tok := s.token(nil)
	if _, err := Join(bounded(t), l.dial, applicant(t, folder(t), tok)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	<-l.served
	<-l.server.slots
	if _, err := Join(bounded(t), l.dial, applicant(t, folder(t), tok)); err != nil {
		t.Error(err)
	}
	<-l.served
}

func TestCheckToken(t *testing.T) {
	hash := sha256.Sum256([]byte("secret"))
	r := Request{Token: "abc", SecretHash: hash}
	k := &Token{Hash: hash[:], Expires: now(), Uses: 1}
	if err := CheckToken(k, r, now().Add(-time.Nanosecond)); err != nil {
		t.Error(err)
	}
	if err := CheckToken(k, r, now()); !errors.Is(err, ErrExpired) {
		t.Error(err)
	}
	if err := CheckToken(nil, Request{}, now()); !errors.Is(err, ErrToken) {
		t.Errorf("no token with a hash of nothing: %v", err)
	}
}
