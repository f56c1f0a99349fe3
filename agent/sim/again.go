package sim

import (
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// stop stops a job with a savepoint, asking until it has ended, and then submits
// it anew from there. The new one takes over its feed and goes on with its files.
func (r *run) stop(j *job) {
	now := r.site.Job(j.name)
	if now != nil && now.Status.Ended() {
		r.resubmit(j, now)
		return
	}
	r.w.After(sec, func() { r.stop(j) })
	if l := r.site.Leader(); l != nil && now != nil && now.Newest() != nil {
		l.Wish(leader.Wish{Stop: &coordinator.JobTold{Job: now.ID, Then: dataflow.Halt}}, func(leader.Answer) {})
	}
}

func (r *run) resubmit(j *job, old *coordinator.Job) {
	from := old.Savepoint
	if from == "" { // it did not run when it was told
		from = string(old.ID) + "/" + old.Newest().Name
	}
	r.w.Tell("job %s is to go on from %s", old.ID, from)
	r.propose(&coordinator.Command{JobSubmitted: &coordinator.JobSubmitted{Name: j.name, Spec: []byte(j.spec), Request: j.name + " again", Feeds: j.feeds(),
		From: from, Adopts: []coordinator.Adoption{{Source: "in", Feed: old.OwnFeed("in")}}}},
		func(res jobmanager.Result) {
			if res.Err != nil {
				r.w.Fail(0, "job %s is refused: %v", j.name, res.Err)
			}
			j.stopped = false
		})
}
