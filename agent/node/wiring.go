package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/agent/executor"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/gossip"
	"github.com/tidemark-mesh/tidemark/mesh/link"
)

// agent is what this node says of itself to the leader.
func (n *Node) agent() coordinator.Agent {
	c := n.o.Config
	return coordinator.Agent{
		Node: n.id.Node(), Name: c.Name, Host: machine(), Labels: c.Labels, Slots: c.Slots, Memory: c.Memory, Level: n.o.Level,
		Link: n.linkAddr(), HTTP: n.shownHTTP(), Version: n.o.Version,
	}
}

// machine names the machine, so that votes and copies are spread over machines.
// Namespaces and containers of one machine have one id, and are one.
func machine() string {
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(id) > 8 {
		return strings.TrimSpace(string(id))
	}
	name, _ := os.Hostname() // empty: its agents are taken for one machine each
	return name
}

// linkAddr is where others reach this agent.
func (n *Node) linkAddr() string {
	if a := n.o.Config.Advertise; a != "" {
		return a
	}
	return reached(n.o.Config.Bind, fmt.Sprint(n.link.Addr().Port))
}

// linkToBe is linkAddr before the port was taken; empty if any will do.
func linkToBe(c config.Config) string {
	if c.Advertise != "" {
		return c.Advertise
	}
	_, port, err := net.SplitHostPort(c.Bind)
	if err != nil || port == "0" {
		return ""
	}
	return reached(c.Bind, port)
}

// reached is where others reach what is bound there.
func reached(bind, port string) string {
	host, _, err := net.SplitHostPort(bind)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		host = outward()
	}
	return net.JoinHostPort(host, port)
}

// outward is this machine's address for others: that from which it would send to
// far away, or, where there is no way out, that of its first network. Nothing is
// sent.
func outward() string {
	if c, err := net.Dial("udp", "192.0.2.1:9"); err == nil { // of a net that is for documentation
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).IP.String()
	}
	addrs, _ := net.InterfaceAddrs() // none: there is only loopback
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

func (n *Node) startGossip(ends *ends) error {
	c := n.o.Config
	a := n.agent()
	profile := gossip.LAN
	if config.Loopback(c.Bind) {
		profile = gossip.Loopback
	}
	pool, err := gossip.Start(gossip.Config{
		Bind: c.GossipBind, Advertise: c.GossipAdvertise, Key: n.id.GossipKey(), Label: n.id.Mesh() + "/" + string(n.id.Site()),
		Self: mesh.Member{
			Node: a.Node, Boot: n.boot, Name: a.Name, Site: n.id.Site(), Link: a.Link, HTTP: a.HTTP, Host: a.Host, Labels: a.Labels,
			Slots: a.Slots, Version: a.Version, Level: a.Level,
		},
		Join: n.gossipPeers(), Known: n.gossipKnown, Profile: profile, Events: n.hearGossip,
		Refuse: func(node mesh.NodeID) bool { return n.removed(node) != nil },
	})
	if err != nil {
		return err
	}
	n.gossip.Store(pool)
	ends.add(pool.Close)
	return nil
}

// gossipPeers are addresses to begin with: those given, and those that the join
// told.
func (n *Node) gossipPeers() []string {
	var all []string
	for _, c := range n.contacts {
		all = append(all, c.Gossip)
	}
	if n.sponsored() {
		return all // --join is of the site that let this one be founded
	}
	for _, j := range n.o.Config.Join {
		all = append(all, config.GossipOf(j))
	}
	return all
}

// gossipKnown are addresses of the agents in the state. After a start that is
// empty, until somebody leads.
func (n *Node) gossipKnown() []string {
	var all []string
	n.replica.view(func(st *coordinator.State) {
		for id, a := range st.Agents {
			if id != n.id.Node() && a.Link != "" {
				all = append(all, config.GossipOf(a.Link))
			}
		}
	})
	return all
}

func (n *Node) gossipMembers() []mesh.Member {
	if pool := n.gossip.Load(); pool != nil {
		return pool.Members()
	}
	return nil
}

// hearGossip passes on what happens to members.
func (n *Node) hearGossip(e gossip.Event) {
	m := e.Member
	n.tell("agent", e.String())
	if e.Kind == gossip.Twin {
		n.meets(m)
	}
	if e.Kind == gossip.Failed || e.Kind == gossip.Left {
		if o := n.leads(); o != nil {
			o.gone(leader.Gone{Node: m.Node, Boot: m.Boot, Sure: e.Kind == gossip.Left})
		}
	}
}

// suspect: the last connection to a node ended.
func (n *Node) suspect(node mesh.NodeID) {
	if pool := n.gossip.Load(); pool != nil {
		pool.Suspect(node)
	}
	if o := n.leads(); o != nil {
		o.gone(leader.Gone{Node: node})
	}
}

func (n *Node) hearLink(e link.Event) { n.tell("agent", e.String()) }

func (n *Node) startHands(ends *ends) (err error) {
	h := n.hands
	folders, err := n.state.AgentJobs()
	if err != nil { // the next start finds them
		n.tell("job", fmt.Sprintf("what is left here of jobs that the site has forgotten stays where it is: %v", err))
	}
	h.worker = worker.New(worker.Config{Agent: n.agent(), Site: n.id.Site(), Boot: n.boot, Timing: worker.DefaultTiming(), Folders: folders})
	journal := n.replica.watch()
	h.look = func(f func(*coordinator.State, jobmanager.Changed)) { n.replica.look(journal, f) }
	h.now, h.extend, h.events = n.uptime, n.lease.Extend, func(s string) { n.tell("agent", s) }
	h.dial = func(ctx context.Context, to mesh.NodeID) (mesh.Stream, error) {
		return n.link.Open(ctx, to, mesh.Control)
	}
	h.status = n.heartbeat
	n.startFeeds(ends)
	if n.exec, err = executor.New(n.executorOptions()); err != nil {
		return err
	}
	ends.add(n.exec.Close)
	h.do = n.exec
	if err := n.feeds.feeds.Clean(); err != nil {
		n.tell("feed", fmt.Sprintf("what is left of deleted feeds stays where it is: %v", err))
	}
	logs, err := n.feeds.feeds.Logs()
	if err != nil { // the others are there, and so are jobs that read none of these
		n.tell("feed", fmt.Sprintf("logs on this disk that cannot be opened, as if they were not here: %v", err))
	}
	for i := range logs {
		h.tell(worker.Event{Log: &worker.LogEvent{Opened: &logs[i]}})
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.run(ctx) }()
	ends.add(func() error { cancel(); <-done; return nil })
	return nil
}

// takeControl gives an agent's stream to the office, if this agent leads.
func (n *Node) takeControl(s mesh.Stream) {
	if o := n.leads(); o != nil {
		o.take(s)
		return
	}
	_ = s.Close() // the agent will find out who leads
}

func (n *Node) leads() *office {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.office
}

func (n *Node) leaderChanged() {
	l, _ := n.raft.Leader()
	n.hands.tell(worker.Event{Leader: &l})
}

// lead is one term of this agent as the site's JobManager.
func (n *Node) lead(ctx context.Context, term uint64) {
	o := newOffice(term)
	o.turned = n.uptime()
	timing := leader.DefaultTiming()
	if n.o.Timing != nil {
		timing = *n.o.Timing
	}
	o.leader = leader.New(leader.Config{Term: term, Self: n.id.Node(), Site: n.id.Site(), Level: n.o.Level, Timing: timing, Lapsed: n.lapsed(timing)})
	journal := n.replica.watch()
	defer n.replica.unwatch(journal)
	o.look = func(f func(*coordinator.State, jobmanager.Changed)) { n.replica.look(journal, f) }
	o.view, o.now, o.confirm = n.replica.view, n.uptime, n.raft.Verify
	o.wall = func() dataflow.Time { return dataflow.Time(n.id.Now().UnixMicro()) }
	o.propose, o.callSite, o.levelAt = n.enter, n.CallSite, n.levelAt
	o.events = func(s string) { n.tell("job", s) }
	o.sites, o.moving = n.sitesSeen, n.moveTold
	o.courier = courier{call: n.CallSite, now: n.uptime, tell: func(s string) { n.tell("site", s) }, to: make(map[mesh.Site]*route), refused: o.refused}
	n.tell("leader", fmt.Sprintf("this agent leads the site, in term %d", term))
	if err := n.found(ctx); err != nil {
		n.tell("leader", err.Error()) // keepRoster tries again
	}
	n.mu.Lock()
	n.office = o
	n.mu.Unlock()
	roster := make(chan struct{})
	go func() { defer close(roster); n.keepRoster(ctx, o) }()
	n.leaderChanged()
	o.run(ctx)
	<-roster
	n.mu.Lock()
	n.office = nil
	n.mu.Unlock()
	n.tell("leader", fmt.Sprintf("this agent leads no more; it did in term %d", term))
}

// lapsed tells whether this agent had no lease for long, as far as its process
// knows.
func (n *Node) lapsed(t leader.Timing) bool {
	until := n.lease.Until()
	return until == dataflow.MinTime || n.uptime() > until.Add(t.Lapse)
}

// enter puts a command into the log, for the office.
func (n *Node) enter(ctx context.Context, c coordinator.Command) proposal {
	c.Level = c.Needs()
	wait := n.submit(c)
	return func() (uint64, error, error) {
		index, r, err := wait(ctx)
		return index, r.Err, err
	}
}

// startFeeds makes the feeds of this agent; nothing is opened yet.
func (n *Node) startFeeds(ends *ends) {
	n.feeds.mesh = n.id.Mesh()
	n.feeds.feeds = feed.New(feed.Options{
		Dir: n.o.Config.DataDir, Secrets: n.o.Secrets, Transport: n.link, Permit: n.lease,
		Events: func(e feed.Event) { n.tell("feed", e.String()) },
		Tell:   func(e worker.LogEvent) { n.hands.tell(worker.Event{Log: &e}) },

		Sources: n.sourcesOf, OwnerOf: n.ownerOf, MirroredAt: n.feeds.mirroredAt, Moved: n.feeds.moved, MirrorKeep: n.o.Config.Replication.Keep, Packs: n.packs, Packer: &n.packer,
	})
	ends.add(n.feeds.feeds.Close)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	journal := n.replica.watch()
	go func() {
		defer close(done)
		defer n.replica.unwatch(journal)
		var saying sync.WaitGroup
		defer saying.Wait()
		saying.Go(func() { n.feeds.say(ctx, n.hands.beat) })
		n.feeds.run(ctx, func(f func(*coordinator.State, jobmanager.Changed)) { n.replica.look(journal, f) })
	}()
	ends.add(func() error { cancel(); <-done; return nil })
}

// executorOptions are what the executor works with.
func (n *Node) executorOptions() executor.Options {
	return executor.Options{
		Node: n.id.Node(), Site: n.id.Site(), Dir: n.o.Config.DataDir, State: n.state, Transport: n.link, Channels: n.channels, Feeds: n.feeds,
		Permit: n.lease, Secrets: n.o.Secrets, Memory: n.o.Config.Memory, Slots: n.o.Config.Slots, Ways: n.o.Config.WAN.Connections, Packs: n.packs, Packer: &n.packer,
		Peers: func(key string, suits func(*mesh.Member) bool) []mesh.NodeID {
			return executor.Rank(key, n.id.Node(), n.gossipMembers(), suits)
		},
		Present: func(id coordinator.JobID) (j *coordinator.Job) {
			n.replica.view(func(st *coordinator.State) { j = st.Jobs[id] })
			return j
		},
		Events: func(e worker.AttemptEvent) { n.hands.tell(worker.Event{Attempt: &e}) },
		Logs:   func(e worker.LogEvent) { n.hands.tell(worker.Event{Log: &e}) },
		Copied: func(c coordinator.Copied) { n.hands.tell(worker.Event{Copied: &c}) },
		Warmed: func(m coordinator.Warmed) { n.hands.tell(worker.Event{Warmed: &m}) },
		Probed: func(m coordinator.Probed) { n.hands.tell(worker.Event{Probed: &m}) },
		Tell:   func(s string) { n.tell("job", s) },
	}
}
