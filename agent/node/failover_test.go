package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
)

// loss is a job of the plant that the depot keeps, and the broker that it reads.
type loss struct {
	t            *testing.T
	plant, depot *box
	p            *publisher
	id           coordinator.JobID
}

// newLoss waits until the depot has all of the first 300 messages.
func newLoss(t *testing.T, isolation string) *loss {
	t.Helper()
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	plant, depot := twoSites(t, 1)
	plant[0].ends, depot.ends = 1, 1 // they hand over nothing
	raised(t, plant[0], depot)
	spec := strings.Replace(countsJob, "replicas: 2", "replicas: 1\nreplicate_to: [depot]\non_isolation: "+isolation, 1)
	l := &loss{t: t, plant: plant[0], depot: depot, id: submit(t, plant, fmt.Sprintf(spec, b.Addr()))}
	await(t, "the job to run", func() bool { return status(l.plant, l.id) == coordinator.Running })
	await(t, "the feed to be subscribed", func() bool { return b.Stats().Subscriptions > 0 })
	l.p = newPublisher(t, b.Addr())
	l.p.publish(300)
	l.comes(l.plant, 0, 300)
	keeps(t, []*box{depot}, plant, l.id)
	return l
}

// came are the messages that came out of the job at a site, in their order.
func (l *loss) came(b *box) (all []int) {
	l.t.Helper()
	d := json.NewDecoder(bytes.NewReader(out(l.t, []*box{b}, "raw.jsonl")))
	for d.More() {
		var row struct {
			ID int `json:"id"`
		}
		if err := d.Decode(&row); err != nil {
			l.t.Fatal(err)
		}
		all = append(all, row.ID)
	}
	return all
}

// comes waits until messages have come out at a site.
func (l *loss) comes(b *box, from, to int) {
	l.t.Helper()
	await(l.t, fmt.Sprintf("messages %d to %d to come out at %s", from, to, b.name), func() bool {
		ids := make(map[int]bool)
		for _, id := range l.came(b) {
			ids[id] = true
		}
		for id := from; id < to; id++ {
			if !ids[id] {
				return false
			}
		}
		return true
	})
}

// over has the job go on at a site, as one of its agents is asked; not before that one
// has noticed that the other site is lost.
func (l *loss) over(at *box, to string, f api.Failover) (done api.FailedOver) {
	l.t.Helper()
	f.To = to
	await(l.t, "the job to be taken at "+to, func() (taken bool) {
		var err error
		done, err = at.client(l.t).Failover(l.t.Context(), string(l.id), f)
		if err != nil && !strings.Contains(err.Error(), "is reached") {
			l.t.Fatal(err)
		}
		return err == nil
	})
	return done
}

// fenced waits until the plant's copy has ended because the depot has the job.
func (l *loss) fenced(epoch int) {
	l.t.Helper()
	await(l.t, "the plant to end its copy", func() bool { return status(l.plant, l.id) == coordinator.Moved })
	list, err := l.plant.client(l.t).Jobs(l.t.Context())
	if err != nil || len(list) != 1 || list[0].Site != "depot" || !strings.Contains(list[0].Why, "site depot has had it since 20") || !strings.Contains(list[0].Why, fmt.Sprintf("at epoch %d", epoch)) {
		l.t.Errorf("%v, %+v", err, list)
	}
}

// exact compares what came out at the depot with what must: of all messages that it had,
// each from the checkpoint on once, in whatever order the broker sent them, and counts
// over all of them.
func (l *loss) exact(had func(id int) bool) {
	l.t.Helper()
	came := l.came(l.depot)
	times := make(map[int]int)
	for _, id := range came {
		if times[id]++; times[id] > 1 {
			l.t.Errorf("message %d came out %d times at the depot", id, times[id])
		}
	}
	first := slices.Min(came)
	counts, most, want := make(map[int]int), make(map[int]int), make(map[string]bool)
	for id := range l.p.next {
		switch {
		case had(id) && times[id] == 0 && id >= first:
			l.t.Errorf("message %d is lost", id)
		case had(id) && times[id] == 0: // in the checkpoint
			counts[id%keys], most[id%keys] = counts[id%keys]+1, id
		}
	}
	for _, id := range came {
		counts[id%keys], most[id%keys] = counts[id%keys]+1, max(most[id%keys], id)
		want[fmt.Sprintf("k%d %d %d", id%keys, counts[id%keys], most[id%keys])] = true
	}
	d := json.NewDecoder(bytes.NewReader(out(l.t, []*box{l.depot}, "counts.jsonl")))
	for d.More() {
		var row struct {
			K    string `json:"k"`
			N    int    `json:"n"`
			Last int    `json:"last_id"`
		}
		if err := d.Decode(&row); err != nil {
			l.t.Fatal(err)
		}
		key := fmt.Sprintf("%s %d %d", row.K, row.N, row.Last)
		if !want[key] {
			l.t.Errorf("a wrong count, or twice: %s", key)
		}
		delete(want, key)
	}
	if len(want) > 0 {
		l.t.Errorf("%d counts are missing: %v", len(want), want)
	}
}

// apart has the depot take the job, work for a while, and end, and the plant come back alone.
func (l *loss) apart() {
	l.t.Helper()
	l.plant.end()
	l.over(l.depot, "depot", api.Failover{})
	l.p.publish(50)
	l.comes(l.depot, 300, 350)
	l.depot.end()
	l.plant.start("", "")
}

// A site is lost, and its job goes on at the other one, from what is kept there. What is
// lost is what only the lost site had taken. When that one is back, and does not reach the
// other, it does nothing with the job, and then ends its copy.
func TestASiteIsLost(t *testing.T) {
	t.Parallel()
	l := newLoss(t, "stop")
	// While it is reached it is not lost; a dry run says so.
	_, err := l.plant.client(t).Failover(t.Context(), "counts", api.Failover{To: "depot"})
	refused(t, err, http.StatusConflict, "site plant has it, and is reached")
	if dry := l.over(l.plant, "depot", api.Failover{DryRun: true}); dry.Epoch != 2 || dry.From != "plant" || dry.Checkpoint == "" || dry.Taken == "" || !strings.Contains(dry.Needs, "is reached") || dry.Refused != "" {
		t.Errorf("%+v", dry)
	}
	_, err = l.plant.client(t).Failover(t.Context(), "counts", api.Failover{To: "plant"})
	refused(t, err, http.StatusConflict, "nobody need say")

	// What comes while the depot is away only the plant has.
	l.comes(l.plant, 0, 300)
	l.depot.end()
	l.p.publish(50)
	l.comes(l.plant, 300, 350)
	l.plant.end()
	at := len(l.came(l.plant))
	l.depot.start("", "")
	await(t, "the depot to lead", func() bool { return l.depot.Leader() == l.depot.Self() && l.depot.Health().Ready })
	l.p.publish(50) // the broker keeps them for whoever has the session
	if done := l.over(l.depot, "depot", api.Failover{}); done.Epoch != 2 || done.Needs != "" || !strings.Contains(strings.Join(done.Text, "\n"), "is not known") {
		t.Errorf("%+v", done)
	}
	l.p.publish(100)
	l.comes(l.depot, 350, 500)

	// It comes back, and does not reach the depot.
	l.depot.end()
	l.plant.start("", "")
	await(t, "the job to be isolated at the plant", func() bool {
		j, err := l.plant.client(t).Job(t.Context(), string(l.id))
		return err == nil && j.Isolated && strings.Contains(j.Why, "site depot may have taken the job") && strings.Contains(j.Hint, "failover "+string(l.id)+" --to plant --force")
	})
	l.p.publish(50)
	_, err = l.plant.client(t).Failover(t.Context(), "counts", api.Failover{To: "plant"})
	refused(t, err, http.StatusConflict, "is isolated")
	l.depot.start("", "")
	l.fenced(2)
	l.p.publish(50)
	l.comes(l.depot, 350, 600)
	if n := len(l.came(l.plant)); n > at { // what no commit is on record of goes from a file
		t.Errorf("%d rows at the plant, and %d when it was lost", n, at)
	}
	halt(t, []*box{l.depot}, l.id)
	l.exact(func(id int) bool { return id < 300 || id >= 350 })
}

// With on_isolation: continue the site that comes back goes on at once, and ends its copy
// when it hears that another one has the job: what it took meanwhile is not that one's.
func TestALostSiteContinues(t *testing.T) {
	t.Parallel()
	l := newLoss(t, "continue")
	l.apart()
	l.p.publish(50)
	l.comes(l.plant, 350, 400)
	l.depot.start("", "")
	l.fenced(2)
	l.p.publish(50)
	l.comes(l.depot, 400, 450)
	halt(t, []*box{l.depot}, l.id)
	l.exact(func(id int) bool { return id < 350 || id >= 400 })
}

// Both sites have the job by force, at the same epoch: neither runs it until a person says
// which one goes on.
func TestBothHaveIt(t *testing.T) {
	t.Parallel()
	l := newLoss(t, "stop")
	l.apart()
	await(t, "the job to be isolated at the plant", func() bool { j := l.plant.job(l.id); return j != nil && j.Isolated })
	if done := l.over(l.plant, "plant", api.Failover{Force: true}); done.Epoch != 2 || done.From != "plant" || done.Checkpoint == "" {
		t.Errorf("%+v", done)
	}
	await(t, "it to run at the plant", func() bool { return status(l.plant, l.id) == coordinator.Running })
	l.depot.start("", "")
	for _, b := range []*box{l.plant, l.depot} {
		await(t, "it to be quarantined at "+b.name, func() bool { return status(b, l.id) == coordinator.Quarantined })
		j, err := b.client(t).Job(t.Context(), string(l.id))
		if err != nil || j.Status != "quarantined" || !strings.Contains(j.Why, "has it too, at the same epoch") || !strings.Contains(j.Hint, "--force") {
			t.Errorf("%v, %+v", err, j)
		}
	}
	l.p.publish(50)
	_, err := l.plant.client(t).Failover(t.Context(), string(l.id), api.Failover{To: "depot"})
	refused(t, err, http.StatusConflict, "is quarantined")
	if done := l.over(l.plant, "depot", api.Failover{Force: true}); done.Epoch != 3 || done.To != "depot" {
		t.Errorf("%+v", done)
	}
	l.fenced(3)
	l.comes(l.depot, 350, 400)
	halt(t, []*box{l.depot}, l.id)
	l.exact(func(int) bool { return true })
}
