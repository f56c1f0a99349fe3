package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	engine "github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/file"
)

// feed is a job's source: it hands the batches of an input out, without copying
// them, once for each pass, and waits between passes.
type feed struct {
	in    *input
	pool  *batch.Pool
	next  int           // batch
	begin chan struct{} // a pass may begin
	over  chan struct{} // all of a pass is handed out, and the job asks for more
	told  bool          // over has been told
}

var _ sensors.BatchReader = (*feed)(nil)

// ReadBatch is sensors.BatchReader's.
func (f *feed) ReadBatch(ctx context.Context, _ int) (*batch.Batch, []int64, sensors.Position, error) {
	for f.next == len(f.in.batches) {
		if !f.told {
			f.told = true
			f.over <- struct{}{}
		}
		select {
		case <-f.begin:
			f.next, f.told = 0, false
		case <-ctx.Done():
			return nil, nil, sensors.Position{}, ctx.Err()
		}
	}
	b := f.pool.DeriveAll(f.in.batches[f.next])
	b.OwnMarks() // the source gives it its own
	f.next++
	return b, nil, sensors.Position{Offset: int64(f.next)}, nil
}

// Seek is sensors.BatchReader's; nothing is ever restored here.
func (f *feed) Seek(sensors.Position) error { return nil }

// Close is sensors.BatchReader's.
func (f *feed) Close() error { return nil }

// session is a job that runs from one pass to the next, so that what is measured
// is its work on rows and nothing of its start and end.
type session struct {
	feed *feed
	hole *file.Blackhole
	stop context.CancelFunc
	done chan struct{} // closed when the job has ended, with err
	err  error
}

// open starts the job over an input. out is where its rows go; nil: a black
// hole, which must have had some in the end.
func (j *job) open(in *input, out sensors.Writer) (*session, error) {
	s := &session{
		feed: &feed{in: in, next: len(in.batches), begin: make(chan struct{}), over: make(chan struct{}, 1)},
		done: make(chan struct{}),
	}
	if out == nil {
		s.hole = &file.Blackhole{}
		out = s.hole
	}
	plan, _, err := j.plan(in.schema, func(p *batch.Pool) sensors.BatchReader { s.feed.pool = p; return s.feed }, out)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	run := engine.New(plan, engine.Options{CommitInterval: time.Second, Now: time.Now})
	go func() {
		defer close(s.done)
		s.err = run.Run(ctx)
	}()
	return s, s.quiet()
}

// pass feeds the input once and returns when all of it has been worked off.
func (s *session) pass() error {
	select {
	case s.feed.begin <- struct{}{}:
	case <-s.done:
		return s.ended()
	}
	return s.quiet()
}

// quiet waits until the source has handed everything out and no batch is left
// anywhere in the job.
func (s *session) quiet() error {
	select {
	case <-s.feed.over:
	case <-s.done:
		return s.ended()
	}
	for s.feed.pool.Out() > 0 {
		select {
		case <-s.done:
			return s.ended()
		default:
			runtime.Gosched()
		}
	}
	return nil
}

func (s *session) ended() error {
	return fmt.Errorf("the job ended: %w", s.err)
}

// close ends the job.
func (s *session) close() error {
	s.stop()
	<-s.done
	if s.err != nil && !errors.Is(s.err, context.Canceled) {
		return s.err
	}
	if s.hole != nil && s.hole.Rows() == 0 {
		return errors.New("the job put out nothing")
	}
	return nil
}

// contender is a job and the input that it runs over.
type contender struct {
	name string
	job  *job
	in   *input
}

// race runs jobs against each other over inputs of the same shape, on one core.
// warm is in passes.
func race(ctx context.Context, o Options, c course, jobs ...contender) (m []measured, err error) {
	defer oneCore()()
	var sides []side
	for _, k := range jobs {
		s, err := k.job.open(k.in, nil)
		if err != nil {
			return nil, fmt.Errorf("bench %s: %s: %w", c.id, k.name, err)
		}
		defer func() { err = errors.Join(err, s.close()) }()
		sides = append(sides, side{k.name, s.pass})
	}
	c.rows = jobs[0].in.rows
	c.ready = func(pass int) {
		for _, k := range jobs {
			k.in.shift(pass)
		}
	}
	return c.run(ctx, o, sides...)
}
