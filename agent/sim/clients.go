package sim

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/agent/sim/site"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// clients are people who submit, cancel, stop, rescale and save a job of one name,
// and look which one lives, through any agent, which forwards to the leader it
// knows. What they saw is the history.
type clients struct {
	w    *world.World
	s    *site.Site
	ops  []*Op
	seq  int64
	last string // request of the last submission that was taken
	ids  map[string]coordinator.JobID
	n    int
}

// Op is what a client asked for and what came of it.
type Op struct {
	Client       int
	Kind         string // submit, cancel, stop, rescale, savepoint, read
	Request      string // of the submission; of a read that was answered, of the one that lives
	Result       string // ok, refused; empty: nobody knows
	Call, Return int64  // in the order of the history; 0: it never returned
}

const sideSpec = `
name: side
parallelism: 1
restart: {strategy: fixed-delay, attempts: 100000, delay: 100ms}
sources: {in: {mqtt: {broker: "mqtt://h", topics: [t], lanes: 2}, format: json, fields: {key: string, id: bigint}, event_time: ingestion}}
sinks: [{id: out, from: in, blackhole: {}}]
`

func newClients(s *site.Site) *clients {
	return &clients{w: s.W, s: s, ids: make(map[string]coordinator.JobID)}
}

// run is one client.
func (c *clients) run(client int) {
	if c.w.Calm {
		return
	}
	c.seq++
	op := &Op{Client: client, Kind: "submit", Call: c.seq}
	switch k := c.w.Rand.IntN(10); {
	case k < 2:
		op.Kind = "read"
	case c.last != "" && k < 7:
		op.Kind, op.Request = [...]string{"cancel", "stop", "savepoint", "savepoint", "rescale"}[k-2], c.last
	default:
		c.n++
		op.Request = fmt.Sprintf("r%d", c.n)
	}
	c.ops = append(c.ops, op)
	c.try(op, c.w.Now()+8*sec, func() { c.w.After(200*ms, func() { c.run(client) }) })
}

// try asks through some agent. Where nobody knows what came of it, a submission is
// sent again under the same request.
func (c *clients) try(op *Op, until dataflow.Time, then func()) {
	again := func() {
		if op.Kind == "submit" && c.w.Now() < until {
			c.w.After(100*ms, func() { c.try(op, until, then) })
			return
		}
		then() // it is not known, and is never known
	}
	over := false
	answer := func(result, live string, id coordinator.JobID) {
		if over {
			return
		}
		over = true
		if result == "" {
			again()
			return
		}
		c.seq++
		op.Result, op.Return = result, c.seq
		if op.Kind == "read" {
			op.Request = live
		}
		if id != "" {
			c.last, c.ids[op.Request] = op.Request, id
		}
		c.w.Tell("client %d: %s %s: %s", op.Client, op.Kind, op.Request, result)
		then()
	}
	c.w.After(4*sec, func() { answer("", "", "") })
	var lead *site.Lead
	for _, l := range c.s.Leads() { // the agent may know one that leads no more
		if lead == nil || c.w.Chance(2) {
			lead = l
		}
	}
	if lead == nil {
		return
	}
	lead.After(ms, func() { c.ask(lead, op, answer) })
}

func (c *clients) ask(l *site.Lead, op *Op, answer func(result, live string, id coordinator.JobID)) {
	reply := func(result string, id coordinator.JobID) { c.w.After(ms, func() { answer(result, "", id) }) }
	done := func(_ uint64, r jobmanager.Result, refused error) {
		switch {
		case refused != nil:
			reply("", "")
		case r.Err != nil:
			reply("refused", "")
		default:
			reply("ok", r.Job)
		}
	}
	switch op.Kind {
	case "submit":
		l.Propose(&coordinator.Command{Level: coordinator.BaseLevel, JobSubmitted: &coordinator.JobSubmitted{Name: "side", Spec: []byte(sideSpec), Request: op.Request,
			Feeds: []coordinator.Feed{{Name: "in", Config: []byte(`{"lanes":2,"topic":"t"}`)}}}}, done)
	case "cancel":
		c.propose(l, coordinator.Command{JobTold: &coordinator.JobTold{Job: c.ids[op.Request], Cancel: true}}, done)
	case "rescale":
		c.propose(l, coordinator.Command{JobRescaled: &coordinator.JobRescaled{Job: c.ids[op.Request], Parallelism: 1 + c.w.Rand.IntN(3)}}, done)
	case "stop", "savepoint":
		id := c.ids[op.Request]
		wish := leader.Wish{Savepoint: &id}
		if op.Kind == "stop" {
			wish = leader.Wish{Stop: &coordinator.JobTold{Job: id, Then: dataflow.Halt}}
		}
		l.Wish(wish, func(a leader.Answer) {
			switch {
			case a.Err != nil:
				reply("", "")
			case op.Kind == "savepoint" && l.State().Savepoints[a.Savepoint] == nil:
				c.w.Fail(5, "savepoint %q of job %s was taken, and is not in the state", a.Savepoint, id)
			default:
				reply("ok", "")
			}
		})
	case "read":
		c.read(l, func(live string) { c.w.After(ms, func() { answer("ok", live, "") }) })
	}
}

func (c *clients) propose(l *site.Lead, cmd coordinator.Command, done func(uint64, jobmanager.Result, error)) {
	cmd.Level = coordinator.BaseLevel
	l.Propose(&cmd, func(i uint64, r jobmanager.Result, refused error) { r.Job = ""; done(i, r, refused) })
}

// read tells which submission lives, with all that was decided before.
func (c *clients) read(l *site.Lead, answer func(live string)) {
	l.Read(func(st *coordinator.State) {
		live := ""
		for _, id := range slices.Sorted(maps.Keys(st.Jobs)) {
			if j := st.Jobs[id]; j.Name == "side" && !j.Status.Ended() {
				live = j.Request
			}
		}
		answer(live)
	})
}

// History runs a site with clients and faults, and returns what the clients saw.
func History(cfg Config) ([]*Op, *Violation) {
	r := newRun(cfg)
	r.begin()
	c := newClients(r.site)
	for i := range 3 {
		r.w.After(sec, func() { c.run(i) })
	}
	r.w.Run(2 * sec)
	for r.w.Now() < 2*sec+r.cfg.Faulty && r.w.Failed() == nil {
		r.fault()
		r.w.Run(r.w.Soon(500 * ms))
	}
	if r.w.Failed() == nil {
		r.w.Heal()
		r.w.Run(r.w.Now() + 10*sec)
	}
	return c.ops, r.w.Failed()
}
