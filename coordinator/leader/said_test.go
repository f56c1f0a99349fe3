package leader_test

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A job that comes here is not deployed while another site is on record to have it, at its
// epoch or above: who led here when that was said may lead no more.
func TestAJobComesThatAnotherSiteIsOnRecordToHave(t *testing.T) {
	for name, c := range map[string]struct {
		epoch                         uint64 // of c's, on record; the job is here at 2
		forced                        bool
		deployed, quarantined, fenced bool
	}{
		"an older one":               {epoch: 1, deployed: true},
		"the same":                   {epoch: 2, quarantined: true},
		"a newer one":                {epoch: 3, fenced: true},
		"the same, a person knows":   {epoch: 2, forced: true, deployed: true},
		"a newer one, by force here": {epoch: 3, forced: true, fenced: true},
	} {
		t.Run(name, func(t *testing.T) {
			agent := coordinator.Agent{Node: "b1", Name: "b1", Slots: 1, Level: coordinator.Level}
			moving := coordinator.MovingJob{ID: "j6-a", Name: "files", Spec: []byte(jobs["files"])}
			k := &keeping{now: 1000 * ms, st: &coordinator.State{Index: 9, Term: 1, Leader: "b1", Mesh: "m", Site: "b", Level: coordinator.Level, Moves: coordinator.NewMoves(),
				Agents: map[mesh.NodeID]*coordinator.Agent{"b1": &agent},
				Names:  map[string]coordinator.JobID{"files": "j6-a"},
				Jobs: map[coordinator.JobID]*coordinator.Job{"j6-a": {ID: "j6-a", Name: "files", Spec: moving.Spec, Epoch: 2, Status: coordinator.Created,
					History: []coordinator.Tenure{{Epoch: 1, Site: "a"}, {Epoch: 2, Site: "b"}}}},
				Replicas: map[coordinator.JobID]*coordinator.Replica{"j6-a": {From: "c", Epoch: c.epoch, Job: moving}},
			}}
			k.st.Moves.Arrivals["m7-a"] = &coordinator.Arrival{ID: "m7-a", From: "a", Epoch: 2, Job: moving, Phase: coordinator.ArrivalActive, Forced: c.forced}
			k.Leader = leader.New(leader.Config{Term: 1, Self: "b1", Site: "b", Level: coordinator.Level, Timing: leader.DefaultTiming(), Parse: leader.Parse})
			var deployed, quarantined, fenced bool
			note := func(effects []leader.Effect) {
				for _, f := range effects {
					if f.Propose == nil {
						continue
					}
					cmd := f.Propose.Command
					deployed = deployed || cmd.JobDeployed != nil
					quarantined = quarantined || cmd.JobQuarantined != nil && cmd.JobQuarantined.Other == "c"
					fenced = fenced || cmd.Move != nil && cmd.Move.Fenced != nil && cmd.Move.Fenced.Owner == "c" && cmd.Move.Fenced.Epoch == c.epoch
				}
			}
			note(k.hears(coordinator.ToLeader{Hello: &coordinator.Hello{Agent: agent, Boot: 1, Applied: 9}}))
			for range 30 {
				note(k.step(leader.Event{}))
			}
			if deployed != c.deployed || quarantined != c.quarantined || fenced != c.fenced {
				t.Errorf("deployed %t, quarantined %t, fenced %t", deployed, quarantined, fenced)
			}
		})
	}
}
