package feed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
	"github.com/tidemark-mesh/tidemark/store"
)

// Invariant 3: at the moment in which the broker hears PUBACK or PUBREC the
// message is on disk, and acknowledgements come in order.
func TestAcknowledgedIsOnDisk(t *testing.T) {
	const n, round = 200, 20
	for qos := byte(1); qos <= 2; qos++ {
		t.Run(fmt.Sprint("qos ", qos), func(t *testing.T) {
			p := newPeer(t)
			dir := t.TempDir()
			c := config(p.url(), int(qos))
			c.Lanes = 2
			h := &halting{lane: -1, on: make(chan struct{})}
			open(t, feed.Options{Dir: dir, Session: func(c feed.Config, s feed.SessionOptions) (sensors.Reader, error) {
				var err error
				h.Reader, err = quick(c, s)
				return h, err
			}}, c)
			t.Cleanup(func() { close(h.on) }) // before the feed is closed
			conn := p.session(t, qos, false)
			kind := byte(packets.Puback)
			if qos == 2 {
				kind = packets.Pubrec
			}
			for i := range uint16(n) {
				if i%round == 0 {
					h.next.Store(true)
					for k := i; k < i+round; k++ {
						conn.send(publish(k+1, qos, false, fmt.Sprint("t/", k%5), fmt.Sprint(k)))
					}
				}
				if conn.acks(kind, i+1); i%round != 0 {
					continue
				}
				if !slices.Contains(onDisk(t, dir), fmt.Sprint(i)) {
					t.Fatalf("message %d was acknowledged and is not on disk", i)
				}
				h.on <- struct{}{}
			}
		})
	}
}

// halting is a session whose pump stands still when it has acknowledged the next message,
// if it is told to: so the folder can be copied as it is then.
type halting struct {
	*mqtt.Reader
	next atomic.Bool
	on   chan struct{} // it goes on
	lane int           // of the first message that is not acknowledged; -1: all are
}

func (h *halting) Read(ctx context.Context, r *sensors.Records, max int) error {
	err := h.Reader.Read(ctx, r, max)
	if h.lane < 0 && err == nil && r.Len() > 0 {
		h.lane = r.Split
	}
	return err
}

func (h *halting) Ack(p sensors.Position) {
	halts := false
	if p.Split == h.lane {
		h.lane, halts = -1, h.next.Swap(false)
	}
	if h.Reader.Ack(p); halts {
		<-h.on
	}
}

// The time between two processes is nobody's silence: the log says so before
// anything else.
func TestAwayIsDeaf(t *testing.T) {
	dir := t.TempDir()
	clock := newClock(1_000_000)
	p := newPeer(t)
	c := config(p.url(), 1)
	c.Lanes = 2
	f, ev := open(t, feed.Options{Dir: dir, Clock: clock}, c)
	conn := p.session(t, 1, false)
	ev.wait(t, session(mqtt.Subscribed))
	clock.advance(dataflow.Second)
	for i := range uint16(4) { // to both lanes
		conn.send(publish(10+i, 1, false, fmt.Sprint("t/", i), "early"))
		conn.acks(packets.Puback, 10+i)
	}
	conn.send(publish(1, 1, false, "t/a", "before"))
	conn.acks(packets.Puback, 1)
	conn.pongs()
	wants(t, logged(t, f, "before")[4:], "before")
	dir = image(t, dir)
	clock.advance(3600 * dataflow.Second)
	ev = newEvents()
	feeds := feed.New(feed.Options{Dir: dir, Clock: clock, Events: ev.add})
	p2 := newPeer(t)
	c.Broker = p2.url()
	f2, err := feeds.Open("f", c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f2.Close() }()
	if e := ev.wait(t, kind(feed.Opened)); e.Away != 3600*dataflow.Second {
		t.Errorf("away for %v", e.Away)
	}
	conn = p2.session(t, 1, true)
	for i, topic := range []string{"t/0", "t/1", "t/2", "t/3"} { // to both lanes
		conn.send(publish(uint16(2+i), 1, false, topic, fmt.Sprint("after ", i)))
	}
	conn.acks(packets.Puback, 2, 3, 4, 5)
	conn.pongs()
	r, err := f2.Reader("test", []int{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	state := map[string]string{}
	for _, e := range read(t, r, "after 3") {
		switch {
		case e.deaf && e.clock == 2_000_000:
			state[e.lane] = "deaf"
		case e.deaf:
			if state[e.lane] != "" { // the first process was deaf before it was connected
				t.Errorf("%s: deaf from %d on", e.lane, e.clock)
			}
		case e.clock > 2_000_000 && state[e.lane] == "deaf":
			if !e.tick || e.clock != 3602_000_000 {
				t.Errorf("%s: %+v after it was deaf", e.lane, e)
			}
			state[e.lane] = "hearing"
		case strings.HasPrefix(e.text, "after") && state[e.lane] != "hearing":
			t.Errorf("%s: %q while it is %q", e.lane, e.text, state[e.lane])
		}
	}
}

// A log at its cap takes nothing and acknowledges nothing; when a pin goes it
// has room, and all is there once.
func TestFull(t *testing.T) {
	p := newPeer(t)
	c := config(p.url(), 1)
	c.Keep = job.Retention{Cap: 4 << 20}
	f, ev := open(t, feed.Options{Dir: t.TempDir()}, c)
	if err := f.Pin("job", map[int]int64{0: 0}); err != nil {
		t.Fatal(err)
	}
	r, err := f.Reader("job", []int{0})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	conn := p.session(t, 1, false)
	const window = 20
	payload := strings.Repeat("x", 20_000)
	full := make(chan feed.Event, 1)
	go func() { full <- ev.wait(t, kind(feed.Full)) }()
	sent, acked := 0, 0
	send := func() {
		sent++
		conn.send(publish(uint16(sent), 1, false, "t/a", fmt.Sprintf("%d %s", sent, payload)))
	}
	answers := make(chan uint16, 1000)
	go func() { // what the broker hears
		for {
			p, err := packets.ReadPacket(conn.c)
			if err != nil {
				close(answers)
				return
			}
			if a, ok := p.(*packets.PubackPacket); ok {
				answers <- a.MessageID
			}
		}
	}()
	_ = conn.c.SetReadDeadline(time.Time{})
	next := func() {
		id, ok := <-answers
		if acked++; !ok || int(id) != acked {
			t.Fatalf("PUBACK of %d, want %d", id, acked)
		}
	}
	for range window {
		send()
	}
	for stuck := false; !stuck; {
		select {
		case id, ok := <-answers:
			if acked++; !ok || int(id) != acked {
				t.Fatalf("PUBACK of %d, want %d", id, acked)
			}
			send()
		case e := <-full:
			if !errors.Is(e.Err, store.ErrFull) || !f.Stats().Full {
				t.Fatalf("%v", e)
			}
			stuck = true
		}
	}
	// The job reads on, and its checkpoint lets the log go.
	var out sensors.Records
	got := 0
	readTo := func(n int) {
		t.Helper()
		for got < n {
			if err := r.Read(timeout(t), &out, 10); err != nil {
				t.Fatal(err)
			}
			for i := range out.Len() {
				got++
				if !strings.HasPrefix(string(out.Payload(i)), fmt.Sprint(got, " ")) {
					t.Fatalf("message %d begins with %.10q", got, out.Payload(i))
				}
			}
		}
	}
	readTo(acked)
	if err := errors.Join(f.Pin("job", map[int]int64{0: out.Next}), r.Seek(sensors.Position{})); err == nil {
		t.Fatal("a seek after the first read")
	}
	_ = r.Close()
	if r, err = f.Reader("job", []int{0}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if err := r.Seek(sensors.Position{Offset: out.Next}); err != nil {
		t.Fatal(err)
	}
	ev.wait(t, kind(feed.Room))
	for acked < sent {
		next()
	}
	readTo(sent)
	if s := f.Stats(); s.Full || s.Appended != int64(sent) || s.Session.Duplicates != 0 || s.Session.Connects != 1 || s.Lanes[0].First == 0 {
		t.Errorf("%+v", s)
	}
}

// Of QoS 0 what does not fit is shed and counted; the oldest stays.
func TestFullSheds(t *testing.T) {
	p := newPeer(t)
	c := config(p.url(), 0)
	hold := make(chan struct{})
	o := feed.Options{Dir: t.TempDir(), Session: func(c feed.Config, s feed.SessionOptions) (sensors.Reader, error) {
		r, err := mqtt.NewReader(mqtt.ReaderOptions{
			Connection: mqtt.Connection{Broker: c.Broker, ClientID: c.ClientID, Clock: s.Clock, Events: s.Events},
			Topics:     c.Topics, CleanSession: true, Recall: s.Recall, TickEvery: -1, InboxMessages: 100, Retained: mqtt.RetainedNever,
		})
		return &waiting{Reader: r, hold: hold}, err
	}}
	f, _ := open(t, o, c)
	conn := p.session(t, 0, false)
	for i := range 1000 {
		conn.send(publish(0, 0, false, "t/a", fmt.Sprint(i)))
	}
	last := publish(1, 1, false, "t/a", "unwanted") // acknowledged in its turn
	last.Retain = true
	conn.send(last)
	conn.acks(packets.Puback, 1)
	close(hold)
	got := logged(t, f, "99")
	for i, s := range got {
		if s != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, s)
		}
	}
	if s := f.Stats(); s.Session.Shed != 900 || s.Session.Received != 100 {
		t.Errorf("%+v", s)
	}
}

// waiting does not read a message before hold is closed.
type waiting struct {
	*mqtt.Reader
	hold chan struct{}
}

func (h *waiting) Read(ctx context.Context, r *sensors.Records, max int) error {
	select {
	case <-h.hold:
	case <-ctx.Done():
		return ctx.Err()
	}
	return h.Reader.Read(ctx, r, max)
}

// One feed, several jobs: each open gets the one that runs, which ends with the
// last of them.
func TestShared(t *testing.T) {
	p := newPeer(t)
	feeds := feed.New(feed.Options{Dir: t.TempDir()})
	c := config(p.url(), 1)
	c.Lanes = 4
	a, err := feeds.Open("f", c)
	if err != nil {
		t.Fatal(err)
	}
	conn := p.session(t, 1, false)
	<-a.Subscribed()
	b, err := feeds.OpenKeeping("f", nil, nil)
	if err != nil || a != b {
		t.Fatal(err)
	}
	for _, other := range []feed.Config{{Broker: p.url(), Topics: []string{"x"}, ClientID: "feed", QoS: 1, Lanes: 4}, {Broker: p.url(), Topics: c.Topics, ClientID: "feed", QoS: 1, Lanes: 3}} {
		if _, err := feeds.Open("f", other); err == nil || !strings.Contains(err.Error(), "runs with another config") {
			t.Errorf("%v", err)
		}
	}
	for i := range uint16(100) {
		conn.send(publish(i+1, 1, false, fmt.Sprint("t/", i%9), fmt.Sprint(i)))
		conn.acks(packets.Puback, i+1)
	}
	ra, _ := a.Reader("a/0", a.LanesOf(0, 2))
	rb, _ := b.Reader("b/0", b.LanesOf(0, 1))
	if s := a.Stats(); len(s.Readers) != 2 || s.Readers[1].Unread <= s.Readers[0].Unread || s.Readers[0].Unread == 0 || s.Appended != 100 || !s.Session.Connected {
		t.Errorf("%+v", s)
	}
	if names := []string{ra.SplitName(0), ra.SplitName(1)}; !slices.Equal(names, []string{"lane-0", "lane-2"}) {
		t.Errorf("%q", names)
	}
	var out sensors.Records
	for n := 0; n < 100; n += out.Len() {
		if err := rb.Read(timeout(t), &out, 7); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil || b.Stats().Session.Connects != 1 {
		t.Error(err)
	}
	select {
	case <-b.Done():
		t.Error("ended while a job reads it")
	default:
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	<-b.Done()
	if err := rb.Read(timeout(t), &out, 7); !errors.Is(err, feed.ErrClosed) {
		t.Errorf("a read after the end: %v", err)
	}
	if _, err := a.Reader("late", nil); !errors.Is(err, feed.ErrClosed) {
		t.Errorf("a reader after the end: %v", err)
	}
	_, _ = ra.Close(), rb.Close()
}

// Many at once open and close the same feed.
func TestSharedAtOnce(t *testing.T) {
	p := newPeer(t)
	feeds := feed.New(feed.Options{Dir: t.TempDir()})
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 10 {
				f, err := feeds.Open("f", config(p.url(), 1))
				if err != nil {
					t.Error(err)
					return
				}
				r, err := f.Reader("x", []int{0})
				if err == nil {
					err = r.Close()
				}
				if err := errors.Join(err, f.Close()); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
}

// A session that fails for good ends the feed, and says why to who reads; the
// next Open begins anew.
func TestSessionFails(t *testing.T) {
	why := errors.New("the reason")
	fail := make(chan struct{})
	n := 0
	ev := newEvents()
	feeds := feed.New(feed.Options{Dir: t.TempDir(), Events: ev.add, Session: func(c feed.Config, s feed.SessionOptions) (sensors.Reader, error) {
		if n++; n == 2 {
			return nil, why
		}
		return &broken{fail: fail, why: why}, nil
	}})
	c := config("mqtt://127.0.0.1:1", 1)
	f, err := feeds.Open("f", c)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Reader("job", []int{0})
	if err != nil {
		t.Fatal(err)
	}
	close(fail)
	var out sensors.Records
	if err := r.Read(timeout(t), &out, 1); !errors.Is(err, why) {
		t.Errorf("read: %v", err)
	}
	if e := ev.wait(t, kind(feed.Failed)); !errors.Is(e.Err, why) {
		t.Errorf("%v", e)
	}
	<-f.Done()
	if !errors.Is(f.Err(), why) {
		t.Error(f.Err())
	}
	if _, err := feeds.Open("f", c); !errors.Is(err, why) {
		t.Errorf("the second: %v", err)
	}
	fail = make(chan struct{})
	f3, err := feeds.Open("f", c)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), f3.Close(), r.Close()); err != nil {
		t.Error(err)
	}
}

type broken struct {
	fail chan struct{}
	why  error
}

func (b *broken) Splits() int { return 1 }
func (b *broken) Read(ctx context.Context, r *sensors.Records, _ int) error {
	r.Reset(0)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.fail:
		return b.why
	}
}
func (b *broken) Ack(sensors.Position)        {}
func (b *broken) Seek(sensors.Position) error { return nil }
func (b *broken) Close() error                { return nil }

// Time that passes while nobody reads is not written down; for a reader it is.
func TestTicksAreForReaders(t *testing.T) {
	p := newPeer(t)
	clock := newClock(1_000_000)
	f, _ := open(t, feed.Options{Dir: t.TempDir(), Clock: clock}, config(p.url(), 1))
	conn := p.session(t, 1, false)
	conn.send(publish(1, 1, false, "t/a", "a"))
	conn.acks(packets.Puback, 1)
	conn.pongs()
	for range 10 { // each wakes the pump, which finds nobody
		clock.waits(t)
		clock.advance(200 * dataflow.Millisecond)
	}
	clock.waits(t)
	next := f.Stats().Lanes[0].Next
	r, err := f.Reader("job", []int{0})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	clock.advance(200 * dataflow.Millisecond)
	all := read(t, r, "a")
	if n := all[len(all)-1].next; n != next {
		t.Errorf("the log has %d entries, %d up to the message", next, n)
	}
	var out sensors.Records
	if err := r.Read(timeout(t), &out, 1); err != nil || out.Len() != 0 || out.Deaf || out.Clock != 3_200_000 {
		t.Errorf("%v, %+v", err, out)
	}
}

// Time that passes on all lanes is made durable at once.
func TestTicksOfAllLanesAreOneCommit(t *testing.T) {
	const lanes, rounds = 16, 10
	p := newPeer(t)
	clock := newClock(1_000_000)
	c := config(p.url(), 1)
	c.Lanes = lanes
	f, _ := open(t, feed.Options{Dir: t.TempDir(), Clock: clock}, c)
	conn := p.session(t, 1, false)
	conn.pongs()
	var all []int
	for i := range lanes {
		all = append(all, i)
	}
	r, err := f.Reader("job", all)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var out sensors.Records
	told := func(until int64) {
		t.Helper()
		lanes := make(map[int]bool)
		for ctx := timeout(t); len(lanes) < len(all); {
			if err := r.Read(ctx, &out, 1); err != nil {
				t.Fatal(err)
			}
			if !out.Deaf && out.Clock >= until {
				lanes[out.Split] = true
			}
		}
	}
	told(0) // they hear
	clock.waits(t)
	before := f.Stats().Commits
	for range rounds {
		clock.advance(200 * dataflow.Millisecond)
		told(int64(clock.Now()))
		clock.waits(t) // all is durable
	}
	if n := f.Stats().Commits - before; n > rounds {
		t.Errorf("%d commits for %d ticks of %d lanes each", n, rounds, lanes)
	}
}

// The reader of a feed passes the suite of every source.
func TestReaderSuite(t *testing.T) {
	sensortest.Reader(t, sensortest.ReaderCase{
		Arrivals: true, Seeks: true,
		Open: func(t *testing.T) sensortest.Source {
			p := newPeer(t)
			f, _ := open(t, feed.Options{Dir: t.TempDir()}, config(p.url(), 1))
			conn := p.session(t, 1, false)
			reader := func(t *testing.T) sensors.Reader {
				r, err := f.Reader("suite", []int{0})
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			return sensortest.Source{Reader: reader(t), Reopen: reader, Feed: func(t *testing.T, payloads [][]byte) {
				for i, v := range payloads {
					conn.send(publish(uint16(i+1), 1, false, "t/a", string(v)))
					conn.acks(packets.Puback, uint16(i+1))
				}
			}}
		},
	})
}
