package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

const (
	migrationBar  = 1         // s
	migrationKeys = 1_200_000 // 103 MB of parts
	migrationRate = 1000
	migrationTime = 2 * time.Minute // for a move, on a machine that is busy
)

// migrationJob keeps a row of state of each key, like recoveryJob; the rows that
// pass through come from a broker, whose session moves along.
const migrationJob = `name: bench-migration
checkpoint: {interval: 1s}
sources:
  fill: {generate: {rate: 0, rows: %[1]d, seed: 1}, event_time: ts, watermark: {bounded: 1s}}
  live: {mqtt: {broker: "%[2]s", topics: [bench/in], qos: 1}, format: json, fields: {seq: bigint, value: double}, event_time: ingestion}
steps:
  - {id: filling, from: fill, select: {k: seq, seq: "seq * 0 - 1", value: value}}
  - {id: living, from: live, select: {k: "seq * 7919 %% %[1]d", seq: seq, value: value}}
  - {id: both, union: [filling, living]}
  - id: sums
    from: both
    key_by: [k]
    select: {seq: max(seq), n: count(*), s: sum(value), a: avg(value), lo: min(value), hi: max(value), f: first(value), d: stddev(value)}
    slot_group: state
  - {id: fresh, from: sums, where: seq >= 0, slot_group: state}
  - {id: short, from: fresh, select: {seq: seq, n: n}, slot_group: state}
sinks:
  - {id: out, from: short, mqtt: {broker: "%[2]s", topic: bench/out, qos: 0}}
`

// runMigration moves a job to another site and back.
func runMigration(ctx context.Context, o Options) (_ []Figure, err error) {
	var m migrated
	rounds := o.rounds(1)
	for i := range rounds {
		if err := m.round(ctx, o, fmt.Sprintf("migration: %d of %d", i+1, rounds)); err != nil {
			return nil, fmt.Errorf("bench migration: %w", err)
		}
	}
	return m.figures(), nil
}

// migrated is what the rounds measured.
type migrated struct {
	state, keys []float64 // by round: bytes of parts, rows
	there, back []moved   // by round
	missing     int       // rows that never came out
	again       int64     // rows that came out a second time
	kind        string
}

// moved is one move.
type moved struct {
	source *agentProcess
	began  time.Time
	pause  time.Duration            // from the last row before to the first one after, as a subscriber saw it
	took   time.Duration            // from the wish until rows came out of the other site
	phases map[string]time.Duration // as its source says
	rounds []copied
	before float64 // bytes that the source's agent had sent
	copied float64 // and when the last round was done
	sent   float64 // and has now
}

// copied is a round of copying.
type copied struct {
	parts float64 // bytes that were not there
	sent  float64 // bytes of the link since the round before
	took  time.Duration
}

func (m *migrated) round(ctx context.Context, o Options, what string) (err error) {
	b, err := startBroker(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	m.kind = b.kind
	o.progress("%s: two sites", what)
	here, err := openSite(ctx, agentPart{Slots: 4})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, here.close()) }()
	there, err := here.besides(ctx, "there", agentPart{Slots: 4})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, there.close()) }()
	rows, err := subscribe(b.addr, "bench/out")
	if err != nil {
		return err
	}
	defer rows.client.Disconnect(0)
	rows.seen = make(map[int64]bool)
	keys := o.scaled(migrationKeys, 1000)
	job, err := here.running(ctx, fmt.Sprintf(migrationJob, keys, "mqtt://"+b.addr))
	if err != nil {
		return err
	}
	o.progress("%s: %d keys of state", what, keys)
	if _, _, err := here.filled(ctx, job, "sums", keys); err != nil {
		return err
	}
	live, err := startNumbers(b.addr)
	if err != nil {
		return err
	}
	defer func() { _, _ = live.stop() }()
	snap, err := here.later(ctx, job)
	if err != nil {
		return err
	}
	m.keys, m.state = append(m.keys, float64(keys)), append(m.state, float64(snap.Bytes))
	o.progress("%s: there", what)
	if err := m.move(ctx, &m.there, here, there, job, rows); err != nil {
		return err
	}
	if _, err := there.later(ctx, job); err != nil { // it works there for a while
		return err
	}
	o.progress("%s: back", what)
	if err := m.move(ctx, &m.back, there, here, job, rows); err != nil {
		return err
	}
	sent, err := live.stop()
	if err != nil {
		return err
	}
	err = await(ctx, func() (bool, error) { return rows.missing(sent) == 0, nil })
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // the figure says so
	}
	m.missing, m.again = m.missing+rows.missing(sent), m.again+rows.repeated()
	return err
}

// later waits for a few checkpoints, until what is new is no part of the newest.
func (s *testSite) later(ctx context.Context, job string) (snap api.Snapshot, err error) {
	name := ""
	for range 3 {
		if name, snap, err = s.newer(ctx, job, name); err != nil {
			return snap, err
		}
	}
	return snap, nil
}

// move moves the job, and adds what was measured.
func (m *migrated) move(ctx context.Context, all *[]moved, from, to *testSite, job string, rows *arrivals) error {
	site, err := to.client.Site(ctx, false)
	if err != nil {
		return err
	}
	now := moved{source: from.agents[0], phases: make(map[string]time.Duration)}
	if now.before, err = now.source.sent(ctx); err != nil {
		return err
	}
	rows.gaps()
	now.began, now.copied = time.Now(), now.before
	is, err := from.client.Migrate(ctx, job, api.Migration{To: site.Site, Request: rand.Text()})
	if err != nil {
		return err
	}
	var decided time.Time
	err = awaitFor(ctx, migrationTime, func() (bool, error) {
		if seen, err := from.client.Move(ctx, is.ID); err == nil { // else its leader is busy
			is = seen
		}
		switch {
		case !is.Over:
		case is.Phase != "handed-over":
			return false, fmt.Errorf("the move is %s: %s", is.Phase, is.Why)
		case decided.IsZero():
			decided = time.Now()
		}
		return is.Over && rows.since(decided), now.saw(ctx, &is)
	})
	if err != nil {
		return fmt.Errorf("%w; the move is %s", err, is.Phase)
	}
	now.pause, now.took = rows.gaps(), time.Since(now.began)
	*all = append(*all, now)
	return nil
}

// saw takes in what there is to say of a move.
func (m *moved) saw(ctx context.Context, is *api.Move) error {
	for i := range is.Steps {
		s := &is.Steps[i]
		took := time.Duration(s.Took) * time.Microsecond
		if s.Ended != "" {
			m.phases[s.Ended] = took
		}
		if s.Round <= len(m.rounds) {
			continue
		}
		if err := m.measure(ctx); err != nil {
			return err
		}
		m.rounds = append(m.rounds, copied{parts: float64(s.Bytes), sent: m.sent - m.copied, took: took})
		m.copied = m.sent
	}
	return m.measure(ctx)
}

// measure asks what the source's agent has sent.
func (m *moved) measure(ctx context.Context) (err error) {
	m.sent, err = m.source.sent(ctx)
	return err
}

// figures are the pause, and what was sent there and back beside the state.
func (m *migrated) figures() []Figure {
	of := func(all []moved, f func(*moved) float64) float64 {
		var v []float64
		for i := range all {
			v = append(v, f(&all[i]))
		}
		return median(v)
	}
	pause := func(v *moved) float64 { return v.pause.Seconds() }
	last := of(m.there, func(v *moved) float64 { return v.phases["offered"].Seconds() })
	bytes := func(v *moved) float64 { return (v.sent - v.before) / mega }
	state := median(m.state) / mega
	first := func(all []moved) string { return all[0].String() }
	f := absolute("migration", of(m.there, pause), &last, "s", migrationBar)
	f.OK = f.OK && m.missing == 0
	f.Note = fmt.Sprintf("%s; the limit is from the offer to the decision; back %.2f s; %d rows missing, %d came again; %s", first(m.there), of(m.back, pause), m.missing, m.again, m.kind)
	sent := func(id string, all []moved, what string) Figure {
		return Figure{ID: id, Value: of(all, bytes), Limit: &state, Unit: "MB", Better: "lower", OK: true, Note: what + first(all)}
	}
	return []Figure{f,
		sent("migration/sent", m.there, "bytes on the link beside those of state, once; "),
		sent("migration/back", m.back, "the same on the way back; ")}
}

// String says how it went.
func (m *moved) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.1f s in all:", m.took.Seconds())
	for i, r := range m.rounds {
		fmt.Fprintf(&b, " round %d %.1f MB of parts with %.1f MB in %.1f s,", i+1, r.parts/mega, r.sent/mega, r.took.Seconds())
	}
	fmt.Fprintf(&b, " halting %.2f s, offered %.2f s", m.phases["halting"].Seconds(), m.phases["offered"].Seconds())
	return b.String()
}

// numbers publishes numbered messages, until it is stopped.
type numbers struct {
	client paho.Client
	cancel context.CancelFunc
	ended  chan struct{} // closed with what follows
	sent   int
	err    error
}

func startNumbers(broker string) (*numbers, error) {
	c, err := connectMQTT(broker, "bench-numbers")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &numbers{client: c, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(n.ended)
		var last paho.Token
		for began := time.Now(); ctx.Err() == nil && n.err == nil; _ = pauseFor(ctx, 2*time.Millisecond) {
			for due := int(time.Since(began).Seconds() * migrationRate); n.sent < due; n.sent++ {
				last = c.Publish("bench/in", 1, false, fmt.Appendf(nil, `{"seq":%d,"value":%d.5}`, n.sent, n.sent%100))
			}
		}
		if last != nil {
			n.err = settle(last)
		}
		c.Disconnect(0)
	}()
	return n, nil
}

// stop returns how many there were; it may be called again.
func (n *numbers) stop() (int, error) {
	n.cancel()
	<-n.ended
	return n.sent, n.err
}
