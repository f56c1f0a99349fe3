package demo

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// outage is an agent that was killed, and what became of the job. Durations are
// since the kill; 0: not seen.
type outage struct {
	leads   bool // the leader was to be killed
	agent   string
	ran     int  // subtasks
	owned   bool // it had the session with the broker
	at      time.Time
	started time.Time // it was started again
	attempt uint64    // of the job, before

	leader  string // afterwards
	elected time.Duration
	running time.Duration // the job's next attempt; of one that needed none: not set
	rows    time.Duration // until there were new windows
	back    time.Duration // until the agent took part again
	next    uint64        // the attempt then
}

// deeds are what is done to the job, in their order: when in the fleet's time, and
// where the fleet waits if that is not over by then.
type deed struct {
	what   string
	begins float64
	waits  float64
	do     func(context.Context) error
}

func (d *demo) deeds() []deed {
	return []deed{
		{"an agent is killed", 0.20, 0.40, func(ctx context.Context) error { return d.fault(ctx, false) }},
		{"the leader is killed", 0.45, 0.62, func(ctx context.Context) error { return d.fault(ctx, true) }},
		{"the job moves to " + away, 0.66, 0.85, d.migrate},
	}
}

// awayFor is how long a killed agent stays away.
const awayFor = 1500 * time.Millisecond

// at is a time of the fleet's.
func (d *demo) at(part float64) dataflow.Time {
	return d.config.Start.Add(dataflow.Duration(part * float64(d.config.Duration)))
}

// gate holds the fleet while something is done to the job that takes long.
func (d *demo) gate(ctx context.Context, at dataflow.Time) error {
	held := func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		all := d.deeds()
		return d.over < len(all) && at >= d.at(all[d.over].waits)
	}
	return d.until(ctx, "what was done to the job to be over", func() bool { return !held() })
}

// harm kills an agent that runs subtasks, and then the leader, and then moves the
// job.
func (d *demo) harm(ctx context.Context) error {
	for i, do := range d.deeds() {
		if err := d.await(ctx, func() bool { return d.virtual() >= d.at(do.begins) }); err != nil {
			return err
		}
		d.enter(do.what)
		if err := do.do(ctx); err != nil {
			return err
		}
		d.enter("running")
		d.done(i + 1)
	}
	return nil
}

// done lets the fleet go on: so many deeds are over, as far as it has to wait.
func (d *demo) done(deeds int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = deeds
}

// await waits without an end: for the fleet, which has its own patience.
func (d *demo) await(ctx context.Context, happened func() bool) error {
	t := time.NewTicker(poll)
	defer t.Stop()
	for !happened() {
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// virtual is the fleet's clock.
func (d *demo) virtual() dataflow.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clock
}

// whole tells whether all agents take part and the job runs, by a question that
// was asked after a moment.
func (d *demo) whole(ctx context.Context, after time.Time) (status, bool) {
	s := d.current()
	if s.asked.Before(after) || !s.running() || s.leader(home) == "" || s.job.Checkpoint == "" || s.short() {
		return s, false
	}
	for _, a := range d.site.agents {
		if _, state := s.role(a); state != "alive" || !a.ready(ctx) {
			return s, false
		}
	}
	return s, true
}

// fault kills an agent, starts it again, and waits until all is well.
func (d *demo) fault(ctx context.Context, leads bool) error {
	var s status
	since := time.Now()
	if err := d.until(ctx, "all agents to take part and the job to run", func() (ok bool) { s, ok = d.whole(ctx, since); return ok }); err != nil {
		return err
	}
	victim := d.site.byName(s.leader(home))
	if !leads {
		victim = d.worker(&s)
	}
	if victim == nil {
		return fmt.Errorf("demo: no agent runs the job, though it is %s", s.job.Status)
	}
	o := &outage{leads: leads, agent: victim.name, ran: s.runs(victim.name), owned: s.owner() == victim.name, attempt: s.job.Attempt, at: time.Now()}
	victim.end(true)
	d.mu.Lock()
	d.outages = append(d.outages, o)
	d.mu.Unlock()
	d.say("kill -9 of %s", o.who())
	return d.recover(ctx, o, victim)
}

// worker is the agent that is killed first: one that runs subtasks and, if there
// is a choice, has the session with the broker and does not lead.
func (d *demo) worker(s *status) (best *process) {
	most := -1
	for _, a := range d.site.agents {
		n := s.runs(a.name)
		if n == 0 {
			continue
		}
		if a.name == s.owner() {
			n += 100
		}
		if a.name != s.leader(home) {
			n += 1000
		}
		if n > most {
			best, most = a, n
		}
	}
	return best
}

func (o *outage) who() string {
	what := "an agent, " + o.agent
	if o.leads {
		what = "the leader, " + o.agent
	}
	switch {
	case o.owned:
		return fmt.Sprintf("%s: it ran %d subtasks and had the broker's session", what, o.ran)
	case o.ran > 0:
		return fmt.Sprintf("%s: it ran %d subtasks", what, o.ran)
	}
	return what + ": it ran nothing of the job"
}

// recover starts the agent again and measures what happens.
func (d *demo) recover(ctx context.Context, o *outage, a *process) error {
	err := d.until(ctx, "the site to be whole again", func() bool {
		if o.started.IsZero() && time.Since(o.at) >= cmp.Or(d.opt.away, awayFor) {
			d.mu.Lock()
			o.started = time.Now()
			d.mu.Unlock()
			if err := a.start(); err != nil {
				d.fail(err)
			}
			d.say("%s is started again", a.name)
		}
		s := d.current()
		if s.asked.After(o.at) {
			d.observe(o, &s)
		}
		if o.started.IsZero() {
			return false
		}
		_, ok := d.whole(ctx, o.started)
		return ok && (o.ran == 0 || o.running > 0)
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	o.back = time.Since(o.at)
	d.mu.Unlock()
	d.say("%s takes part again, %s after the kill", a.name, seconds(o.back))
	return nil
}

// observe notes what has happened since a kill.
func (d *demo) observe(o *outage, s *status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := s.leader(home); o.leads && o.elected == 0 && l != "" && l != o.agent {
		o.leader, o.elected = l, s.heard.Sub(o.at)
		d.note(fmt.Sprintf("%s leads now, %s after the kill", l, seconds(o.elected)))
	}
	if o.running == 0 && s.running() && s.job.Attempt > o.attempt {
		o.running, o.next = s.heard.Sub(o.at), s.job.Attempt
		d.note(fmt.Sprintf("the job runs again, attempt %d, %s after the kill", o.next, seconds(o.running)))
	}
}

// newRows notes the first windows after each kill. The caller holds the lock.
func (d *demo) newRows(rows int, grew time.Time) {
	if rows == d.rows {
		return
	}
	d.rows = rows
	for _, o := range d.outages {
		if o.rows == 0 && grew.After(o.at) && (o.ran == 0 || o.running > 0) {
			o.rows = grew.Sub(o.at)
		}
	}
}

func seconds(t time.Duration) string { return fmt.Sprintf("%.1f s", t.Seconds()) }
