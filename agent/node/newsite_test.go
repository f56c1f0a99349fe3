package node_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/join"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// createSite has a site let one agent found another one.
func createSite(t *testing.T, by *box, name string) identity.Token {
	t.Helper()
	token, _ := createSiteFor(t, by, name, 0)
	return token
}

// createSiteFor has the token end after a while; 0: never.
func createSiteFor(t *testing.T, by *box, name string, ttl time.Duration) (identity.Token, api.TokenInfo) {
	t.Helper()
	token, n := signSite(t, by, name)
	n.TTL = ttl.Milliseconds()
	return token, createSigned(t, by, n)
}

// signSite makes what a site is asked to keep, with the root key that a box has.
func signSite(t *testing.T, root *box, name string) (identity.Token, api.NewSite) {
	t.Helper()
	key, err := identity.OpenFolder(disk.Secret, root.dir+"/identity", time.Now).RootKey()
	if err != nil {
		t.Fatal(err)
	}
	meshName, made, err := identity.SignSite(key, mesh.Site(name), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	token, sealed, err := identity.NewSiteToken(key, mesh.Site(name), made)
	if err != nil {
		t.Fatal(err)
	}
	hash := token.SecretHash()
	return token, api.NewSite{Mesh: meshName, Site: name, Token: token.ID, Hash: hash[:], Sealed: sealed}
}

func createSigned(t *testing.T, by *box, n api.NewSite) (info api.TokenInfo) {
	t.Helper()
	await(t, "the site to take the token", func() bool { // level 3 is in force soon
		var err error
		info, err = by.client(t).CreateSite(t.Context(), n)
		return err == nil
	})
	return info
}

// refusesSite wants a site to refuse that another one is founded, saying why.
func refusesSite(t *testing.T, by *box, n api.NewSite, why string) {
	t.Helper()
	_, err := by.client(t).CreateSite(t.Context(), n)
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != 409 || !strings.Contains(err.Error(), why) {
		t.Errorf("site %s at %s: %v, want %q", n.Site, by.name, err, why)
	}
}

// A site that is only away is not founded a second time, wherever that is asked for,
// until a person says that it is gone, where its token is.
func TestNewSiteOfOneThatIsAway(t *testing.T) {
	plant, depot := twoSites(t, 1)
	early, n := signSite(t, plant[0], "yard")
	createSigned(t, depot, n)
	token := createSite(t, plant[0], "yard")
	yard := newBox(t, "y1")
	yard.site = "yard"
	yard.start(plant[0].Link(), token.String())
	await(t, "the yard to be founded", func() bool { return yard.Leader() == yard.Self() && yard.Health().Ready })
	for _, b := range []*box{plant[0], depot} {
		await(t, b.name+" to write down where the yard is", func() bool {
			text, err := os.ReadFile(b.dir + "/sites.json")
			return err == nil && strings.Contains(string(text), `"yard"`)
		})
	}
	yard.end()
	see(t, plant[0], "yard", 0)
	see(t, depot, "yard", 0)

	other := newBox(t, "y2")
	other.site = "yard"
	const why = "nobody of it is seen now"
	if n, err := node.Start(t.Context(), other.options(depot.Link(), early.String())); !errors.Is(err, join.ErrRequest) || !strings.Contains(err.Error(), why) {
		t.Fatalf("%v, %v", n, err)
	}
	late, n := signSite(t, plant[0], "yard")
	refusesSite(t, depot, n, why)
	refusesSite(t, plant[0], n, "token revoke "+token.ID)
	if err := plant[0].client(t).RevokeToken(t.Context(), token.ID); err != nil {
		t.Fatal(err)
	}
	createSigned(t, plant[0], n)
	other.start(plant[0].Link(), late.String())
	await(t, "the yard to be founded anew", func() bool { return other.Leader() == other.Self() && other.Health().Ready })
}

// On a machine whose clock has fallen behind what it is known to have been, the token
// of a site is good for as long as it was made for.
func TestNewSiteOnAClockThatIsBehind(t *testing.T) {
	first := newBox(t, "n1")
	if _, _, err := node.Found(first.dir, "test", "plant", time.Now().Add(72*time.Hour)); err != nil {
		t.Fatal(err)
	}
	first.start("", "")
	await(t, "the founder to lead", func() bool { return first.Health().Ready })
	token, info := createSiteFor(t, first, "depot", 24*time.Hour)
	if info.State != "good" {
		t.Errorf("a new token: %+v", info)
	}
	depot := newBox(t, "d1")
	depot.site = "depot"
	depot.start(first.Link(), token.String())
	await(t, "the new site to be founded", func() bool { return depot.Leader() == depot.Self() && depot.Health().Ready })
}

// A token of site create founds one site, which is of the same mesh, leads itself,
// and lets others in; whoever comes with it later is refused.
func TestNewSite(t *testing.T) {
	all := site(t, 2)
	token := createSite(t, all[0], "depot")
	again := createSite(t, all[0], "depot") // by mistake
	yard := createSite(t, all[0], "yard")

	wrong := newBox(t, "w1")
	wrong.site = "yard"
	if n, err := node.Start(t.Context(), wrong.options(all[1].Link(), token.String())); !errors.Is(err, join.ErrRequest) || !strings.Contains(err.Error(), "founds site depot") {
		t.Fatalf("%v, %v", n, err)
	}

	d1 := newBox(t, "d1")
	d1.site = "depot"
	d1.start(all[1].Link(), token.String()) // through one that does not lead, it may be
	await(t, "the new site to be founded", func() bool { return d1.Leader() == d1.Self() && d1.Health().Ready })
	d1.View(func(st *coordinator.State) {
		if st.Site != "depot" || st.Mesh != "test" || len(st.Agents) != 1 || len(st.Tokens) != 0 {
			t.Errorf("site %s of mesh %s, %d agents, %d tokens", st.Site, st.Mesh, len(st.Agents), len(st.Tokens))
		}
	})
	late := newBox(t, "d2")
	if n, err := node.Start(t.Context(), late.options(all[0].Link(), token.String())); !errors.Is(err, join.ErrUsed) {
		t.Fatalf("%v, %v", n, err)
	}
	_, third := signSite(t, all[0], "depot")
	refusesSite(t, leading(t, all), third, "site depot")
	second := newBox(t, "d3")
	if n, err := node.Start(t.Context(), second.options(all[0].Link(), again.String())); !errors.Is(err, join.ErrRequest) || !strings.Contains(err.Error(), "site depot") {
		t.Fatalf("%v, %v", n, err)
	}
	// A site whose jobs are known would give their ids to others.
	lost := coordinator.MovingJob{ID: "j7-yard", Name: "counts", Parallelism: 1}
	if _, err := all[0].Propose(t.Context(), coordinator.Command{ReplicaOffered: &coordinator.ReplicaOffered{Job: lost, From: "yard", Epoch: 1}}); err != nil {
		t.Fatal(err)
	}
	_, third = signSite(t, all[0], "yard")
	refusesSite(t, leading(t, all), third, "j7-yard")
	if n, err := node.Start(t.Context(), wrong.options(all[0].Link(), yard.String())); !errors.Is(err, join.ErrRequest) || !strings.Contains(err.Error(), "j7-yard") {
		t.Fatalf("%v, %v", n, err)
	}
	made, err := d1.client(t).CreateToken(t.Context(), api.NewToken{Uses: 1})
	if err != nil {
		t.Fatal(err)
	}
	late.start(d1.Link(), made.Token)

	// The founder goes on after a restart, with what it was started with.
	d1.end()
	d1.start(all[1].Link(), token.String())
	both := []*box{d1, late}
	lead := leading(t, both)
	await(t, "both to be agents of the new site", func() bool {
		n := 0
		lead.View(func(st *coordinator.State) { n = len(st.Agents) })
		return n == 2 && d1.Health().Ready && late.Health().Ready
	})
	leading(t, all).View(func(st *coordinator.State) {
		if len(st.Agents) != 2 || st.Agents[d1.Self()] != nil || st.Tokens[token.ID].Uses != 0 {
			t.Errorf("%d agents of the first site, %d uses", len(st.Agents), st.Tokens[token.ID].Uses)
		}
	})
	if err := leading(t, all).Current(context.Background()); err != nil {
		t.Error(err)
	}
	_, err = all[0].client(t).CreateSite(t.Context(), api.NewSite{Mesh: "other", Site: "x", Token: "abc", Hash: make([]byte, 32), Sealed: []byte{1}})
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != 409 {
		t.Errorf("a key of another mesh: %v", err)
	}
	_, err = all[0].client(t).CreateSite(t.Context(), api.NewSite{Mesh: "test", Site: "plant", Token: "abc", Hash: make([]byte, 32), Sealed: []byte{1}})
	if !errors.As(err, &p) || p.Status != 409 {
		t.Errorf("this site again: %v", err)
	}
}
