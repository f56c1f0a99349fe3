package identity

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Verify judges the peer of a finished handshake: signed by this mesh's root,
// its dates, its names, and the node dialled unless expect is empty. The
// configurations of this package call it; call it again where the reason has to
// be told to the peer. ErrPlain, ErrNoCert, ErrMesh, ErrForeign, ErrExpired,
// ErrNotYet, ErrNode, ErrRefused.
func (id *Identity) Verify(cs *tls.ConnectionState, expect mesh.NodeID) (mesh.Peer, error) {
	if cs.Version != tls.VersionTLS13 {
		return mesh.Peer{}, fmt.Errorf("%w: its version is %q", ErrPlain, tls.VersionName(cs.Version))
	}
	return id.verify(cs.PeerCertificates, expect)
}

func (id *Identity) verify(certs []*x509.Certificate, expect mesh.NodeID) (mesh.Peer, error) {
	peer, err := id.judge(certs)
	if err != nil {
		return mesh.Peer{}, err
	}
	if err := id.dates(certs); err != nil {
		return mesh.Peer{}, err
	}
	if expect != "" && peer.Node != expect {
		return mesh.Peer{}, fmt.Errorf("%w: %s was, %s answers: has the address passed on to it?", ErrNode, expect, peer.Node)
	}
	id.mu.RLock()
	allow := id.allow
	id.mu.RUnlock()
	if allow != nil {
		if err := allow(peer); err != nil {
			return mesh.Peer{}, fmt.Errorf("node %s: %w: %w", peer.Node, ErrRefused, err)
		}
	}
	return peer, nil
}

// judge checks everything about a chain but its dates.
func (id *Identity) judge(certs []*x509.Certificate) (mesh.Peer, error) {
	if len(certs) == 0 {
		return mesh.Peer{}, ErrNoCert
	}
	meshName, site, node, err := PeerOf(certs[0])
	switch {
	case err != nil:
		return mesh.Peer{}, err
	case meshName != id.mesh:
		return mesh.Peer{}, fmt.Errorf("certificate of mesh %s, this is mesh %s: %w", meshName, id.mesh, ErrMesh)
	}
	return mesh.Peer{Node: node, Site: site}, chained(certs, id.root)
}

// chained checks signatures and names from an agent's certificate to the root.
// Dates are not looked at here: what they mean depends on whose clock is right.
func chained(certs []*x509.Certificate, root *x509.Certificate) error {
	meshName, site, node, err := PeerOf(certs[0])
	if err != nil {
		return err
	}
	if len(certs) < 2 {
		return fmt.Errorf("node %s shows no certificate of its site: %w", node, ErrForeign)
	}
	names, err := nameOf(certs[1])
	if err != nil {
		return err
	}
	if len(names) != 2 || names[0] != meshName || names[1] != string(site) {
		return fmt.Errorf("node %s of site %s is signed by %s, which signs its own site only: %w", node, site, certs[1].URIs[0], ErrForeign)
	}
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	inter.AddCert(certs[1])
	_, err = certs[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		CurrentTime: later(certs[0].NotBefore, certs[1].NotBefore, root.NotBefore),
	})
	if err != nil {
		return fmt.Errorf("certificate of node %s of a mesh that is called %s as well: %w: %w", node, meshName, ErrForeign, err)
	}
	if key, ok := certs[0].PublicKey.(ed25519.PublicKey); !ok || NodeOf(key) != node {
		return fmt.Errorf("the certificate says %s, which is not the name of its key: %w", node, ErrForeign)
	}
	return nil
}

// dates judges the dates of a chain. A certificate that begins after the time
// here shows that the time here is behind: then it counts instead. But a
// certificate cannot begin later than one life of our own from now, or ours would
// have ended: that is a wrong clock at its maker.
func (id *Identity) dates(certs []*x509.Certificate) error {
	now := id.Now()
	begin := later(certs[0].NotBefore, certs[1].NotBefore)
	if begin.After(now.Add(AgentLife)) {
		return fmt.Errorf("the certificate of %s is valid from %s on, %s: %w: set the clock that is wrong", certs[0].URIs[0], stamp(begin), id.clock(now), ErrNotYet)
	}
	return id.ended(certs, later(now, begin))
}

func (id *Identity) ended(certs []*x509.Certificate, now time.Time) error {
	for _, c := range []*x509.Certificate{certs[0], certs[1], id.root} {
		if now.After(c.NotAfter) {
			return fmt.Errorf("the certificate of %s %w on %s, %s", c.URIs[0], ErrExpired, stamp(c.NotAfter), id.clock(now))
		}
	}
	return nil
}

// clock says what the time is that was judged by, and where it is from.
func (id *Identity) clock(t time.Time) string {
	own := id.folder.now()
	id.mu.RLock()
	begin, seen := id.chain[0].NotBefore, id.seen
	id.mu.RUnlock()
	switch {
	case !t.After(own):
	case t.Equal(seen):
		return fmt.Sprintf("this machine's clock says %s, but it was %s already (%s)", stamp(own), stamp(t), id.folder.path(seenFile))
	case t.Equal(begin):
		return fmt.Sprintf("this machine's clock says %s, but its own certificate begins on %s (%s)", stamp(own), stamp(t), id.folder.path(agentFile))
	default: // the certificate that is judged shows it
		return fmt.Sprintf("this machine's clock says %s, but it is %s at least, as the certificate begins then", stamp(own), stamp(t))
	}
	return fmt.Sprintf("this machine's clock says %s", stamp(own))
}

func checkRoot(root *x509.Certificate, meshName string) error {
	names, err := nameOf(root)
	switch {
	case err != nil:
		return err
	case len(names) != 1 || !root.IsCA:
		return fmt.Errorf("%s is not a root: %w", root.URIs[0], ErrForeign)
	case names[0] != meshName:
		return fmt.Errorf("the root is of mesh %s, this is mesh %s: %w", names[0], meshName, ErrMesh)
	}
	if err := root.CheckSignatureFrom(root); err != nil {
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
	return nil
}
