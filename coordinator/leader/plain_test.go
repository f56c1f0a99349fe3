package leader_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
)

// An agent of this site may know nothing of level 6, and not be seen: another site then
// says more than that one reads. It does not come into the state below level 6.
func TestWhatAnAgentHereCannotReadIsNotTaken(t *testing.T) {
	const said, plain = `{"lanes":1,"left":["x/#"]}`, `{"lanes":1}`
	job := func(id coordinator.JobID, spec string) coordinator.MovingJob {
		return coordinator.MovingJob{ID: id, Namespace: coordinator.DefaultNamespace, Name: "x", Spec: []byte(jobs[spec]), Feeds: []coordinator.MovingFeed{{Name: string(id) + ".in", Config: []byte(said)}}}
	}
	for level, want := range map[uint32]string{coordinator.GoesOnLevel: plain, coordinator.SettledLevel: said} {
		k := newKeeping(t, 500)
		k.st.Level = level
		taken, asked := make(map[string]string), 0
		hear := func(effects []leader.Effect) {
			for _, f := range effects {
				switch {
				case f.Propose == nil:
				case f.Propose.Command.ReplicaOffered != nil:
					taken["offered"] = string(f.Propose.Command.ReplicaOffered.Job.Feeds[0].Config)
				case f.Propose.Command.Move != nil && f.Propose.Command.Move.ArrivalBegan != nil:
					taken["arrives"] = string(f.Propose.Command.Move.ArrivalBegan.Job.Feeds[0].Config)
				}
				if f.Propose != nil && f.Propose.Command.Needs() > level {
					t.Errorf("level %d takes %+v", level, f.Propose.Command)
				}
			}
		}
		each := func(e leader.Event) {
			for _, f := range k.step(e) {
				if f.Ask != nil {
					if asked++; f.Ask.Want.Settled != (want == said) {
						t.Errorf("level %d asks with %+v", level, f.Ask.Want)
					}
				}
				hear([]leader.Effect{f})
				if f.Send != nil && f.Send.Message.Probe != nil {
					hear(k.hears(coordinator.ToLeader{Probed: &coordinator.Probed{Order: f.Send.Message.Probe.Order, Move: "m1-a"}}))
				}
			}
		}
		offered := job("j8-a", "kept")
		each(leader.Event{Offered: &leader.Offered{Site: "a", Offer: &coordinator.Offer{Site: "a", Index: 50, Jobs: []coordinator.OfferedJob{{Job: "j8-a", Epoch: 1, Text: &offered}}}}})
		each(leader.Event{FromSite: &leader.FromSite{Site: "a", ToTarget: &coordinator.ToTarget{Move: "m1-a", Propose: &coordinator.MovePropose{
			From: "a", Epoch: 2, Job: job("j9-a", "files"), Newest: &coordinator.Snapshot{Name: "c7", Manifest: bytes.Clone(k.st.Replicas["j6-a"].Next.Manifest)}}}}})
		for range 100 {
			each(leader.Event{})
		}
		if asked == 0 {
			t.Error("it does not ask")
		}
		if got, want := fmt.Sprint(taken), fmt.Sprint(map[string]string{"offered": want, "arrives": want}); got != want {
			t.Errorf("level %d: %s, want %s", level, got, want)
		}
		if string(offered.Feeds[0].Config) != said {
			t.Error("what was said has changed")
		}
	}
}
