package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// move is the job's way to the other site.
type move struct {
	at     time.Time
	state  api.Move
	steps  []api.MoveStep // of all leaders: a new one knows nothing of what the one before told
	last   time.Time      // rows came last into files of the first site
	first  time.Time      // and first into files of the other one
	took   time.Duration  // until the job ran there and rows came
	fresh  int            // rows in files there when it was begun
	before int            // rows in files here, as they were seen last
}

// migrate moves the job to the other site, and waits until it runs there and its
// rows come out. A move that the sites give up, as on a machine that is so busy that
// they lose their leaders, is begun again: the job goes on where it was.
func (d *demo) migrate(ctx context.Context) error {
	since := time.Now()
	if err := d.until(ctx, "all agents to take part and the job to run", func() bool { _, ok := d.whole(ctx, since); return ok }); err != nil {
		return err
	}
	for tries := 1; ; tries++ {
		m, err := d.leave(ctx)
		if err == nil {
			err = d.arrive(ctx, m)
		}
		if err == nil && m.first.IsZero() {
			err = fmt.Errorf("demo: the move is %s: %s", m.state.Phase, m.state.Why)
			if tries < mostMoves {
				d.say("the move was given up (%s) and is begun again", m.state.Why)
				continue
			}
		}
		return err
	}
}

// mostMoves is how often a move is begun.
const mostMoves = 5

// leave begins the move.
func (d *demo) leave(ctx context.Context) (*move, error) {
	m := &move{at: time.Now()}
	m.fresh, m.before = d.output.at(away), d.output.at(home)
	request := rand.Text()
	var why error
	begin := func() bool {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		m.state, why = d.site.agents[0].client.Migrate(ctx, d.job, api.Migration{To: away, Request: request})
		return why == nil
	}
	if err := d.until(ctx, "the job to begin to move", begin); err != nil {
		return nil, fmt.Errorf("%w; %w", err, why)
	}
	d.mu.Lock()
	d.moved = m
	d.mu.Unlock()
	d.say("job migrate %s --to %s", d.job, away)
	return m, nil
}

// arrive waits for the end of the move, and tells its steps; without first rows it was
// given up.
func (d *demo) arrive(ctx context.Context, m *move) error {
	err := d.until(ctx, "the job to run at the other site", func() bool {
		if state, err := d.asksMove(ctx, m.state.ID); err == nil {
			d.mu.Lock()
			for _, s := range state.Steps {
				if !slices.Contains(m.steps, s) {
					m.steps = append(m.steps, s)
					d.note("move: " + s.Text)
				}
			}
			m.state = state
			d.mu.Unlock()
		}
		d.rowsMoved(m)
		if m.state.Over && m.state.Phase != "handed-over" && m.state.Phase != "active" {
			return true
		}
		if s := d.current(); s.job.Site != away || !s.running() {
			return false
		}
		d.done(len(d.deeds())) // so that there are rows, if the fleet waits
		return !m.first.IsZero() && (m.state.Pause > 0 || time.Since(m.first) > pauseTime)
	})
	if err != nil {
		return err
	}
	if m.first.IsZero() { // it was given up
		return nil
	}
	d.mu.Lock()
	m.took = time.Since(m.at)
	d.mu.Unlock()
	d.say("%s", m)
	return nil
}

// pauseTime is how long the sites may take to say how long the pause was, after the
// first rows; the files tell it, too.
const pauseTime = 5 * time.Second

// asksMove asks who knows of the move.
func (d *demo) asksMove(ctx context.Context, id string) (state api.Move, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for _, a := range d.site.of(home) {
		if state, err = a.client.Move(ctx, id); err == nil {
			break
		}
	}
	return state, err
}

// rowsMoved notes when rows came out of which site.
func (d *demo) rowsMoved(m *move) {
	d.output.read()
	here, there, now := d.output.at(home), d.output.at(away), time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if here > m.before || m.last.IsZero() {
		m.before, m.last = here, now
	}
	if there > m.fresh && m.first.IsZero() {
		m.first = now
	}
}

// pause is how long nothing came out of the job: as the sites say, else as its files
// showed.
func (m *move) pause() time.Duration {
	for _, s := range m.steps {
		if s.Pause > 0 {
			return time.Duration(s.Pause) * time.Microsecond
		}
	}
	return m.first.Sub(m.last)
}

// String is the line that says what became of it.
func (m *move) String() string {
	rounds, bytes := 0, int64(0)
	for _, s := range m.steps {
		if s.Round > 0 {
			rounds, bytes = max(rounds, s.Round), bytes+s.Bytes
		}
	}
	return fmt.Sprintf("migrated to %s in %s, %.1f MB of state in %s, pause %d ms", away, seconds(m.took), float64(bytes)/1e6, count(rounds, "round"), m.pause().Milliseconds())
}
