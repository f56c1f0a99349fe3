package node_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/join"
	"github.com/tidemark-mesh/tidemark/mesh/link"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// overheard keeps what a joiner says.
type overheard struct {
	*link.JoinConn
	said []byte
}

func (o *overheard) Write(p []byte) (int, error) {
	o.said = append(o.said, p...)
	return o.JoinConn.Write(p)
}

// reply is the answer to a join: docs/SECURITY.md.
type reply struct {
	Code  int         `cbor:"2,keyasint"`
	Why   string      `cbor:"3,keyasint"`
	Grant *join.Grant `cbor:"4,keyasint"`
}

// say sends bytes to an agent as somebody does who joins.
func (b *box) say(token identity.Token, said []byte) (r reply) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	c, err := link.DialJoin(ctx, b.Link(), identity.JoinTLS(token, time.Now))
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		b.t.Fatal(err)
	}
	if _, err := c.Write(said); err != nil {
		b.t.Fatal(err)
	}
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		b.t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c, body); err != nil {
		b.t.Fatal(err)
	}
	if err := cbor.Unmarshal(body, &r); err != nil {
		b.t.Fatal(err)
	}
	return r
}

// A request to join that somebody else sends again, on a connection of his own,
// is answered with a certificate for the key of who sent it first. It costs
// nothing and changes nothing; when the token is revoked it is refused.
func TestJoinSentAgain(t *testing.T) {
	lead := site(t, 1)[0]
	text, made, err := lead.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	made.Uses = 1
	if _, err := lead.Propose(t.Context(), coordinator.Command{TokenCreated: &made}); err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	folder := identity.OpenFolder(disk.Secret, filepath.Join(t.TempDir(), "identity"), time.Now)
	id, err := folder.Node()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := folder.Request()
	if err != nil {
		t.Fatal(err)
	}
	var said []byte
	await(t, "the first to be let in", func() bool {
		var o overheard
		_, err := join.Join(t.Context(), func(ctx context.Context, conf *tls.Config) (io.ReadWriteCloser, tls.ConnectionState, error) {
			c, err := link.DialJoin(ctx, lead.Link(), conf)
			if err != nil {
				return nil, tls.ConnectionState{}, err
			}
			o.JoinConn = c
			return &o, c.ConnectionState(), nil
		}, join.Applicant{Token: token, Node: id, CSR: csr, Name: "n2", Level: coordinator.Level, Now: time.Now})
		said = o.said
		return err == nil
	})

	var r reply
	await(t, "an answer to the second", func() bool {
		r = lead.say(token, said)
		return r.Code != join.Code(join.ErrUnavailable)
	})
	if r.Grant == nil {
		t.Fatalf("refused with code %d: %s", r.Code, r.Why)
	}
	cert, err := x509.ParseCertificate(r.Grant.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if of := identity.NodeOf(cert.PublicKey.(ed25519.PublicKey)); of != id {
		t.Errorf("the certificate is of node %s, not %s", of, id)
	}
	lead.View(func(st *coordinator.State) {
		if k := st.Tokens[made.ID]; k.Uses != 0 || len(k.Nodes) != 1 || len(st.Agents) != 2 {
			t.Errorf("%d uses are left after nodes %v; %d agents", k.Uses, k.Nodes, len(st.Agents))
		}
	})

	if _, err := lead.Propose(t.Context(), coordinator.Command{TokenRevoked: &coordinator.TokenRevoked{ID: made.ID}}); err != nil {
		t.Fatal(err)
	}
	await(t, "an answer to the third", func() bool {
		r = lead.say(token, said)
		return r.Code != join.Code(join.ErrUnavailable)
	})
	if r.Code != join.Code(join.ErrRevoked) || !strings.Contains(r.Why, "was revoked") {
		t.Errorf("of a token that was revoked: %+v", r)
	}
	await(t, "the leader to say so too", func() bool { return strings.Contains(lead.said(), "was revoked") })
}
