package node

import (
	"reflect"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// A site of before feature level 6 refuses a question with a field that it does not know.
func TestAskedAsASiteReadsIt(t *testing.T) {
	w := &coordinator.Want{Site: "b", Jobs: []coordinator.WantedJob{{Job: "j7-a", Epoch: 2, Has: "c1", Index: 9}, {Job: "j8-a", Epoch: 1}}}
	old := &coordinator.Want{Site: "b", Jobs: []coordinator.WantedJob{{Job: "j7-a", Epoch: 2, Has: "c1"}, {Job: "j8-a", Epoch: 1}}}
	for level, want := range map[uint32]*coordinator.Want{0: old, coordinator.GoesOnLevel: old, coordinator.SettledLevel: w, coordinator.SettledLevel + 1: w} {
		if got := plain(w, level); !reflect.DeepEqual(got, want) {
			t.Errorf("level %d: %+v", level, got)
		}
	}
	if w.Jobs[0].Index != 9 {
		t.Error("the question of the machine has changed")
	}
}
