package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/channel"
	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/agent/executor"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/lease"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/gossip"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/mesh/join"
	"github.com/tidemark-mesh/tidemark/mesh/link"
	"github.com/tidemark-mesh/tidemark/mesh/pack"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
)

// Options are what an agent is started with.
type Options struct {
	Config  config.Config // checked
	Version string
	Level   uint32 // the feature level that this binary knows
	Secrets job.Resolver
	Events  func(api.Event)  // what happens, for the log; must not block
	Clock   func() time.Time // the machine's, for certificates and people; nil: sensors.WallTime
	// Uptime goes on while the machine sleeps, and never goes back; on Linux it began
	// with the machine. nil: the machine's.
	Uptime func() dataflow.Time
	// HandOver bounds how long an agent that is told to end goes on until others
	// have what it had; 0: 5 s.
	HandOver time.Duration
	// Timing is how long this agent waits for what when it leads; nil:
	// leader.DefaultTiming.
	Timing *leader.Timing
}

// Node is a running agent.
type Node struct {
	o            Options
	id           *identity.Identity
	boot         uint64
	contacts     []join.Contact // of a join, or of the last time
	sponsors     []join.Contact // of other sites, as this agent was told when it was let in, or founded its own
	kept         []join.Contact // as they were written down; of upkeep
	renewAt      dataflow.Time  // when the site's time counts again; of upkeep
	lettingFound sync.Mutex     // one after the other
	founding     *Founding      // nil: another node founded the site

	link     *link.Link
	packer   pack.Packer                 // of what goes to other sites
	gossip   atomic.Pointer[gossip.Pool] // nil until it is started: Raft and links ask before
	wan      wan
	replica  *replica
	raft     *consensus.Node
	group    atomic.Pointer[consensus.Node] // raft; nil until it is open: links ask before
	lease    *lease.Lease
	state    *durable.State
	feeds    *keptFeeds
	exec     *executor.Executor
	channels *channels
	hands    *hands
	calls    *calls
	hub      *hub
	uptime   func() dataflow.Time
	steady   *steadyClock

	toLeader *http.Client
	failed   chan error // 1: why the agent ends; nil: it was told to
	api      net.Listener
	http     net.Addr                    // of api
	ending   atomic.Bool                 // it was told to
	twin     atomic.Pointer[mesh.Member] // to which this agent gives way, if it does run
	expelled atomic.Bool                 // somebody of the site said that this agent was taken out of it
	siteTime atomic.Int64                // what the last command says, in microseconds
	done     chan struct{}               // closed when all has ended
	ended    error                       // valid then

	mu      sync.Mutex          // guards what follows
	office  *office             // nil: this agent does not lead
	parting map[mesh.NodeID]int // agents that are being taken out by this one: calls under way
}

// Run runs an agent until ctx ends, or it cannot go on.
func Run(ctx context.Context, o Options) error {
	n, err := Start(ctx, o)
	if err != nil {
		return err
	}
	return n.Wait()
}

// Start starts an agent; it runs until ctx ends, or it cannot go on, and Wait
// returns then.
func Start(ctx context.Context, o Options) (n *Node, err error) {
	if o.Clock == nil {
		o.Clock = sensors.WallTime
	}
	if o.Uptime == nil {
		o.Uptime = newUptime()
	}
	n = &Node{o: o, hub: newHub(), calls: newCalls(), uptime: o.Uptime, failed: make(chan error, 1), done: make(chan struct{}),
		parting: make(map[mesh.NodeID]int)}
	n.replica, n.hands, n.steady = newReplica(), newHands(), newSteadyClock(o.Clock, o.Uptime)
	n.feeds = newKeptFeeds(n.replica.view, func(s string) { n.tell("feed", s) })
	n.replica.applied, n.replica.renewed, n.replica.fatal = n.applied, n.renewed, n.fail
	n.lease = lease.New(n.uptime)
	n.toLeader = newClient(n.CallLeader)
	if err := os.MkdirAll(o.Config.DataDir, 0o750); err != nil {
		return nil, err
	}
	var ends ends
	if n.state, err = durable.Open(o.Config.DataDir, nil); err != nil {
		if errors.Is(err, store.ErrLocked) {
			err = fmt.Errorf("%w; another agent runs there, or a verb that needs the folder for itself", err)
		}
		return nil, err
	}
	ends.add(n.state.Close)
	if err := n.start(ctx, &ends); err != nil {
		return nil, errors.Join(err, ends.run())
	}
	n.tell("agent", fmt.Sprintf("agent %s (%s) of mesh %s, site %s, runs: QUIC %s, API http://%s", o.Config.Name, n.id.Node(), n.id.Mesh(), n.id.Site(), n.link.Addr(), n.http))
	go func() {
		defer close(n.done)
		err := n.loop(ctx)
		n.ended = errors.Join(err, ends.run())
	}()
	return n, nil
}

// Wait waits until the agent has ended, and says why if it was not told to.
func (n *Node) Wait() error {
	<-n.done
	return n.ended
}

// Link is where the agent's QUIC port is, HTTP its API.
func (n *Node) Link() string { return n.link.Addr().String() }

// HTTP is host:port of the agent's API.
func (n *Node) HTTP() string { return n.http.String() }

// ends stops what was started, in reverse.
type ends []func() error

func (e *ends) add(f func() error) { *e = append(*e, f) }

func (e ends) run() error {
	var errs []error
	for i := len(e) - 1; i >= 0; i-- {
		errs = append(errs, e[i]())
	}
	return errors.Join(errs...)
}

// start starts everything, in the order in which things need each other.
func (n *Node) start(ctx context.Context, ends *ends) (err error) {
	c := n.o.Config
	if err := n.listenHTTP(ends); err != nil {
		return err
	}
	if n.id, err = n.identify(ctx); err != nil {
		return err
	}
	n.steady.after(n.id.Seen)
	if c.Site != "" && mesh.Site(c.Site) != n.id.Site() {
		return fmt.Errorf("site: %s is asked for, and the certificate in %s is for site %s; a data folder belongs to one site", c.Site, c.DataDir, n.id.Site())
	}
	n.id.SetAllow(n.allowed)
	if n.contacts == nil {
		if n.contacts, err = readPeers(c.DataDir); err != nil {
			return err
		}
	}
	if n.founding, err = readFounding(c.DataDir, n.id); err != nil {
		return err
	}
	if n.boot, err = nextBoot(c.DataDir); err != nil {
		return err
	}
	if n.link, err = link.New(link.Config{
		Self: n.id.Node(), Site: n.id.Site(), Listen: c.Bind, Security: n.id, Resolver: resolver{n}, Boot: n.boot, ResetKey: n.id.ResetKey(), Events: n.hearLink, Takes: n.takes,
		Rate: c.WAN.Rate, Bulk: c.WAN.Connections,
	}); err != nil {
		return err
	}
	ends.add(n.link.Close)
	if err := n.onlyOne(ctx); err != nil {
		return err
	}
	if err := n.handlers(ends); err != nil {
		return err
	}
	if err := n.startRaft(ends); err != nil {
		return err
	}
	if err := n.startGossip(ends); err != nil {
		return err
	}
	if err := n.startWAN(ends); err != nil {
		return err
	}
	if err := n.startHands(ends); err != nil {
		return err
	}
	if err := n.startAPI(ends); err != nil {
		return err
	}
	return n.link.Start()
}

// handlers says who takes the streams that others open.
func (n *Node) handlers(ends *ends) error {
	n.link.Handle(mesh.Control, n.takeControl)
	n.link.Handle(mesh.Call, n.calls.take)
	n.channels = newChannels(n.link)
	n.link.Handle(mesh.Channel, channel.Handler(n.channels.ctx, n.channels))
	ends.add(func() error { n.channels.cancel(); return nil })
	server := join.NewServer(issuer{n})
	n.link.HandleJoin(func(c *link.JoinConn) {
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), joinTime)
		defer cancel()
		r, err := server.Serve(ctx, c, c.ConnectionState())
		if err != nil {
			n.tell("agent", fmt.Sprintf("agent %q (%s) at %s may not join: %v", r.Name, r.Node, c.RemoteAddr(), err))
			return
		}
		n.tell("agent", fmt.Sprintf("agent %q (%s) at %s was let in", r.Name, r.Node, c.RemoteAddr()))
	})
	n.link.Watch(func(node mesh.NodeID, up bool) {
		if !up {
			n.suspect(node)
		}
	})
	ends.add(n.calls.wait)
	ends.add(n.calls.Close)
	return nil
}

func (n *Node) startRaft(ends *ends) (err error) {
	c := n.o.Config
	n.raft, err = consensus.Open(consensus.Options{
		Dir: filepath.Join(c.DataDir, "raft"), Transport: n.link, Self: n.id.Node(), Site: n.id.Site(), Founder: n.founding != nil,
		Machine: n.replica, Events: func(e consensus.Event) { n.tell("leader", e.String()) }, Health: n.candidates, MaxVoters: c.Voters,
	})
	if err == nil {
		n.group.Store(n.raft)
		ends.add(n.raft.Close)
	}
	return err
}

// candidates are the site's agents, for who gives votes. Whether one failed the
// group sees by itself: of one that starves gossip says in turn that it failed and
// is back, while it answers the leader.
func (n *Node) candidates() []consensus.Candidate {
	here := make(map[mesh.NodeID]bool)
	for _, m := range n.gossipMembers() {
		here[m.Node] = m.Status != mesh.Left
	}
	var all []consensus.Candidate
	n.replica.view(func(st *coordinator.State) {
		for id, a := range st.Agents {
			all = append(all, consensus.Candidate{Node: id, Host: a.Host, Alive: here[id] || id == n.id.Node()})
		}
	})
	return all
}

// loop leads whenever this agent is elected, and keeps up what is kept up with
// time, until told ends and what is here was handed over, or something fails for
// good.
func (n *Node) loop(told context.Context) error {
	var leading, upkeep sync.WaitGroup
	stop := func() {}
	ctx, cancel := context.WithCancel(context.WithoutCancel(told))
	defer func() { cancel(); stop(); leading.Wait(); upkeep.Wait() }()
	upkeep.Go(func() { n.keepUp(ctx) })
	end := told.Done()
	for {
		select {
		case <-end:
			end = nil
			n.ending.Store(true)
			upkeep.Go(func() {
				var leaving sync.WaitGroup
				leaving.Go(func() { n.leaveWAN(ctx) })
				n.handOver(ctx)
				leaving.Wait()
				n.fail(nil)
			})
		case err := <-n.failed:
			return err
		case <-n.raft.Changed():
			n.leaderChanged()
		case l := <-n.raft.Leadership():
			stop()
			leading.Wait()
			if l.Leader {
				term, cancel := context.WithCancel(ctx)
				stop = cancel
				leading.Go(func() { n.lead(term, l.Term) })
			}
		}
	}
}

// keepUp does what is due from time to time, until ctx ends.
func (n *Node) keepUp(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var said [6]repeated
	for {
		select {
		case <-ctx.Done():
			if err := errors.Join(n.keepPeers(), n.keepSites()); err != nil { // as they are now, for the next start
				n.tell("agent", err.Error())
			}
			return
		case <-tick.C:
		}
		n.expel()
		n.askWhy(ctx)
		for i, err := range []error{n.giveWay(ctx), n.keepPeers(), n.keepSites(), n.keepKey(ctx), n.saw(), n.renew(ctx)} { // each is quick, or bounded
			if said[i].due(err, n.uptime()) {
				n.tell("agent", err.Error())
			}
		}
	}
}

// saw writes down what time it is, so that a clock that is set back is noticed.
func (n *Node) saw() error {
	if err := n.id.Saw(n.steady.now()); err != nil {
		return fmt.Errorf("the time could not be written down: %w", err)
	}
	return nil
}

// renewEvery is how often a new certificate is got at most, counted in this agent's
// uptime: what time others say it is may be wrong, and so may be that of who signs.
const renewEvery = dataflow.Hour

// renew gets a new certificate from the leader when the old one nears its end. A
// machine without a clock of its own hears that from the site's.
func (n *Node) renew(ctx context.Context) error {
	if n.uptime() < n.renewAt || !n.id.NeedsRenewal(n.steady.now()) && !n.id.NeedsRenewal(time.UnixMicro(n.siteTime.Load())) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	csr, err := n.id.Request()
	if err == nil {
		var g join.Grant
		r := join.Request{Node: n.id.Node(), Name: n.o.Config.Name, CSR: csr, Version: n.o.Version, Level: n.o.Level}
		if g, err = (issuer{n}).Issue(ctx, r); err == nil {
			err = n.id.Renew(g.Chain)
		}
	}
	if err != nil {
		return fmt.Errorf("the certificate of this agent could not be renewed yet: %w", err)
	}
	n.renewAt = n.uptime().Add(renewEvery)
	n.tell("agent", "the certificate of this agent was renewed")
	return nil
}

// fail ends the agent.
func (n *Node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

// tell says what happens, to the log and to who listens.
func (n *Node) tell(what, text string) { n.event(api.Event{What: what, Text: text}) }

func (n *Node) event(e api.Event) {
	e.At = sensors.Wall{}.Now()
	if n.o.Events != nil {
		n.o.Events(e)
	}
	n.hub.publish(e)
}

// secret resolves a reference of the configuration.
func (n *Node) secret(text string) (string, error) {
	s, err := job.ParseSecret(text)
	if err != nil {
		return "", err
	}
	return s.Resolve(n.o.Secrets)
}

// applied is called by the state machine after each command.
func (n *Node) applied(index uint64, c *coordinator.Command, r jobmanager.Result, changes []jobmanager.Change) {
	n.siteTime.Store(int64(c.At)) // not the greatest: a leader whose clock was ahead is forgotten
	if len(changes) == 0 {
		return
	}
	n.changed()
	n.narrate(c, r, changes)
}

// renewed is called when a snapshot has replaced the state.
func (n *Node) renewed() { n.changed() }

func (n *Node) changed() {
	n.hands.stateChanged()
	n.feeds.stateChanged()
}

// resolver says where nodes are.
type resolver struct{ n *Node }

// Addresses is link.Resolver's: as gossip knows it, and as it was known last.
func (r resolver) Addresses(node mesh.NodeID) []string {
	var all []string
	add := func(a string) {
		for _, have := range all {
			if have == a {
				return
			}
		}
		if a != "" {
			all = append(all, a)
		}
	}
	for _, m := range r.n.gossipMembers() {
		if m.Node == node {
			add(m.Link)
		}
	}
	for _, m := range r.n.wanMembers() {
		if m.Node == node {
			add(m.Link)
		}
	}
	r.n.replica.view(func(st *coordinator.State) {
		if a := st.Agents[node]; a != nil {
			add(a.Link)
		}
	})
	for _, c := range r.n.contacts {
		if c.Node == node {
			add(c.Link)
		}
	}
	for _, list := range r.n.siteContacts() {
		for _, c := range list {
			if c.Node == node {
				add(c.Link)
			}
		}
	}
	return all
}

// CallLeader is api.Backend's.
func (n *Node) CallLeader(ctx context.Context) (net.Conn, error) {
	leader, _ := n.raft.Leader()
	if leader == "" {
		return nil, api.ErrNoLeader
	}
	return n.openCall(ctx, leader)
}

// openCall opens a stream for calls to an agent.
func (n *Node) openCall(ctx context.Context, to mesh.NodeID) (net.Conn, error) {
	s, err := n.link.Open(ctx, to, mesh.Call)
	if err != nil {
		return nil, err
	}
	return n.calls.conn(s), nil
}
