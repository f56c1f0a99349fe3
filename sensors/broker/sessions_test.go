package broker

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	mochi "github.com/mochi-mqtt/server/v2"
	mochipackets "github.com/mochi-mqtt/server/v2/packets"
)

const patience = 60 * time.Second

// step is a hook that stops the server at one of its steps, once, until it is
// let go.
type step struct {
	mochi.HookBase
	at  byte // which
	of  string
	was atomic.Bool
	in  chan *mochi.Client // gets the client that is there
	out chan struct{}      // closed: go on
}

func stopAt(at byte, client string) *step {
	return &step{at: at, of: client, in: make(chan *mochi.Client, 1), out: make(chan struct{})}
}

func (s *step) ID() string           { return "step" }
func (s *step) Provides(b byte) bool { return b == s.at }

func (s *step) stop(cl *mochi.Client) {
	if cl.ID == s.of && !s.was.Swap(true) {
		s.in <- cl
		<-s.out
	}
}

func (s *step) OnUnsubscribed(cl *mochi.Client, _ mochipackets.Packet)               { s.stop(cl) }
func (s *step) OnQosPublish(cl *mochi.Client, _ mochipackets.Packet, _ int64, _ int) { s.stop(cl) }

func (s *step) OnConnect(cl *mochi.Client, _ mochipackets.Packet) error { s.stop(cl); return nil }

func (s *step) OnACLCheck(cl *mochi.Client, topic string, write bool) bool {
	if !write && topic == "t" { // a delivery, not SUBSCRIBE
		s.stop(cl)
	}
	return false // the next hook says
}

func begin(t *testing.T, s ...mochi.Hook) *Broker {
	t.Helper()
	b, err := start(Options{}, s...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// client is a connection, packet by packet.
type client struct {
	t *testing.T
	c net.Conn
}

// dial sends CONNECT.
func dial(t *testing.T, b *Broker, id string, clean bool) *client {
	t.Helper()
	c, err := net.Dial("tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.ClientIdentifier, p.CleanSession, p.Keepalive = "MQTT", 4, id, clean, 600
	x := &client{t, c}
	x.send(p)
	return x
}

func (c *client) send(p packets.ControlPacket) {
	c.t.Helper()
	if err := p.Write(c.c); err != nil {
		c.t.Fatal(err)
	}
}

// get is the next packet, which is a P.
func get[P packets.ControlPacket](c *client) P {
	c.t.Helper()
	_ = c.c.SetReadDeadline(time.Now().Add(patience))
	p, err := packets.ReadPacket(c.c)
	if err != nil {
		c.t.Fatal(err)
	}
	m, ok := p.(P)
	if !ok {
		c.t.Fatalf("got %v", p)
	}
	return m
}

// known expects CONNACK and tells whether there was a session.
func (c *client) known() bool {
	c.t.Helper()
	return get[*packets.ConnackPacket](c).SessionPresent
}

// early gives a broker that answers too early time to do so.
func (c *client) early() {
	_ = c.c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, _ := c.c.Read(make([]byte, 1)); n > 0 {
		c.t.Error("it was answered before the connection before it was done with")
	}
}

func (c *client) subscribe(id uint16) byte {
	c.t.Helper()
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID, p.Topics, p.Qoss = id, []string{"+"}, []byte{1}
	c.send(p)
	a := get[*packets.SubackPacket](c)
	if a.MessageID != id {
		c.t.Errorf("SUBACK of %d, want %d", a.MessageID, id)
	}
	return a.ReturnCodes[0]
}

func (c *client) publish(id uint16, qos byte, dup bool) {
	c.t.Helper()
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.MessageID, p.Qos, p.Dup, p.TopicName, p.Payload = id, qos, dup, "t", []byte("x")
	c.send(p)
}

// last publishes a message that must be the second that sub gets.
func (c *client) last(sub *client) {
	c.t.Helper()
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload = "t", []byte("last")
	c.send(p)
	for _, want := range []string{"x", "last"} {
		if m := get[*packets.PublishPacket](sub); string(m.Payload) != want {
			c.t.Errorf("%q was dealt out, want %q", m.Payload, want)
		}
	}
}

// subscriber has a session that lasts and is subscribed.
func subscriber(t *testing.T, b *Broker) *client {
	t.Helper()
	c := dial(t, b, "sub", false)
	c.known()
	if code := c.subscribe(1); code != 1 {
		t.Fatalf("refused: %#x", code)
	}
	return c
}

// A clean session ends while the next connection comes: that one's session is
// its own, and stays. What is published in it with QoS 2 and again after a
// reconnect is dealt out once.
func TestCleanSessionEndsLate(t *testing.T) {
	s := stopAt(mochi.OnUnsubscribed, "c")
	b := begin(t, s)
	sub := subscriber(t, b)
	one := dial(t, b, "c", true)
	one.known()
	one.send(packets.NewControlPacket(packets.Disconnect))
	<-s.in // it is about to be deleted
	two := dial(t, b, "c", false)
	two.early()
	close(s.out)
	if two.known() {
		t.Error("a clean session was kept")
	}
	two.publish(1, 2, false)
	get[*packets.PubrecPacket](two)
	_ = two.c.Close()
	three := dial(t, b, "c", false)
	if !three.known() {
		t.Error("the session is lost")
	} else {
		get[*packets.PubrecPacket](three)
	}
	three.publish(1, 2, true)
	get[*packets.PubrecPacket](three)
	three.last(sub)
}

// The CONNECT of a client that has died is served late, when another connection
// has its id, or had it: the session is that one's, and stays.
func TestDeadClientConnectsLate(t *testing.T) {
	for _, up := range []bool{true, false} {
		s := stopAt(mochi.OnConnect, "c")
		b := begin(t, s)
		dead := dial(t, b, "c", true)
		_ = dead.c.Close()
		old := <-s.in
		sub := subscriber(t, b)
		one := dial(t, b, "c", false)
		one.known()
		one.publish(1, 2, false)
		get[*packets.PubrecPacket](one)
		if !up {
			_ = one.c.Close()
		}
		close(s.out)
		<-old.Net.Conn.(*conn).ended
		if !up {
			if one = dial(t, b, "c", false); !one.known() {
				t.Fatal("the session is lost")
			}
			get[*packets.PubrecPacket](one)
		}
		one.publish(1, 2, true)
		get[*packets.PubrecPacket](one)
		one.last(sub)
	}
}

// A message is dealt out while the session moves to another connection.
func TestMessageFindsMovingSession(t *testing.T) {
	for qos := byte(0); qos <= 1; qos++ {
		s := stopAt(mochi.OnACLCheck, "sub")
		b := begin(t, s)
		subscriber(t, b)
		pub := dial(t, b, "pub", true)
		pub.known()
		pub.publish(7, qos, false)
		<-s.in // the session that it goes to is looked up
		again := dial(t, b, "sub", false)
		again.early()
		close(s.out)
		if !again.known() {
			t.Fatal("the session is lost")
		}
		if qos == 0 {
			continue // it may go to the connection before
		}
		if m := get[*packets.PublishPacket](again); string(m.Payload) != "x" {
			t.Errorf("%v", m)
		}
	}
}

// The connection breaks before the acknowledgement: the message is dealt out
// all the same, since a session with QoS 2 says now that it was taken.
func TestAcknowledgementCannotBeWritten(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		s := stopAt(mochi.OnQosPublish, "pub")
		b := begin(t, s)
		sub := subscriber(t, b)
		pub := dial(t, b, "pub", false)
		pub.known()
		pub.publish(7, qos, false)
		_ = (<-s.in).Net.Conn.Close()
		close(s.out)
		again := dial(t, b, "pub", false)
		if !again.known() {
			t.Fatal("the session is lost")
		}
		if qos == 2 { // with QoS 1 the session forgets it, and it may come again
			get[*packets.PubrecPacket](again)
			again.publish(7, qos, true)
			get[*packets.PubrecPacket](again)
		}
		again.last(sub)
	}
}

// SUBSCRIBE and UNSUBSCRIBE may have the packet id of a message on its way to
// the client.
func TestIDsOfBothSides(t *testing.T) {
	b := begin(t)
	sub := subscriber(t, b)
	sub.publish(1, 0, false)
	if m := get[*packets.PublishPacket](sub); m.Qos != 0 {
		t.Fatalf("%v", m)
	}
	pub := dial(t, b, "pub", true)
	pub.known()
	pub.publish(9, 1, false)
	get[*packets.PubackPacket](pub)
	id := get[*packets.PublishPacket](sub).MessageID
	if code := sub.subscribe(id); code != 1 {
		t.Errorf("SUBSCRIBE %d: %#x", id, code)
	}
	p := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
	p.MessageID, p.Topics = id, []string{"+"}
	sub.send(p)
	if a := get[*packets.UnsubackPacket](sub); a.MessageID != id {
		t.Errorf("UNSUBACK of %d, want %d", a.MessageID, id)
	}
	if n := b.Stats().Subscriptions; n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}
