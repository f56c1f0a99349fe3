package join

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
)

// Request is what an issuer decides about. It is small and can be sent on, to
// the leader.
type Request struct {
	Token      string   `cbor:"1,keyasint,omitempty"` // id; empty: a renewal, and the certificate shown is right
	SecretHash [32]byte `cbor:"2,keyasint"`           // SHA-256 of the secret that was shown
	// Node is the applicant: the request is signed with its key.
	Node    mesh.NodeID `cbor:"3,keyasint"`
	Name    string      `cbor:"4,keyasint"`
	CSR     []byte      `cbor:"5,keyasint"`
	Version string      `cbor:"6,keyasint,omitempty"`
	Level   uint32      `cbor:"7,keyasint,omitempty"`
	Link    string      `cbor:"8,keyasint,omitempty"` // where it says that it will be; empty: it does not know
	Site    mesh.Site   `cbor:"9,keyasint,omitempty"` // that it wants to join; empty: any
}

// Renewal tells whether the applicant is a member already.
func (r Request) Renewal() bool { return r.Token == "" }

// Issuer decides who joins.
type Issuer interface {
	// Issue judges a request (CheckSite, CheckToken), counts the use of its token, signs, and
	// says where members are. It may block until ctx ends, and is called by many
	// goroutines. Its errors are of the kinds of this package; the applicant is
	// told those, and of another one only ErrUnavailable.
	//
	// The same node may ask again, when the answer was lost: let it have another
	// certificate without using the token up further.
	Issue(ctx context.Context, r Request) (Grant, error)
}

// Token is what a site keeps of a token.
type Token struct {
	Hash    []byte    // SHA-256 of the secret
	Expires time.Time // zero: never
	Uses    int       // so many are left; -1: any number
	Revoked bool
}

// CheckSite judges whether the applicant wants to join this site. ErrRequest.
func CheckSite(site mesh.Site, r Request) error {
	if r.Site != "" && r.Site != site {
		return fmt.Errorf("%w: agent %q is to join site %s, and this is site %s: give it an address and a token of its own site, or another --site", ErrRequest, r.Name, r.Site, site)
	}
	return nil
}

// CheckToken judges a token that was shown; nil: there is none with that id. Only
// who knows the secret is told what is wrong with the token. ErrToken,
// ErrRevoked, ErrExpired, ErrUsed.
func CheckToken(t *Token, r Request, now time.Time) error {
	var none [sha256.Size]byte
	hash := none[:]
	if t != nil {
		hash = t.Hash
	}
	switch same := identity.SameSecret(hash, r.SecretHash[:]); {
	case !same || t == nil:
		return fmt.Errorf("token %s: %w", r.Token, ErrToken)
	case t.Revoked:
		return fmt.Errorf("token %s: %w", r.Token, ErrRevoked)
	case !t.Expires.IsZero() && !now.Before(t.Expires):
		return fmt.Errorf("token %s, until %s, it is %s: %w", r.Token, t.Expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), ErrExpired)
	case t.Uses == 0:
		return fmt.Errorf("token %s: %w", r.Token, ErrUsed)
	}
	return nil
}

// Limits of a server: strangers can take no more of an agent.
const (
	maxWaiting    = 128 // conversations; further ones are closed at once
	maxConcurrent = 16  // requests before the issuer; further ones are refused
	serveTimeout  = 30 * time.Second
	readTimeout   = 5 * time.Second // until its request is here
	lingerTimeout = 5 * time.Second
)

// Server answers applicants. Any goroutine may call it.
type Server struct {
	issuer  Issuer
	waiting chan struct{}
	slots   chan struct{}
}

// NewServer answers as issuer decides.
func NewServer(issuer Issuer) *Server {
	return &Server{issuer: issuer, waiting: make(chan struct{}, maxWaiting), slots: make(chan struct{}, maxConcurrent)}
}

// Serve has one conversation, closes conn, and returns whom it was with; the
// error is for the log: the applicant was told its kind. cs is that of the
// finished handshake of conn, made with identity's JoinServerTLS or ListenTLS.
func (s *Server) Serve(ctx context.Context, conn io.ReadWriteCloser, cs tls.ConnectionState) (Request, error) {
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return Request{}, errors.Join(fmt.Errorf("%w: %d conversations", ErrUnavailable, maxWaiting), conn.Close())
	}
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	r, g, err := s.decide(ctx, conn, cs)
	reply := &answer{Protocol: protocol, Grant: &g}
	if err != nil {
		reply = refusal(err)
	}
	if e := write(conn, reply); e != nil {
		return r, errors.Join(err, e)
	}
	// The applicant closes when it has the answer: closing first could cut it off.
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	linger := time.AfterFunc(lingerTimeout, func() { _ = conn.Close() })
	defer linger.Stop()
	_, _ = io.CopyN(io.Discard, conn, maxMessage)
	return r, err
}

func (s *Server) decide(ctx context.Context, conn io.ReadCloser, cs tls.ConnectionState) (r Request, g Grant, err error) {
	if cs.Version != tls.VersionTLS13 || !cs.HandshakeComplete || cs.NegotiatedProtocol != identity.JoinALPN {
		return r, g, fmt.Errorf("%w: %w, in protocol %q", ErrProtocol, identity.ErrPlain, cs.NegotiatedProtocol)
	}
	slow := time.AfterFunc(readTimeout, func() { _ = conn.Close() })
	var in request
	err = read(conn, &in)
	slow.Stop()
	if err != nil {
		return r, g, err
	}
	if err := in.check(); err != nil {
		return r, g, err
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return r, g, fmt.Errorf("%w: %d are joining", ErrUnavailable, maxConcurrent)
	}
	r = Request{Token: in.Token, Node: in.Node, Name: in.Name, CSR: in.CSR, Version: in.Version, Level: in.Level, Link: in.Link, Site: in.Site}
	if r.Renewal() {
		err = shown(cs, r.Node)
	} else {
		r.SecretHash = sha256.Sum256(in.Secret)
	}
	if err != nil {
		return r, g, err
	}
	g, err = s.issuer.Issue(ctx, r)
	if len(g.Members) > maxMembers {
		g.Members = g.Members[:maxMembers]
	}
	if r.Renewal() {
		g.Gossip = nil // it has it
	}
	return r, g, err
}

// shown tells whether the handshake showed the certificate of the node that asks
// for a renewal. The handshake has verified it.
func shown(cs tls.ConnectionState, node mesh.NodeID) error {
	if len(cs.PeerCertificates) == 0 {
		return fmt.Errorf("%w: neither a token nor a certificate was shown", ErrRequest)
	}
	_, _, has, err := identity.PeerOf(cs.PeerCertificates[0])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if has != node {
		return fmt.Errorf("%w: node %s asks for a certificate of node %s", ErrRequest, has, node)
	}
	return nil
}
