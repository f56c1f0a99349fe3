package ingestlog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors"
)

// entry is one of a lane, as the model and what readers get have it in common.
type entry struct {
	lane    int
	offset  int64
	kind    kind
	clock   int64
	payload string
	topic   string
	long    bool
	tag     uint32 // or the note
}

// model is what a log should be: a list.
type model struct {
	lanes   []mark
	entries []entry // in the order of appending
	commits []int   // how many entries each commit ended with
}

func newModel(lanes int) *model {
	s := newState(lanes)
	return &model{lanes: s.lanes}
}

func (m *model) add(lane int, e entry) {
	e.lane, e.offset = lane, m.lanes[lane].next
	e.clock = m.lanes[lane].clock
	m.lanes[lane].next++
	m.entries = append(m.entries, e)
}

func (m *model) append(r *sensors.Records) {
	l := &m.lanes[r.Split]
	for i := range r.Len() {
		if len(r.Arrivals) > 0 {
			l.clock = max(l.clock, r.Arrivals[i])
		}
		e := entry{kind: message, payload: string(r.Payload(i)), topic: string(r.Topic(i)), long: slices.Contains(r.TooLong, int32(i))}
		if len(r.Tags) > 0 {
			e.tag = r.Tags[i]
		}
		m.add(r.Split, e)
		l.deaf = false
	}
	for _, n := range r.Notes {
		m.add(r.Split, entry{kind: note, tag: n})
	}
	before := *l
	l.clock = max(l.clock, r.Clock)
	switch moved := l.clock > before.clock; {
	case r.Deaf && (moved || !l.deaf):
		l.deaf = true
		m.add(r.Split, entry{kind: deaf})
	case !r.Deaf && (moved || r.Clock != minClock && l.deaf && r.Len() == 0):
		l.deaf = false
		m.add(r.Split, entry{kind: tick})
	}
}

func (m *model) commit() {
	if n := len(m.entries); len(m.commits) == 0 || m.commits[len(m.commits)-1] < n {
		m.commits = append(m.commits, n)
	}
}

// reads is what a reader of some lanes gets from given offsets on.
func (m *model) reads(lanes []int, from []int64) []entry {
	var out []entry
	start := 0
	for _, end := range m.commits {
		group := slices.Clone(m.entries[start:end])
		slices.SortStableFunc(group, func(a, b entry) int { return cmp.Compare(a.lane, b.lane) })
		for _, e := range group {
			if i := slices.Index(lanes, e.lane); i >= 0 && e.kind != note && e.offset >= from[i] {
				e.tag = 0
				out = append(out, e)
			}
		}
		start = end
	}
	return out
}

// tail is what Tail gives.
func (m *model) tail(n int) []entry {
	var out []entry
	durable := 0
	if len(m.commits) > 0 {
		durable = m.commits[len(m.commits)-1]
	}
	for i := durable - 1; i >= 0 && n > 0; i-- {
		if e := m.entries[i]; e.kind == message || e.kind == note {
			if e.kind == message {
				n--
			}
			out = append(out, e)
		}
	}
	// Notes before the first of the messages are not given, unless there are fewer than n.
	for n <= 0 && len(out) > 0 && out[len(out)-1].kind == note {
		out = out[:len(out)-1]
	}
	slices.Reverse(out)
	return out
}

// flatten appends what a Records has.
func flatten(dst []entry, lane int, r *sensors.Records, tags bool) ([]entry, error) {
	for i := range r.Len() {
		e := entry{lane: lane, offset: r.First + int64(i), kind: message, clock: r.Arrivals[i], payload: string(r.Payload(i)), topic: string(r.Topic(i))}
		e.long = slices.Contains(r.TooLong, int32(i))
		if tags {
			e.tag = r.Tags[i]
		}
		dst = append(dst, e)
	}
	n := int64(r.Len())
	if r.Len() > 0 && (r.Clock != r.Arrivals[r.Len()-1] || r.Deaf) {
		return dst, fmt.Errorf("clock %d behind messages up to %d", r.Clock, r.Arrivals[r.Len()-1])
	}
	if tags {
		for i, v := range r.Notes {
			dst = append(dst, entry{lane: lane, offset: r.First + n + int64(i), kind: note, clock: r.Clock, tag: v})
		}
		return dst, nil
	}
	if n == 0 {
		k := tick
		if r.Deaf {
			k = deaf
		}
		dst, n = append(dst, entry{lane: lane, offset: r.First, kind: k, clock: r.Clock}), 1
	}
	if r.Next < r.First+n || len(r.Notes) > 0 || len(r.Tags) > 0 {
		return dst, fmt.Errorf("from %d to %d with %d entries", r.First, r.Next, n)
	}
	return dst, nil
}

// read reads n entries with changing max.
func read(l *Log, lanes []int, from []int64, n int, most func() int) ([]entry, error) {
	rd := l.NewReader(lanes)
	defer func() { _ = rd.Close() }()
	for i, o := range from {
		if err := rd.Seek(sensors.Position{Split: i, Offset: o}); err != nil {
			return nil, err
		}
	}
	var got []entry
	next := slices.Clone(from)
	r := sensors.Records{Split: 99, Payloads: []byte("garbage")}
	for len(got) < n {
		max := most()
		if err := rd.Read(context.Background(), &r, max); err != nil {
			return got, err
		}
		if r.Len() > max || r.First < next[r.Split] {
			return got, fmt.Errorf("%d records from %d, at most %d from %d", r.Len(), r.First, max, next[r.Split])
		}
		next[r.Split] = r.Next
		var err error
		if got, err = flatten(got, lanes[r.Split], &r, false); err != nil {
			return got, err
		}
	}
	// Nothing more is there.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := rd.Read(ctx, &r, 1); !errors.Is(err, context.Canceled) {
		return got, fmt.Errorf("after the end: %v", err)
	}
	r.Reset(0)
	if err := rd.fill(&r, 10); err != nil || r.Next != 0 {
		return got, fmt.Errorf("after the end: %d records up to %d, %v", r.Len(), r.Next, err)
	}
	return got, nil
}

func compare(got, want []entry) error {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("entry %d is %v, want %v", i, short(got[i]), short(want[i]))
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d entries, want %d", len(got), len(want))
	}
	return nil
}

func short(e entry) entry {
	if len(e.payload) > 40 {
		e.payload = e.payload[:40] + fmt.Sprintf("... (%d)", len(e.payload))
	}
	return e
}

func firsts(l *Log) []int64 {
	var f []int64
	for i := range l.Lanes() {
		f = append(f, l.Lane(i).First)
	}
	return f
}

func all(l *Log) []int {
	var lanes []int
	for i := range l.Lanes() {
		lanes = append(lanes, i)
	}
	return lanes
}

// holds checks that a log has exactly what the model has.
func (m *model) holds(l *Log) error {
	if err := l.Verify(); err != nil {
		return err
	}
	for i := range l.Lanes() {
		s := l.Lane(i)
		if d := m.durable(i); s.Next != d.next || int64(s.Clock) != d.clock || s.Deaf != d.deaf {
			return fmt.Errorf("lane %d is %+v, want %+v", i, s, d)
		}
	}
	want := m.reads(all(l), firsts(l))
	got, err := read(l, all(l), firsts(l), len(want), func() int { return 1000 })
	if err == nil {
		err = compare(got, want)
	}
	if err != nil {
		return fmt.Errorf("reading all: %w", err)
	}
	return nil
}

// durable is where a lane was at the last commit.
func (m *model) durable(lane int) mark {
	d := newState(1).lanes[0]
	end := 0
	if len(m.commits) > 0 {
		end = m.commits[len(m.commits)-1]
	}
	for _, e := range m.entries[:end] {
		if e.lane == lane {
			d.next, d.clock = e.offset+1, e.clock
			switch e.kind {
			case deaf:
				d.deaf = true
			case tick, message:
				d.deaf = false
			}
		}
	}
	return d
}

func (m *model) tails(l *Log, n int) error {
	var got []entry
	var bad error
	err := l.Tail(n, func(r *sensors.Records) bool {
		got, bad = flatten(got, r.Split, r, true)
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	if err == nil {
		err = compare(got, m.tail(n))
	}
	if err != nil {
		return fmt.Errorf("the last %d: %w", n, err)
	}
	return nil
}

// random makes Records as a connector may.
func random(r *sensors.Records, rnd *rand.Rand, lanes int, now int64) {
	r.Reset(rnd.IntN(lanes))
	switch rnd.IntN(10) {
	case 0:
		r.Clock = now
		return
	case 1:
		r.Clock, r.Deaf = now, true
		return
	case 2:
		for range rnd.IntN(3) {
			r.Notes = append(r.Notes, rnd.Uint32())
		}
		return
	}
	n := rnd.IntN(20)
	if rnd.IntN(20) == 0 {
		n = rnd.IntN(6000)
	}
	topics := 1 + rnd.IntN(1+rnd.IntN(200))
	tags, arrivals := rnd.IntN(2) == 0, rnd.IntN(10) > 0
	for i := range n {
		size := rnd.IntN(40)
		if rnd.IntN(3000) == 0 {
			size = rnd.IntN(600 << 10)
		}
		at := now + int64(rnd.IntN(100)) - 20
		r.AppendMessage(fmt.Appendf(nil, "plant/%d", rnd.IntN(topics)), bytes.Repeat([]byte{byte(rnd.Uint32())}, size), at)
		if tags {
			r.Tags = append(r.Tags, rnd.Uint32())
		}
		if rnd.IntN(50) == 0 {
			r.TooLong = append(r.TooLong, int32(i))
		}
	}
	if !arrivals {
		r.Arrivals = r.Arrivals[:0]
	}
	if rnd.IntN(2) == 0 {
		r.Clock = now + int64(rnd.IntN(100))
	}
	for range rnd.IntN(3) {
		r.Notes = append(r.Notes, rnd.Uint32())
	}
}

// must is for what cannot fail.
func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
