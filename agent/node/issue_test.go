package node_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/join"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// Who asks an agent that does not lead is refused with the leader's reason, and
// does not go on asking.
func TestRefusedThroughAnother(t *testing.T) {
	all := site(t, 2)
	lead := leading(t, all)
	asked := all[0]
	if asked == lead {
		asked = all[1]
	}
	ids := make(map[string]string)
	token := func(change func(*coordinator.Token)) string {
		text, made, err := lead.NewToken()
		if err != nil {
			t.Fatal(err)
		}
		made.Uses, made.Expires = -1, dataflow.MaxTime
		change(&made)
		if _, err := lead.Propose(t.Context(), coordinator.Command{TokenCreated: &made}); err != nil {
			t.Fatal(err)
		}
		ids[text] = made.ID
		return text
	}
	good := token(func(*coordinator.Token) {})
	revoked := token(func(*coordinator.Token) {})
	if _, err := lead.Propose(t.Context(), coordinator.Command{TokenRevoked: &coordinator.TokenRevoked{ID: ids[revoked]}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, name, token string
		kind              error
		says              string
	}{
		{"expired", "n9", token(func(made *coordinator.Token) { made.Expires = 1 }), join.ErrExpired, "until 1970"},
		{"revoked", "n9", revoked, join.ErrRevoked, "was revoked"},
		{"of a name that is taken", lead.name, good, join.ErrRequest, `the name "` + lead.name + `" is taken`},
	} {
		b := newBox(t, c.name)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		n, err := node.Start(ctx, b.options(asked.Link(), c.token))
		if err == nil {
			cancel()
			_ = n.Wait()
		}
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v\n%s", c.what, err, b.said())
		}
		cancel()
	}
}

// A program of an older feature level than is in force is refused for good, and
// costs no use of its token.
func TestRefusedOfOlderLevel(t *testing.T) {
	first := newBox(t, "n1")
	first.level = coordinator.Level + 1
	_, token, err := node.Found(first.dir, "test", "plant", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	first.start("", "")
	await(t, "the new level", func() (raised bool) {
		first.View(func(st *coordinator.State) { raised = st.Level == first.level })
		return raised
	})
	old := newBox(t, "n2")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := node.Start(ctx, old.options(first.Link(), token.String()))
	if err == nil {
		cancel()
		_ = n.Wait()
	}
	if !errors.Is(err, join.ErrRequest) || !strings.Contains(err.Error(), fmt.Sprintf("level %d is in force", first.level)) {
		t.Errorf("%v\n%s", err, old.said())
	}
	first.View(func(st *coordinator.State) {
		if len(st.Agents) != 1 {
			t.Errorf("%d agents", len(st.Agents))
		}
	})
}

// A founder that ended in order, and so is looked for by nobody, finds the others
// again: it was told of none, and what it knows of them is in a log that it may
// read only when it leads.
func TestFounderFindsTheOthersAgain(t *testing.T) {
	all := site(t, 3)
	all[0].end()
	all[0].start("", "")
	for _, b := range all {
		await(t, b.name+" to see all", func() bool {
			seen := b.Members()
			return len(seen) == 3 && !slices.ContainsFunc(seen, func(m api.Member) bool { return m.Status != mesh.Alive })
		})
	}
}

// A token of one use lets its node in also when the answer was lost, or the leader
// ended, after the use was counted.
func TestUseCountedBefore(t *testing.T) {
	lead := site(t, 1)[0]
	text, made, err := lead.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	made.Uses = 1
	b := newBox(t, "n2")
	id, err := identity.OpenFolder(disk.Secret, filepath.Join(b.dir, "identity"), time.Now).Node()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []coordinator.Command{{TokenCreated: &made}, {TokenUsed: &coordinator.TokenUsed{ID: made.ID, Hash: made.Hash, Node: id}}} {
		if _, err := lead.Propose(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	b.start(lead.Link(), text)
	if b.Self() != id {
		t.Errorf("it is %s, was %s", b.Self(), id)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	other := newBox(t, "n3")
	n, err := node.Start(ctx, other.options(lead.Link(), text))
	if err == nil {
		cancel()
		_ = n.Wait()
	}
	if !errors.Is(err, join.ErrUsed) {
		t.Errorf("another one: %v", err)
	}
}

// The site's key is on its voters only, and one that leads without it gets it from
// whoever has it.
func TestWhoHasTheKey(t *testing.T) {
	all := site(t, 2) // one vote
	lead := leading(t, all)
	other := all[0]
	if other == lead {
		other = all[1]
	}
	key, err := lead.Identity().Intermediate()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Identity().AddIntermediate(key); err != nil {
		t.Fatal(err)
	}
	await(t, "one without a vote to give the key up", func() bool { return !other.Identity().CanIssue() })
	if err := errors.Join(lead.Identity().DropIntermediate(), other.Identity().AddIntermediate(key)); err != nil {
		t.Fatal(err)
	}
	await(t, "the leader to have the key, and nobody else", func() bool {
		return lead.Identity().CanIssue() && !other.Identity().CanIssue()
	})
}
