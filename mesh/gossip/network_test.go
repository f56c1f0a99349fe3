package gossip

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// network is one in memory, for virtual time: packets get lost where it says so,
// and dialling there takes until its timeout.
type network struct {
	mu    sync.Mutex // guards what follows
	ends  map[string]*end
	port  int
	lost  func(from, to string) bool          // both packets and streams; nil: nothing
	drop  float64                             // of packets
	delay func(from, to string) time.Duration // of packets; nil: none
	rand  *rand.Rand
	bytes int // of packets sent
}

// newNetwork is called in a bubble of synctest: time is virtual.
func newNetwork(t *testing.T, seed uint64) *network {
	// When all agents are closed, the library's timers must run out in the bubble.
	t.Cleanup(func() { <-time.After(2 * time.Minute) })
	return &network{ends: make(map[string]*end), rand: rand.New(rand.NewPCG(seed, 1))}
}

// end is an agent's: a memberlist.NodeAwareTransport.
type end struct {
	net     *network
	addr    string
	packets chan *memberlist.Packet
	streams chan net.Conn
	dead    bool // guarded by net.mu: as after kill -9
}

var _ memberlist.NodeAwareTransport = (*end)(nil)

// open is a new end at 10.0.0.1 and a port of its own.
func (n *network) open() *end {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.port++
	e := &end{net: n, addr: fmt.Sprintf("10.0.0.1:%d", n.port), packets: make(chan *memberlist.Packet, 4096), streams: make(chan net.Conn, 64)}
	n.ends[e.addr] = e
	return e
}

func (n *network) setLost(lost func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost = lost
}

// kill ends an agent as kill -9 does.
func (e *end) kill() {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	e.dead = true
	for { // nobody accepts what waits
		select {
		case c := <-e.streams:
			_ = c.Close()
		default:
			return
		}
	}
}

// way is the other end of a packet or stream.
func (e *end) way(to string, packet int) (peer *end, delay time.Duration, ok bool) {
	n := e.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bytes += packet
	peer = n.ends[to]
	if e.dead || peer == nil || peer.dead || n.lost != nil && n.lost(e.addr, to) || packet > 0 && n.rand.Float64() < n.drop {
		return nil, 0, false
	}
	if n.delay != nil {
		delay = n.delay(e.addr, to)
	}
	return peer, delay, true
}

func (e *end) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	a, err := net.ResolveUDPAddr("udp", e.addr)
	if err != nil {
		return nil, 0, err
	}
	return a.IP, a.Port, nil
}

func (e *end) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	peer, delay, ok := e.way(addr, len(b))
	if !ok {
		return now, nil
	}
	from, err := net.ResolveUDPAddr("udp", e.addr)
	if err != nil {
		return now, err
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: from, Timestamp: now}
	arrive := func() {
		p.Timestamp = time.Now()
		select {
		case peer.packets <- p:
		default: // its buffer is full
		}
	}
	if delay == 0 {
		arrive()
	} else {
		time.AfterFunc(delay, arrive)
	}
	return now, nil
}

func (e *end) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return e.WriteTo(b, a.Addr)
}

func (e *end) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	_, delay, ok := e.way(addr, 0)
	if !ok || delay >= timeout {
		<-time.After(max(timeout, time.Millisecond))
		return nil, errors.New("timeout")
	}
	if delay > 0 {
		<-time.After(delay)
	}
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	peer := e.net.ends[addr]
	a, b := net.Pipe()
	if e.dead || peer.dead {
		return nil, errors.New("refused")
	}
	select {
	case peer.streams <- b:
		return a, nil
	default:
		return nil, errors.New("refused")
	}
}

func (e *end) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return e.DialTimeout(a.Addr, timeout)
}

func (e *end) PacketCh() <-chan *memberlist.Packet { return e.packets }
func (e *end) StreamCh() <-chan net.Conn           { return e.streams }
func (e *end) Shutdown() error                     { e.kill(); return nil }
