package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Mesh is the mesh's name.
func (id *Identity) Mesh() string { return id.mesh }

// Site is the agent's site.
func (id *Identity) Site() mesh.Site { return id.site }

// Node is the agent.
func (id *Identity) Node() mesh.NodeID { return id.node }

// Root is the certificate that everything in the mesh is verified by.
func (id *Identity) Root() *x509.Certificate { return id.root }

// GossipKey is what gossip is encrypted with.
func (id *Identity) GossipKey() []byte { return slices.Clone(id.gossip[:]) }

// NewToken makes a join token of this mesh. The site must keep its SecretHash.
func (id *Identity) NewToken() Token { return NewToken(id.root) }

// ResetKey is a secret of this agent that stays the same when its process starts
// again: by it a peer knows that the process before is gone.
func (id *Identity) ResetKey() [32]byte {
	return sha256.Sum256(append([]byte("tidemark reset key\x00"), id.key.Seed()...))
}

// Expires tells when the certificates end.
func (id *Identity) Expires() (agent, site, root time.Time) {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return id.chain[0].NotAfter, id.chain[1].NotAfter, id.root.NotAfter
}

// SetAllow makes allow decide about each peer whose certificate is right: an
// error refuses it. It must not block. Before the first handshake.
func (id *Identity) SetAllow(allow func(mesh.Peer) error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.allow = allow
}

// Now is the time that certificates are judged by: the machine's clock, but
// never before the newest time that it is known to have been. So a box that
// wakes up in 1970 knows its peers.
func (id *Identity) Now() time.Time { return id.known(id.folder.now()) }

// Seen is the newest time that it is known to have been.
func (id *Identity) Seen() time.Time { return id.known(time.Time{}) }

// known is t, but never before the newest time that it is known to have been.
func (id *Identity) known(t time.Time) time.Time {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return later(t, id.chain[0].NotBefore, id.seen)
}

// Saw writes down that the clock has come this far: once a day, however often
// it is called. Call it every hour or so, with a time that is to be relied on.
func (id *Identity) Saw(t time.Time) error {
	id.write.Lock()
	defer id.write.Unlock()
	id.mu.RLock()
	// Not beyond its own certificate: a clock that was ahead for a moment does not lock the agent out.
	t = earlier(t, id.chain[0].NotAfter.Add(-time.Hour)).UTC().Truncate(time.Second)
	enough := t.Before(later(id.seen, id.chain[0].NotBefore).Add(day))
	id.mu.RUnlock()
	if enough {
		return nil
	}
	if err := id.folder.files.write(seenFile, []byte(t.Format(time.RFC3339)+"\n")); err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.seen = t
	return nil
}

// NeedsRenewal tells whether a third or less of the certificate's life is left.
func (id *Identity) NeedsRenewal(now time.Time) bool {
	id.mu.RLock()
	defer id.mu.RUnlock()
	c := id.chain[0]
	return !later(now, id.seen).Before(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3))
}

// Request asks for a new certificate of the same node.
func (id *Identity) Request() ([]byte, error) { return newRequest(id.key) }

// Renew takes a new certificate, agent's then site's in DER, into force and
// keeps it. Handshakes that begin afterwards use it. ErrExpired when it ends before
// the present one does, ErrNotYet when it begins after that and that has not ended yet.
func (id *Identity) Renew(chain [][]byte) error {
	c := Credentials{Mesh: id.mesh, Site: id.site, Chain: chain, Root: id.root.Raw}
	certs, _, err := c.parse()
	if err != nil {
		return err
	}
	if err := id.own(certs); err != nil {
		return err
	}
	id.write.Lock()
	defer id.write.Unlock()
	id.mu.RLock()
	old := id.chain[0].NotAfter
	id.mu.RUnlock()
	if certs[0].NotAfter.Before(old) {
		return fmt.Errorf("the new certificate ends on %s, the present one on %s: %w: is the clock of a voter wrong?", stamp(certs[0].NotAfter), stamp(old), ErrExpired)
	}
	if certs[0].NotBefore.After(old) && !id.Now().After(old) {
		return fmt.Errorf("the new certificate begins on %s, after the present one has ended, on %s: %w: is the clock of a voter wrong?", stamp(certs[0].NotBefore), stamp(old), ErrNotYet)
	}
	if err := id.folder.files.write(agentFile, encodeCerts(certs[0], certs[1], id.root)); err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.chain = certs
	return nil
}

// CanIssue tells whether the site's key is here.
func (id *Identity) CanIssue() bool {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return id.signer != nil
}

// Issue signs a certificate for the node and site, which must be the request's
// and its own. It returns those of agent and site in DER. What it signs lasts: now
// must be a time to be relied on. Another agent's certificate does not begin after this
// one's own has ended, which would be a wrong clock; its own does, where it was off for
// long and nobody else can sign. ErrNoKey, ErrRequest, ErrSite, ErrExpired.
func (id *Identity) Issue(csr []byte, node mesh.NodeID, site mesh.Site, now time.Time) ([][]byte, error) {
	id.mu.RLock()
	by, end := id.signer, id.chain[0].NotAfter
	id.mu.RUnlock()
	now = id.known(now)
	key, err := requestedKey(csr)
	switch {
	case err != nil:
		return nil, err
	case by == nil:
		return nil, fmt.Errorf("only voters of site %s sign certificates: %w", id.site, ErrNoKey)
	case NodeOf(key) != node:
		return nil, fmt.Errorf("it is signed by the key of node %s and not of %s: %w", NodeOf(key), node, ErrRequest)
	case site != id.site:
		return nil, fmt.Errorf("a certificate for site %s, this is %s: %w", site, id.site, ErrSite)
	case now.After(by.cert.NotAfter):
		return nil, fmt.Errorf("the certificate of site %s %w on %s: a new one must be signed with the root key", id.site, ErrExpired, stamp(by.cert.NotAfter))
	case node != id.node && now.Add(-backdate).After(end):
		return nil, fmt.Errorf("the certificate of node %s, which is to sign, %w on %s, and it is %s: is its clock wrong?", id.node, ErrExpired, stamp(end), stamp(now))
	}
	cert, err := newAgent(*by, id.mesh, site, key, now)
	if err != nil {
		return nil, err
	}
	return [][]byte{cert.Raw, by.cert.Raw}, nil
}

// Intermediate is the site's certificate and key, to hand to another voter over
// mutual TLS. ErrNoKey.
func (id *Identity) Intermediate() (Intermediate, error) {
	id.mu.RLock()
	defer id.mu.RUnlock()
	if id.signer == nil {
		return nil, ErrNoKey
	}
	return encodeSigner(*id.signer)
}

// AddIntermediate keeps the site's key: this agent has become a voter. Of two
// the one that ends later stays. ErrForeign, ErrMesh, ErrSite, ErrDamaged.
func (id *Identity) AddIntermediate(in Intermediate) error {
	s, err := decodeSigner(in)
	if err == nil {
		err = id.ownSite(s.cert)
	}
	if err != nil {
		return fmt.Errorf("the key of a site: %w", err)
	}
	id.write.Lock()
	defer id.write.Unlock()
	id.mu.RLock()
	have := id.signer
	id.mu.RUnlock()
	if have != nil && !s.cert.NotAfter.After(have.cert.NotAfter) {
		return nil
	}
	if err := id.folder.writeSigner(siteFile, s); err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.signer = &s
	return nil
}

// DropIntermediate forgets the site's key: this agent is no voter any more.
func (id *Identity) DropIntermediate() error {
	id.write.Lock()
	defer id.write.Unlock()
	id.mu.Lock()
	id.signer = nil
	id.mu.Unlock()
	err := id.folder.fs.Remove(id.folder.path(siteFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, id.folder.fs.SyncDir(id.folder.dir))
}

// own checks that a chain is of this agent.
func (id *Identity) own(chain []*x509.Certificate) error {
	if err := checkRoot(id.root, id.mesh); err != nil {
		return err
	}
	peer, err := id.judge(chain)
	switch {
	case err != nil:
		return err
	case peer.Site != id.site:
		return fmt.Errorf("the certificate is of site %s, this is %s: %w", peer.Site, id.site, ErrSite)
	case !id.key.Public().(ed25519.PublicKey).Equal(chain[0].PublicKey):
		return fmt.Errorf("the certificate is of node %s, the key here of %s: %w", peer.Node, id.node, ErrNode)
	}
	return nil
}

// ownSite checks that an authority is this site's.
func (id *Identity) ownSite(c *x509.Certificate) error {
	names, err := nameOf(c)
	switch {
	case err != nil:
		return err
	case names[0] != id.mesh:
		return fmt.Errorf("it is of mesh %s, this is %s: %w", names[0], id.mesh, ErrMesh)
	case len(names) != 2 || names[1] != string(id.site):
		return fmt.Errorf("it is of %s, this is site %s: %w", c.URIs[0], id.site, ErrSite)
	}
	if err := c.CheckSignatureFrom(id.root); err != nil {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	return nil
}

func later(t time.Time, others ...time.Time) time.Time {
	for _, o := range others {
		if o.After(t) {
			t = o
		}
	}
	return t
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// stamp is a time as it stands in errors.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
