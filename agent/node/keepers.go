package node

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// keepText is the text of a job, and the sites that are to keep it by that. Reading it
// takes long, and what is told of copies is asked for every few seconds.
type keepText struct {
	spec []byte
	sets []string
	at   []mesh.Site
}

const replicateTo = "replicate_to"

// keepable are the live jobs whose text may say that other sites keep them.
func keepable(st *coordinator.State) (jobs []*coordinator.Job) {
	for _, j := range st.Jobs {
		_, site, ok := j.ID.Parts()
		names := bytes.Contains(j.Spec, []byte(replicateTo)) || slices.ContainsFunc(j.Sets, func(s string) bool { return strings.Contains(s, replicateTo) })
		if ok && site != "" && names && !j.Status.Ended() {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// keepers are the other sites that are to keep each of these jobs.
func (o *office) keepers(jobs []*coordinator.Job, self mesh.Site) map[coordinator.JobID][]mesh.Site {
	o.mu.Lock()
	read := maps.Clone(o.keepTexts)
	o.mu.Unlock()
	now, all := make(map[coordinator.JobID]keepText), make(map[coordinator.JobID][]mesh.Site)
	for _, j := range jobs {
		k, known := read[j.ID]
		if !known || !bytes.Equal(k.spec, j.Spec) || !slices.Equal(k.sets, j.Sets) {
			k = keepText{spec: j.Spec, sets: j.Sets}
			if p, err := leader.Parse(j); err == nil {
				k.at = slices.DeleteFunc(p.ReplicateTo, func(s mesh.Site) bool { return s == self })
			}
		}
		now[j.ID], all[j.ID] = k, k.at
	}
	o.mu.Lock()
	o.keepTexts = now
	o.mu.Unlock()
	return all
}
