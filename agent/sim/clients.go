package sim

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// clients are people who submit, cancel, stop, rescale and save a job of one name,
// and look which one lives, through any agent, which forwards to the leader it
// knows. What they saw is the history.
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
	switch k := c.w.rng.IntN(10); {
	case k < 2:
		op.Kind = "read"
	case c.last != "" && k < 7:
		op.Kind, op.Request = [...]string{"cancel", "stop", "savepoint", "savepoint", "rescale"}[k-2], c.last
	default:
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
		c.w.trace("client %d: %s %s: %s", op.Client, op.Kind, op.Request, result)
		then()
	}
	c.w.after(4*sec, func() { answer("", "", "") })
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

func (c *clients) ask(l *lead, op *Op, answer func(result, live string, id coordinator.JobID)) {
	reply := func(result string, id coordinator.JobID) { c.w.after(ms, func() { answer(result, "", id) }) }
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
		c.propose(l, coordinator.Command{JobTold: &coordinator.JobTold{Job: c.ids[op.Request], Cancel: true}}, done)
	case "rescale":
		c.propose(l, coordinator.Command{JobRescaled: &coordinator.JobRescaled{Job: c.ids[op.Request], Parallelism: 1 + c.w.rng.IntN(3)}}, done)
	case "stop", "savepoint":
		id := c.ids[op.Request]
		wish := leader.Wish{Savepoint: &id}
		if op.Kind == "stop" {
			wish = leader.Wish{Stop: &coordinator.JobTold{Job: id, Then: dataflow.Halt}}
		}
		l.wish(wish, func(a leader.Answer) {
			switch {
			case a.Err != nil:
				reply("", "")
			case op.Kind == "savepoint" && l.p.machine.State().Savepoints[a.Savepoint] == nil:
				c.w.check.fail(5, "savepoint %q of job %s was taken, and is not in the state", a.Savepoint, id)
			default:
				reply("ok", "")
			}
		})
	case "read":
		c.read(l, func(live string) { c.w.after(ms, func() { answer("ok", live, "") }) })
	}
}

func (c *clients) propose(l *lead, cmd coordinator.Command, done func(uint64, jobmanager.Result, error)) {
	cmd.Level = coordinator.BaseLevel
	l.propose(&cmd, func(i uint64, r jobmanager.Result, refused error) { r.Job = ""; done(i, r, refused) })
}

// read tells which submission lives, with all that was decided before: the leader
// asks a majority whether it is one, and waits until it has applied what is
// committed then. One that is none never answers.
func (c *clients) read(l *lead, answer func(live string)) {
	if c.w.raft.leader != l || !c.w.raft.majority(l.p) {
		return
	}
	until := uint64(len(c.w.raft.log))
	var look func()
	look = func() {
		if l.over {
			return
		}
		if l.p.applied < until {
			l.p.after(5*ms, look)
			return
		}
		live, st := "", l.p.machine.State()
		for _, id := range sortedKeys(st.Jobs) {
			if j := st.Jobs[id]; j.Name == "side" && !j.Status.Ended() {
				live = j.Request
			}
		}
		answer(live)
	}
	l.p.after(ms, look)
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
