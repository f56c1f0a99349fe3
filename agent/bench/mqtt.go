package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	mqttBar     = 1.8
	roundTime   = 1200 * time.Millisecond // of one side
	leastRate   = 1000                    // messages a second, where the broker is slow
	limitRounds = 3
)

// reader is a process that reads what is published for it.
type reader struct {
	part  part
	child *child
	last  report

	ns, mallocs     []float64 // by round, a message
	published, lost int64
	bad             int64
}

// pipes are readers of one broker, and its publishers.
type pipes struct {
	broker  *testBroker
	publish *child
	readers []*reader
	limit   float64 // messages a second through the broker to a reader that only acknowledges
}

// openPipes starts a broker and a process for each part. The first reader is a
// bare client.
func openPipes(ctx context.Context, parts ...part) (p *pipes, err error) {
	p = &pipes{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.broker, err = startBroker(ctx); err != nil {
		return p, err
	}
	if p.publish, err = startChild(ctx, part{Role: "publish", Broker: p.broker.addr}); err != nil {
		return p, err
	}
	for i, part := range parts {
		part.Broker, part.Topic = p.broker.addr, fmt.Sprintf("bench/%d", i)
		r := &reader{part: part}
		if r.child, err = startChild(ctx, part); err != nil {
			return p, err
		}
		p.readers = append(p.readers, r)
	}
	return p, nil
}

func (p *pipes) close() (err error) {
	for _, r := range p.readers {
		err = errors.Join(err, r.child.close())
	}
	if p.publish != nil {
		err = errors.Join(err, p.publish.close())
	}
	if p.broker != nil {
		err = errors.Join(err, p.broker.close())
	}
	return err
}

// pass publishes to a reader and waits until it has all.
func (p *pipes) pass(r *reader, o publishing, counts bool) (took time.Duration, n int64, err error) {
	before, err := r.child.tell(order{Until: r.last.Count})
	if err != nil {
		return 0, 0, err
	}
	o.Topic = r.part.Topic
	began := time.Now()
	sent, err := p.publish.tell(order{Publish: &o})
	if err != nil {
		return 0, 0, err
	}
	n = sent.Count
	if r.last, err = r.child.tell(order{Until: before.Count + n}); err != nil {
		return 0, 0, err
	}
	r.published += n
	r.lost += before.Count + n - r.last.Count
	r.bad = r.last.Bad
	if counts {
		r.ns = append(r.ns, float64((r.last.CPU-before.CPU).Nanoseconds())/float64(n))
		r.mallocs = append(r.mallocs, float64(r.last.Mallocs-before.Mallocs)/float64(n))
	}
	return time.Since(began), n, nil
}

// run measures the broker's limit, and then the readers in turn at half of it.
func (p *pipes) run(ctx context.Context, o Options, id string, rounds int) error {
	round := time.Duration(o.scaled(int(roundTime), int(10*time.Millisecond)))
	var limits []float64
	for i := range limitRounds {
		o.progress("%s: the broker's limit, %d of %d", id, i+1, limitRounds)
		took, n, err := p.pass(p.readers[0], publishing{For: round / 2}, false)
		if err != nil {
			return err
		}
		limits = append(limits, float64(n)/took.Seconds())
	}
	p.limit = median(limits)
	rate := max(leastRate, p.limit/2)
	all := publishing{Rate: rate, Messages: int64(rate * round.Seconds())}
	for i := range rounds + 1 {
		for _, r := range p.readers {
			if err := ctx.Err(); err != nil {
				return err
			}
			if i == 0 {
				o.progress("%s: %s, warming up", id, r.part.name())
			} else {
				o.progress("%s: %s, round %d of %d", id, r.part.name(), i, rounds)
			}
			if _, _, err := p.pass(r, all, i > 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p part) name() string {
	switch {
	case p.Role == "bare":
		return "a client that only acknowledges"
	case p.Dir == "":
		return "a job without a log"
	case p.Interval > 0:
		return fmt.Sprintf("a job with a log, and a checkpoint each %v", p.Interval)
	}
	return "a job with a log"
}

// runMQTT compares what a message costs that goes into the log and a window with
// one that is only acknowledged.
func runMQTT(ctx context.Context, o Options) (_ []Figure, err error) {
	dir, err := os.MkdirTemp("", "tidemark-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p, err := openPipes(ctx, part{Role: "bare"}, part{Role: "job", Dir: dir})
	if err != nil {
		return nil, fmt.Errorf("bench mqtt: %w", err)
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.run(ctx, o, "mqtt", o.rounds(6)); err != nil {
		return nil, fmt.Errorf("bench mqtt: %w", err)
	}
	bare, job := p.readers[0], p.readers[1]
	f := ratio("mqtt", median(job.ns), median(bare.ns), "ns/row", mqttBar)
	allocs := median(job.mallocs)
	f.Allocs = &allocs
	f.Note = fmt.Sprintf("%s; %.0f messages/s, half of its limit; %d of %d messages lost; the bare client allocates %.1f times a message",
		p.broker.kind, max(leastRate, p.limit/2), job.lost, job.published, median(bare.mallocs))
	if job.bad > 0 {
		f.Note += fmt.Sprintf(", %d late or rejected", job.bad)
	}
	f.OK = f.OK && job.lost == 0 && job.bad == 0
	return []Figure{f}, nil
}

// runDurability says what the log and checkpoints cost, as rows for each second
// of processor time.
func runDurability(ctx context.Context, o Options) (_ []Figure, err error) {
	dir, err := os.MkdirTemp("", "tidemark-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	folder := func(name string) string { return filepath.Join(dir, name) }
	ids := []string{"durability/off", "durability/10s", "durability/1s"}
	p, err := openPipes(ctx, part{Role: "bare"}, part{Role: "job"},
		part{Role: "job", Dir: folder("10s"), Interval: 10 * time.Second}, part{Role: "job", Dir: folder("1s"), Interval: time.Second})
	if err != nil {
		return nil, fmt.Errorf("bench durability: %w", err)
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.run(ctx, o, "durability", o.rounds(3)); err != nil {
		return nil, fmt.Errorf("bench durability: %w", err)
	}
	var figures []Figure
	limit := 1e9 / median(p.readers[0].ns)
	for i, r := range p.readers[1:] {
		figures = append(figures, Figure{
			ID: ids[i], Value: 1e9 / median(r.ns), Limit: &limit, Unit: "rows/s", Better: "higher", OK: r.lost == 0,
			Note: fmt.Sprintf("%s: for each second of processor time; %d of %d messages lost; %s", r.part.name(), r.lost, r.published, p.broker.kind),
		})
	}
	return figures, nil
}
