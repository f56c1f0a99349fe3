package api_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/migration"
)

// twoSites are hall and depot, of an agent each, which reach each other.
func twoSites(t *testing.T) (hall, depot *agent) {
	a, b := siteNamed(t, "hall", coordinator.SitesLevel), siteNamed(t, "depot", coordinator.SitesLevel)
	hall, depot = a.agent(t, "n1", ""), b.agent(t, "n1", "")
	a.away["depot"], b.away["hall"] = depot.member, hall.member
	for level := uint32(2); level <= coordinator.SitesLevel; level++ {
		for _, s := range []*site{a, b} {
			s.must(t, coordinator.Command{LevelRaised: &coordinator.LevelRaised{Level: level}})
		}
	}
	return hall, depot
}

// run submits a job under a name, and has it run.
func (a *agent) run(t *testing.T, name string) coordinator.JobID {
	t.Helper()
	id := submit(t, a.url, strings.Replace(generated, "name: gen", "name: "+name, 1))
	a.deploy(t, id)
	return coordinator.JobID(id)
}

// A request about a job goes to the site that has it: by its id, by its name, or where
// the job went; ?site= says which one is meant.
func TestElsewhere(t *testing.T) {
	hall, depot := twoSites(t)
	id := depot.run(t, "cold")
	for _, ref := range []string{string(id), "cold"} {
		r := send(t, hall.url, "GET", "/v1/jobs/"+ref, nil).want(t, 200, `"name":"cold"`, `"site":"depot"`, `"status":"running"`)
		if r.header.Get("Tidemark-Site") != "depot" {
			t.Errorf("%s: %v", ref, r.header)
		}
	}
	send(t, hall.url, "GET", "/v1/jobs/cold?site=depot", nil).want(t, 200, `"name":"cold"`)
	send(t, hall.url, "GET", "/v1/jobs?site=depot", nil).want(t, 200, `"name":"cold"`)
	send(t, hall.url, "GET", "/v1/jobs", nil).want(t, 200, "[]")
	send(t, hall.url, "GET", "/v1/jobs/cold?site=hall", nil).want(t, 404, `no job \"cold\"; there is none at all`)
	send(t, hall.url, "GET", "/v1/jobs/cold?stale=true", nil).want(t, 404)
	send(t, hall.url, "GET", "/v1/jobs/none", nil).want(t, 404, "there is none at all")
	send(t, hall.url, "GET", "/v1/jobs/cold?site=nowhere", nil).want(t, 404, `no site \"nowhere\" is known here`)
	send(t, hall.url, "GET", "/v1/jobs/cold?nothing=1", nil).want(t, 422)
	send(t, hall.url, "POST", "/v1/jobs/cold/rescale", api.Rescaling{Parallelism: 2}).want(t, 200, `"parallelism":2`)
	depot.savepoint(t, "sp-far")
	send(t, hall.url, "GET", "/v1/savepoints/sp-far", nil).want(t, 200, `"sp-far"`)
	send(t, hall.url, "GET", "/v1/savepoints/sp-far/export", nil).want(t, 404)
	send(t, hall.url, "GET", "/v1/savepoints/sp-none", nil).want(t, 404)
	send(t, hall.url, "POST", "/v1/jobs?site=depot", api.Submission{Spec: generated}).want(t, 201, "-depot")
	send(t, hall.url, "POST", "/v1/jobs/"+string(id)+"/cancel", nil).want(t, 200, `"cancelled"`)

	// One that went to depot, which has forgotten it since, is forgotten here.
	gone := hall.run(t, "gone")
	hall.must(t, coordinator.Command{Move: &coordinator.MoveCommand{Fenced: &coordinator.JobFenced{Job: gone, Epoch: 2, Owner: "depot"}}})
	send(t, hall.url, "POST", "/v1/jobs/gone/cancel", nil).want(t, 404)
	send(t, hall.url, "DELETE", "/v1/jobs/"+string(gone), nil).want(t, 204)
	send(t, hall.url, "GET", "/v1/jobs/gone", nil).want(t, 404)

	hall.away["depot"] = nil
	send(t, hall.url, "GET", "/v1/jobs/"+string(id), nil).want(t, 409, "site depot is to answer this, and is not reached")
	send(t, hall.url, "GET", "/v1/jobs/cold", nil).want(t, 404)
}

// migrateRecord is a move of a job of hall to depot that has come so far.
func migrateRecord(t *testing.T, a *agent, job coordinator.JobID) coordinator.MoveID {
	t.Helper()
	a.must(t, coordinator.Command{Move: &coordinator.MoveCommand{Began: &coordinator.MoveBegan{Job: job, Epoch: 1, To: "depot"}}})
	var id coordinator.MoveID
	a.View(func(st *coordinator.State) {
		for m := range st.Moves.Departures {
			id = m
		}
	})
	return id
}

func TestMoves(t *testing.T) {
	hall, depot := twoSites(t)
	job := hall.run(t, "cold")
	path := "/v1/jobs/cold/migrate"
	for to, says := range map[string]string{"hall": "is at site hall already", "": "minLength"} {
		if to != "" {
			send(t, hall.url, "POST", path, api.Migration{To: to}).want(t, 409, says)
		}
	}
	send(t, hall.url, "POST", path, api.Migration{}).want(t, 422, "where to?")
	send(t, hall.url, "POST", path, api.Migration{To: "nowhere"}).want(t, 404, `no site \"nowhere\"; there is depot`)
	send(t, hall.url, "POST", path, map[string]any{"to": "depot", "feed": "go"}).want(t, 422, "feed")
	send(t, hall.url, "POST", path+"/cancel", nil).want(t, 409, "is not moving")
	send(t, hall.url, "POST", "/v1/jobs/none/migrate", api.Migration{To: "depot"}).want(t, 404)
	if len(hall.wishes) != 0 {
		t.Fatalf("wished for %+v", hall.wishes)
	}
	send(t, hall.url, "POST", path, api.Migration{To: "depot", DryRun: true, Set: []string{"parallelism=2"}}).want(t, 200+2, `"phase":"dry run"`)
	hall.refuses = errors.New("the other site refuses it: no slots")
	send(t, hall.url, "POST", path, api.Migration{To: "depot", DryRun: true}).want(t, 409, "no slots")
	hall.refuses = nil
	send(t, hall.url, "GET", "/v1/moves", nil).want(t, 200, "[]")

	id := migrateRecord(t, hall, job)
	hall.told = []api.MoveTold{
		{At: 1, Move: id, Job: job, Progress: migration.Progress{Phase: "copying", Round: 1, Bytes: 4096, Took: 2_000_000, Lag: 7}},
		{At: 1, Move: id, Job: job, Progress: migration.Progress{Phase: "copying", Anew: true}},
		{At: 2, Move: id, Job: job, Progress: migration.Progress{Phase: "handed-over", Ended: "offered", Took: 30_000, Bytes: 5000}},
		{At: 3, Move: id, Job: job, To: "depot", Progress: migration.Progress{Phase: "handed-over", Pause: 1_490_000, Error: 12_000, Why: "so"}},
	}
	send(t, hall.url, "GET", "/v1/moves", nil).want(t, 200, `"phase":"copying"`, `"from":"hall"`, `"to":"depot"`, `"bytes":4096`)
	var m api.Move
	for _, url := range []string{hall.url, depot.url} { // the id says whose it is
		if err := json.Unmarshal([]byte(send(t, url, "GET", "/v1/moves/"+string(id), nil).want(t, 200).body), &m); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, s := range m.Steps {
			lines = append(lines, s.Text)
		}
		want := "copying, round 1: 4.0 KiB in 2s, the logs lag 7 B\ncopying, with another leader: rounds and bytes are counted anew\nhanded-over, after 30ms of offered, 4.9 KiB\npause 1.49s, give or take 12ms: nothing came out of the job"
		if got := strings.Join(lines, "\n"); got != want || m.Site != "hall" || m.Name != "cold" || m.Pause != 1_490_000 || m.Over {
			t.Errorf("%s\n%+v", got, m)
		}
	}
	send(t, hall.url, "GET", "/v1/moves/m1-hall", nil).want(t, 404, string(id))
	send(t, depot.url, "POST", "/v1/jobs/"+string(job)+"/migrate/cancel", nil).want(t, 200, `"copying"`) // the fake only notes the wish
	if n := len(hall.wishes); n == 0 || hall.wishes[n-1].Cancel != id {
		t.Errorf("wished for %+v", hall.wishes)
	}

	// Its record is gone, what was told is not.
	hall.must(t, coordinator.Command{Move: &coordinator.MoveCommand{Decided: &coordinator.MoveDecided{ID: id, Why: "no"}}})
	send(t, hall.url, "GET", "/v1/moves/"+string(id), nil).want(t, 200, `"phase":"aborted"`, `"over":true`, `"why":"no"`)
	hall.must(t, coordinator.Command{Move: &coordinator.MoveCommand{Forgotten: &coordinator.MoveForgotten{ID: id}}})
	send(t, hall.url, "GET", "/v1/moves/"+string(id), nil).want(t, 200, `"over":true`, `"name":"cold"`, `"to":"depot"`, `"why":"so"`, `"phase":"handed-over"`)
}

// Where nobody reaches the source of a move it is dropped here.
func TestCancelOfAnArrival(t *testing.T) {
	_, depot := twoSites(t)
	arr := coordinator.Arrival{ID: "m9-hall", From: "hall", Epoch: 2, Phase: coordinator.ArrivalReceiving, Job: coordinator.MovingJob{ID: "j7-hall", Namespace: "default", Name: "cold", Spec: []byte(generated)}}
	depot.must(t, coordinator.Command{Move: &coordinator.MoveCommand{ArrivalBegan: &arr}})
	send(t, depot.url, "GET", "/v1/moves", nil).want(t, 200, `"phase":"receiving"`, `"name":"cold"`, `"from":"hall"`, `"to":"depot"`)
	depot.away["hall"] = nil
	for _, ref := range []string{"cold", "j7-hall"} {
		depot.wishes = nil
		w := send(t, depot.url, "POST", "/v1/jobs/"+ref+"/migrate/cancel", nil)
		if len(depot.wishes) != 1 || depot.wishes[0].Cancel != "m9-depot" && depot.wishes[0].Cancel != "m9-hall" {
			t.Errorf("%s: %d %+v", ref, w.status, depot.wishes)
		}
	}
}

// Settings of a move that give two of its feeds one session are refused before anything
// begins, whichever of them they name.
func TestAMoveGivesNoSessionTwice(t *testing.T) {
	hall, _ := twoSites(t)
	send(t, hall.url, "POST", "/v1/feeds", api.NewFeed{Name: "line3", Broker: "mqtt://broker.plant", Topics: []string{"x"}, QoS: 1, ClientID: "shared"}).want(t, 201)
	spec := strings.NewReplacer("PASSWORD", "${env:PW}", "sinks:", `  more:
    mqtt: {broker: "mqtt://broker.plant:1883", topics: [x], qos: 1, client_id: its}
    format: text
    event_time: ingestion
  line: {feed: line3, format: text, event_time: ingestion}
sinks:
  - {id: out2, from: more, blackhole: {}}
  - {id: out3, from: line, blackhole: {}}`).Replace(metered)
	submit(t, hall.url, spec)
	set := func(all ...string) api.Migration {
		m := api.Migration{To: "depot", DryRun: true}
		for _, s := range all {
			m.Set = append(m.Set, "sources."+s)
		}
		return m
	}
	const path, both = "/v1/jobs/metered/migrate", "one session is one source's"
	send(t, hall.url, "POST", path, set("more.mqtt.client_id=x", "readings.mqtt.client_id=x")).want(t, 422, `source \"more\"`, `client id \"x\"`, `source \"readings\"`, both)
	send(t, hall.url, "POST", path, set("readings.mqtt.client_id=its")).want(t, 422, `client id \"its\"`, both)
	send(t, hall.url, "POST", path, set("readings.mqtt.client_id=shared")).want(t, 422, `client id \"shared\"`, "feed line3", both)
	if len(hall.wishes) != 0 {
		t.Fatalf("wished for %+v", hall.wishes)
	}
	for _, ok := range []api.Migration{set("more.mqtt.client_id=x", "readings.mqtt.client_id=y"), set("readings.mqtt.client_id=its", "readings.mqtt.broker=mqtt://other")} {
		send(t, hall.url, "POST", path, ok).want(t, 202, `"phase":"dry run"`)
	}
	stays := set("readings.mqtt.client_id=its")
	stays.Feed = "stay"
	send(t, hall.url, "POST", path, stays).want(t, 202, `"phase":"dry run"`)
}
