package feed_test

import (
	"fmt"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// life is a process with a feed, up to its death.
type life struct {
	t    testing.TB
	dir  string
	qos  byte
	peer *peer
	c    *pconn
	feed *feed.Feed
	g    *gates
}

// begin starts a process on a state folder, and a broker that sends what it has
// open.
func begin(t testing.TB, dir string, qos byte, known bool, stop step, between ...packets.ControlPacket) *life {
	t.Helper()
	l := &life{t: t, dir: dir, qos: qos, peer: newPeer(t)}
	l.g = &gates{at: stop, reached: make(chan struct{}), open: make(chan struct{})}
	o := feed.Options{Dir: dir, Session: func(c feed.Config, s feed.SessionOptions) (sensors.Reader, error) {
		r, err := mqtt.NewReader(mqtt.ReaderOptions{
			Connection: mqtt.Connection{
				Broker: c.Broker, ClientID: c.ClientID, Clock: s.Clock, Events: s.Events,
				BackoffMin: dataflow.Microsecond, BackoffMax: dataflow.Microsecond,
			},
			Topics: c.Topics, QoS: qos, Lanes: c.Lanes, Recall: s.Recall, TickEvery: -1,
		})
		l.g.Reader = r
		return l.g, err
	}}
	c := config(l.peer.url(), int(qos))
	c.Lanes = 3
	l.feed, _ = open(t, o, c)
	t.Cleanup(l.release) // before the feed is closed
	l.c = l.peer.session(t, qos, known, between...)
	return l
}

func (l *life) release() {
	select {
	case <-l.g.open:
	default:
		close(l.g.open)
	}
}

// crash ends the process without a goodbye, and returns what the next one
// finds. What the old objects still do concerns nobody.
func (l *life) crash() string {
	next := image(l.t, l.dir)
	_ = l.peer.ln.Close()
	_ = l.c.c.Close()
	l.release()
	return next
}

// take plays the broker's side of a message to its end.
func (l *life) take(id uint16) {
	l.t.Helper()
	if l.qos == 1 {
		l.c.acks(packets.Puback, id)
		return
	}
	l.c.acks(packets.Pubrec, id)
	l.c.send(pubrel(id))
	l.c.acks(packets.Pubcomp, id)
}

// end sends a last message and returns what is in the log.
func (l *life) end() []string {
	l.t.Helper()
	l.c.send(publish(99, l.qos, false, "t/end", "end"))
	l.take(99)
	all := logged(l.t, l.feed, "end")
	return all[:len(all)-1]
}

// held is what a broker keeps of a message.
type held uint8

const (
	sent     held = iota // no PUBACK or PUBREC came
	released             // PUBREC came, PUBREL was sent
	free                 // PUBACK or PUBCOMP came: the id can be used again
)

// A process dies behind each step of a message of QoS 2 and of its release. The
// broker goes on where it was; then it uses the packet id again, at once, for a
// message that looks the same. Each is in the log once.
func TestCrashQoS2(t *testing.T) {
	for _, c := range []struct {
		name string
		stop step
		play func(c *pconn)
		held held
	}{
		{"read", step{name: "read"}, nil, sent},
		{"appended", step{name: "append"}, nil, sent},
		{"synced", step{name: "commit"}, nil, sent},
		{"PUBREC sent, lost", step{}, func(c *pconn) { c.acks(packets.Pubrec, 5) }, sent},
		{"PUBREC sent", step{}, func(c *pconn) { c.acks(packets.Pubrec, 5) }, released},
		{"PUBREL read", step{"read", release}, nil, released},
		{"release appended", step{"append", release}, nil, released},
		{"release synced", step{"commit", release}, nil, released},
		{"PUBCOMP sent, lost", step{}, func(c *pconn) { c.acks(packets.Pubrec, 5); c.send(pubrel(5)); c.acks(packets.Pubcomp, 5) }, released},
		{"PUBCOMP sent", step{}, func(c *pconn) { c.acks(packets.Pubrec, 5); c.send(pubrel(5)); c.acks(packets.Pubcomp, 5) }, free},
	} {
		for _, again := range []string{"delivered", "delivered twice", "first delivery lost"} {
			t.Run(c.name+"/"+again, func(t *testing.T) {
				l := begin(t, t.TempDir(), 2, false, c.stop)
				l.c.send(publish(5, 2, false, "t/a", "a"))
				switch {
				case c.play != nil:
					c.play(l.c)
				case c.stop.what == release:
					l.c.acks(packets.Pubrec, 5)
					l.c.send(pubrel(5))
				}
				if c.play == nil {
					<-l.g.reached
				}

				l = begin(t, l.crash(), 2, true, step{})
				switch c.held {
				case sent:
					l.c.send(publish(5, 2, true, "t/a", "a"))
					l.take(5)
				case released:
					l.c.send(pubrel(5))
					l.c.acks(packets.Pubcomp, 5)
				case free:
				}

				l.c.send(publish(6, 2, false, "t/b", "b")) // something in another lane
				l.take(6)
				want := "a"
				switch again {
				case "delivered":
					l.c.send(publish(5, 2, false, "t/a", "a"))
					l.take(5)
				case "delivered twice":
					l.c.send(publish(5, 2, false, "t/a", "a"))
					l.c.acks(packets.Pubrec, 5)
					l = begin(t, l.crash(), 2, true, step{}) // PUBREC did not arrive
					l.c.send(publish(5, 2, true, "t/a", "a"))
					l.take(5)
				case "first delivery lost":
					want = "c" // one that looks the same is taken for a redelivery
					l = begin(t, l.crash(), 2, true, step{})
					l.c.send(publish(5, 2, true, "t/a", "c"))
					l.take(5)
				}
				wants(t, l.end(), "a", "b", want)
			})
		}
	}
}

// The same for QoS 1. With the first delivery lost only another content can be
// told from a redelivery.
func TestCrashQoS1(t *testing.T) {
	for _, c := range []struct {
		name string
		stop step
		held held
	}{
		{"read", step{name: "read"}, sent},
		{"appended", step{name: "append"}, sent},
		{"synced", step{name: "commit"}, sent},
		{"PUBACK sent, lost", step{}, sent},
		{"PUBACK sent", step{}, free},
	} {
		for _, again := range []string{"delivered", "delivered twice", "first delivery lost"} {
			t.Run(c.name+"/"+again, func(t *testing.T) {
				l := begin(t, t.TempDir(), 1, false, c.stop)
				l.c.send(publish(5, 1, false, "t/a", "a"))
				if c.stop.name == "" {
					l.c.acks(packets.Puback, 5)
				} else {
					<-l.g.reached
				}
				l = begin(t, l.crash(), 1, true, step{})
				if c.held == sent {
					l.c.send(publish(5, 1, true, "t/a", "a"))
					l.take(5)
				}
				l.c.send(publish(6, 1, false, "t/b", "b"))
				l.take(6)
				want := "a"
				switch again {
				case "delivered":
					l.c.send(publish(5, 1, false, "t/a", "a"))
					l.take(5)
				case "delivered twice":
					l.c.send(publish(5, 1, false, "t/a", "a"))
					l.c.acks(packets.Puback, 5)
					l = begin(t, l.crash(), 1, true, step{}) // PUBACK did not arrive
					l.c.send(publish(5, 1, true, "t/a", "a"))
					l.take(5)
				case "first delivery lost":
					want = "c"
					l = begin(t, l.crash(), 1, true, step{})
					l.c.send(publish(5, 1, true, "t/a", "c"))
					l.take(5)
				}
				wants(t, l.end(), "a", "b", want)
			})
		}
	}
}

// A broker without the session numbers from the beginning: what looks like a
// redelivery is none, also after another process has begun.
func TestCrashAfterTheBrokerForgot(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		t.Run(fmt.Sprint("qos ", qos), func(t *testing.T) {
			l := begin(t, t.TempDir(), qos, false, step{})
			l.c.send(publish(1, qos, false, "t/a", "a"))
			l.c.send(publish(2, qos, false, "t/a", "b"))
			if qos == 1 {
				l.c.acks(packets.Puback, 1, 2)
			} else {
				l.c.acks(packets.Pubrec, 1, 2)
			}
			l = begin(t, l.crash(), qos, false, step{})
			l.c.send(publish(1, qos, false, "t/a", "a"))
			l.take(1)
			l = begin(t, l.crash(), qos, true, step{})
			l.c.send(publish(2, qos, true, "t/a", "b")) // its first delivery died with the process
			l.take(2)
			wants(t, l.end(), "a", "b", "a", "b")
		})
	}
}

// The same, and the process that met the new session died before a message of
// it was in the log.
func TestCrashBeforeANewSessionsFirstMessage(t *testing.T) {
	l := begin(t, t.TempDir(), 1, false, step{})
	l.c.send(publish(1, 1, false, "t/a", "a"))
	l.c.acks(packets.Puback, 1)
	l = begin(t, l.crash(), 1, false, step{"commit", newSession})
	<-l.g.reached
	l = begin(t, l.crash(), 1, true, step{})
	l.c.send(publish(1, 1, true, "t/a", "a"))
	l.take(1)
	wants(t, l.end(), "a", "a")
}

// What is open and was redelivered before SUBACK is acknowledged again.
func TestCrashManyOpen(t *testing.T) {
	const n = 500
	for qos := byte(1); qos <= 2; qos++ {
		l := begin(t, t.TempDir(), qos, false, step{name: "commit"})
		var want []string
		for i := range uint16(n) {
			l.c.send(publish(i+1, qos, false, fmt.Sprint("t/", i%7), fmt.Sprint(i)))
			want = append(want, fmt.Sprint(i))
		}
		<-l.g.reached
		l = begin(t, l.crash(), qos, true, step{})
		for i := range uint16(n) {
			l.c.send(publish(i+1, qos, true, fmt.Sprint("t/", i%7), fmt.Sprint(i)))
		}
		kind := byte(packets.Puback)
		if qos == 2 {
			kind = packets.Pubrec
		}
		seen := make(map[uint16]bool)
		for range n {
			k, id := l.c.answer()
			if k != kind || seen[id] {
				t.Fatalf("kind %d of %d", k, id)
			}
			seen[id] = true
		}
		got := make(map[string]int)
		for _, s := range l.end() {
			got[s]++
		}
		for _, s := range want {
			if got[s] != 1 {
				t.Errorf("%s is there %d times", s, got[s])
			}
		}
		if len(got) != n {
			t.Errorf("%d messages, want %d", len(got), n)
		}
	}
}
