package feed_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// unsubscribed is the filters that the client gives up, whatever it acknowledges
// before. The broker does not answer.
func (c *pconn) unsubscribed() []string {
	c.t.Helper()
	_ = c.c.SetReadDeadline(time.Now().Add(patience))
	for {
		p, err := packets.ReadPacket(c.c)
		if err != nil {
			c.t.Fatalf("no UNSUBSCRIBE: %v", err)
		}
		switch p := p.(type) {
		case *packets.UnsubscribePacket:
			return p.Topics
		case *packets.PubackPacket, *packets.PingreqPacket:
		default:
			c.t.Fatalf("got %v", p)
		}
	}
}

// A filter that is taken out of a job is given up at the broker by every process
// that comes later, since none knows whether the one before came so far. What
// still comes of it is in the log as ever.
func TestFilterTakenOut(t *testing.T) {
	p := newPeer(t)
	c := config(p.url(), 1)
	c.Topics = []string{"t/a", "t/b/+"}
	o := feed.Options{Dir: t.TempDir()}
	f, ev := open(t, o, c)
	conn := p.session(t, 1, false)
	ev.wait(t, session(mqtt.Subscribed))
	conn.send(publish(1, 1, false, "t/b/x", "B1"))
	conn.acks(packets.Puback, 1)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	c.Topics = []string{"t/a"}
	for n := range 2 { // it dies before the broker has answered, and starts again
		f, _ = open(t, o, c)
		conn = p.session(t, 1, true, publish(2, 1, n > 0, "t/b/x", "B2"), publish(3, 1, n > 0, "t/a", "A1"))
		if got := conn.unsubscribed(); !slices.Equal(got, []string{"t/b/+"}) {
			t.Fatalf("gives up %q", got)
		}
		last := []string{"A2", "A3"}[n]
		conn.send(publish(uint16(4+n), 1, false, "t/a", last))
		conn.pongs()
		wants(t, logged(t, f, last), []string{"B1", "B2", "A1", "A2", "A3"}[:4+n]...)
		o.Dir = image(t, o.Dir)
	}

	// It is there again: nothing is given up, and what comes of it counts.
	c.Topics = []string{"t/a", "t/b/+"}
	f, _ = open(t, o, c)
	conn = p.session(t, 1, true)
	conn.send(publish(7, 1, false, "t/b/x", "B3"))
	conn.acks(packets.Puback, 7)
	conn.pongs()
	wants(t, logged(t, f, "B3"), "B1", "B2", "A1", "A2", "A3", "B3")
}

// renaming is a disk on which a process dies when it has put so many files in place.
type renaming struct {
	store.FS
	more int
}

func (r *renaming) Rename(from, to string) error {
	if r.more--; r.more < 0 {
		return errors.New("the process dies")
	}
	return r.FS.Rename(from, to)
}

// The process dies while it stores a config with other filters. Whichever comes next,
// it knows what the session may have.
func TestFilterTakenOutInACrash(t *testing.T) {
	p := newPeer(t)
	both, one := config(p.url(), 1), config(p.url(), 1)
	both.Topics, one.Topics = []string{"t/a", "t/b"}, []string{"t/a"}
	for more := range 3 {
		o := feed.Options{Dir: t.TempDir()}
		f, _ := open(t, o, both)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		dying := o
		dying.FS = &renaming{disk.Group, more}
		if f, err := feed.New(dying).Open("f", one); err == nil {
			_ = f.Close()
		} else if more == 2 {
			t.Fatal(err)
		}
		for _, c := range []struct {
			next feed.Config
			want []string
		}{{one, []string{"t/b"}}, {both, nil}, {one, []string{"t/b"}}} {
			f, _ := open(t, o, c.next)
			if got := f.Config().Left; !slices.Equal(got, c.want) {
				t.Errorf("after %d files, with %q: left %q, want %q", more, c.next.Topics, got, c.want)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(filepath.Join(o.Dir, "feeds", "f", "left.json"))
		if want := "\"topics\": [\n    \"t/a\"\n  ],\n  \"left\": [\n    \"t/b\"\n  ],\n"; err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s, %v", text, err)
		}
		stored, err := os.ReadFile(filepath.Join(o.Dir, "feeds", "f", "feed.json")) // programs of before refuse a key that they do not know
		if err != nil || strings.Contains(string(stored), "left") {
			t.Errorf("%s, %v", stored, err)
		}
	}
}

// What was taken out goes with the config, the newest last, and is bounded.
func TestLeft(t *testing.T) {
	c := config("mqtt://broker.example:1883", 1)
	for _, topics := range []string{"a b", "b c", "c d", "a d"} {
		next := c
		next.Topics, next.Left = strings.Fields(topics), nil
		c = next.After(c)
	}
	text, err := c.Format()
	if err != nil {
		t.Fatal(err)
	}
	back, err := feed.ParseConfig("f", text)
	if want := "[t/# b c]"; err != nil || fmt.Sprint(back.Left) != want {
		t.Errorf("left %q, %v, want %s", back.Left, err, want)
	}
	for i := range 2000 {
		c.Left = append(c.Left, fmt.Sprint("n/", i))
	}
	if got := c.After(c).Left; len(got) != 1024 || got[1023] != "n/1999" {
		t.Errorf("%d, %q", len(got), got)
	}
	c.Left = []string{strings.Repeat("x", 60<<10), strings.Repeat("y", 10<<10), "z"}
	if got := c.After(c).Left; len(got) != 2 || got[1] != "z" {
		t.Errorf("%d are left", len(got))
	}
}

// The filters of one client id are not those of another; where its broker is does not matter.
func TestFilterTakenOutOfAnotherClient(t *testing.T) {
	c := config("mqtt://broker.example", 1)
	c.Topics = []string{"t/a"}
	same, elsewhere, other := c, c, c
	same.Broker, elsewhere.Broker, other.ClientID = "tcp://BROKER.example:1883", "mqtt://other.example", "other"
	for n, next := range []feed.Config{same, elsewhere, other} {
		o := feed.Options{Dir: t.TempDir()}
		was := c
		for _, topics := range []string{"t/c t/b", "t/b"} { // one is in left.json, and one in feed.json
			was.Topics = strings.Fields(topics)
			f, _ := open(t, o, was)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		was.Left = []string{"t/c"}
		want := []string{"t/c", "t/b"}
		if n == 2 {
			want = nil
		}
		if got := next.After(was).Left; !slices.Equal(got, want) {
			t.Errorf("%s at %s: left %q, want %q", next.ClientID, next.Broker, got, want)
		}
		for range 2 {
			f, _ := open(t, o, next)
			if got := f.Config().Left; !slices.Equal(got, want) {
				t.Errorf("%s at %s: the feed has left %q, want %q", next.ClientID, next.Broker, got, want)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A feed that goes to a standby broker and back, or to the same broker by another address,
// gives up what was taken out meanwhile.
func TestFilterTakenOutAtAnotherBroker(t *testing.T) {
	for _, steps := range [][]string{
		{"mqtt://a.example t/a t/b", "mqtt://standby.example t/a", "mqtt://a.example t/a"},
		{"mqtt://a.example t/a t/c t/b", "mqtt://a.example t/a t/b", "mqtt://standby.example t/a", "mqtt://a.example t/a"},
		{"mqtt://a.example t/a t/b", "mqtts://a.example t/a"},
	} {
		o := feed.Options{Dir: t.TempDir()}
		var last feed.Config // as a site has it
		for i, s := range steps {
			c := config(strings.Fields(s)[0], 1)
			c.Topics = strings.Fields(s)[1:]
			f, _ := open(t, o, c)
			own := f.Config().Left
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				c = c.After(last)
			}
			if last = c; i == len(steps)-1 && (!slices.Contains(own, "t/b") || !slices.Contains(last.Left, "t/b")) {
				t.Errorf("%q: left %q, in a site %q", steps, own, last.Left)
			}
		}
	}
}

// givesUp runs a feed of two filters, and then of one, under a broker: what came of the
// other one while nobody was there is in the log, and nothing comes after that.
func givesUp(t *testing.T, addr string) {
	o := feed.Options{Dir: t.TempDir()}
	c := config("mqtt://"+addr, 1)
	c.Topics = []string{"t/a", "t/b/#"}
	f, ev := open(t, o, c)
	ev.wait(t, session(mqtt.Subscribed)) // it waits for the broker
	pub := publisher(t, addr, "publisher")
	send := func(topic, text string) {
		t.Helper()
		if k := pub.Publish(topic, 1, false, text); !k.WaitTimeout(patience) || k.Error() != nil {
			t.Fatal(k.Error())
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	send("t/b/x", "B1")
	send("t/a", "A1")
	c.Topics = []string{"t/a"}
	for n := range 2 {
		f, ev = open(t, o, c)
		if e := ev.wait(t, session(mqtt.Unsubscribed)); e.MQTT.Err != nil || !slices.Equal(e.MQTT.Topics, []string{"t/b/#"}) {
			t.Error(e)
		}
		last := fmt.Sprint("A", n+2)
		send("t/b/x", "B2")
		send("t/a", last)
		got := logged(t, f, last)
		slices.Sort(got[:min(2, len(got))]) // in any order: they waited together
		wants(t, got, []string{"A1", "B1", "A2", "A3"}[:n+3]...)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFilterTakenOutUnderABroker(t *testing.T) {
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	givesUp(t, b.Addr())
}

// In a mesh the next owner may have nothing of the feed on its disk: what the session may
// have of before it knows from the feed's record.
func TestFilterTakenOutIsKnownToTheNextOwner(t *testing.T) {
	p, ev := newPeer(t), newEvents()
	before := config(p.url(), 1)
	before.Topics = []string{"t/a", "t/b"}
	c := config(p.url(), 1)
	c.Topics = []string{"t/a"}
	text, err := c.After(before).Format()
	if err != nil {
		t.Fatal(err)
	}
	if c, err = feed.ParseConfig("f", text); err != nil {
		t.Fatal(err)
	}
	tr := simnet.New().New("b", "here")
	feeds := feed.New(feed.Options{Dir: t.TempDir(), Transport: tr, Events: ev.add})
	tr.Start()
	t.Cleanup(func() { _ = tr.Close() })
	t.Cleanup(func() { _ = feeds.Close() })
	e := coordinator.LogEpoch{Epoch: 2, Owner: "b", Members: []mesh.NodeID{"b"}, Starts: []int64{0, 0}}
	if err := feeds.Own("f", e, c, nil); err != nil {
		t.Fatal(err)
	}
	conn := p.session(t, 1, true, publish(1, 1, false, "t/b", "B1"), publish(2, 1, false, "t/a", "A1"))
	if got := conn.unsubscribed(); !slices.Equal(got, []string{"t/b"}) {
		t.Errorf("gives up %q", got)
	}
	conn.pongs()
	f, err := feeds.OpenKeeping("f", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	wants(t, logged(t, f, "A1"), "B1", "A1")
}
