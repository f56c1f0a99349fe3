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
		says              string // on both sides
	}{
		{"expired", "n9", token(func(made *coordinator.Token) { made.Expires = 1 }), join.ErrExpired, "until 1970"},
		{"revoked", "n9", revoked, join.ErrRevoked, "was revoked"},
		{"of a name that is taken", lead.name, good, join.ErrRequest, `the name "` + lead.name + `" is taken`},
	} {
		newBox(t, c.name).refused(asked, c.token, c.kind, c.says)
		await(t, "the one that was asked to say that it was "+c.what, func() bool { return strings.Contains(asked.said(), c.says) })
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
	newBox(t, "n2").refused(first, token.String(), join.ErrRequest, fmt.Sprintf("level %d is in force", first.level))
	first.View(func(st *coordinator.State) {
		if len(st.Agents) != 1 {
			t.Errorf("%d agents", len(st.Agents))
		}
	})
}

// Who is to belong to another site is refused before anything is counted: both
// sides name the two, and the same token lets it in where it belongs.
func TestRefusedOfAnotherSite(t *testing.T) {
	all := site(t, 2)
	lead := leading(t, all)
	asked := all[0]
	if asked == lead {
		asked = all[1]
	}
	text, made, err := lead.NewToken()
	if err != nil {
		t.Fatal(err)
	}
	made.Uses = 1
	if _, err := lead.Propose(t.Context(), coordinator.Command{TokenCreated: &made}); err != nil {
		t.Fatal(err)
	}
	b := newBox(t, "n3")
	b.site = "depot"
	const why = "to join site depot, and this is site plant"
	b.refused(asked, text, join.ErrRequest, why)
	await(t, "the one that was asked to say why", func() bool { return strings.Contains(asked.said(), why) })
	lead.View(func(st *coordinator.State) {
		if uses := st.Tokens[made.ID].Uses; uses != 1 || len(st.Agents) != 2 || len(st.Removed) != 0 {
			t.Errorf("%d uses are left, there are %d agents, %d removed", uses, len(st.Agents), len(st.Removed))
		}
	})
	b.site = "plant"
	b.start(asked.Link(), text)
}

// refused starts an agent that is not let in.
func (b *box) refused(through *box, token string, kind error, says string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	n, err := node.Start(ctx, b.options(through.Link(), token))
	if err == nil {
		cancel()
		_ = n.Wait()
	}
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), says) {
		b.t.Errorf("%s: %v\n%s", b.name, err, b.said())
	}
}

// An agent that comes back under a name that another has gets nothing, and says why:
// in its log, and where it is asked whether it is ready. Under its own it is well.
func TestRefusedUnderAnothersName(t *testing.T) {
	all := site(t, 2)
	b := all[1]
	b.end()
	b.name = all[0].name
	b.start("", "")
	const why = "the leader refuses this agent"
	await(t, "the reason", func() bool {
		return strings.Contains(b.said(), why) && strings.Contains(fmt.Sprint(b.Health().Why), why)
	})
	if h := b.Health(); h.Ready || h.Lease {
		t.Errorf("%+v", h)
	}
	b.end()
	b.name = "n2"
	b.start("", "")
	await(t, "it to be ready", func() bool { return b.Health().Ready })
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
	newBox(t, "n3").refused(lead, text, join.ErrUsed, "is used up")
	await(t, "the leader to say so too", func() bool { return strings.Contains(lead.said(), "is used up") })
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
