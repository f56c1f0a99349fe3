package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

const (
	replicationBar         = 3       // % of the state
	replicationKeys        = 100_000 // 8.6 MB of parts
	replicationCheckpoints = 50
	replicationTime        = 5 * time.Minute // on a machine that is busy
)

// replicationJob keeps a row of state of each key, like migrationJob; one key in a
// hundred changes each second, which is how often checkpoints come.
const replicationJob = `name: bench-replication
checkpoint: {interval: 1s}
replicate_to: [there]
sources:
  fill: {generate: {rate: 0, rows: %[1]d, seed: 1}, event_time: ts, watermark: {bounded: 1s}}
  live: {generate: {rate: %[2]d, seed: 2}, event_time: ts, watermark: {bounded: 1s}}
steps:
  - {id: filling, from: fill, select: {k: seq, seq: seq, value: value}}
  - {id: living, from: live, select: {k: "seq * 7919 %% %[1]d", seq: seq, value: value}}
  - {id: both, union: [filling, living]}
  - id: sums
    from: both
    key_by: [k]
    select: {seq: max(seq), n: count(*), s: sum(value), a: avg(value), lo: min(value), hi: max(value), f: first(value), d: stddev(value)}
sinks:
  - {id: out, from: sums, blackhole: {}}
`

// runReplication has another site keep the checkpoints of a job.
func runReplication(ctx context.Context, o Options) ([]Figure, error) {
	var v, dirty []float64
	note := ""
	rounds := o.rounds(1)
	for i := range rounds {
		r, err := replicationRound(ctx, o, fmt.Sprintf("replication: %d of %d", i+1, rounds))
		if err != nil {
			return nil, fmt.Errorf("bench replication: %w", err)
		}
		v, dirty = append(v, r.cost()), append(dirty, 100*r.dirtied())
		note = r.String()
	}
	changed := median(dirty)
	f := absolute("replication", median(v), &changed, "%", replicationBar)
	f.Note = note
	return []Figure{f}, nil
}

// replicated is what a round saw, from one checkpoint that the other site had to another.
type replicated struct {
	keys        int
	state       float64 // bytes of the parts, when they are the fewest
	first, last uint64  // checkpoints
	rows        int64   // that came meanwhile, each of another key
	sent        float64 // bytes of UDP payload to the other site, whatever for
	merges      int
}

// checkpoints is how many there were.
func (r *replicated) checkpoints() float64 { return float64(r.last - r.first) }

// dirtied is which part of the keys changes between two checkpoints.
func (r *replicated) dirtied() float64 { return float64(r.rows) / r.checkpoints() / float64(r.keys) }

// cost is how much of the state is sent for a checkpoint before which one key in a
// hundred has changed, in per cent. On a busy machine more change.
func (r *replicated) cost() float64 {
	return r.sent / r.checkpoints() / r.state / r.dirtied()
}

// String says how it went.
func (r *replicated) String() string {
	return fmt.Sprintf("%.0f checkpoints of %.1f MB, %.0f keys changed before each and %.1f kB were sent for it, all that was sent to the other site included; parts were merged %d times",
		r.checkpoints(), r.state/mega, r.dirtied()*float64(r.keys), r.sent/r.checkpoints()/1e3, r.merges)
}

func replicationRound(ctx context.Context, o Options, what string) (r *replicated, err error) {
	o.progress("%s: two sites", what)
	here, err := openSite(ctx, agentPart{Slots: 4})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, here.close()) }()
	there, err := here.besides(ctx, "there", agentPart{Slots: 4})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, there.close()) }()
	r = &replicated{keys: o.scaled(replicationKeys, 1000)}
	job, err := here.running(ctx, fmt.Sprintf(replicationJob, r.keys, r.keys/100))
	if err != nil {
		return nil, err
	}
	o.progress("%s: %d keys of state", what, r.keys)
	_, snap, err := here.filled(ctx, job, "sums", r.keys)
	if err != nil {
		return nil, err
	}
	r.state = float64(snap.Bytes)
	if r.first, r.rows, r.sent, err = here.replicated(ctx, job, numberOf(snap.ID), func(*api.JobDetail) error { return nil }); err != nil {
		return nil, err
	}
	o.progress("%s: checkpoints of one key in a hundred", what)
	rows, sent := r.rows, r.sent
	look := r.look(ctx, here, job)
	if r.last, r.rows, r.sent, err = here.replicated(ctx, job, r.first+uint64(o.scaled(replicationCheckpoints, 3)), look); err != nil {
		return nil, err
	}
	r.rows, r.sent = r.rows-rows, r.sent-sent
	return r, nil
}

// look looks at a job's newest checkpoint, how many parts it has.
func (r *replicated) look(ctx context.Context, s *testSite, job string) func(*api.JobDetail) error {
	name, parts := "", 0
	return func(d *api.JobDetail) error {
		if d.Checkpoint == name {
			return nil
		}
		snap, err := s.client.Savepoint(ctx, job+"/"+d.Checkpoint)
		if err != nil {
			return nil //nolint:nilerr // a newer one has taken its place
		}
		name = d.Checkpoint
		r.state = min(r.state, float64(snap.Bytes))
		for _, op := range snap.Operators {
			for _, st := range op.States {
				if op.ID != "sums" || !st.Keyed {
					continue
				}
				if st.Parts < parts {
					r.merges++
				}
				parts = st.Parts
			}
		}
		return nil
	}
}

// replicated waits until the other site has a job's checkpoint of a number, or one
// after it, and says which, how many rows have come by then, and what the first
// agent has sent.
func (s *testSite) replicated(ctx context.Context, job string, number uint64, look func(*api.JobDetail) error) (has uint64, rows int64, sent float64, err error) {
	err = awaitFor(ctx, replicationTime, func() (bool, error) {
		d, err := s.client.Job(ctx, job)
		if err != nil {
			return false, err
		}
		if d.Status == statusFailed || d.Attempt > 1 {
			return false, fmt.Errorf("job %s is %s: %s", d.Name, d.Status, d.Why)
		}
		if err := look(&d); err != nil || len(d.Replicas) == 0 || numberOf(d.Replicas[0].Snapshot) < number {
			return false, err
		}
		has, rows = numberOf(d.Replicas[0].Snapshot), d.Totals.In
		return true, nil
	})
	if err == nil {
		sent, err = s.agents[0].sent(ctx)
	}
	return has, rows, sent, err
}

// numberOf is the last number in a checkpoint's name; 0: it has none.
func numberOf(name string) uint64 {
	n, _ := strconv.ParseUint(name[strings.LastIndexByte(name, '-')+1:], 10, 64)
	return n
}
