package executor_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// An attempt that goes on from behind the end of a drained job's input reads nothing
// and says so at once; another job cannot begin there.
func TestADrainedCheckpointIsReadNoFurther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, fmt.Sprintf(manyJob, "out.jsonl"), "a")
		places := append(s.job.Places, at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "a"))
		if f := s.deploy(places...); f != nil {
			t.Fatal(f.Why)
		}
		time.Sleep(time.Second) // of the four that it takes to read all
		snap := s.trigger(false)
		m, err := manifest.Decode(snap.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		m.Drained = true
		if snap.Manifest, err = manifest.Encode(m); err != nil {
			t.Fatal(err)
		}
		s.complete(snap, 2)
		s.committed(snap.ID)
		s.closeAll()
		if f := s.deploy(places...); f != nil {
			t.Fatal(f.Why)
		}
		began := time.Now()
		s.await("Exhausted", func(e *happened) bool { return e.Exhausted != nil })
		if d := time.Since(began); d > 0 {
			t.Errorf("its source ended after %v", d)
		}
		s.finish()
		s.closeAll()
		other := *snap
		other.Job = "j9"
		if f := s.deployFrom(&other, places...); f == nil || !strings.Contains(f.Why, "drained") {
			t.Errorf("another job begins there: %+v", f)
		}
	})
}
