package gossip

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// Profile is how far the members are from each other.
type Profile uint8

// The profiles, with what they mean in seconds.
const (
	// LAN: an agent that is killed is known to have failed after about
	//
	//	0.2 s x (members - 1)  until it is asked, far less with several that ask
	//	0.2 s                  that it does not answer, directly, through others, by TCP
	//	0.8 s                  of suspicion, x log10(members) beyond ten
	//
	// which is 1.4 s with three and 1.8 s with five. One that stands still for less than the
	// last two together is never taken for dead; nor is one that answers within
	// 0.2 s, however slowly. One that loses 20 % of the packets is not either: TCP is tried too.
	LAN Profile = iota
	// WAN: failure is known after 20 to 40 s; nothing is decided by it. News of who goes are
	// known within a second.
	WAN
	// Loopback: LAN within one machine.
	Loopback
	// LoopbackWAN: WAN within one machine; failure is known after about 5 s.
	LoopbackWAN
)

// wanRound is how often news go out, if there are any: some rounds fit into the second in
// which an agent says that it goes.
const wanRound = 200 * time.Millisecond

// timing is what depends on the profile besides memberlist's own.
type timing struct {
	again time.Duration // between attempts to reach those that failed
	probe time.Duration // between questions to a suspect
}

func (p Profile) config() (*memberlist.Config, timing) {
	c := memberlist.DefaultLANConfig()
	t := timing{again: 2 * time.Second, probe: 200 * time.Millisecond}
	c.EnableCompression = false // packets are small
	c.TCPTimeout = 3 * time.Second
	c.ProbeInterval, c.ProbeTimeout = 200*time.Millisecond, 100*time.Millisecond
	// The suspicion does not become shorter with confirmations, so it need not begin long.
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = 4, 1
	c.GossipInterval = 100 * time.Millisecond
	c.PushPullInterval, c.RetransmitMult = 5*time.Second, 6
	switch p {
	case WAN:
		c = memberlist.DefaultWANConfig()
		c.EnableCompression = false
		c.TCPTimeout = 10 * time.Second
		c.GossipInterval, c.PushPullInterval = wanRound, 30*time.Second
		t = timing{again: 10 * time.Second, probe: 3 * time.Second}
	case LoopbackWAN:
		c.ProbeInterval, c.ProbeTimeout = time.Second, 500*time.Millisecond
		c.GossipInterval, c.PushPullInterval = wanRound, 30*time.Second
		t = timing{again: time.Second, probe: time.Second}
	case Loopback:
		t.again = 500 * time.Millisecond
	}
	return c, t
}
