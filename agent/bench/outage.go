package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// arrivals are the rows of a job that has its output on a broker, as a
// subscriber sees them: each has a number in seq, one more than the one before.
type arrivals struct {
	client paho.Client

	mu    sync.Mutex // guards what follows
	first bool       // the first has come
	last  time.Time  // a new one came last
	high  int64      // the greatest seq
	gap   time.Duration
	again int64          // rows that had come before
	seen  map[int64]bool // not nil: a row is new that never came, in whatever order they come
}

func subscribe(broker, topic string) (*arrivals, error) {
	c, err := connectMQTT(broker, "bench-arrivals")
	if err != nil {
		return nil, err
	}
	a := &arrivals{client: c, high: -1}
	return a, settle(c.Subscribe(topic, 0, a.receive))
}

// receive looks at new rows only: those that a restarted job puts out again are
// no progress.
func (a *arrivals) receive(_ paho.Client, m paho.Message) {
	now := time.Now()
	seq, ok := number(m.Payload(), `"seq":`)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil && seq <= a.high || a.seen[seq] {
		a.again++
		return
	}
	if a.seen != nil {
		a.seen[seq] = true
	}
	if gap := now.Sub(a.last); a.first && gap > a.gap {
		a.gap = gap
	}
	a.first, a.last, a.high = true, now, max(a.high, seq)
}

// gaps forgets the longest gap and returns it: so much time was there between
// two new rows.
func (a *arrivals) gaps() (longest time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	longest, a.gap = a.gap, 0
	return longest
}

// since tells whether a new row has come after a time.
func (a *arrivals) since(at time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last.After(at)
}

// missing is how many of so many have not come.
func (a *arrivals) missing(sent int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return sent - len(a.seen)
}

func (a *arrivals) repeated() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.again
}

func pauseFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	recoveryBar   = 5 // s
	recoveryKeys  = 1_000_000
	recoveryState = 100 // bytes of state a key: the key and the twelve numbers below
	recoveryRate  = 1000
)

// recoveryJob keeps a row of state of each key: its number and what has been
// counted of it. A bounded source of one row a key fills it, as fast as it goes;
// the other one's rows go through it and out.
const recoveryJob = `name: bench-recovery
checkpoint: {interval: 1s}
sources:
  fill: {generate: {rate: 0, rows: %[1]d, seed: 1}, event_time: ts, watermark: {bounded: 1s}, constraints: {labels: {part: front}}}
  live: {generate: {rate: %[2]d, keys: 1000, seed: 2}, event_time: ts, watermark: {bounded: 1s}, constraints: {labels: {part: front}}}
steps:
  - {id: filling, from: fill, select: {k: seq, seq: "seq * 0 - 1", value: value}, constraints: {labels: {part: front}}}
  - {id: living, from: live, select: {k: "seq * 7919 %% %[1]d", seq: seq, value: value}, constraints: {labels: {part: front}}}
  - {id: both, union: [filling, living], constraints: {labels: {part: front}}}
  - id: sums
    from: both
    key_by: [k]
    select: {seq: max(seq), n: count(*), s: sum(value), a: avg(value), lo: min(value), hi: max(value), f: first(value), d: stddev(value)}
    slot_group: state
    constraints: {labels: {part: state}}
  - {id: fresh, from: sums, where: seq >= 0, slot_group: state, constraints: {labels: {part: state}}}
  - {id: short, from: fresh, select: {seq: seq, n: n}, slot_group: state, constraints: {labels: {part: state}}}
sinks:
  - {id: out, from: short, mqtt: {broker: "%[3]s", topic: bench/out, qos: 0}, constraints: {labels: {part: front}}}
`

// runRecovery kills the agent with the state.
func runRecovery(ctx context.Context, o Options) (_ []Figure, err error) {
	var r recovered
	rounds := o.rounds(1)
	for i := range rounds {
		if err := r.round(ctx, o, fmt.Sprintf("recovery: %d of %d", i+1, rounds)); err != nil {
			return nil, fmt.Errorf("bench recovery: %w", err)
		}
	}
	limit := median(r.known)
	f := absolute("recovery", median(r.gap), &limit, "s", recoveryBar)
	f.Note = fmt.Sprintf("%.0f MB of parts in the newest checkpoint, %.0f rows of state; %.1f s until the job was restored and ran; %d rows came a second time, at the %d/s of the source; %s",
		median(r.bytes)/mega, median(r.rows), median(r.running), r.again, recoveryRate, r.kind)
	return []Figure{f}, nil
}

// recovered is by round: s, s, s, bytes, rows.
type recovered struct {
	gap, known, running, bytes, rows []float64
	again                            int64
	kind                             string
}

func (r *recovered) round(ctx context.Context, o Options, what string) (err error) {
	b, err := startBroker(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	r.kind = b.kind
	o.progress("%s: a site of three", what)
	state := map[string]string{"part": "state"}
	s, err := openSite(ctx, agentPart{Slots: 2, Labels: map[string]string{"part": "front"}}, agentPart{Slots: 1, Labels: state}, agentPart{Slots: 1, Labels: state})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	rows, err := subscribe(b.addr, "bench/out")
	if err != nil {
		return err
	}
	defer rows.client.Disconnect(0)
	keys := o.scaled(recoveryKeys, 1000)
	job, err := s.running(ctx, fmt.Sprintf(recoveryJob, keys, recoveryRate, "mqtt://"+b.addr))
	if err != nil {
		return err
	}
	o.progress("%s: %d keys of state", what, keys)
	victim, _, err := s.filled(ctx, job, "sums", keys)
	if err != nil {
		return err
	}
	// What filled it is no part of a job's days: the newest checkpoint is a small one.
	snap, err := s.later(ctx, job)
	if err != nil {
		return err
	}
	r.rows = append(r.rows, float64(keys))
	r.bytes = append(r.bytes, float64(snap.Bytes))
	o.progress("%s: %s is killed", what, victim.name)
	return r.outage(ctx, s, job, victim, rows)
}

// filled waits until a checkpoint has a row of state for each key, and returns it
// and the agent that has the state.
func (s *testSite) filled(ctx context.Context, job, operator string, keys int) (victim *agentProcess, snap api.Snapshot, err error) {
	err = await(ctx, func() (bool, error) {
		d, err := s.client.Job(ctx, job)
		if err != nil {
			return false, err
		}
		if d.Status == statusFailed || d.Attempt > 1 {
			return false, fmt.Errorf("job %s is %s: %s", d.Name, d.Status, d.Why)
		}
		if d.Checkpoint == "" {
			return false, nil
		}
		for _, t := range d.Subtasks {
			if strings.HasPrefix(t.Subtask, operator) {
				victim = s.agent(t.Agent)
			}
		}
		if snap, err = s.client.Savepoint(ctx, job+"/"+d.Checkpoint); err != nil {
			return false, nil //nolint:nilerr // a newer one has taken its place
		}
		for _, op := range snap.Operators {
			for _, st := range op.States {
				if op.ID == operator && st.Rows >= int64(keys) {
					return victim != nil, nil
				}
			}
		}
		return false, nil
	})
	return victim, snap, err
}

// newer waits for a job's newest checkpoint to be another than that with a name.
func (s *testSite) newer(ctx context.Context, job, than string) (name string, snap api.Snapshot, err error) {
	err = await(ctx, func() (bool, error) {
		d, err := s.client.Job(ctx, job)
		if err != nil || d.Checkpoint == "" || d.Checkpoint == than {
			return false, err
		}
		name = d.Checkpoint
		snap, err = s.client.Savepoint(ctx, job+"/"+name)
		return err == nil, nil //nolint:nilerr // a newer one has taken its place
	})
	return name, snap, err
}

// outage kills an agent and waits for the first new row.
func (r *recovered) outage(ctx context.Context, s *testSite, job string, victim *agentProcess, rows *arrivals) error {
	rows.gaps()
	killed, err := victim.kill()
	if err != nil {
		return err
	}
	var known, running time.Time
	if err := await(ctx, func() (bool, error) {
		d, err := s.client.Job(ctx, job)
		if err != nil {
			return false, nil //nolint:nilerr // there is no leader for a moment
		}
		now := time.Now()
		if known.IsZero() && (d.Attempt > 1 || d.Status != statusRunning) {
			known = now
		}
		if running.IsZero() && d.Attempt > 1 && d.Status == statusRunning {
			running = now
		}
		return !running.IsZero() && rows.since(running), nil
	}); err != nil {
		return err
	}
	gap := rows.gaps()
	r.again += rows.repeated()
	r.gap = append(r.gap, gap.Seconds())
	r.running = append(r.running, running.Sub(killed).Seconds())
	r.known = append(r.known, known.Sub(killed).Seconds())
	return nil
}

const (
	leaderBar  = 200 // ms
	leaderRate = 1000
	leaderTime = 5 * time.Second // of each side
)

// leaderJob puts its rows out as they come.
const leaderJob = `name: bench-leader
checkpoint: {interval: 1s}
sources:
  live: {generate: {rate: %[1]d, keys: 1000}, event_time: ts, watermark: {bounded: 1s}}
steps:
  - {id: counts, from: live, key_by: [key], select: {seq: max(seq), n: count(*)}}
sinks:
  - {id: out, from: counts, mqtt: {broker: "%[2]s", topic: bench/out, qos: 0}}
`

// runLeader kills a leader that has none of the job.
func runLeader(ctx context.Context, o Options) (_ []Figure, err error) {
	var quiet, killed, elected []float64
	restarts := 0
	rounds := o.rounds(2)
	for i := range rounds {
		r, err := leaderRound(ctx, o, fmt.Sprintf("leader: %d of %d", i+1, rounds))
		if err != nil {
			return nil, fmt.Errorf("bench leader: %w", err)
		}
		quiet, killed, elected = append(quiet, r.quiet), append(killed, r.killed), append(elected, r.elected)
		restarts += r.restarts
	}
	limit := median(quiet)
	f := absolute("leader", median(killed)-limit, &limit, "ms", leaderBar)
	f.Note = fmt.Sprintf("longest gap between rows %.1f ms with the kill, %.1f ms in as long a time before; the next one leads after %.0f ms; %d tasks restarted", median(killed), limit, median(elected), restarts)
	f.OK = f.OK && restarts == 0
	return []Figure{f}, nil
}

// ledOut is ms of gaps, and of the time without a leader.
type ledOut struct {
	quiet, killed, elected float64
	restarts               int
}

func leaderRound(ctx context.Context, o Options, what string) (r ledOut, err error) {
	b, err := startBroker(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	o.progress("%s: a site of three", what)
	s, err := openSite(ctx, agentPart{}, agentPart{Slots: 1}, agentPart{Slots: 1})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	rows, err := subscribe(b.addr, "bench/out")
	if err != nil {
		return r, err
	}
	defer rows.client.Disconnect(0)
	job, err := s.running(ctx, fmt.Sprintf(leaderJob, leaderRate, "mqtt://"+b.addr))
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := await(ctx, func() (bool, error) { return rows.since(began), nil }); err != nil {
		return r, err
	}
	d := time.Duration(o.scaled(int(leaderTime/time.Millisecond), 100)) * time.Millisecond
	if err := pauseFor(ctx, d/5); err != nil { // the first rows are not the rule
		return r, err
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	o.progress("%s: rows flow", what)
	rows.gaps()
	if err := pauseFor(ctx, d); err != nil {
		return r, err
	}
	gap := rows.gaps()
	r.quiet = ms(gap)
	o.progress("%s: the leader is killed", what)
	other, err := api.NewClient("http://"+s.agents[1].http, "")
	if err != nil {
		return r, err
	}
	at, err := s.agents[0].kill()
	if err != nil {
		return r, err
	}
	if err := await(ctx, func() (bool, error) {
		i, err := other.Site(ctx, true)
		return err == nil && i.Leader != "" && i.Leader != s.agents[0].name, nil
	}); err != nil {
		return r, err
	}
	r.elected = ms(time.Since(at))
	if err := pauseFor(ctx, max(0, d-time.Since(at))); err != nil {
		return r, err
	}
	gap = rows.gaps()
	r.killed = max(ms(gap), ms(rows.idle()))
	k, err := other.Job(ctx, job)
	if err == nil && (k.Attempt != 1 || k.Status != statusRunning) {
		r.restarts = int(k.Attempt) - 1
	}
	return r, err
}

// idle is how long no new row has come.
func (a *arrivals) idle() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.last)
}
