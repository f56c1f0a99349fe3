package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// JoinALPN is the protocol that tokens and renewals are shown in: mesh/join.
const JoinALPN = "tidemark-join/1"

// ServerTLS is mutual TLS 1.3 within the mesh: whoever has a certificate of it
// that Verify likes. The certificate in force is taken at each handshake.
func (id *Identity) ServerTLS(alpn ...string) *tls.Config {
	c := base(alpn)
	c.ClientAuth = tls.RequireAnyClientCert
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.certificate(false) }
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := id.Verify(&cs, "")
		return err
	}
	return c
}

// ClientTLS dials a node; empty: whoever of the mesh answers.
func (id *Identity) ClientTLS(expect mesh.NodeID, alpn ...string) *tls.Config {
	c := base(alpn)
	c.InsecureSkipVerify = true // names and dates are ours: VerifyConnection
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.certificate(false) }
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := id.Verify(&cs, expect)
		return err
	}
	return c
}

// JoinServerTLS is for JoinALPN: a client may have no certificate yet; if it has
// one it must be right. The server shows its root too, for the joiner knows only
// its hash.
func (id *Identity) JoinServerTLS() *tls.Config {
	c := base([]string{JoinALPN})
	c.ClientAuth = tls.RequestClientCert
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.certificate(true) }
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return nil
		}
		_, err := id.Verify(&cs, "")
		return err
	}
	return c
}

// ListenTLS is ServerTLS for alpn and JoinServerTLS for JoinALPN, on one port.
func (id *Identity) ListenTLS(alpn ...string) *tls.Config {
	within, join := id.ServerTLS(alpn...), id.JoinServerTLS()
	c := within.Clone()
	c.NextProtos = append(slices.Clone(alpn), JoinALPN)
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(h.SupportedProtos, JoinALPN) {
			return join, nil
		}
		return within, nil
	}
	return c
}

// JoinTLS is a joiner's, who trusts nothing but the hash in its token. now is its
// clock, which may be far behind: then the server's dates stand for it.
func JoinTLS(t Token, now func() time.Time) *tls.Config {
	c := base([]string{JoinALPN})
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := VerifyJoin(&cs, t, now())
		return err
	}
	return c
}

// VerifyJoin judges the server that a joiner has reached, and returns the root.
// ErrPlain, ErrNoCert, ErrMesh, ErrForeign, ErrExpired.
func VerifyJoin(cs *tls.ConnectionState, t Token, now time.Time) (*x509.Certificate, error) {
	switch n := len(cs.PeerCertificates); {
	case cs.Version != tls.VersionTLS13:
		return nil, fmt.Errorf("%w: its version is %q", ErrPlain, tls.VersionName(cs.Version))
	case n == 0:
		return nil, ErrNoCert
	case n != 3:
		return nil, fmt.Errorf("%d certificates instead of those of agent, site and root: %w", n, ErrForeign)
	}
	certs := cs.PeerCertificates
	root := certs[2]
	if RootHash(root) != t.Root {
		return nil, fmt.Errorf("the agent that answers (%q) has another root than the one the token names: %w: is the token for that mesh, and the address right?",
			certs[0].Subject.CommonName, ErrMesh)
	}
	meshName, _, _, err := PeerOf(certs[0])
	if err == nil {
		err = checkRoot(root, meshName)
	}
	if err == nil {
		err = chained(certs, root)
	}
	if err != nil {
		return nil, err
	}
	for _, c := range certs {
		if now.After(c.NotAfter) {
			return nil, fmt.Errorf("the certificate of %s %w on %s, this machine's clock says %s", c.URIs[0], ErrExpired, stamp(c.NotAfter), stamp(now))
		}
	}
	return root, nil
}

func base(alpn []string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: slices.Clone(alpn),
		// A resumed session would not show its certificate again.
		SessionTicketsDisabled: true,
	}
}

// certificate is the one in force, with the root's for who cannot know it.
func (id *Identity) certificate(root bool) (*tls.Certificate, error) {
	now := id.Now()
	id.mu.RLock()
	defer id.mu.RUnlock()
	if c := id.chain[0]; now.After(c.NotAfter) {
		return nil, fmt.Errorf("this agent's own certificate %w on %s, the time is %s: join again with a new token", ErrExpired, stamp(c.NotAfter), stamp(now))
	}
	t := &tls.Certificate{Certificate: [][]byte{id.chain[0].Raw, id.chain[1].Raw}, PrivateKey: id.key, Leaf: id.chain[0]}
	if root {
		t.Certificate = append(t.Certificate, id.root.Raw)
	}
	return t, nil
}
