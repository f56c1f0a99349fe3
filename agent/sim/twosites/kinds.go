package twosites

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Kind is what happens besides faults.
type Kind string

// The kinds of runs.
const (
	Migrate  Kind = "migrate"  // the job moves from a to b
	Failover Kind = "failover" // a is lost, b takes the job, a comes back
	Frozen   Kind = "frozen"   // a failover of a site that stands still for a while, and goes on where it was
	Wander   Kind = "wander"   // the job moves back and forth, as people want, who also cancel
	Stay     Kind = "stay"     // the job moves from a to b while the session of its feed stays, and back
	Return   Kind = "return"   // it moves so, b is lost, a takes it, b comes back
	Torn     Kind = "torn"     // it is moving so when a is lost, b takes it, a comes back
	Roam     Kind = "roam"     // as wander, and at times the session stays
	Err      Kind = "err"      // a runs the job, b does not reach it, and a person takes a for lost: two run it until they meet
	Shared   Kind = "shared"   // two jobs read one feed; both move to b, one after the other, while its session stays, and back
	Leave    Kind = "leave"    // a job moves with the session of a feed that it reads and others may, and back
	Taken    Kind = "taken"    // two jobs read a feed of a, which is lost; b takes both, a comes back, and one of them goes home while the session that b opened stays
	Home     Kind = "home"     // as taken, with one job, which goes home with the session
	Third    Kind = "third"    // a job of a is prepared at b when a is lost; c, which keeps it, takes it, and a comes back
	Chain    Kind = "chain"    // the job moves to b while the session stays; b is lost, c takes the job, b comes back
	Mingle   Kind = "mingle"   // two jobs read one feed, and each moves back and forth as people want; at times its session is to stay
	Force    Kind = "force"    // a move is prepared at b, which does not reach a, and a person forces it: a goes on too
)

const spec = `
name: %s
parallelism: 2
checkpoint: {interval: 700ms, timeout: 6s, tolerable_failures: 100000}
restart: {strategy: fixed-delay, attempts: 100000, delay: 100ms}
%s
sources: {in: {%s, format: json, fields: {key: string, id: bigint}, event_time: ingestion}}
steps: [{id: a, from: in, key_by: [key], select: {n: count(*), id: max(id)}}]
sinks: [{id: out, from: a, file: {path: %s.jsonl}}, {id: told, from: a, mqtt: {broker: "mqtt://h", topic: results}}]
`

// The jobs, of which most runs have the first, and the feed that both read where it is
// shared.
const (
	jobName   = "counts"
	otherName = "others"
	feedName  = "f"
)

// feedConfig has a broker and a client id, as each feed has: no two sessions are one.
const feedConfig = `{"lanes":2,"topic":"t","broker":"mqtt://h","client_id":"m/f"}`

// shares tells whether the feed of a run is one that several jobs may read.
func (k Kind) shares() bool {
	return k == Shared || k == Leave || k == Mingle || k == Taken || k == Home
}

// sites are those of a run, by name.
func (k Kind) sites() []mesh.Site {
	if k == Third || k == Chain {
		return []mesh.Site{"a", "b", "c"}
	}
	return []mesh.Site{"a", "b"}
}

// jobs are those of a run.
func (k Kind) jobs() []string {
	if k == Shared || k == Mingle || k == Taken {
		return []string{jobName, otherName}
	}
	return []string{jobName}
}

func (r *run) submit() {
	kept := ""
	switch r.cfg.Kind {
	case Failover, Frozen, Err, Taken, Home:
		kept = "replicate_to: [b]"
	case Third, Chain:
		kept = "replicate_to: [c]"
	case Return:
		kept = "replicate_to: [a, b]"
	}
	fine := func(res jobmanager.Result) {
		if res.Err != nil {
			r.w.Fail(0, "it is refused: %v", res.Err)
		}
	}
	if !r.cfg.Kind.shares() {
		r.propose(r.a, &coordinator.Command{JobSubmitted: &coordinator.JobSubmitted{Name: jobName, Request: jobName,
			Spec:  fmt.Appendf(nil, spec, jobName, kept, `mqtt: {broker: "mqtt://h", topics: [t], lanes: 2}`, "out"),
			Feeds: []coordinator.Feed{{Name: "in", Config: []byte(feedConfig)}}}}, fine)
		return
	}
	r.propose(r.a, &coordinator.Command{FeedCreated: &coordinator.Feed{Name: feedName, Config: []byte(feedConfig)}}, func(res jobmanager.Result) {
		fine(res)
		for _, name := range r.cfg.Kind.jobs() {
			r.propose(r.a, &coordinator.Command{JobSubmitted: &coordinator.JobSubmitted{Name: name, Request: name, Reads: []string{feedName},
				Spec: fmt.Appendf(nil, spec, name, kept, "feed: "+feedName, fileOf(name))}}, fine)
		}
	})
}

// fileOf is the file of a job's sink, without what it ends with.
func fileOf(job string) string {
	if job == jobName {
		return "out"
	}
	return job
}
