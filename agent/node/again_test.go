package node_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
)

// again is a site whose users make a shared feed, line3, and delete it, and make it again.
type again struct {
	t     *testing.T
	b     *broker.Broker
	plant *box
	p     *publisher
}

func newAgain(t *testing.T, plant *box) *again {
	t.Helper()
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return &again{t, b, plant, newPublisher(t, b.Addr())}
}

// make makes the feed, and waits until its session is open. The broker may still have that
// of the one before, which is of the same name.
func (a *again) make() {
	a.t.Helper()
	if _, err := a.plant.client(a.t).CreateFeed(a.t.Context(), api.NewFeed{Name: "line3", Broker: "mqtt://" + a.b.Addr(), Topics: []string{"t/+"}, QoS: 1, Replicas: 1}); err != nil {
		a.t.Fatal(err)
	}
	await(a.t, "the feed to be subscribed", func() bool {
		f, err := a.plant.client(a.t).Feed(a.t.Context(), "line3")
		return err == nil && f.State == "connected" && a.b.Stats().Subscriptions > 0
	})
}

// spec is a job that reads the feed, and writes NAME-raw.jsonl.
func (a *again) spec(name, replicas string) string {
	s := strings.Replace(countsJob, "name: counts\n", "name: "+name+"\n", 1)
	s = strings.Replace(s, "replicas: 2", replicas, 1)
	s = strings.Replace(s, `    mqtt: {broker: "mqtt://%s", topics: [t/+], qos: 1}`, "    feed: line3", 1)
	return strings.NewReplacer("counts.jsonl", name+"-counts.jsonl", "raw.jsonl", name+"-raw.jsonl").Replace(s)
}

func (a *again) submits(s api.Submission) coordinator.JobID {
	a.t.Helper()
	s.File = "x.yaml"
	done, err := a.plant.client(a.t).Submit(a.t.Context(), s)
	if err != nil {
		a.t.Fatal(err)
	}
	id := coordinator.JobID(done.ID)
	await(a.t, done.Name+" to run", func() bool { return status(a.plant, id) == coordinator.Running })
	return id
}

// came are the messages that came out of a job at a site.
func (a *again) came(b *box, name string) (all []int) {
	a.t.Helper()
	d := json.NewDecoder(bytes.NewReader(out(a.t, []*box{b}, name+"-raw.jsonl")))
	for d.More() {
		var row struct {
			ID int `json:"id"`
		}
		if err := d.Decode(&row); err != nil {
			a.t.Fatal(err)
		}
		all = append(all, row.ID)
	}
	return all
}

// twice has the depot keep a job that reads the feed, and then one that reads the next of
// its name, which has less in its log.
func twice(t *testing.T) (a *again, depot *box, second coordinator.JobID) {
	t.Helper()
	plants, depot := twoSites(t, 1)
	plants[0].ends, depot.ends = 1, 1
	raised(t, plants[0], depot)
	a = newAgain(t, plants[0])
	publishes := func(n int, name string, id coordinator.JobID) {
		t.Helper()
		a.p.publish(n)
		await(t, "all to come out of "+name, func() bool { return len(a.came(a.plant, name)) >= n })
		keeps(t, []*box{depot}, plants, id)
	}
	mirror := func() (f coordinator.Feed) {
		depot.View(func(st *coordinator.State) { f = *st.Feeds["line3.at.plant"] })
		return f
	}
	a.make()
	first := a.submits(api.Submission{Spec: a.spec("one", "replicas: 1\nreplicate_to: [depot]")})
	publishes(300, "one", first)
	was := mirror()
	halt(t, plants, first)
	if err := a.plant.client(t).DeleteFeed(t.Context(), "line3"); err != nil {
		t.Fatal(err)
	}
	a.make()
	second = a.submits(api.Submission{Spec: a.spec("two", "replicas: 1\nreplicate_to: [depot]")})
	publishes(60, "two", second)
	if is := mirror(); is.Made <= was.Made || is.Log.Epoch <= was.Log.Epoch || is.Lineage[0] == was.Lineage[0] {
		t.Errorf("the mirror was %+v, and is %+v", was, is)
	}
	depot.View(func(st *coordinator.State) {
		if r := st.Replicas[first]; r != nil && r.Restorable() != nil {
			t.Error("what is kept of the first job stands in a log that nobody has, and counts as if it could be restored")
		}
	})
	return a, depot, second
}

// goesOn waits until a job goes on at the depot: what comes now comes out there, and
// nothing of the first feed.
func (a *again) goesOn(depot *box) {
	a.t.Helper()
	since := a.p.next
	await(a.t, "what comes to come out at the depot", func() bool {
		a.p.publish(1)
		all := a.came(depot, "two")
		return len(all) > 0 && all[len(all)-1] >= since
	})
	for _, id := range a.came(depot, "two") {
		if id < 300 {
			a.t.Fatalf("message %d, which was in the feed that was deleted, came out at the depot", id)
		}
	}
}

// A shared feed that is deleted and made again is another one at the site that has a
// mirror of it, too, and what is kept there of a job that reads it stands in its log.
func TestASharedFeedIsMadeAgainAndItsSiteIsLost(t *testing.T) {
	t.Parallel()
	a, depot, id := twice(t)
	a.plant.end()
	l := &loss{t: t, plant: a.plant, depot: depot, p: a.p, id: id}
	l.over(depot, "depot", api.Failover{})
	a.goesOn(depot)
}

func TestASharedFeedIsMadeAgainAndItsJobMoves(t *testing.T) {
	t.Parallel()
	a, depot, id := twice(t)
	moved(t, a.plant.client(t), string(id), api.Migration{To: "depot", Feed: "stay", Request: "r"}, func() { a.p.publish(60) })
	await(t, "the job to run at the depot", func() bool { return status(depot, id) == coordinator.Running })
	a.goesOn(depot)
	all := make(map[int]bool)
	for _, id := range append(a.came(a.plant, "two"), a.came(depot, "two")...) {
		all[id] = true
	}
	for id := 300; id < 420; id++ {
		if !all[id] {
			t.Errorf("message %d did not come out", id)
		}
	}
}

// A savepoint of a job that read the feed of before is none for a job that reads the one
// that has its name: what was in the log there would be passed over.
func TestASharedFeedIsMadeAgainUnderASavepoint(t *testing.T) {
	t.Parallel()
	plants := site(t, 1)
	raised(t, plants...)
	a := newAgain(t, plants[0])
	c := a.plant.client(t)
	a.make()
	first := a.submits(api.Submission{Spec: a.spec("one", "replicas: 1")})
	a.p.publish(100)
	await(t, "all to come out", func() bool { return len(a.came(a.plant, "one")) >= 100 })
	if _, err := c.Stop(t.Context(), string(first), false); err != nil {
		t.Fatal(err)
	}
	await(t, "the job to stop", func() bool { return status(a.plant, first) == coordinator.Stopped })
	from := a.plant.job(first).Savepoint
	next := api.Submission{Spec: a.spec("two", "replicas: 1"), File: "x.yaml", From: from}
	if checked, err := c.Check(t.Context(), api.Dry{Submission: next}); err != nil || !checked.Restore.OK {
		t.Errorf("%v, %+v", err, checked.Restore)
	}
	if err := c.DeleteFeed(t.Context(), "line3"); err != nil {
		t.Fatal(err)
	}
	a.make()
	_, err := c.Submit(t.Context(), next)
	refused(t, err, http.StatusUnprocessableEntity, "the log of a feed that was deleted, and feed line3 was made since")
	next.From = ""
	a.submits(next)
	a.p.publish(50)
	await(t, "what comes to come out", func() bool { return len(a.came(a.plant, "two")) >= 50 })
	if all := a.came(a.plant, "two"); all[0] != 100 {
		t.Errorf("it began with %d", all[0])
	}
}
