package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Timing of what the demo asks and how long it waits. Patience only decides how
// long a demo that fails takes.
const (
	askEvery = 150 * time.Millisecond
	askTime  = 2 * time.Second
	poll     = 5 * time.Millisecond
	patience = 90 * time.Second
)

// status is what the agents say of the site and the job.
type status struct {
	asked   time.Time // when the question was sent
	heard   time.Time // when it was answered, which may be much later: while nobody leads it is asked again
	job     api.JobDetail
	members map[string][]api.Agent // by site
}

// running tells whether the job's rows flow.
func (s *status) running() bool { return s.job.Status == coordinator.Running.String() }

// role is that of an agent in its site, as the others see it.
func (s *status) role(a *process) (role, state string) {
	for _, m := range s.members[a.at] {
		if m.Name == a.name {
			return m.Role, m.Status
		}
	}
	return "", ""
}

// leader is that of a site.
func (s *status) leader(site string) string {
	for _, m := range s.members[site] {
		if m.Role == "leader" {
			return m.Name
		}
	}
	return ""
}

// short tells whether a log of the job has fewer copies than it is to have where
// there are agents for them: the loss of one more would be worth waiting for.
func (s *status) short() bool {
	for _, f := range s.job.Feeds {
		if len(f.Members) < min(2, len(s.members[s.job.Site])) {
			return true
		}
	}
	return false
}

// runs is how many subtasks an agent has.
func (s *status) runs(name string) (n int) {
	for _, t := range s.job.Subtasks {
		if t.Agent == name {
			n++
		}
	}
	return n
}

// least is the least watermark of an agent's subtasks that have one; MinTime: none
// has.
func (s *status) least(name string) dataflow.Time {
	least := dataflow.MaxTime
	for _, t := range s.job.Subtasks {
		if w := parseMark(t.Watermark); t.Agent == name && w != dataflow.MinTime {
			least = min(least, w)
		}
	}
	if least == dataflow.MaxTime {
		return dataflow.MinTime
	}
	return least
}

// owner is the agent that has the session with the broker.
func (s *status) owner() string {
	if len(s.job.Feeds) == 0 {
		return ""
	}
	return s.job.Feeds[0].Owner
}

// watermark is the job's; MinTime: there is none yet.
func (s *status) watermark() dataflow.Time { return parseMark(s.job.Totals.Watermark) }

func parseMark(text string) dataflow.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return dataflow.MinTime
	}
	return dataflow.FromGo(t)
}

// watch asks again and again how things are, until ctx ends.
func (d *demo) watch(ctx context.Context) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		if s, err := d.look(ctx); err == nil {
			d.mu.Lock()
			d.now = s
			d.restarts = max(d.restarts, s.job.Restarts)
			if w := s.watermark(); w != dataflow.MinTime {
				d.watermark = max(d.watermark, w)
			}
			d.mu.Unlock()
		}
		d.output.read()
		rows, grew := d.output.windows.count()
		d.mu.Lock()
		d.newRows(rows, grew)
		d.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look asks one agent after the other.
func (d *demo) look(ctx context.Context) (status, error) {
	var errs []error
	for _, a := range d.site.agents {
		if !a.runs() {
			continue
		}
		s, err := d.ask(ctx, a)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return status{}, errors.Join(errs...)
}

// ask asks an agent, of either site, for the job, and one of each site for its
// members.
func (d *demo) ask(ctx context.Context, a *process) (s status, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	s.asked, s.members = time.Now(), make(map[string][]api.Agent)
	if s.job, err = a.client.Job(ctx, d.job); err != nil {
		return s, err
	}
	for _, site := range []string{home, away} {
		if s.members[site], err = d.members(ctx, site); err != nil {
			return s, err
		}
	}
	s.heard = time.Now()
	return s, nil
}

func (d *demo) members(ctx context.Context, site string) (list []api.Agent, err error) {
	err = errors.New("no agent of the site runs")
	for _, a := range d.site.of(site) {
		if !a.runs() {
			continue
		}
		if list, err = a.client.Members(ctx, false); err == nil {
			break
		}
	}
	return list, err
}

// current is the newest status.
func (d *demo) current() status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

// until asks again and again whether something has happened.
func (d *demo) until(ctx context.Context, what string, happened func() bool) error {
	if happened() {
		return context.Cause(ctx)
	}
	t := time.NewTicker(poll)
	defer t.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !happened() {
		select {
		case <-t.C:
		case <-deadline.C:
			return fmt.Errorf("%w: waited %v for %s; job: %s, %s\nthe last the agents said:%s", errStuck, patience, what, d.current().job.Status, d.current().job.Why, d.site.tails())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// errStuck means that nothing went on any more.
var errStuck = errors.New("demo: it does not go on")
