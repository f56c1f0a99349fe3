package mqtt

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/zeebo/xxh3"
)

// This file is the side of Reader that its session calls.

func (r *Reader) prepare(c *conn) {
	if r.o.QoS > 0 { // a reader of QoS 0 sheds
		c.hold = r.hold
	}
	c.quiet = func() { r.quiet(c) }
	c.heard = func(held bool) { r.heard(c, held) }
	if r.o.Recall != nil {
		c.completes = r.completes
	}
}

func (r *Reader) attach(l *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.link = l
	r.muted, r.granted = false, false
	// For a log a session begins with what it has of it, whatever the broker knows.
	begins := !l.known || r.in.tags && !r.ledger.counted
	r.ledger.connected(!begins)
	if begins && r.in.tags {
		r.in.begin(makeNote(r.ledger.session, 0))
		r.wake()
	}
	switch {
	case begins && !r.subscribed:
		r.firsts.begins()
	case begins:
		r.firsts.open = false
	}
	r.retained = r.o.Retained == RetainedAll || r.o.Retained == RetainedFirst && !r.subscribed && !l.known
	r.stats.Connects++
}

// filterError says which filters a broker refused.
type filterError struct {
	broker string
	topics []string
}

func (e *filterError) Error() string {
	return fmt.Sprintf("mqtt: %s: subscription %v: %s; may this user read there?", e.broker, ErrRefused, strings.Join(e.topics, ", "))
}

func (e *filterError) Is(target error) bool { return target == ErrRefused }

// up subscribes. It does so also when the broker still knows the session: the
// filters may have changed.
func (r *Reader) up(ctx context.Context, l *link) error {
	result, err := r.subscribe(ctx, l, r.o.Topics)
	if err != nil {
		return err
	}
	refused, err := r.grants(result)
	if err != nil || refused { // what was refused may still come by an old filter
		return err
	}
	return r.giveUp(ctx, l)
}

// subscribe asks for filters, and returns the broker's answer for each.
func (r *Reader) subscribe(ctx context.Context, l *link, topics []string) (map[string]byte, error) {
	filters := make(map[string]byte, len(topics))
	for _, f := range topics {
		filters[f] = r.o.QoS
	}
	l.conn.asked.Store(int32(len(filters)))
	token := l.client.SubscribeMultiple(filters, nil).(*paho.SubscribeToken)
	if err := r.answered(ctx, l, token, "SUBSCRIBE"); err != nil {
		return nil, err
	}
	return token.Result(), nil
}

// answered waits for the answer to a packet. On a resumed session what waits there
// comes first: the limit counts only while the socket is read and nothing comes.
func (r *Reader) answered(ctx context.Context, l *link, token paho.Token, packet string) error {
	for came := l.conn.came.Load(); ; {
		select {
		case <-token.Done():
			if err := token.Error(); err != nil {
				return fmt.Errorf("mqtt: %s to %s: %w", packet, r.s.e.url, l.conn.reason(err))
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case err := <-l.lost:
			l.lost <- err
			return fmt.Errorf("mqtt: connection to %s lost while it had %s to answer: %w", r.s.e.url, packet, err)
		case <-r.s.e.Clock.After(r.s.e.ConnectTimeout):
			before, held := came, l.conn.holding.Load() // in this order: see wait
			if came = l.conn.came.Load(); came == before && !held {
				return fmt.Errorf("mqtt: %s %w to %s", r.s.e.url, errUnanswered, packet)
			}
		}
	}
}

// grants reads the broker's answer: it may refuse some filters, or grant a
// lower QoS. some: it has refused some.
func (r *Reader) grants(result map[string]byte) (some bool, err error) {
	var granted, refused, lower []string
	for f, qos := range result {
		switch {
		case qos > 2:
			refused = append(refused, f)
			continue
		case qos < r.o.QoS:
			lower = append(lower, fmt.Sprintf("%s only with QoS %d", f, qos))
		}
		granted = append(granted, f)
	}
	sort.Strings(granted)
	sort.Strings(refused)
	sort.Strings(lower)
	if len(granted) == 0 {
		return true, &filterError{r.s.e.url, refused}
	}
	now := int64(r.s.e.Clock.Now())
	r.mu.Lock()
	r.subscribed, r.granted = true, true
	if !r.held { // else what came with the answer has filled the inbox: see heard
		r.in.hear(true, now)
	}
	r.mu.Unlock()
	r.wake()
	e := Event{Kind: Subscribed, Topics: granted}
	if len(lower) > 0 {
		e.Err = errors.New("granted " + strings.Join(lower, ", "))
	}
	r.s.emit(e)
	r.refuses(refused)
	return len(refused) > 0, nil
}

func (r *Reader) refuses(topics []string) {
	if len(topics) > 0 {
		r.s.emit(Event{Kind: Refused, Topics: topics, Err: &filterError{r.s.e.url, topics}})
	}
}

func (r *Reader) down(*link) {
	now := int64(r.s.e.Clock.Now())
	r.mu.Lock()
	r.link, r.held, r.muted = nil, false, false
	r.ledger.gen++ // whatever is acknowledged from here on has no connection to go to
	r.in.hear(false, now)
	r.mu.Unlock()
	r.wake()
}

// quiet hears that the broker has been silent for so long that it may be out of
// reach: from now on nobody's silence counts.
func (r *Reader) quiet(c *conn) {
	now := int64(r.s.e.Clock.Now())
	r.mu.Lock()
	// Whether it still is silent is asked under the lock: see heard.
	deaf := r.link != nil && r.link.conn == c && !r.muted && (r.in.hears() || r.held) && c.silent() >= c.doubt
	if deaf {
		r.muted = true
		r.in.hear(false, now)
	}
	r.mu.Unlock()
	if deaf {
		r.wake()
		r.s.emit(Event{Kind: Silent})
	}
}

// heard hears that bytes have come. If the gate was shut before them, hearing begins
// with them; not before a session is there: a broker that only refuses is not heard.
func (r *Reader) heard(c *conn, held bool) {
	now := int64(r.s.e.Clock.Now())
	r.mu.Lock()
	on := r.link != nil && r.link.conn == c
	again := on && r.muted
	if again || r.held && (held || on) { // on, and not held: the connection before shut it
		r.held = false
		if on {
			r.muted = false
			r.in.hear(true, now)
		}
	}
	r.mu.Unlock()
	if held || again {
		r.wake()
	}
	if again {
		r.s.emit(Event{Kind: Heard})
	}
}

func (r *Reader) wake() {
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

// brokerDone hears that the broker has closed a message of QoS 2.
func (r *Reader) brokerDone(id uint16) {
	r.mu.Lock()
	r.ledger.closed(id)
	r.mu.Unlock()
}

// completes hears that the broker has released a message of QoS 2, before the
// answer goes out, and tells whether it may go out now. If not, Ack sends it.
func (r *Reader) completes(id uint16) bool {
	r.mu.Lock()
	open, fresh := r.ledger.ends(id, r.in.lanes[noteLane].next)
	if fresh {
		r.in.release(makeNote(r.ledger.session, id))
	}
	r.mu.Unlock()
	if fresh {
		r.wake()
	}
	return !open
}

// message takes a PUBLISH into the inbox. Paho's router calls it; it does not
// block, except for the moment in which the session has CONNACK in hand.
func (r *Reader) message(l *link, m paho.Message) {
	<-l.ready
	topic, payload, qos := m.Topic(), m.Payload(), m.Qos()
	long := len(payload) > r.o.MaxPayload
	payload = payload[:min(len(payload), r.o.MaxPayload)]
	hash, digest := uint64(0), uint64(0)
	if qos > 0 || len(r.in.lanes) > 1 || r.o.Retained == RetainedFirst {
		hash = xxh3.HashString(topic)
	}
	if qos > 0 {
		digest = xxh3.HashSeed(payload, hash)
	}
	split := int(hash % uint64(len(r.in.lanes)))
	now := int64(r.s.e.Clock.Now())

	r.mu.Lock()
	hears := r.link == l && !r.held
	if hears {
		r.in.hear(true, now)
	}
	var e Event
	if r.admit(m, qos, hash, digest, split) {
		r.firsts.took(hash)
		if qos > 0 || r.o.QoS > 0 || !r.full() {
			add := r.in.add
			if !hears { // it was read before the gate was shut, or the connection lost
				add = r.in.late
			}
			add(split, topic, payload, makeTag(r.ledger.session, m.MessageID(), qos, m.Retained(), m.Duplicate()), now, long)
			r.stats.Received++
			if r.shedding > 0 {
				e = Event{Kind: ShedEnd, Count: r.shedding}
				r.shedding = 0
			}
		} else {
			if r.shedding == 0 {
				e = Event{Kind: Shedding}
			}
			r.shedding++
			r.stats.Shed++
		}
	}
	r.mu.Unlock()
	r.wake()
	if e.Kind != 0 {
		r.s.emit(e)
	}
}

// admit tells whether a message is new and wanted; what is not is counted, and
// acknowledged in its turn.
func (r *Reader) admit(m paho.Message, qos byte, topic, digest uint64, split int) bool {
	// A retained message that comes with DUP is the rest of an earlier
	// subscription's, cut off with its connection. So is one that waited in the
	// broker's queue, but it does not say so.
	wanted := !m.Retained() || r.retained || r.o.Retained == RetainedFirst && (m.Duplicate() || r.firsts.lacks(topic))
	if qos == 0 {
		if !wanted {
			r.stats.Retained++
		}
		return wanted
	}
	to := int16(nobody)
	if wanted {
		to = int16(split)
	}
	switch r.ledger.arrive(m.MessageID(), qos, m.Duplicate(), digest, to, r.in.lanes[split].next) {
	case again:
		r.stats.Duplicates++
		return false
	case againOld:
		r.stats.Duplicates++
		if r.link != nil {
			r.acks = appendReceipt(r.acks[:0], qos, m.MessageID())
			r.link.conn.send(r.acks)
		}
		return false
	}
	if !wanted {
		r.stats.Retained++
		r.acknowledge()
	}
	return wanted
}
