package leader_test

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// proposes is a dry run of another site, and what is answered at once: the order in which
// agents are asked to look, or why not.
func (k *keeping) proposes(site mesh.Site, job string, sets ...string) (order uint64, refused string) {
	for _, f := range k.step(leader.Event{FromSite: &leader.FromSite{Site: site, ToTarget: &coordinator.ToTarget{Move: coordinator.NewMoveID(0, site), Propose: &coordinator.MovePropose{
		Dry: true, From: site, Epoch: 2, Job: coordinator.MovingJob{ID: coordinator.JobID(job), Namespace: "default", Name: job, Spec: []byte(jobs["files"]), Sets: sets},
		Newest: &coordinator.Snapshot{Name: fmt.Sprint("at ", k.now), Manifest: k.st.Replicas["j6-a"].Next.Manifest}}}}}) {
		switch {
		case f.Send != nil && f.Send.Message.Probe != nil:
			order = f.Send.Message.Probe.Order
		case f.ToSite != nil && f.ToSite.ToSource.Refused != nil:
			refused = f.ToSite.ToSource.Refused.Why
		}
	}
	return order, refused
}

// looked is an agent's answer, and what the other site hears then: nothing, "yes", or why
// not.
func (k *keeping) looked(order uint64, site mesh.Site, why string) (heard string) {
	for _, f := range k.hears(coordinator.ToLeader{Probed: &coordinator.Probed{Order: order, Move: coordinator.NewMoveID(0, site), Why: why}}) {
		switch {
		case f.ToSite == nil || f.ToSite.ToSource == nil:
		case f.ToSite.ToSource.Refused != nil:
			heard += f.ToSite.ToSource.Refused.Why
		case f.ToSite.ToSource.Accepted != nil:
			heard += "yes"
		}
	}
	return heard
}

// All dry runs of a site have one id. What agents say of one that nobody waits for any
// more is not taken for the answer to the next; the same question is asked once; and of
// how many jobs agents look at once is bounded.
func TestProbesOfDryRuns(t *testing.T) {
	k := newKeeping(t, 500)
	first, _ := k.proposes("a", "x")
	again, _ := k.proposes("a", "x")
	other, _ := k.proposes("a", "x", "parallelism=1")
	third, _ := k.proposes("a", "y")
	if first != 1 || again != 0 || other != 2 || third != 3 {
		t.Fatalf("asked as %d, %d, %d and %d", first, again, other, third)
	}
	for order, want := range map[uint64]string{first: "", other: ""} {
		if heard := k.looked(order, "a", "no broker"); heard != want {
			t.Errorf("the answer to question %d is heard as %q", order, heard)
		}
	}
	if heard := k.looked(third, "a", ""); heard != "yes" {
		t.Errorf("heard %q", heard)
	}
	for i := range 8 {
		if order, refused := k.proposes(mesh.Site(fmt.Sprint("s", i)), "x"); order == 0 || refused != "" {
			t.Fatalf("the question of site %d: %d, %q", i, order, refused)
		}
	}
	if order, refused := k.proposes("late", "x"); order != 0 || refused == "" {
		t.Errorf("one too many: %d, %q", order, refused)
	}
}
