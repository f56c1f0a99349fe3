package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/executor"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

var _ api.Backend = (*Node)(nil)

// Self is api.Backend's.
func (n *Node) Self() mesh.NodeID { return n.id.Node() }

// Leader is api.Backend's.
func (n *Node) Leader() mesh.NodeID {
	l, _ := n.raft.Leader()
	return l
}

// View is api.Backend's.
func (n *Node) View(f func(*coordinator.State)) { n.replica.view(f) }

// Current is api.Backend's.
func (n *Node) Current(ctx context.Context) error { return notLeader(n.raft.Verify(ctx)) }

func notLeader(err error) error {
	if errors.Is(err, consensus.ErrNotLeader) {
		return fmt.Errorf("%w: %w", api.ErrNotLeader, err)
	}
	return err
}

// Members is api.Backend's: the site's agents, also those that gossip does not
// know.
func (n *Node) Members() []api.Member {
	roles := make(map[mesh.NodeID]string)
	for _, m := range n.raft.Members() {
		roles[m.Node] = "non-voter"
		if m.Voter {
			roles[m.Node] = "voter"
		}
	}
	if l := n.Leader(); l != "" {
		roles[l] = "leader"
	}
	var all []api.Member
	there := make(map[mesh.NodeID]bool)
	for _, m := range n.gossipMembers() {
		there[m.Node] = true
		all = append(all, api.Member{Member: m, Role: roles[m.Node]})
	}
	n.replica.view(func(st *coordinator.State) {
		for id, a := range st.Agents {
			if !there[id] {
				all = append(all, api.Member{Role: roles[id], Member: mesh.Member{
					Node: id, Name: a.Name, Site: st.Site, Link: a.Link, HTTP: a.HTTP, Host: a.Host, Labels: a.Labels, Slots: a.Slots,
					Version: a.Version, Level: a.Level, Status: mesh.Failed,
				}})
			}
		}
		all = slices.DeleteFunc(all, func(m api.Member) bool { // it failed or left long ago, and is another one now
			return m.Status != mesh.Alive && st.Agents[m.Node] == nil && len(st.Agents) > 0
		})
	})
	sort.Slice(all, func(i, j int) bool {
		return cmp.Or(cmp.Compare(all[i].Name, all[j].Name), cmp.Compare(all[i].Node, all[j].Node)) < 0
	})
	return all
}

// submit puts a command into the log and returns what waits for it.
func (n *Node) submit(c coordinator.Command) func(context.Context) (uint64, jobmanager.Result, error) {
	b, err := codec.EncodeCommand(&c)
	if err != nil {
		return func(context.Context) (uint64, jobmanager.Result, error) { return 0, jobmanager.Result{}, err }
	}
	wait := n.raft.Enter(b)
	return func(ctx context.Context) (uint64, jobmanager.Result, error) {
		index, r, err := wait(ctx)
		if err != nil {
			return 0, jobmanager.Result{}, notLeader(err)
		}
		result, _ := r.(jobmanager.Result)
		return index, result, nil
	}
}

// Propose is api.Backend's.
func (n *Node) Propose(ctx context.Context, c coordinator.Command) (coordinator.JobID, error) {
	c.Level = c.Needs()
	if c.At == 0 {
		c.At = dataflow.Time(n.id.Now().UnixMicro())
	}
	index, r, err := n.submit(c)(ctx)
	if err != nil {
		return "", err
	}
	if o := n.leads(); o != nil {
		o.applied(index, &c, r.Err)
	}
	return r.Job, r.Err
}

// Ask is api.Backend's.
func (n *Node) Ask(ctx context.Context, w leader.Wish) (leader.Answer, error) {
	o := n.leads()
	if o == nil {
		return leader.Answer{}, api.ErrNotLeader
	}
	a, err := o.ask(ctx, w)
	return a, wished(err)
}

// wished is an answer's error: while the leader changes, one to ask again after.
func wished(err error) error {
	if errors.Is(err, ErrOver) || errors.Is(err, leader.ErrEarly) {
		return fmt.Errorf("%w: %w", api.ErrNotLeader, err)
	}
	return err
}

// Statuses is api.Backend's.
func (n *Node) Statuses(job coordinator.JobID) []coordinator.SubtaskStatus {
	if o := n.leads(); o != nil {
		return o.statusOf(job)
	}
	return nil
}

// Logs is api.Backend's.
func (n *Node) Logs() []coordinator.LogStatus {
	if o := n.leads(); o != nil {
		return o.logStatus()
	}
	return nil
}

// Here is api.Backend's.
func (n *Node) Here() ([]coordinator.SubtaskStatus, []coordinator.LogStatus, int64) {
	free, _ := freeBytes(n.o.Config.DataDir)
	return n.exec.Status(), n.feeds.feeds.Statuses(), free
}

// Preparations is api.Backend's.
func (n *Node) Preparations() []executor.Preparation { return n.exec.Preparations() }

// Network is api.Backend's.
func (n *Node) Network() api.Network {
	w := api.Network{Links: n.link.Stats(), Totals: n.link.Totals(), Raft: n.raft.Stats()}
	w.Raw, w.Packed = n.packer.Counts()
	if g := n.gossip.Load(); g != nil {
		w.Gossip = g.Health()
	}
	return w
}

// Now is api.Backend's.
func (n *Node) Now() time.Time { return n.id.Now() }

// NewToken is api.Backend's; the caller sets Expires and Uses.
func (n *Node) NewToken() (string, coordinator.Token, error) {
	t := n.id.NewToken()
	return t.String(), stored(t, n.id.Now(), 0, -1), nil
}

// Subscribe is api.Backend's.
func (n *Node) Subscribe(ctx context.Context) <-chan api.Event { return n.hub.subscribe(ctx) }

// leastFree is how many bytes of disk an agent wants to call itself ready.
const leastFree = 1 << 20

// Health is api.Backend's.
func (n *Node) Health() api.Health {
	h := api.Health{Applied: n.raft.Applied(), Lease: n.lease.Err() == nil}
	if n.ending.Load() {
		h.Why = append(h.Why, "this agent was told to end: it hands over what it has")
	}
	if n.Leader() == "" {
		h.Why = append(h.Why, "no leader is known: the site has no majority of its voters, or this agent does not reach them")
	}
	if why := n.hands.refused.Load(); why != nil {
		h.Why = append(h.Why, "the leader refuses this agent: "+*why)
	}
	if !h.Lease {
		h.Why = append(h.Why, "this agent holds no lease: it publishes, acknowledges and commits nothing until the leader is reached")
	}
	if s := n.raft.Stats(); s.Short {
		h.Why = append(h.Why, "the disk is full: the reserve is in use; make room in the data folder")
	}
	if free, known := freeBytes(n.o.Config.DataDir); known && free < leastFree {
		h.Why = append(h.Why, fmt.Sprintf("the disk is full: %d KiB are free in the data folder; make room, or logs and checkpoints are refused", free>>10))
	}
	h.Ready = len(h.Why) == 0
	return h
}

// OpenPart is api.Backend's.
func (n *Node) OpenPart(ctx context.Context, p store.Part, copies []coordinator.PartCopies) (io.ReadCloser, error) {
	return n.exec.OpenPart(ctx, p, copies)
}

// PutPart is api.Backend's.
func (n *Node) PutPart(ctx context.Context, write func(io.Writer) error) (store.Part, []mesh.NodeID, error) {
	return n.exec.PutPart(ctx, write)
}

// narrate tells people what a command did. Only the leader does: all agents
// apply it.
func (n *Node) narrate(c *coordinator.Command, r jobmanager.Result, changes []jobmanager.Change) {
	if n.leads() == nil {
		return
	}
	e := api.Event{What: changes[0].What.String()}
	switch {
	case c.JobSubmitted != nil:
		e.Job, e.Text = r.Job, fmt.Sprintf("job %s (%s) was submitted", c.JobSubmitted.Name, r.Job)
	case c.JobDeployed != nil:
		e.Job, e.Text = c.JobDeployed.Job, fmt.Sprintf("attempt %d is deployed", c.JobDeployed.Attempt)
		if c.JobDeployed.From != "" {
			e.Text += ", from " + c.JobDeployed.From
		}
	case c.JobBecame != nil:
		e.Job, e.Text = c.JobBecame.Job, c.JobBecame.Status.String()
		if c.JobBecame.Why != "" {
			e.Text += ": " + c.JobBecame.Why
		}
	case c.CheckpointDone != nil && c.CheckpointDone.Checkpoint != nil:
		s := c.CheckpointDone.Checkpoint
		e.What, e.Job, e.Text = "checkpoint", s.Job, fmt.Sprintf("checkpoint %s is complete, %d bytes", s.Name, s.Bytes)
	case c.CheckpointDone != nil && c.CheckpointDone.Savepoint != nil:
		s := c.CheckpointDone.Savepoint
		e.What, e.Job, e.Text = "checkpoint", s.Job, fmt.Sprintf("savepoint %s is complete, %d bytes", s.Name, s.Bytes)
	case c.LogEpochBegun != nil:
		l := c.LogEpochBegun
		e.Text = fmt.Sprintf("feed %s: log epoch %d, owner %s, members %v", l.Feed, l.Log.Epoch, l.Log.Owner, l.Log.Members)
	case c.JobFailedOver != nil:
		f := c.JobFailedOver
		e.Job, e.Text = f.Job, fmt.Sprintf("a person has said that it goes on at this site, at epoch %d", f.Epoch)
		if f.Snapshot != "" {
			e.Text += fmt.Sprintf(", from %s of site %s", f.Snapshot, f.From)
		}
	case c.JobQuarantined != nil:
		e.Job, e.Text = c.JobQuarantined.Job, "quarantined: "+coordinator.Quarantine(c.JobQuarantined.Other)
	case c.JobClaimed != nil:
		e.Job, e.Text = c.JobClaimed.Job, "no other site has taken it: it goes on here"
	case c.Move != nil && c.Move.Fenced != nil:
		f := c.Move.Fenced
		e.What, e.Job, e.Text = "job", f.Job, fmt.Sprintf("site %s has it at epoch %d: the copy here has ended", f.Owner, f.Epoch)
	case c.LeaderBegan != nil && len(c.LeaderBegan.Isolated) > 0:
		e.Text = fmt.Sprintf("the site was down: jobs %v do not go on until those that keep them are reached", c.LeaderBegan.Isolated)
	case c.AgentJoined != nil:
		e.Text = fmt.Sprintf("agent %s (%s) belongs to the site, with %d slots", c.AgentJoined.Name, c.AgentJoined.Node, c.AgentJoined.Slots)
	case c.AgentLeft != nil:
		e.Text = fmt.Sprintf("agent %s belongs to the site no more", c.AgentLeft.Node)
	default:
		return
	}
	n.event(e)
}

// heartbeat is what a heartbeat carries for people. Status is sent every second
// or so, not with each.
func (n *Node) heartbeat() *coordinator.Heartbeat {
	status, logs, free := n.Here()
	return &coordinator.Heartbeat{Status: status, Logs: logs, Disk: free}
}
