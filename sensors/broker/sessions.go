package broker

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// sessions keeps what the protocol promises of sessions where the server alone
// would break it:
//
//   - It hands a session over while the connection before still runs. What that
//     one does last then deletes the new session, or is lost with the old.
//     Here a connection waits until the one before with its id has ended.
//   - It deals a message out to the session that it has just looked up, which
//     may have moved by then: the message is lost. Here none moves meanwhile.
//   - It notes a message as taken, and drops it if the acknowledgement cannot be
//     written. See conn.Write.
//   - It refuses SUBSCRIBE if its packet id is that of a message on its way to
//     the client, though each side numbers for itself.
//   - It serves each connection by a goroutine of its own, so that the CONNECT of
//     a client that is long dead may be served after that of the one in its
//     place, which it ousts, and whose session it deletes. Here the connection
//     that came later stays. See take.
type sessions struct {
	mochi.HookBase
	clients *mochi.Clients

	dealing sync.RWMutex // read: a message is dealt out; write: a session moves

	mu      sync.Mutex // guards holders
	holders map[string]*conn
}

// conn is a client's connection, as the server has it.
type conn struct {
	net.Conn
	came     uint64 // the how manieth the broker accepted
	sessions *sessions
	ended    chan struct{} // closed when the server has done with it
	moving   atomic.Bool   // has sessions.dealing for writing, up to CONNACK

	// From when it holds a client id.
	client *mochi.Client

	// Only the goroutine that reads it uses these.
	asked      uint16 // packet id of the SUBSCRIBE or UNSUBSCRIBE that is being served
	publishing bool   // a PUBLISH is being served
	sharing    bool   // has sessions.dealing for reading
}

// Write never fails, but ends a connection that does: it is by its reading end
// that the server hears of that, after it has served what was read before.
func (c *conn) Write(p []byte) (int, error) {
	c.settle()
	if _, err := c.Conn.Write(p); err != nil {
		_ = c.Conn.Close()
	}
	return len(p), nil
}

// settle ends the move of a session to c.
func (c *conn) settle() {
	if c.moving.CompareAndSwap(true, false) {
		c.sessions.dealing.Unlock()
	}
}

// oust ends a connection because another one has come with its client id.
func (c *conn) oust() {
	late := time.AfterFunc(goodbye, func() { _ = c.Conn.Close() }) // it may not read
	defer late.Stop()
	if c.client.Properties.ProtocolVersion == 5 {
		_ = c.client.WritePacket(packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Disconnect},
			ReasonCode:  packets.ErrSessionTakenOver.Code,
		})
	}
	_ = c.Conn.Close()
}

// share begins to deal out what c publishes.
func (c *conn) share() {
	if !c.sharing {
		c.sessions.dealing.RLock()
		c.sharing = true
	}
}

func (c *conn) shared() {
	if c.sharing {
		c.sharing = false
		c.sessions.dealing.RUnlock()
	}
}

// end says that the server has done with c.
func (s *sessions) end(c *conn) {
	c.settle()
	c.shared()
	s.mu.Lock()
	if c.client != nil && s.holders[c.client.ID] == c {
		delete(s.holders, c.client.ID)
	}
	s.mu.Unlock()
	close(c.ended)
}

// ID names the hook in the broker's log.
func (s *sessions) ID() string { return "tidemark-sessions" }

// Provides tells which of the broker's questions the hook answers.
func (s *sessions) Provides(b byte) bool {
	switch b {
	case mochi.OnSessionEstablish, mochi.OnPublish, mochi.OnPacketSent, mochi.OnPacketProcessed,
		mochi.OnWill, mochi.OnWillSent, mochi.OnPacketRead, mochi.OnPacketEncode:
		return true
	}
	return false
}

// take makes cl's connection the one that holds the client id, after the one
// before has ended. If that came later, or the session is of one that did, cl is
// what is left of a client that has gone on with another connection: it is
// closed, and false.
func (s *sessions) take(cl *mochi.Client) bool {
	c, ok := cl.Net.Conn.(*conn)
	if !ok {
		return true
	}
	for {
		s.mu.Lock()
		last := s.holders[cl.ID]
		held := last != nil
		if left, ok := s.clients.Get(cl.ID); ok && !held {
			last, _ = left.Net.Conn.(*conn)
		}
		late := last != nil && last.came > c.came
		if !held && !late {
			c.client, s.holders[cl.ID] = cl, c
		}
		s.mu.Unlock()
		switch {
		case late:
			_ = c.Close()
			return false
		case !held:
			return true
		}
		last.oust()
		<-last.ended
	}
}

// OnSessionEstablish waits until nothing is dealt out any more; the session moves
// before CONNACK is written.
func (s *sessions) OnSessionEstablish(cl *mochi.Client, _ packets.Packet) {
	if c, ok := cl.Net.Conn.(*conn); ok {
		s.dealing.Lock()
		c.moving.Store(true)
	}
}

// OnPublish comes before the acknowledgement, whose writing must hold up nobody
// else; with QoS 0 there is none.
func (s *sessions) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.publishing = true
		if pk.FixedHeader.Qos == 0 {
			c.share()
		}
	}
	return pk, nil
}

// OnPacketSent hears of the acknowledgement, after which the message is dealt
// out. Deliveries come from another goroutine.
func (s *sessions) OnPacketSent(cl *mochi.Client, pk packets.Packet, _ []byte) {
	if t := pk.FixedHeader.Type; t != packets.Puback && t != packets.Pubrec {
		return
	}
	if c, ok := cl.Net.Conn.(*conn); ok && c.publishing {
		c.share()
	}
}

// OnPacketProcessed hears that a message was dealt out.
func (s *sessions) OnPacketProcessed(cl *mochi.Client, pk packets.Packet, _ error) {
	if c, ok := cl.Net.Conn.(*conn); ok && pk.FixedHeader.Type == packets.Publish {
		c.publishing = false
		c.shared()
	}
}

// OnWill comes before a will is dealt out, or put off.
func (s *sessions) OnWill(cl *mochi.Client, will mochi.Will) (mochi.Will, error) {
	if c, ok := cl.Net.Conn.(*conn); ok && will.WillDelayInterval == 0 {
		c.share()
	}
	return will, nil
}

// OnWillSent hears that a will was dealt out.
func (s *sessions) OnWillSent(cl *mochi.Client, _ packets.Packet) {
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.shared()
	}
}

// OnPacketRead takes the packet id off a SUBSCRIBE or UNSUBSCRIBE: no message
// has the id 0.
func (s *sessions) OnPacketRead(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if t := pk.FixedHeader.Type; t != packets.Subscribe && t != packets.Unsubscribe || pk.PacketID == 0 {
		return pk, nil
	}
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.asked = pk.PacketID
		pk.PacketID, pk.FixedHeader.Qos = 0, 0 // a QoS would ask for an id
	}
	return pk, nil
}

// OnPacketEncode puts it into the answer.
func (s *sessions) OnPacketEncode(cl *mochi.Client, pk packets.Packet) packets.Packet {
	if t := pk.FixedHeader.Type; t != packets.Suback && t != packets.Unsuback {
		return pk
	}
	if c, ok := cl.Net.Conn.(*conn); ok {
		pk.PacketID = c.asked
	}
	return pk
}
