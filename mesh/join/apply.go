package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
)

// Dial connects to an agent with the TLS configuration, and returns when the
// handshake is done. Closing the connection may come from another goroutine.
type Dial func(ctx context.Context, config *tls.Config) (io.ReadWriteCloser, tls.ConnectionState, error)

// Applicant is who wants to join.
type Applicant struct {
	Token   identity.Token
	Node    mesh.NodeID // identity.Folder's
	CSR     []byte      // identity.Folder's Request
	Name    string
	Version string
	Level   uint32
	Link    string           // host:port at which it will be reached; empty: not known yet
	Site    mesh.Site        // that it is to join; empty: whichever lets it in
	Now     func() time.Time // the machine's clock
}

// Join shows the token to an agent and returns what identity.Folder then keeps.
// It trusts nothing but the token's hash of the root: everything that it is given
// must come from there. Errors: this package's, with the other side's reason;
// identity's, where the other side is not of the token's mesh; Dial's.
func Join(ctx context.Context, dial Dial, a Applicant) (Grant, error) {
	shown := a.Token.Shown()
	r := request{
		Protocol: protocol, Token: a.Token.ID, Secret: shown[:],
		Node: a.Node, Name: a.Name, CSR: a.CSR, Version: a.Version, Level: a.Level, Link: a.Link, Site: a.Site,
	}
	if err := r.check(); err != nil {
		return Grant{}, err
	}
	var root *x509.Certificate
	g, err := ask(ctx, dial, identity.JoinTLS(a.Token, a.Now), r, func(cs tls.ConnectionState) (err error) {
		root, err = identity.VerifyJoin(&cs, a.Token, a.Now())
		return err
	})
	if err == nil && !bytes.Equal(g.Root, root.Raw) {
		err = fmt.Errorf("the root in the answer is not the one that the agent showed: %w", identity.ErrForeign)
	}
	if err == nil && a.Site != "" && g.Site != a.Site { // an agent of an older program, that knows of no such wish
		err = fmt.Errorf("it is to join site %s, and was let into site %s: %w", a.Site, g.Site, identity.ErrSite)
	}
	if err == nil && a.Token.Founds != (len(g.Sealed) > 0) {
		err = fmt.Errorf("%w: the token founds a site, or the answer does, but not both", ErrProtocol)
	}
	if err != nil {
		return Grant{}, fmt.Errorf("joining: %w", err)
	}
	return g, nil
}

// Renew fetches a new certificate for an agent of the mesh and puts it into
// force. It returns where members are.
func Renew(ctx context.Context, dial Dial, id *identity.Identity, name, version string) ([]Contact, error) {
	csr, err := id.Request()
	if err != nil {
		return nil, err
	}
	r := request{Protocol: protocol, Node: id.Node(), Name: name, CSR: csr, Version: version}
	if err := r.check(); err != nil {
		return nil, err
	}
	g, err := ask(ctx, dial, id.ClientTLS("", identity.JoinALPN), r, func(cs tls.ConnectionState) error {
		_, err := id.Verify(&cs, "")
		return err
	})
	if err == nil {
		err = id.Renew(g.Chain)
	}
	if err != nil {
		return nil, fmt.Errorf("renewing the certificate: %w", err)
	}
	return g.Members, nil
}

// ask has one conversation. The secret goes out only when verify likes the other
// side, whatever dial has checked.
func ask(ctx context.Context, dial Dial, config *tls.Config, r request, verify func(tls.ConnectionState) error) (g Grant, err error) {
	conn, cs, err := dial(ctx, config)
	if err != nil {
		return g, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	if err := verify(cs); err != nil {
		return g, err
	}
	if err = write(conn, r); err != nil {
		return g, errors.Join(err, ctx.Err())
	}
	var a answer
	err = read(conn, &a)
	if ctx.Err() != nil { // closed by us: what was read means nothing
		return g, errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return g, fmt.Errorf("waiting for the answer: %w", err)
	}
	if err := a.check(); err != nil {
		return g, err
	}
	if a.Grant == nil {
		return g, a.err()
	}
	return *a.Grant, nil
}
