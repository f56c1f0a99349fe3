package node

import (
	"reflect"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// A site of before feature level 6 refuses a question with a field that it does not know.
func TestAskedAsASiteReadsIt(t *testing.T) {
	w := &coordinator.Want{Site: "b", Jobs: []coordinator.WantedJob{{Job: "j7-a", Epoch: 2, Has: "c1", Index: 9, Later: &coordinator.Tenure{Epoch: 3, Site: "c"}}, {Job: "j8-a", Epoch: 1},
		{Job: "j9-c", Epoch: 1, Later: &coordinator.Tenure{Epoch: 2, Site: "a"}}}} // of which it would not know that it is not kept of it
	old := &coordinator.Want{Site: "b", Jobs: []coordinator.WantedJob{{Job: "j7-a", Epoch: 2, Has: "c1"}, {Job: "j8-a", Epoch: 1}}}
	for level, want := range map[uint32]*coordinator.Want{0: old, coordinator.GoesOnLevel: old, coordinator.SettledLevel: w, coordinator.SettledLevel + 1: w} {
		if got := plain(w, "a", level); !reflect.DeepEqual(got, want) {
			t.Errorf("level %d: %+v", level, got)
		}
	}
	if w.Jobs[0].Index != 9 || len(w.Jobs) != 3 || w.Jobs[2].Job == "" {
		t.Error("the question of the machine has changed")
	}
	f := &coordinator.Offer{Site: "a", Moved: []coordinator.MovedJob{{Job: "j7-a", Epoch: 1, To: coordinator.Tenure{Epoch: 2, Site: "c"}}}}
	for level, want := range map[uint32]int{0: 0, coordinator.GoesOnLevel: 0, coordinator.SettledLevel: 1} {
		if got := plainOffer(f, level); len(got.Moved) != want || got.Site != "a" || len(f.Moved) != 1 {
			t.Errorf("level %d: %+v", level, got)
		}
	}
}
