package sim

import (
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// wholeWithin bounds how long after the last fault, with a disk lost for good, the
// newest checkpoint of each job has two copies again: what was tried in vain
// waits a minute, what changed ten seconds, and each order rests a second or more.
const wholeWithin = 150 * sec

// loseForGood ends the jobs, so that no new checkpoint makes copies, and takes one
// agent after the other out that has some of their newest checkpoints, its disk
// lost: while others fail, the copies are made anew (5).
func (r *run) loseForGood() {
	for _, name := range []string{"counts", "publish"} {
		r.decide(coordinator.Command{JobTold: &coordinator.JobTold{Job: r.site.Job(name).ID, Cancel: true}})
	}
	r.await(settleWithin, "the jobs have not ended", func() bool {
		return r.site.Job("counts").Status.Ended() && r.site.Job("publish").Status.Ended()
	})
	for _, n := range slices.Clone(r.site.Nodes) {
		if n.Gone {
			r.decide(coordinator.Command{AgentLeft: &coordinator.AgentLeft{Node: n.ID}})
		}
	}
	r.awaitCopies()
	for range 2 {
		n := r.holder()
		if r.w.Failed() != nil || n == nil {
			return
		}
		n.Kill()
		n.Gone = true
		r.w.Tell("FAULT the disk of %s is lost for good", n.ID)
		r.w.After(sec, r.site.Replace(n).Again)
		r.decide(coordinator.Command{AgentLeft: &coordinator.AgentLeft{Node: n.ID}})
		for until := r.w.Now() + 14*sec; r.w.Now() < until && r.w.Failed() == nil; {
			r.w.Run(r.w.Soon(sec))
			r.fault()
		}
		r.w.Heal()
		r.awaitCopies()
	}
}

func (r *run) await(within dataflow.Time, what string, ok func() bool) {
	for until := r.w.Now() + within; r.w.Failed() == nil && !ok(); {
		if r.w.Run(r.w.Now() + 500*ms); r.w.Now() > until {
			r.w.Fail(10, "%d s later %s", within/sec, what)
		}
	}
}

func (r *run) awaitCopies() {
	for until := r.w.Now() + wholeWithin; r.w.Failed() == nil; {
		short := r.short()
		if short == "" {
			return
		}
		if r.w.Run(r.w.Now() + 500*ms); r.w.Now() > until {
			r.w.Fail(5, "%d s later %s", wholeWithin/sec, short)
		}
	}
}

// short says which part of a newest checkpoint has not two copies on disks that
// are there.
func (r *run) short() string {
	st := r.site.State()
	for _, name := range []string{"counts", "publish"} {
		s := r.site.Job(name).Newest()
		for _, p := range s.Copies {
			var there []mesh.NodeID
			for _, node := range p.Nodes {
				if st.Agents[node] != nil && r.has(node, p.Part) {
					there = append(there, node)
				}
			}
			if len(there) < 2 {
				return fmt.Sprintf("part %.12s of %s of job %s is on %v of %v", p.Part, s.Name, name, there, p.Nodes)
			}
		}
	}
	return ""
}

func (r *run) has(node mesh.NodeID, p store.Digest) bool {
	n := r.w.Node(node)
	return n != nil && !n.Gone && n.Disk.Parts[p] != nil
}

// holder is an agent that runs and has something of a newest checkpoint.
func (r *run) holder() *world.Node {
	for _, k := range r.site.Job("counts").Newest().Copies {
		for _, node := range k.Nodes {
			if n := r.w.Node(node); n.P != nil && !n.Gone {
				return n
			}
		}
	}
	return nil
}

// decide has a command in the log some time.
func (r *run) decide(c coordinator.Command) { r.propose(&c, func(jobmanager.Result) {}) }
