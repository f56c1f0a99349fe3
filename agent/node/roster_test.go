package node

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// Group is who is in the Raft group.
func (n *Node) Group() []consensus.Member { return n.raft.Members() }

// Resign has another agent lead.
func (n *Node) Resign(ctx context.Context) error { return n.raft.Resign(ctx) }

func TestEnrollment(t *testing.T) {
	for _, c := range []struct {
		group, agents string
		out, in       []mesh.NodeID
	}{
		{"ab", "ab", nil, nil},
		{"ab", "a", []mesh.NodeID{"b"}, nil}, // the newest
		{"ab", "b", []mesh.NodeID{"a"}, nil},
		{"a", "acb", nil, []mesh.NodeID{"b", "c"}},
		{"abc", "ad", []mesh.NodeID{"b", "c"}, []mesh.NodeID{"d"}},
		{"ab", "", nil, nil}, // the state is not known yet
	} {
		var group []consensus.Member
		for _, id := range c.group {
			group = append(group, consensus.Member{Node: mesh.NodeID(id)})
		}
		belongs := make(map[mesh.NodeID]bool)
		for _, id := range c.agents {
			belongs[mesh.NodeID(id)] = true
		}
		if out, in := enrollment(group, belongs); !slices.Equal(out, c.out) || !slices.Equal(in, c.in) {
			t.Errorf("%q of agents %q: out %v, in %v", c.group, c.agents, out, in)
		}
	}
}

// A founding that is cut off anywhere is finished by the next one, and done once.
func TestFoundingCutOff(t *testing.T) {
	cut := errors.New("cut off")
	for most := range 5 {
		n := &Node{replica: newReplica(), founding: &Founding{Mesh: "m", Site: "s", Node: "a", Token: coordinator.Token{
			ID: "t", Hash: make([]byte, 32), Expires: dataflow.MaxTime, Uses: -1}}}
		index, left := uint64(0), most
		begin := func() error {
			if n.founded() {
				return nil
			}
			return n.founding.enter(context.Background(), coordinator.Agent{Node: "a", Name: "a", Level: 1}, func(_ context.Context, c coordinator.Command) error {
				if left == 0 {
					return cut
				}
				index, left = index+1, left-1
				r, _ := n.replica.machine.Apply(index, &c)
				return r.Err
			})
		}
		if err := begin(); (err == nil) != (most >= 3) || err != nil && !errors.Is(err, cut) {
			t.Errorf("after %d commands: %v", most, err)
		}
		left = 10
		if err := begin(); err != nil {
			t.Errorf("after %d commands, again: %v", most, err)
		}
		n.replica.view(func(st *coordinator.State) {
			if st.Site != "s" || st.Agents["a"] == nil || st.Tokens["t"] == nil {
				t.Errorf("after %d commands: site %q, agents %v, tokens %v", most, st.Site, st.Agents, st.Tokens)
			}
		})
	}
}

// TestRepeated: the same is not told at each try.
func TestRepeated(t *testing.T) {
	var r repeated
	a, b := errors.New("a"), errors.New("b")
	for i, c := range []struct {
		err error
		at  dataflow.Time
		due bool
	}{{a, 0, true}, {a, 1, false}, {b, 2, true}, {b, 3, false}, {b, 2 + again, true}, {nil, 3 + again, false}, {b, 4 + again, true}} {
		if r.due(c.err, c.at) != c.due {
			t.Errorf("%d: %v at %v", i, c.err, c.at)
		}
	}
}

// Raft asks who is there while gossip is being started; the race detector watches.
func TestAskedWhileGossipStarts(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Found(dir, "m", "s", time.Now()); err != nil {
		t.Fatal(err)
	}
	id, err := identity.OpenFolder(disk.Secret, filepath.Join(dir, "identity"), time.Now).Load()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.Bind, c.Advertise, c.GossipBind, c.GossipAdvertise = "127.0.0.1:0", "127.0.0.1:1", "127.0.0.1:0", ""
	n := &Node{o: Options{Config: c}, id: id, boot: 1, replica: newReplica(), hub: newHub()}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				n.candidates()
			}
		}
	}()
	var ends ends
	if err := n.startGossip(&ends); err != nil {
		t.Error(err)
	}
	close(stop)
	<-done
	if err := ends.run(); err != nil {
		t.Error(err)
	}
}
