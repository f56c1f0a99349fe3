package sim

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// clients are people who submit, cancel and stop a job of one name through any
// agent, which forwards to the leader it knows. What they saw is the history.
type clients struct {
	w    *World
	ops  []*Op
	seq  int64
	last string // request of the last submission that was taken
	ids  map[string]coordinator.JobID
	n    int
}

// Op is what a client asked for and what came of it.
type Op struct {
	Client       int
	Kind         string // submit, cancel, stop
	Request      string // of the submission
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

func newClients(w *World) *clients {
	return &clients{w: w, ids: make(map[string]coordinator.JobID)}
}

// run is one client.
func (c *clients) run(client int) {
	if c.w.calm {
		return
	}
	c.seq++
	op := &Op{Client: client, Kind: "submit", Call: c.seq}
	if c.last != "" && c.w.chance(2) {
		op.Kind, op.Request = "cancel", c.last
		if c.w.chance(2) {
			op.Kind = "stop"
		}
	} else {
		c.n++
		op.Request = fmt.Sprintf("r%d", c.n)
	}
	c.ops = append(c.ops, op)
	c.try(op, c.w.now+8*sec, func() { c.w.after(200*ms, func() { c.run(client) }) })
}

// try asks through some agent. Where nobody knows what came of it, a submission is
// sent again under the same request.
func (c *clients) try(op *Op, until dataflow.Time, then func()) {
	again := func() {
		if op.Kind == "submit" && c.w.now < until {
			c.w.after(100*ms, func() { c.try(op, until, then) })
			return
		}
		then() // it is not known, and is never known
	}
	over := false
	answer := func(result string, id coordinator.JobID) {
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
		if id != "" {
			c.last, c.ids[op.Request] = op.Request, id
		}
		c.w.trace("client %d: %s %s: %s", op.Client, op.Kind, op.Request, result)
		then()
	}
	c.w.after(4*sec, func() { answer("", "") })
	var lead *lead
	for _, p := range c.w.procs() { // the agent may know one that leads no more
		if p.lead != nil && !p.lead.over && (lead == nil || c.w.chance(2)) {
			lead = p.lead
		}
	}
	if lead == nil {
		return
	}
	lead.p.after(ms, func() { c.ask(lead, op, answer) })
}

func (c *clients) ask(l *lead, op *Op, answer func(string, coordinator.JobID)) {
	reply := func(result string, id coordinator.JobID) { c.w.after(ms, func() { answer(result, id) }) }
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
		l.propose(&coordinator.Command{Level: coordinator.BaseLevel, JobSubmitted: &coordinator.JobSubmitted{Name: "side", Spec: []byte(sideSpec), Request: op.Request,
			Feeds: []coordinator.Feed{{Name: "in", Config: []byte(feedConfig)}}}}, done)
	case "cancel":
		l.propose(&coordinator.Command{Level: coordinator.BaseLevel, JobTold: &coordinator.JobTold{Job: c.ids[op.Request], Cancel: true}},
			func(i uint64, r jobmanager.Result, refused error) { r.Job = ""; done(i, r, refused) })
	case "stop":
		l.wish(leader.Wish{Stop: &coordinator.JobTold{Job: c.ids[op.Request], Then: dataflow.Halt}}, func(a leader.Answer) {
			if a.Err != nil {
				reply("", "")
				return
			}
			reply("ok", "")
		})
	}
}

// History runs a site with clients and faults, and returns what the clients saw.
func History(cfg Config) ([]*Op, *Violation) {
	w := New(cfg)
	w.begin()
	for i := range 3 {
		w.after(sec, func() { w.clients.run(i) })
	}
	w.run(2 * sec)
	for w.now < 2*sec+w.cfg.Faulty && w.check.failed == nil {
		w.fault()
		w.run(w.soon(500 * ms))
	}
	if w.check.failed == nil {
		w.heal()
		w.run(w.now + 10*sec)
	}
	return w.clients.ops, w.check.failed
}
