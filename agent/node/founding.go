package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/join"
	"github.com/tidemark-mesh/tidemark/mesh/link"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// Founding is what a founder's folder says until the site's first leader, which
// is itself, has put it into the replicated state; the file stays, and lets the
// node found the Raft group if that has not been done.
type Founding struct {
	Mesh  string            `json:"mesh"`
	Site  mesh.Site         `json:"site"`
	Node  mesh.NodeID       `json:"node"`
	Token coordinator.Token `json:"token,omitzero"` // the first one, without its secret; none in a site that a token founded
}

func foundingFile(data string) string { return filepath.Join(data, "founding.json") }

// FirstTokenLife is how long the token of init lets agents join.
const FirstTokenLife = 24 * time.Hour

// Found makes a mesh in a data folder, with this node as the founder of its first
// site, and returns the first join token. identity.ErrTaken.
func Found(data, meshName string, site mesh.Site, now time.Time) (Founding, identity.Token, error) {
	if err := os.MkdirAll(data, 0o750); err != nil {
		return Founding{}, identity.Token{}, err
	}
	id, err := identity.OpenFolder(disk.Secret, filepath.Join(data, "identity"), func() time.Time { return now }).Found(meshName, site)
	if err != nil {
		return Founding{}, identity.Token{}, err
	}
	t := id.NewToken()
	f := Founding{Mesh: id.Mesh(), Site: id.Site(), Node: id.Node(), Token: stored(t, now, FirstTokenLife, -1)}
	return f, t, f.write(data)
}

// stored is what the site keeps of a token.
func stored(t identity.Token, now time.Time, life time.Duration, uses int) coordinator.Token {
	hash := t.SecretHash()
	c := coordinator.Token{ID: t.ID, Hash: hash[:], Created: dataflow.Time(now.UnixMicro()), Expires: dataflow.MaxTime, Uses: uses}
	if life > 0 {
		c.Expires = dataflow.Time(now.Add(life).UnixMicro())
	}
	return c
}

// write keeps it in a data folder.
func (f Founding) write(data string) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return replace(foundingFile(data), append(text, '\n'))
}

// readFounding is nil where another node founded the site. What a founding that a
// crash ended has left is of another site, or another node, and says nothing.
func readFounding(data string, id *identity.Identity) (*Founding, error) {
	text, err := os.ReadFile(foundingFile(data))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var f Founding
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", foundingFile(data), err)
	}
	if f.Mesh != id.Mesh() || f.Site != id.Site() || f.Node != id.Node() {
		return nil, nil
	}
	return &f, nil
}

// ErrNoMesh means that an agent is told neither to found nor to join.
var ErrNoMesh = errors.New("this data folder belongs to no mesh yet: found one with `tidemark init`, or join one with --join HOST:PORT --token TOKEN")

// identify loads the agent's identity. Without one it joins, or in dev founds.
func (n *Node) identify(ctx context.Context) (*identity.Identity, error) {
	folder := identity.OpenFolder(disk.Secret, filepath.Join(n.o.Config.DataDir, "identity"), n.o.Clock)
	id, err := folder.Load()
	if !errors.Is(err, identity.ErrNone) {
		return id, err
	}
	if err := portsFree(n.o.Config); err != nil { // nothing is founded that cannot run, and no token used
		return nil, err
	}
	switch c := n.o.Config; {
	case len(c.Join) > 0 && c.Token != "":
		return n.join(ctx, folder)
	case c.Dev && len(c.Join) == 0:
		site := c.Site
		if site == "" {
			site = "dev"
		}
		_, t, err := Found(c.DataDir, "dev", mesh.Site(site), n.o.Clock())
		if err != nil {
			return nil, err
		}
		n.tell("site", fmt.Sprintf("a mesh for trying things out was founded in %s, on loopback; others of this machine join it with --dev --join %s --token %s", c.DataDir, c.Bind, t))
		return folder.Load()
	case len(c.Join) > 0:
		return nil, fmt.Errorf("%w (a token is missing)", ErrNoMesh)
	}
	return nil, ErrNoMesh
}

// portsFree tells whether an agent could take its ports at the moment.
func portsFree(c config.Config) error {
	for _, p := range []struct {
		name, bind string
		tcp        bool // besides UDP
	}{{"bind", c.Bind, false}, {"gossip_bind", c.GossipBind, true}, {"wan_bind", c.WANBind, true}} {
		s, err := net.ListenPacket("udp", p.bind)
		if err == nil {
			err = s.Close()
		}
		if err == nil && p.tcp {
			var l net.Listener
			if l, err = net.Listen("tcp", p.bind); err == nil {
				err = l.Close()
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w: does another agent run here? --bind HOST:PORT names another port", p.name, err)
		}
	}
	return nil
}

// joinEvery is how often an agent that nobody answers tries again.
const joinEvery = 2 * time.Second

// join shows the token to one agent after the other until one lets this node in,
// or says that it never will.
func (n *Node) join(ctx context.Context, folder *identity.Folder) (*identity.Identity, error) {
	secret, err := n.secret(n.o.Config.Token)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	token, err := identity.ParseToken(secret)
	if err != nil {
		return nil, err
	}
	a := join.Applicant{Token: token, Name: n.o.Config.Name, Version: n.o.Version, Level: n.o.Level, Link: linkToBe(n.o.Config), Site: mesh.Site(n.o.Config.Site), Now: n.o.Clock}
	if a.Node, err = folder.Node(); err != nil {
		return nil, err
	}
	if a.CSR, err = folder.Request(); err != nil {
		return nil, err
	}
	for {
		for _, addr := range n.o.Config.Join {
			g, err := join.Join(ctx, dialJoin(addr), a)
			if err == nil && token.Founds {
				n.sponsors = g.Members
				n.tell("site", fmt.Sprintf("founds site %s of mesh %s, by leave of %s: others join it with tokens of this agent's", g.Site, g.Mesh, addr))
				return folder.FoundSite(token, g.Credentials(), g.Sealed, func(node mesh.NodeID) error {
					return Founding{Mesh: g.Mesh, Site: g.Site, Node: node}.write(n.o.Config.DataDir)
				})
			}
			if err == nil {
				for _, c := range g.Members {
					if c.Site == "" {
						n.contacts = append(n.contacts, c)
					} else {
						n.sponsors = append(n.sponsors, c)
					}
				}
				n.tell("site", fmt.Sprintf("joined mesh %s, site %s, through %s", g.Mesh, g.Site, addr))
				return folder.Keep(g.Credentials())
			}
			for _, never := range []error{join.ErrToken, join.ErrExpired, join.ErrRevoked, join.ErrUsed, join.ErrRequest, join.ErrProtocol, identity.ErrMesh, identity.ErrForeign, identity.ErrSite} {
				if errors.Is(err, never) {
					return nil, fmt.Errorf("%s: %w", addr, err)
				}
			}
			n.tell("site", fmt.Sprintf("%s: %v; trying again", addr, err))
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(joinEvery):
		}
	}
}

func dialJoin(addr string) join.Dial {
	return func(ctx context.Context, conf *tls.Config) (io.ReadWriteCloser, tls.ConnectionState, error) {
		c, err := link.DialJoin(ctx, addr, conf)
		if err != nil {
			return nil, tls.ConnectionState{}, err
		}
		return c, c.ConnectionState(), nil
	}
}
