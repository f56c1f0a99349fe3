package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Config is what a pool is made of.
type Config struct {
	Bind      string // host:port, UDP and TCP; port 0: any
	Advertise string // host:port where others reach it; empty: Bind's, or the machine's own address
	Key       []byte // 32 bytes: identity's GossipKey
	// Label separates pools that have the same key: only those with the same label
	// hear each other. A site's is "MESH/SITE", that of all sites "MESH".
	Label string
	Self  mesh.Member // Node, Boot, Site, Link and what else others should know; Boot is greater after each start
	Join  []string    // gossip's host:port of some members; they are tried until one answers
	// Known are more such addresses, asked for at each try: an agent that was
	// restarted learns only later whom it knew. nil: none.
	Known func() []string
	// Seek are addresses to try besides, whoever is here, asked for at each turn from
	// one goroutine: of those whom nobody here has seen, while others are. nil: none.
	Seek    func() []string
	Profile Profile
	// Events is told what happens, one after the other, from one goroutine. It may
	// block: what is missed meanwhile is told in short.
	Events func(Event)
	// Refuse tells whether a node is no member, whatever it says; nil: none is
	// refused. It must not block.
	Refuse func(mesh.NodeID) bool
	// Transport is for tests; nil: UDP and TCP.
	Transport memberlist.NodeAwareTransport
}

// Pool is this agent among the others. Any goroutine may call it.
type Pool struct {
	config  Config
	timing  timing
	list    *memberlist.Memberlist
	labels  *memberlist.TransmitLimitedQueue // changed labels, to be told
	wake    chan struct{}                    // somebody is dirty
	suspect chan mesh.NodeID                 // hints; full: dropped, others will notice too
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	life sync.Mutex // held by Update, Leave and Close, which memberlist wants one after the other
	down bool       // guarded by life

	// mu guards what follows. memberlist calls us with its own lock held, so
	// nothing of it is called under mu.
	mu      sync.Mutex
	self    mesh.Member
	facts   []byte
	left    bool
	members map[mesh.NodeID]*member
	told    map[mesh.NodeID]labels // the newest labels of each, known or not yet
	dirty   []mesh.NodeID
	odd     []Event // what is to be told besides; at most mostOdd
	oddly   map[oddity]time.Time
	order   uint64 // counts departures
	twin    string // gossip's host:port of one with this agent's life, who may not know
}

// member is what we know of another agent.
type member struct {
	mesh.Member
	said    mesh.Member // what Events was told last
	leaving bool
	change  uint64 // of its labels, the newest that there is
	gone    uint64 // when it failed or left, by Pool.order
	dirty   bool
}

// Start begins to gossip. Addresses in Join that do not answer are tried again,
// and are no error.
func Start(c Config) (*Pool, error) {
	if len(c.Key) != 32 {
		return nil, fmt.Errorf("the gossip key has %d bytes, it must have 32: gossip is never open", len(c.Key))
	}
	p := &Pool{
		config: c, wake: make(chan struct{}, 1), suspect: make(chan mesh.NodeID, 64),
		members: make(map[mesh.NodeID]*member), told: make(map[mesh.NodeID]labels), oddly: make(map[oddity]time.Time),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.setSelf(c.Self); err != nil {
		return nil, err
	}
	p.labels = &memberlist.TransmitLimitedQueue{NumNodes: p.alive, RetransmitMult: 6}
	mc, t := c.Profile.config()
	p.timing = t
	if err := p.addresses(mc); err != nil {
		return nil, err
	}
	mc.Name, mc.Label, mc.SecretKey, mc.Transport = lifeName(c.Self.Node, c.Self.Boot), c.Label, c.Key, nil
	if c.Transport != nil {
		mc.Transport = c.Transport
	}
	mc.Delegate, mc.Events, mc.Alive, mc.Conflict = delegate{p}, delegate{p}, delegate{p}, delegate{p}
	mc.Logger = log.New(lines{p}, "", 0)
	var err error
	if p.list, err = memberlist.Create(mc); err != nil {
		return nil, fmt.Errorf("gossip on %s: %w", c.Bind, err)
	}
	at := p.Addr() // not under mu: who hears of a member waits for it, and holds the list
	p.mu.Lock()
	p.self.Gossip = at
	p.mu.Unlock()
	p.running.Go(p.tell)
	p.running.Go(p.join)
	p.running.Go(p.ask)
	return p, nil
}

// addresses sets what is listened on and told to others.
func (p *Pool) addresses(mc *memberlist.Config) error {
	for _, a := range []struct {
		from string
		host *string
		port *int
	}{{p.config.Bind, &mc.BindAddr, &mc.BindPort}, {p.config.Advertise, &mc.AdvertiseAddr, &mc.AdvertisePort}} {
		if a.from == "" {
			*a.host, *a.port = "", mc.BindPort
			continue
		}
		host, port, err := net.SplitHostPort(a.from)
		if err != nil {
			return fmt.Errorf("gossip's address %q: %w", a.from, err)
		}
		if *a.port, err = strconv.Atoi(port); err != nil {
			return fmt.Errorf("gossip's address %q: %w", a.from, err)
		}
		if ip := net.ParseIP(host); host != "" && ip == nil { // memberlist wants an address
			found, err := net.DefaultResolver.LookupNetIP(p.ctx, "ip", host)
			if err != nil {
				return fmt.Errorf("gossip's address %q: %w", a.from, err)
			}
			host = found[0].Unmap().String()
		}
		*a.host = host
	}
	if mc.BindAddr == "" {
		mc.BindAddr = "0.0.0.0"
	}
	return nil
}

// setSelf notes this agent as it is now, and its labels as changed. Under mu, or
// before anybody else knows p.
func (p *Pool) setSelf(m mesh.Member) error {
	m.Status, m.Gossip = mesh.Alive, p.self.Gossip
	m.Labels = maps.Clone(m.Labels)
	l := labels{m.Node, m.Boot, p.told[m.Node].Change + 1, m.Labels}
	data, err := factsOf(m, l.Change, false)
	if err != nil {
		return err
	}
	p.self, p.facts, p.told[m.Node] = m, data, l
	return nil
}

// Addr is gossip's own host:port, as others see it.
func (p *Pool) Addr() string { return p.list.LocalNode().Address() }

// Health is how much this agent distrusts itself, because others did not answer it
// in time: 0 is well, 8 the worst.
func (p *Pool) Health() int { return p.list.GetHealthScore() }

// Members are this agent and all that it knows, by node; those that failed or
// left among them, until others take their place.
func (p *Pool) Members() []mesh.Member {
	p.mu.Lock()
	all := []mesh.Member{p.self}
	for _, m := range p.members {
		all = append(all, m.Member)
	}
	p.mu.Unlock()
	all = slices.DeleteFunc(all, func(m mesh.Member) bool { return p.refuses(m.Node) }) // it was a member once
	sort.Slice(all, func(i, j int) bool { return all[i].Node < all[j].Node })
	return all
}

// refuses tells whether a node is not to be seen; this one always is.
func (p *Pool) refuses(node mesh.NodeID) bool {
	return p.config.Refuse != nil && node != p.config.Self.Node && p.config.Refuse(node)
}

// Member is one of Members.
func (p *Pool) Member(node mesh.NodeID) (mesh.Member, bool) {
	if p.refuses(node) {
		return mesh.Member{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if node == p.self.Node {
		return p.self, true
	}
	if m := p.members[node]; m != nil {
		return m.Member, true
	}
	return mesh.Member{}, false
}

// alive counts the members that broadcasts must reach.
func (p *Pool) alive() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 1
	for _, m := range p.members {
		if m.Status == mesh.Alive || m.Status == mesh.Suspect {
			n++
		}
	}
	return n
}

const updateTimeout = 2 * time.Second

// Update tells the others what has changed of this agent: labels, slots,
// addresses, version. Node, Boot and Site stay. It may block for 2 s.
func (p *Pool) Update(self mesh.Member) error {
	p.life.Lock()
	defer p.life.Unlock()
	if p.down || p.hasLeft() {
		return errors.New("gossip has left")
	}
	p.mu.Lock()
	err := fmt.Errorf("%w: another node, boot or site than before", ErrMember)
	if self.Node == p.self.Node && self.Boot == p.self.Boot && self.Site == p.self.Site {
		err = p.setSelf(self)
	}
	l := p.told[p.self.Node]
	p.mu.Unlock()
	if err != nil {
		return err
	}
	p.broadcast(l)
	// What is not told in time is told later.
	_ = p.list.UpdateNode(updateTimeout)
	return nil
}

// Leave tells the others that this agent goes for good or for a while, so that
// nobody takes it for failed. Only Close may follow.
func (p *Pool) Leave(ctx context.Context) error {
	p.life.Lock()
	defer p.life.Unlock()
	if p.down || p.hasLeft() {
		return nil
	}
	p.mu.Lock()
	p.left = true
	// It fitted before, and this is one byte or two more.
	if data, err := factsOf(p.self, p.told[p.self.Node].Change, true); err == nil {
		p.facts = data
	}
	p.mu.Unlock()
	// First that it means to go, so that its end is taken for that. Each is sent again and
	// again for as long as it may be waited for, and the second one takes the place of the
	// first. Half a second is more than two rounds of gossip.
	_ = p.list.UpdateNode(within(ctx) / 2)
	if err := p.list.Leave(within(ctx)); err != nil {
		return fmt.Errorf("some members may take this agent for failed: %w", err)
	}
	return nil
}

func (p *Pool) hasLeft() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left
}

// within is what is left of ctx, but more than nothing, which would be for ever.
func within(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return max(time.Millisecond, min(updateTimeout, time.Until(end)))
	}
	return updateTimeout
}

// Close ends gossip at once and waits for its goroutines; without Leave the
// others find out by themselves.
func (p *Pool) Close() error {
	p.life.Lock()
	defer p.life.Unlock()
	if p.down {
		return nil
	}
	p.down = true
	p.cancel()
	err := p.list.Shutdown()
	p.running.Wait()
	return err
}
