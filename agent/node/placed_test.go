package node_test

import (
	"context"
	"crypto/tls"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/join"
	"github.com/tidemark-mesh/tidemark/mesh/link"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// Who joins is taken into the Raft group with its address, and not before that is
// known.
func TestJoinsWithItsAddress(t *testing.T) {
	first := newBox(t, "n1")
	_, token, err := node.Found(first.dir, "test", "plant", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	first.start("", "")
	await(t, "the founder to lead", func() bool { return first.Health().Ready })
	for _, at := range []string{"127.0.0.1:9", ""} {
		id := enter(t, first, token, "box"+at, at)
		var known *coordinator.Agent
		first.View(func(st *coordinator.State) { known = st.Agents[id] })
		if known == nil || known.Link != at {
			t.Errorf("it joined from %q, and is known as %+v", at, known)
		}
		in := false
		for _, m := range first.Group() {
			in = in || m.Node == id
		}
		if in != (at != "") {
			t.Errorf("it joined from %q: in the group: %v", at, in)
		}
	}
}

// enter joins as an agent does that then does not start.
func enter(t *testing.T, through *box, token identity.Token, name, at string) mesh.NodeID {
	t.Helper()
	folder := identity.OpenFolder(disk.Secret, filepath.Join(t.TempDir(), "identity"), time.Now)
	id, err := folder.Node()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := folder.Request()
	if err != nil {
		t.Fatal(err)
	}
	a := join.Applicant{Token: token, Node: id, CSR: csr, Name: name, Level: coordinator.Level, Link: at, Now: time.Now}
	await(t, name+" to be let in", func() bool {
		_, err := join.Join(t.Context(), func(ctx context.Context, conf *tls.Config) (io.ReadWriteCloser, tls.ConnectionState, error) {
			c, err := link.DialJoin(ctx, through.Link(), conf)
			if err != nil {
				return nil, tls.ConnectionState{}, err
			}
			return c, c.ConnectionState(), nil
		}, a)
		if err != nil {
			t.Log(err)
		}
		return err == nil
	})
	return id
}
