package world

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Broker is an MQTT broker: a session for each feed, which outlives connections.
// What was not acknowledged is delivered again, marked so, to the next one.
type Broker struct {
	Published int  // messages, numbered from 0
	Closed    bool // nobody publishes any more
	Tells     bool // who loses a session to another client hears so

	w        *World
	sessions map[string]*Session
}

// window is how many messages a session has in flight.
const window = 20

// Session is what the broker keeps for a feed.
type Session struct {
	Topic Topic
	First int    // the first message that it was subscribed for
	Conn  Client // nil: nobody is connected

	w      *World
	queue  []int
	flight []Message // sent, and not acknowledged
	packet uint16
	last   dataflow.Time
}

// Client is who is connected.
type Client interface {
	Live(f func()) // runs f in the client's process
	Lost()         // another client has the session now
	Arrived(m Message, dup bool)
}

// Message is one that is delivered.
type Message struct {
	Lane   int
	Number int
	Packet uint16
}

// Topic is what messages are made of: each message is published to all.
type Topic string

// The topics.
const (
	Counts Topic = "t" // a key and a number, in two lanes
	Timed  Topic = "w" // and an event time, often out of order, in one lane
)

const keys = 6

// KeyOf is the key of a message.
func KeyOf(message int) string { return fmt.Sprintf("k%d", message*7%11%keys) }

// TimeOf is the event time of a message, in milliseconds: most come within 200 ms,
// some a second or two late.
func TimeOf(message int) int64 {
	t := 1_700_000_000_000 + int64(message)*40 - int64(message*13%17)*12
	if message%9 == 4 {
		t -= 900 + int64(message*31%23)*60
	}
	return t
}

// Lines of the file that bounded sources read: line i is message i of Timed.
const Lines = 300

// LinesAt is how many of them can be read at a time: the disk is slow.
func LinesAt(t dataflow.Time) int64 { return min(int64(t/(40*ms)), Lines) }

// Lanes of a feed.
func (t Topic) Lanes() int {
	if t == Timed {
		return 1
	}
	return 2
}

// Payload of a message.
func (t Topic) Payload(message int) string {
	if t == Timed {
		return fmt.Sprintf(`{"key":"%s","id":%d,"at":%d}`, KeyOf(message), message, TimeOf(message))
	}
	return fmt.Sprintf(`{"key":"%s","id":%d}`, KeyOf(message), message)
}

func (t Topic) laneOf(message int) int { return message * 7 % 11 % keys % t.Lanes() }

// Publish gives the broker the next message.
func (b *Broker) Publish() {
	m := b.Published
	b.Published++
	for _, name := range b.Feeds() {
		s := b.sessions[name]
		s.queue = append(s.queue, m)
		s.pump()
	}
}

// PublishAll is somebody who publishes all the time, until it is closed.
func (b *Broker) PublishAll() {
	if b.Closed {
		return
	}
	b.Publish()
	b.w.After(40*ms, b.PublishAll)
}

// Feeds are those that have a session, in order.
func (b *Broker) Feeds() []string { return slices.Sorted(maps.Keys(b.sessions)) }

// Session is that of a feed; nil: it never connected.
func (b *Broker) Session(feed string) *Session { return b.sessions[feed] }

// Connect begins a connection; one of before is closed.
func (b *Broker) Connect(feed string, t Topic, c Client) *Session {
	s := b.sessions[feed]
	if s == nil {
		s = &Session{Topic: t, w: b.w, First: b.Published}
		b.sessions[feed] = s
	}
	if old := s.Conn; b.Tells && old != nil && old != c {
		b.w.After(ms, func() { old.Live(old.Lost) })
	}
	s.Conn, s.last = c, b.w.now
	for _, m := range s.flight {
		s.deliver(m, true)
	}
	s.pump()
	return s
}

// Owed are messages that are not acknowledged.
func (s *Session) Owed() int { return len(s.queue) + len(s.flight) }

// Close ends a client's connection, if it is the one that the broker has.
func (s *Session) Close(c Client) {
	if s.Conn == c {
		s.Conn = nil
	}
}

func (s *Session) pump() {
	for s.Conn != nil && len(s.queue) > 0 && len(s.flight) < window {
		s.packet++
		n := s.queue[0]
		s.queue = s.queue[1:]
		m := Message{Number: n, Lane: s.Topic.laneOf(n), Packet: s.packet}
		s.flight = append(s.flight, m)
		s.deliver(m, false)
	}
}

func (s *Session) deliver(m Message, dup bool) {
	c := s.Conn
	t := max(s.w.Soon(ms), s.last)
	s.last = t
	s.w.At(t, func() {
		if s.Conn == c {
			c.Live(func() { c.Arrived(m, dup) })
		}
	})
}

// Ack is heard only on the connection that the broker has.
func (s *Session) Ack(c Client, m Message) {
	s.w.After(ms, func() {
		if s.Conn != c {
			return
		}
		for i, f := range s.flight {
			if f.Number == m.Number {
				s.flight = append(s.flight[:i:i], s.flight[i+1:]...)
				break
			}
		}
		s.pump()
	})
}
