package feed

import (
	"slices"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// A lane counts up to where all copies have it: never further, and as far when it is
// asked again.
func TestShownLanes(t *testing.T) {
	log, err := ingestlog.Open(ingestlog.Options{Dir: t.TempDir(), Lanes: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Lead(1); err != nil {
		t.Fatal(err)
	}
	write := func(lanes ...int) (seq int64) {
		t.Helper()
		for _, lane := range lanes {
			var r sensors.Records
			r.Reset(lane)
			r.AppendMessage([]byte("t"), []byte("m"), 1)
			if _, err := log.Append(&r); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := log.Stage(); err != nil {
			t.Fatal(err)
		}
		if err := log.Write(); err != nil {
			t.Fatal(err)
		}
		_, seq = log.End()
		return seq
	}
	var s shownLanes
	are := func(when string, epoch uint64, want ...coordinator.LaneAt) {
		t.Helper()
		if got := s.of(log, epoch); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	first := write(0, 0, 1)
	are("nothing is in all copies", 1)
	second := write(1, 1)
	are("still", 1)
	log.Replicated(first)
	are("the first group is", 1, coordinator.LaneAt{Next: 2}, coordinator.LaneAt{Next: 1})
	write(0)
	log.Replicated(second)
	are("the second is, and was seen before", 1, coordinator.LaneAt{Next: 2}, coordinator.LaneAt{Next: 3})
	_, end := log.End()
	log.Replicated(end)
	are("all is", 1, coordinator.LaneAt{Next: 3}, coordinator.LaneAt{Next: 3})
	are("in another epoch it is the same", 2, coordinator.LaneAt{Next: 3}, coordinator.LaneAt{Next: 3})
	write(0)
	are("and nothing of the one before counts", 3)
}
