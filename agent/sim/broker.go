package sim

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// broker is an MQTT broker: a session for each feed, which outlives connections.
// What was not acknowledged is delivered again, marked so, to the next one.
type broker struct {
	w         *World
	published int  // messages, numbered from 0
	closed    bool // nobody publishes any more
	sessions  map[string]*session
}

// window is how many messages a session has in flight.
const window = 20

type session struct {
	w      *World
	feed   string
	first  int // the first message that it was subscribed for
	queue  []int
	flight []record // sent, and not acknowledged
	packet uint16
	conn   *owner // nil: nobody is connected
	last   dataflow.Time
	acked  map[int]bool
}

func newBroker(w *World) *broker { return &broker{w: w, sessions: make(map[string]*session)} }

// keys of messages.
const keys = 6

// payload of a message.
func payload(message int) string {
	return fmt.Sprintf(`{"key":"k%d","id":%d}`, message*7%11%keys, message)
}

func laneOf(message int) int { return message * 7 % 11 % keys % lanes }

// lanes of each feed.
const lanes = 2

// publish gives the broker the next message.
func (b *broker) publish() {
	m := b.published
	b.published++
	for _, name := range sortedKeys(b.sessions) {
		s := b.sessions[name]
		s.queue = append(s.queue, m)
		s.pump()
	}
}

// connect begins a connection; one of before is closed.
func (b *broker) connect(o *owner) *session {
	s := b.sessions[o.name]
	if s == nil {
		s = &session{w: b.w, feed: o.name, first: b.published, acked: make(map[int]bool)}
		b.sessions[o.name] = s
	}
	b.w.check.acts(o.s.p, "connects to the broker for feed "+o.name)
	b.w.trace("%s connects to the broker for %s (epoch %d)", o.s.p.n.id, o.name, o.epoch.Epoch)
	s.conn, s.last = o, b.w.now
	for _, r := range s.flight {
		s.deliver(r, true)
	}
	s.pump()
	return s
}

func (s *session) close(o *owner) {
	if s.conn == o {
		s.conn = nil
	}
}

func (s *session) pump() {
	for s.conn != nil && len(s.queue) > 0 && len(s.flight) < window {
		s.packet++
		m := s.queue[0]
		s.queue = s.queue[1:]
		r := record{message: m, lane: laneOf(m), packet: s.packet}
		s.flight = append(s.flight, r)
		s.deliver(r, false)
	}
}

func (s *session) deliver(r record, dup bool) {
	o := s.conn
	t := max(s.w.soon(ms), s.last)
	s.last = t
	s.w.at(t, func() {
		if s.conn == o {
			o.s.p.live(func() { o.arrived(r, dup) })
		}
	})
}

// ack is heard only on the connection that the broker has.
func (s *session) ack(o *owner, r record) {
	s.w.after(ms, func() {
		if s.conn != o {
			return
		}
		for i, f := range s.flight {
			if f.message == r.message {
				s.flight = append(s.flight[:i:i], s.flight[i+1:]...)
				s.acked[r.message] = true
				break
			}
		}
		s.pump()
	})
}
