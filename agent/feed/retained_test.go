package feed_test

import (
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// A feed dies while the retained messages of its first subscription come. The next
// process knows from the log which topics it has, from the first message on, and
// takes the others, once.
func TestRetainedRestAfterACrash(t *testing.T) {
	retained := func(id uint16, topic, payload string) *packets.PublishPacket {
		m := publish(id, 1, false, "t/"+topic, payload)
		m.Retain = true
		return m
	}
	dir := t.TempDir()
	p := newPeer(t)
	c := config(p.url(), 1)
	_, ev := open(t, feed.Options{Dir: dir}, c)
	conn := p.session(t, 1, false)
	ev.wait(t, session(mqtt.Subscribed))
	conn.send(retained(1, "a", "Ra"))
	conn.send(retained(2, "b", "Rb"))
	conn.acks(packets.Puback, 1, 2)
	conn.pongs()

	p2 := newPeer(t)
	c.Broker = p2.url()
	f, ev := open(t, feed.Options{Dir: image(t, dir)}, c)
	conn = p2.session(t, 1, true, retained(3, "c", "Rc"))
	ev.wait(t, session(mqtt.Subscribed))
	for i, topic := range []string{"a", "b", "c", "d"} {
		conn.send(retained(uint16(i+4), topic, "R"+topic+" anew"))
	}
	conn.send(publish(8, 1, false, "t/e", "live"))
	conn.acks(packets.Puback, 3, 4, 5, 6, 7, 8)
	conn.pongs()
	wants(t, logged(t, f, "live"), "Ra", "Rb", "Rc", "Rd anew", "live")
}
