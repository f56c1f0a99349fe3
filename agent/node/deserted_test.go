package node_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
)

// TestAMirrorOutlivesItsOnlyHolder: the one agent that has a mirror's log is lost, and
// taken out of the site. The mirror begins anew on the other one, and when the job's site
// is lost then the job goes on.
func TestAMirrorOutlivesItsOnlyHolder(t *testing.T) {
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	plants, depot := twoSites(t, 1)
	plant := plants[0]
	plant.ends, depot.ends = 1, 1
	raised(t, plant, depot)
	made, err := depot.client(t).CreateToken(t.Context(), api.NewToken{Uses: 1})
	if err != nil {
		t.Fatal(err)
	}
	other := newBox(t, "d2")
	other.site, other.ends = "depot", 1
	other.start(depot.Link(), made.Token)
	await(t, "the new agent to take part", func() bool { return other.Health().Ready })

	// Logs go to the agent that has the fewest: one of two jobs has its mirror there.
	p := newPublisher(t, b.Addr())
	var id coordinator.JobID
	var holder mesh.NodeID
	var name string // of what comes out of it
	var since int   // the first message that it has
	publishes := func() {
		t.Helper()
		p.publish(50)
		await(t, "all to come out", func() bool { return bytes.Count(out(t, plants, name), []byte("\n")) >= p.next-since })
	}
	for i := 0; i < 2 && holder != other.Self(); i++ {
		spec := strings.NewReplacer("replicas: 2", "replicas: 1\nreplicate_to: [depot]", "parallelism: 2", "parallelism: 1", "name: counts\n", fmt.Sprintf("name: counts%d\n", i),
			"counts.jsonl", fmt.Sprint(i, "counts.jsonl"), "raw.jsonl", fmt.Sprint(i, "raw.jsonl")).Replace(countsJob)
		id = submit(t, plants, fmt.Sprintf(spec, b.Addr()))
		await(t, "the job to run", func() bool { return status(plant, id) == coordinator.Running })
		await(t, "the feed to be subscribed", func() bool { return b.Stats().Subscriptions > int64(i) })
		name, since = fmt.Sprint(i, "raw.jsonl"), p.next
		publishes()
		keeps(t, []*box{depot, other}, plants, id)
		depot.View(func(st *coordinator.State) { holder = st.Feeds[string(id)+".readings"].Log.Owner })
	}
	if holder != other.Self() {
		t.Fatal("no mirror is owned by the other agent")
	}
	other.end()
	await(t, "it to be removed", func() bool { return depot.Remove(t.Context(), other.Self()) == nil })
	publishes()
	keeps(t, []*box{depot}, plants, id)
	await(t, "what is kept to be whole on the one that is left", func() (well bool) {
		depot.View(func(st *coordinator.State) { well = st.Feeds[string(id)+".readings"].Log.Owner == depot.Self() })
		for _, r := range depot.Replicas() {
			if r.Job == string(id) {
				well = well && r.Restorable
			}
		}
		return well
	})
	plant.end()
	l := &loss{t: t, plant: plant, depot: depot, p: p, id: id}
	l.over(depot, "depot", api.Failover{})
	await(t, "the job to run at the depot", func() bool { return status(depot, id) == coordinator.Running })
}
