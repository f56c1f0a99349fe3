package mqtt

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// This file is what becomes of filters that a session may have from before, and
// that are not wanted any more.

// errUnanswered: the broker says nothing, though it was asked and has the time.
var errUnanswered = errors.New("does not answer")

// giveUp unsubscribes from what was subscribed before. It follows SUBSCRIBE, so that a
// topic of an old filter and of a new one is never without either. That it was done
// before is not noted: a process may have died over it, and doing it twice is nothing.
// A broker that does not answer serves us all the same.
func (r *Reader) giveUp(ctx context.Context, l *link) error {
	if len(r.o.Left) == 0 || !l.known {
		return nil
	}
	err := r.answered(ctx, l, l.client.Unsubscribe(r.o.Left...), "UNSUBSCRIBE")
	if err != nil && !errors.Is(err, errUnanswered) {
		return err
	}
	r.s.emit(Event{Kind: Unsubscribed, Topics: slices.Clone(r.o.Left), Err: err})
	return nil
}

// left tells whether a message comes of old filters only. What matches none at all is
// taken: there are brokers that give topics other names.
func (r *Reader) left(topic string) bool {
	if len(r.o.Left) == 0 {
		return false
	}
	fits := func(f string) bool { return matches(f, topic) }
	return !slices.ContainsFunc(r.o.Topics, fits) && slices.ContainsFunc(r.o.Left, fits)
}

// matches tells whether a filter has a topic (MQTT 3.1.1, 4.7).
func matches(filter, topic string) bool {
	if shared, ok := strings.CutPrefix(filter, "$share/"); ok {
		_, filter, _ = strings.Cut(shared, "/")
	}
	if strings.HasPrefix(topic, "$") && !strings.HasPrefix(filter, "$") {
		return false
	}
	for {
		f, filters, more := strings.Cut(filter, "/")
		t, topics, deeper := strings.Cut(topic, "/")
		switch {
		case f == "#":
			return true
		case f != "+" && f != t:
			return false
		case !more || !deeper:
			return more == deeper || filters == "#"
		}
		filter, topic = filters, topics
	}
}
