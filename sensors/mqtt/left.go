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

// givenUp is how many filters one packet gives up: there are brokers that close the
// connection over a packet with many.
const givenUp = 8

// giveUp unsubscribes from what was subscribed before. It follows SUBSCRIBE, so that a
// topic of an old filter and of a new one is never without either. That it was done
// before is not noted: a process may have died over it, and doing it twice is nothing.
// A broker that does not answer serves us all the same, and one that ends the connection
// over it is not asked again: it would for ever.
func (r *Reader) giveUp(ctx context.Context, l *link) error {
	if len(r.o.Left) == 0 || !l.known || r.spurned {
		return nil
	}
	told := Event{Kind: Unsubscribed, Topics: slices.Clone(r.o.Left)}
	for old := range slices.Chunk(r.o.Left, givenUp) {
		told.Err = r.answered(ctx, l, l.client.Unsubscribe(old...), "UNSUBSCRIBE")
		silent := errors.Is(told.Err, errUnanswered)
		err := told.Err
		if err == nil || silent { // it may have done it, and not said so
			err = r.restore(ctx, l, old)
		}
		if err != nil && ctx.Err() == nil {
			r.spurned, told.Err = true, err
			r.s.emit(told)
		}
		if err != nil {
			return err
		}
		if silent {
			break
		}
	}
	r.s.emit(told)
	return nil
}

// restore subscribes once more to what a broker may have taken for filters that were
// given up: there are some that know a filter without what it begins with.
func (r *Reader) restore(ctx context.Context, l *link, old []string) error {
	lost := func(f string) bool {
		return slices.ContainsFunc(old, func(o string) bool { return bare(o) == bare(f) })
	}
	topics := slices.DeleteFunc(slices.Clone(r.o.Topics), func(f string) bool { return !lost(f) })
	if len(topics) == 0 {
		return nil
	}
	result, err := r.subscribe(ctx, l, topics)
	if err != nil {
		return err
	}
	r.refuses(slices.DeleteFunc(topics, func(f string) bool { return result[f] <= 2 }))
	return nil
}

// bare is a filter without $share/GROUP/, $queue/ and $exclusive/.
func bare(filter string) string {
	for {
		rest, found := strings.CutPrefix(filter, "$share/")
		if found {
			_, rest, found = strings.Cut(rest, "/")
		} else if rest, found = strings.CutPrefix(filter, "$queue/"); !found {
			rest, found = strings.CutPrefix(filter, "$exclusive/")
		}
		if !found {
			return filter
		}
		filter = rest
	}
}
