package jobmanager

import "github.com/tidemark-mesh/tidemark/coordinator"

// remember notes who has a job that is forgotten: what other sites keep of it may be all
// that is left of it.
func (a *apply) remember(job *coordinator.Job) {
	if a.Level < coordinator.SettledLevel || a.Replicas[job.ID] != nil {
		return
	}
	a.Forgotten[job.ID] = &coordinator.Forgotten{Job: job.ID, Index: a.Index, Has: job.Tenure(a.Site)}
	if len(a.Forgotten) <= MaxForgotten {
		return
	}
	var first *coordinator.Forgotten
	for _, id := range sorted(a.Forgotten) {
		if f := a.Forgotten[id]; first == nil || f.Index < first.Index {
			first = f
		}
	}
	delete(a.Forgotten, first.Job)
}

// follow notes that another site has a forgotten job, at a greater epoch.
func (a *apply) follow(c *coordinator.JobFenced) {
	if f := a.Forgotten[c.Job]; f != nil {
		a.Forgotten[c.Job] = &coordinator.Forgotten{Job: f.Job, Index: f.Index, Has: coordinator.Tenure{Epoch: c.Epoch, Site: c.Owner, At: c.Since}}
	}
}
