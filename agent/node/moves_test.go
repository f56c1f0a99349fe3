package node_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
)

// refused wants an answer with a status that says something.
func refused(t *testing.T, err error, status int, says string) {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != status || !strings.Contains(p.Detail, says) {
		t.Errorf("%v; want status %d that says %q", err, status, says)
	}
}

// status is a job's status at a box.
func status(b *box, id coordinator.JobID) (s coordinator.Status) {
	b.View(func(st *coordinator.State) {
		if j := st.Jobs[id]; j != nil {
			s = j.Status
		}
	})
	return s
}

// runs submits a job and waits until it runs.
func runs(t *testing.T, b *box, name, spec string) coordinator.JobID {
	t.Helper()
	id := propose(t, []*box{b}, coordinator.JobSubmitted{Namespace: coordinator.DefaultNamespace, Name: name, Spec: []byte(spec)})
	await(t, name+" to run", func() bool { return status(b, id) == coordinator.Running })
	return id
}

// raised waits until two boxes know all that their programs do.
func raised(t *testing.T, all ...*box) {
	t.Helper()
	for _, b := range all {
		await(t, b.name+" to be of the newest level", func() bool {
			var level uint32
			b.View(func(st *coordinator.State) { level = st.Level })
			return level == coordinator.Level
		})
	}
}

// The other site is asked whether it would take a job, and says why it would not; a move
// that it refuses is given up, and nothing happens to the job. Verbs about a job go to the
// site that has it.
func TestAMoveIsAsked(t *testing.T) {
	t.Parallel()
	plant, depot := twoSites(t, 1)
	home := plant[0]
	raised(t, home, depot)
	id := runs(t, home, "slow", fmt.Sprintf(slowJob, 100, "slow"))
	near, far := home.client(t), depot.client(t)
	// Of an agent of the other site, by the job's id, and by its name.
	for _, ref := range []string{string(id), "slow"} {
		if j, err := far.Job(t.Context(), ref); err != nil || j.ID != string(id) || j.Site != "plant" {
			t.Fatalf("%s at the depot: %v, %+v", ref, err, j)
		}
	}
	to := api.Migration{To: "depot", DryRun: true}
	for _, c := range []*api.Client{near, far} {
		if m, err := c.Migrate(t.Context(), "slow", to); err != nil || m.Phase != "dry run" || m.From != "plant" {
			t.Fatalf("dry run: %v, %+v", err, m)
		}
	}
	_, err := near.Migrate(t.Context(), "slow", api.Migration{To: "nowhere"})
	refused(t, err, http.StatusNotFound, `no site "nowhere"`)
	_, err = near.Migrate(t.Context(), "slow", api.Migration{To: "plant"})
	refused(t, err, http.StatusConflict, "is at site plant already")
	_, err = near.Migrate(t.Context(), "slow", api.Migration{To: "depot", DryRun: true, Set: []string{"parallelism=64"}})
	refused(t, err, http.StatusConflict, "the other site refuses it")

	// The name is taken there.
	other := runs(t, depot, "slow", strings.Replace(fmt.Sprintf(slowJob, 100, "other"), "parallelism: 2", "parallelism: 1", 1))
	_, err = near.Migrate(t.Context(), string(id), to)
	refused(t, err, http.StatusConflict, `a job "slow" is at site depot already`)
	m, err := near.Migrate(t.Context(), string(id), api.Migration{To: "depot", Request: "r1"})
	if err != nil || m.ID == "" || m.Name != "slow" {
		t.Fatalf("%v, %+v", err, m)
	}
	await(t, "the move to be given up", func() bool {
		m, err = near.Move(t.Context(), m.ID)
		return err == nil && m.Over
	})
	if m.Phase != "aborted" || !strings.Contains(m.Why, "at site depot already") || status(home, id) != coordinator.Running {
		t.Errorf("%+v; the job is %s", m, status(home, id))
	}
	if _, err := near.Cancel(t.Context(), string(other)); err != nil { // at the depot
		t.Fatal(err)
	}
	await(t, "the depot's job to be cancelled", func() bool { return status(depot, other) == coordinator.Cancelled })
	depot.end() // it is not reached
	await(t, "the plant to know", func() bool { return home.Seen(mesh.Site("depot")) == 0 })
	_, err = near.Migrate(t.Context(), "slow", api.Migration{To: "depot"})
	refused(t, err, http.StatusConflict, "is not reached now, so nothing was done")
	_, err = near.Job(t.Context(), string(other))
	refused(t, err, http.StatusConflict, "site depot is to answer this, and is not reached")
	depot.start("", "")
}

// A move that is cancelled leaves the job as it is.
func TestAMoveIsCancelled(t *testing.T) {
	t.Parallel()
	plant, depot := twoSites(t, 1)
	home := plant[0]
	raised(t, home, depot)
	// It waits for slots: so no checkpoint of it is ever copied, and the move waits too.
	spec := strings.Replace(fmt.Sprintf(slowJob, 100, "slow"), "parallelism: 2", "parallelism: 50", 1)
	id := propose(t, plant, coordinator.JobSubmitted{Namespace: coordinator.DefaultNamespace, Name: "slow", Spec: []byte(spec)})
	c := depot.client(t) // passes it on
	_, err := c.CancelMove(t.Context(), "slow")
	refused(t, err, http.StatusConflict, "is not moving")
	m, err := c.Migrate(t.Context(), "slow", api.Migration{To: "depot", Request: "r1"})
	if err != nil || m.Phase != "copying" || m.Over {
		t.Fatalf("%v, %+v", err, m)
	}
	if again, err := c.Migrate(t.Context(), "slow", api.Migration{To: "depot", Request: "r1"}); err != nil || again.ID != m.ID {
		t.Errorf("the same request: %v, %+v", err, again)
	}
	if list, err := home.client(t).Moves(t.Context()); err != nil || len(list) != 1 || list[0].ID != m.ID {
		t.Errorf("%v, %+v", err, list)
	}
	if m, err = c.CancelMove(t.Context(), string(id)); err != nil || m.Phase != "aborted" || !strings.Contains(m.Why, "a user cancelled it") {
		t.Errorf("%v, %+v", err, m)
	}
	await(t, "both sites to forget it", func() bool {
		open := 0
		for _, b := range []*box{home, depot} {
			b.View(func(st *coordinator.State) {
				open += len(st.Moves.Departures)
				for _, a := range st.Moves.Arrivals {
					if !a.Phase.Decided() {
						open++
					}
				}
			})
		}
		return open == 0
	})
	if s := status(home, id); s != coordinator.Created {
		t.Errorf("the job is %s", s)
	}
	if m, err = c.Move(t.Context(), m.ID); err != nil || !m.Over || len(m.Steps) == 0 {
		t.Errorf("%v, %+v", err, m)
	}
}

// moved moves a job while meanwhile is done, and returns what was said of it in the end.
func moved(t *testing.T, c *api.Client, job string, to api.Migration, meanwhile func()) api.Move {
	t.Helper()
	m, err := c.Migrate(t.Context(), job, to)
	if err != nil {
		t.Fatal(err)
	}
	meanwhile()
	await(t, "the job to move to "+to.To, func() bool {
		now, err := c.Move(t.Context(), m.ID)
		if err != nil {
			return false // its leader is about to change
		}
		if m = now; m.Over && m.Phase != "handed-over" && m.Phase != "active" {
			t.Fatalf("%+v", m)
		}
		return m.Over // how long nothing came out is said later, and only if something did
	})
	for _, s := range m.Steps {
		t.Log(s.Text)
	}
	return m
}

// exactly checks that the rows of a slowJob in all files are each there once.
func exactly(t *testing.T, all ...*box) {
	t.Helper()
	rows, most := make(map[string]int), make(map[string]int)
	for _, b := range all {
		count(t, rows, b)
	}
	for row, times := range rows {
		key, n := parseRow(t, row)
		if most[key] = max(most[key], n); times != 1 {
			t.Errorf("%d times: %s", times, row)
		}
	}
	sum := 0
	for _, n := range most {
		sum += n
	}
	if len(rows) != 30000 || sum != 30000 {
		t.Errorf("%d rows that count to %d, want 30000", len(rows), sum)
	}
}

// A job moves to the other site and back, each time with all that it knows: in the files
// of both sites together each row is there once.
func TestAJobMovesThereAndBack(t *testing.T) {
	t.Parallel()
	plant, depot := twoSites(t, 1)
	home := plant[0]
	raised(t, home, depot)
	id := runs(t, home, "slow", fmt.Sprintf(slowJob, 100, "slow")) // five minutes, at that rate
	c, nothing := home.client(t), func() {}
	lines := func(b *box) int {
		rows := make(map[string]int)
		count(t, rows, b)
		return len(rows)
	}
	await(t, "rows at the plant", func() bool { return lines(home) > 0 })
	m := moved(t, c, "slow", api.Migration{To: "depot", Request: "there"}, nothing)
	if m.From != "plant" || m.To != "depot" || m.Bytes == 0 || m.Site != "plant" || status(home, id) != coordinator.Moved {
		t.Errorf("%+v; the job is %s", m, status(home, id))
	}
	at := lines(depot)
	await(t, "rows at the depot", func() bool { return lines(depot) > at })
	j, err := c.Job(t.Context(), "slow") // where it was
	if err != nil || j.ID != string(id) || j.Site != "depot" || len(j.History) != 2 || j.History[1].Site != "depot" {
		t.Errorf("%v, %+v", err, j)
	}
	if list, err := c.Jobs(t.Context()); err != nil || len(list) != 1 || list[0].Status != "moved" || list[0].Site != "depot" {
		t.Errorf("%v, %+v", err, list)
	}
	before := lines(home)
	moved(t, c, string(id), api.Migration{To: "plant", Request: "back"}, nothing)
	await(t, "rows at the plant again", func() bool { return lines(home) > before })
	if s := status(depot, id); s != coordinator.Moved {
		t.Errorf("at the depot it is %s", s)
	}
	moved(t, c, string(id), api.Migration{To: "depot", Request: "again", Set: []string{"sources.in.generate.rate=1000000"}}, nothing)
	await(t, "it to finish", func() bool { return status(depot, id) == coordinator.Finished })
	exactly(t, home, depot)
}

// countsAtPlant has a job with a session at a broker run at the first of two sites.
func countsAtPlant(t *testing.T) (plant []*box, depot *box, id coordinator.JobID, p *publisher) {
	t.Helper()
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	plant, depot = twoSites(t, 1)
	raised(t, plant[0], depot)
	id = submit(t, plant, fmt.Sprintf(strings.Replace(countsJob, "replicas: 2", "replicas: 1", 1), b.Addr()))
	await(t, "the job to run", func() bool { return status(plant[0], id) == coordinator.Running })
	await(t, "the feed to be subscribed", func() bool { return b.Stats().Subscriptions > 0 })
	return plant, depot, id, newPublisher(t, b.Addr())
}

// A job moves with the MQTT session of its source, and back, while messages come: each
// one is counted once.
func TestAFeedMovesThereAndBack(t *testing.T) {
	t.Parallel()
	plant, depot, id, p := countsAtPlant(t)
	all := []*box{plant[0], depot}
	everything := func(where string) {
		t.Helper()
		await(t, "everything to come out "+where, func() bool { return bytes.Count(out(t, all, "raw.jsonl"), []byte("\n")) >= p.next })
	}
	p.publish(300)
	c := plant[0].client(t)
	moved(t, c, string(id), api.Migration{To: "depot", Request: "there"}, func() { p.publish(300) })
	p.publish(100)
	everything("at the depot")
	moved(t, c, string(id), api.Migration{To: "plant", Request: "back"}, func() { p.publish(300) })
	p.publish(100)
	everything("at the plant")
	halt(t, plant, id)
	compare(t, all, p.next)
}

// A job moves, and the session of its source stays: its log is mirrored where the job is.
// Back where the session is it reads the log itself, and it goes away again. Each message is
// counted once.
func TestAJobMovesAndItsFeedStays(t *testing.T) {
	t.Parallel()
	plant, depot, id, p := countsAtPlant(t)
	all := []*box{plant[0], depot}
	p.publish(300)
	at := func(x *box, mirror, rests bool) {
		t.Helper()
		x.View(func(st *coordinator.State) {
			if f := st.Feeds[string(id)+".readings"]; f == nil || (f.Mirror != nil) != mirror || st.Rests(f) != rests {
				t.Errorf("at %s: %+v", x.name, f)
			}
		})
	}
	for i, to := range []string{"depot", "plant", "depot"} {
		m := moved(t, plant[0].client(t), string(id), api.Migration{To: to, Feed: "stay", Request: fmt.Sprint(i)}, func() { p.publish(300) })
		if m.Phase != "handed-over" && m.Phase != "active" {
			t.Errorf("%+v", m)
		}
		p.publish(100)
		await(t, "everything to come out at the "+to, func() bool { return bytes.Count(out(t, all, "raw.jsonl"), []byte("\n")) >= p.next })
		at(plant[0], false, false) // the session stays the plant's
		at(depot, true, to == "plant")
	}
	halt(t, []*box{depot}, id)
	compare(t, all, p.next)
	if w := plant[0].Network(); w.Raw == 0 || w.Packed == 0 || w.Packed > w.Raw {
		t.Errorf("%d bytes for the depot were packed into %d", w.Raw, w.Packed)
	}
}

// With --set the job reads the target's own broker from then on, and the first one's
// when it is told so on the way back.
func TestAJobMovesToABrokerOfTheOtherSite(t *testing.T) {
	t.Parallel()
	var brokers []*broker.Broker
	var publishers []*publisher
	for range 2 {
		b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		brokers, publishers = append(brokers, b), append(publishers, newPublisher(t, b.Addr()))
	}
	plant, depot := twoSites(t, 1)
	all := []*box{plant[0], depot}
	raised(t, all...)
	id := submit(t, plant, fmt.Sprintf(strings.Replace(countsJob, "replicas: 2", "replicas: 1", 1), brokers[0].Addr()))
	await(t, "the job to run", func() bool { return status(plant[0], id) == coordinator.Running })
	const path = "sources.readings.mqtt."
	c := plant[0].client(t)
	_, err := c.Migrate(t.Context(), string(id), api.Migration{To: "depot", DryRun: true, Set: []string{path + "broker=nonsense"}})
	refused(t, err, http.StatusUnprocessableEntity, "with these settings the job is not valid")
	_, err = c.Migrate(t.Context(), string(id), api.Migration{To: "depot", DryRun: true, Set: []string{path + "broker=mqtt://127.0.0.1:1"}})
	refused(t, err, http.StatusConflict, `agent d1 of site depot: source "readings": mqtt: cannot reach mqtt://127.0.0.1:1`)
	_, err = c.Migrate(t.Context(), string(id), api.Migration{To: "depot", DryRun: true, Set: []string{path + "lanes=4"}})
	refused(t, err, http.StatusUnprocessableEntity, "1 lanes for ever")
	next := 0
	for i, to := range []string{"plant", "depot", "plant"} {
		b := brokers[i%2]
		if i > 0 {
			moved(t, c, string(id), api.Migration{To: to, Request: fmt.Sprint(i), Set: []string{path + "broker=mqtt://" + b.Addr()}}, func() {})
		}
		await(t, "the feed to be subscribed at the "+to, func() bool { return b.Stats().Subscriptions > 0 })
		p := publishers[i%2]
		p.next = next
		p.publish(200)
		next = p.next
		await(t, "everything to come out at the "+to, func() bool { return bytes.Count(out(t, all, "raw.jsonl"), []byte("\n")) >= next })
	}
	halt(t, plant, id)
	compare(t, all, next)
}
