package mqtt

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Retained says which retained messages a reader takes. They are those that
// the broker sends because of a subscription, not because somebody published.
type Retained uint8

// The policies of `retained:`.
const (
	RetainedFirst Retained = iota // those of the first subscription
	RetainedAll                   // those of every subscription, also after a reconnect
	RetainedNever
)

// ReaderOptions say what a Reader reads.
type ReaderOptions struct {
	Connection
	Topics       []string // filters; $share/GROUP/FILTER is allowed
	Left         []string // filters that the session may have from before, and Topics has not: see giveUp
	QoS          byte     // asked for; the broker may grant less
	CleanSession bool     // the broker forgets the session with each connection; always so with QoS 0 and no ClientID
	Retained     Retained
	Lanes        int // splits, by hash of the topic; 0: one

	InboxBytes    int // unread bytes at which the inbox is full; 0: 32 MiB
	InboxMessages int // unread messages at which it is full; 0: 65,536
	MaxPayload    int // bytes; longer ones are handed out as TooLong. 0: 1 MiB

	// Recall makes the reader restartable: what it hands out goes to a log, with
	// Tags and Notes, and is acknowledged (Ack) when it is durable there; the
	// reader made by the next process gets the tail of that log, in the order in
	// which it became durable. It should go back 65,535 messages of QoS 1 and 2,
	// the most that a broker may have open. NewReader calls it once. See ledger for what is known again by it. nil: nothing
	// outlives the reader.
	Recall iter.Seq[*sensors.Records]

	// TickEvery is how long a split is silent before Read returns a tick, and
	// between ticks; half of it where another split gets one. 0: 200 ms; negative: no
	// ticks.
	TickEvery dataflow.Duration
}

// ReaderStats counts since the reader was made.
type ReaderStats struct {
	Received   int64 // messages taken into the inbox
	Duplicates int64 // redeliveries dropped
	Retained   int64 // retained messages dropped by policy
	Shed       int64 // messages of QoS 0 dropped because the inbox was full
	Connects   int64 // connections that the broker accepted
	Unread     int   // messages in the inbox now
	Unacked    int   // messages of QoS 1 and 2 not acknowledged now
	Connected  bool
	Subscribed bool   // and the broker has granted filters since
	Trouble    string // why it is not connected, if that is known
}

// Reader is a feed session: a sensors.Reader of what a broker delivers. Lane i
// is split i; offsets count the messages of a lane, from 0 or from where Seek
// said. It has no end.
//
// Ack acknowledges to the broker, in the order in which messages came. A
// message that the broker sends again within the life of the reader is
// recognised where that can be known (see ledger) and handed out once.
//
// Seek only sets the number of the next message: a broker cannot replay.
//
// With ReaderOptions.Recall that knowledge outlives the reader. Offsets then
// count notes as well, and the answer to PUBREL waits until its note is
// acknowledged by Ack.
type Reader struct {
	o ReaderOptions
	s *session

	arrived chan struct{}    // wakes Read; holds at most one
	tick    <-chan time.Time // of a timer that Read has running; only Read uses it
	spurned bool             // a connection ended over UNSUBSCRIBE: see giveUp; only the session's goroutine uses it
	closed  chan struct{}

	mu         sync.Mutex // guards what follows; no I/O and no callback under it
	in         inbox
	ledger     ledger
	firsts     firsts
	link       *link // nil: no connection
	retained   bool  // whatever is retained is taken on this connection
	subscribed bool  // a connection has subscribed before
	granted    bool  // this one has
	muted      bool  // there is a connection, and nothing is heard on it
	held       bool  // the gate was shut, and nothing was read from the socket since: no lane hears
	room       chan struct{}
	shedding   int64 // dropped since shedding began; 0: not shedding
	acks       []byte
	stats      ReaderStats
	ended      bool
}

// NewReader makes a reader and begins to connect. A broker that is down is no
// error; options that cannot work are.
func NewReader(o ReaderOptions) (*Reader, error) {
	e, err := o.resolve()
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	r := &Reader{o: o, arrived: make(chan struct{}, 1), closed: make(chan struct{})}
	r.in.lanes = make([]lane, o.Lanes)
	for i := range r.in.lanes {
		r.in.lanes[i].clock = int64(dataflow.MinTime)
		r.in.lanes[i].hearing = true
	}
	if o.Retained != RetainedFirst {
		r.firsts = nothing()
	}
	st := &store{}
	if o.Recall != nil {
		r.recall()
	} else {
		st.inDone = r.brokerDone
	}
	r.in.hear(false, int64(e.Clock.Now()))
	r.s = &session{e: e, clean: o.CleanSession, user: r, store: st}
	r.s.start()
	return r, nil
}

// recall rebuilds from a log what is known of the broker's messages. One without
// messages counts as not subscribed: nothing that was retained is in it.
func (r *Reader) recall() {
	r.in.tags = true
	for rec := range r.o.Recall {
		r.subscribed = r.subscribed || len(rec.Tags) > 0
		for i, tag := range rec.Tags {
			topic := xxh3.Hash(rec.Topic(i))
			r.firsts.recall(topic, r.ledger.recall(tag, xxh3.HashSeed(rec.Payload(i), topic)))
		}
		for _, note := range rec.Notes {
			r.firsts.recallNote(note, r.ledger.recallNote(note))
		}
	}
}

// Check says what in o cannot work, without trying it.
func (o ReaderOptions) Check() error {
	if _, err := o.resolve(); err != nil {
		return err
	}
	return o.check()
}

func (o *ReaderOptions) check() error {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.Lanes, 1)
	def(&o.InboxBytes, 32<<20)
	def(&o.InboxMessages, 65536)
	def(&o.MaxPayload, 1<<20)
	if o.TickEvery == 0 {
		o.TickEvery = 200 * dataflow.Millisecond
	}
	if o.QoS == 0 && o.ClientID == "" {
		o.CleanSession = true
	}
	switch {
	case o.QoS > 2:
		return fmt.Errorf("mqtt: qos %d; use 0, 1 or 2", o.QoS)
	case o.Lanes > 1024:
		return fmt.Errorf("mqtt: %d lanes; use at most 1024", o.Lanes)
	case len(o.Topics) == 0:
		return errors.New("mqtt: no topics; give at least one filter, as in plant/+/telemetry")
	case o.ClientID == "" && !o.CleanSession:
		return errors.New("mqtt: a session that outlives its connections needs a client id; give one, or ask for a clean session")
	}
	for _, f := range slices.Concat(o.Topics, o.Left) {
		if err := checkFilter(f); err != nil {
			return err
		}
	}
	return nil
}

// checkFilter refuses what a broker would drop the connection for.
func checkFilter(f string) error {
	rest := f
	if after, shared := strings.CutPrefix(f, "$share/"); shared {
		group, filter, ok := strings.Cut(after, "/")
		if !ok || group == "" || filter == "" || strings.ContainsAny(group, "+#") {
			return fmt.Errorf("mqtt: filter %q; a shared one is $share/GROUP/FILTER", f)
		}
		rest = filter
	}
	if rest == "" || len(f) > 65535 || strings.ContainsRune(f, 0) {
		return fmt.Errorf("mqtt: filter %q is empty, longer than 65,535 bytes, or has a zero in it", f)
	}
	levels := strings.Split(rest, "/")
	for i, l := range levels {
		if strings.Contains(l, "+") && l != "+" || strings.Contains(l, "#") && (l != "#" || i != len(levels)-1) {
			return fmt.Errorf("mqtt: filter %q; + stands for one whole level, # for all that follow, at the end only", f)
		}
	}
	return nil
}

// Splits is the number of lanes.
func (r *Reader) Splits() int { return len(r.in.lanes) }

// Read returns what has arrived, or a tick. See sensors.Reader.
func (r *Reader) Read(ctx context.Context, out *sensors.Records, max int) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		now := int64(r.s.e.Clock.Now())
		r.mu.Lock()
		if r.ended {
			r.mu.Unlock()
			return fmt.Errorf("%w: the reader of %s", ErrClosed, r.s.e.url)
		}
		wait := int64(0)
		if every := int64(r.o.TickEvery); every > 0 {
			split := 0
			if split, wait = r.in.silent(now, every); split >= 0 {
				r.in.tick(split, now, out)
				r.mu.Unlock()
				return nil
			}
		}
		if r.in.take(out, max) {
			opened := r.open()
			r.mu.Unlock()
			if opened {
				r.s.emit(Event{Kind: InboxRoom})
			}
			return nil
		}
		r.mu.Unlock()
		if wait > 0 && r.tick == nil {
			r.tick = r.s.e.Clock.After(dataflow.Duration(wait))
		}
		select {
		case <-ctx.Done():
		case <-r.closed:
		case <-r.arrived:
		case <-r.tick:
			r.tick = nil
		}
	}
}

// open lets the socket be read again once the inbox is half empty.
func (r *Reader) open() bool {
	if r.room == nil || r.in.bytes > r.o.InboxBytes/2 || r.in.messages > r.o.InboxMessages/2 {
		return false
	}
	close(r.room)
	r.room = nil
	return true
}

func (r *Reader) full() bool {
	return r.in.bytes >= r.o.InboxBytes || r.in.messages >= r.o.InboxMessages
}

// hold is the gate of the connection: what to wait for before reading on.
func (r *Reader) hold() <-chan struct{} {
	now := int64(r.s.e.Clock.Now())
	r.mu.Lock()
	shuts := r.room == nil && r.full()
	if shuts {
		r.room = make(chan struct{})
	}
	room := r.room
	if room != nil && !r.held { // what waits in the socket from here on is heard by nobody
		r.held = true
		r.in.shut(now)
	}
	r.mu.Unlock()
	if shuts {
		r.s.emit(Event{Kind: InboxFull})
	}
	return room
}

// Ack says that everything before p is safe. See sensors.Reader.
func (r *Reader) Ack(p sensors.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &r.in.lanes[p.Split]
	l.acked = max(l.acked, min(p.Offset-l.base, l.read))
	r.acknowledge()
}

// acknowledge writes the acknowledgements that are due. What cannot be written
// (no connection) is owed until the broker asks again.
func (r *Reader) acknowledge() {
	r.acks = r.ledger.pop(r.acks[:0], r.in.lanes)
	if r.in.tags {
		r.acks = r.ledger.complete(r.acks, r.in.lanes[noteLane].acked)
	}
	if len(r.acks) > 0 && r.link != nil {
		r.link.conn.send(r.acks)
	}
}

// Seek sets the number of the next message of a split.
func (r *Reader) Seek(p sensors.Position) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Split < 0 || p.Split >= len(r.in.lanes) {
		return fmt.Errorf("mqtt: split %d of a reader of %d; did the number of lanes change?", p.Split, len(r.in.lanes))
	}
	l := &r.in.lanes[p.Split]
	if l.read > 0 {
		return fmt.Errorf("mqtt: seek to %d after the first read", p.Offset)
	}
	l.base = p.Offset
	return nil
}

// Ready tells whether Read would return at once. Any goroutine may call it.
func (r *Reader) Ready() bool {
	now := int64(r.s.e.Clock.Now())
	r.mu.Lock()
	defer r.mu.Unlock()
	due := -1
	if every := int64(r.o.TickEvery); every > 0 {
		due, _ = r.in.silent(now, every)
	}
	return r.ended || due >= 0 || r.in.waits()
}

// Stats is a snapshot of the counters. Any goroutine may call it.
func (r *Reader) Stats() ReaderStats {
	trouble := r.s.trouble()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Unread = r.in.messages
	s.Unacked = int(r.ledger.tail - r.ledger.head)
	s.Connected, s.Subscribed = r.link != nil, r.link != nil && r.granted
	if !s.Connected && trouble != nil {
		s.Trouble = trouble.Error()
	}
	return s
}

// Close ends the session with the broker, which keeps it unless it is a clean
// one, and waits for all goroutines. Read then fails with ErrClosed.
func (r *Reader) Close() error {
	r.mu.Lock()
	first := !r.ended
	r.ended = true
	r.mu.Unlock()
	if first {
		close(r.closed)
	}
	r.s.close()
	return nil
}
