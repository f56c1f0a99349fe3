package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// generated is a job that reads nothing from anywhere.
const generated = `name: gen
sources:
  in: {generate: {rate: 1000, keys: 3, seed: 5}, event_time: ts, watermark: {bounded: 1ms}}
sinks:
  - {id: out, from: in, blackhole: {}}
`

// metered is a job with a source and a sink at a broker.
const metered = `name: metered
replicas: 2
when_short: degrade
sources:
  readings:
    mqtt: {broker: "mqtt://broker.plant:1883", topics: [plant/+/t], qos: 1, username: edge, password: "PASSWORD"}
    format: json
    fields: {temp: double}
    event_time: ingestion
sinks:
  - {id: out, from: readings, blackhole: {}}
`

func submit(t *testing.T, url, spec string) string {
	t.Helper()
	var done api.Submitted
	r := send(t, url, "POST", "/v1/jobs", api.Submission{Spec: spec, File: "job.yaml"}).want(t, 201)
	if err := json.Unmarshal([]byte(r.body), &done); err != nil {
		t.Fatal(err)
	}
	return done.ID
}

// deploy makes a job run, on n1.
func (s *site) deploy(t *testing.T, id string) {
	job := coordinator.JobID(id)
	s.must(t, coordinator.Command{JobDeployed: &coordinator.JobDeployed{Job: job, Attempt: 1, Term: 1, Places: []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "in"}, Node: "n1"}}}})
	s.must(t, coordinator.Command{JobBecame: &coordinator.JobBecame{Job: job, Attempt: 1, Status: coordinator.Running}})
}

// savepoint puts one into the state, without parts.
func (s *site) savepoint(t *testing.T, name string) {
	m := manifest.Manifest{Kind: manifest.Savepoint, Name: name, Job: "gen", ID: dataflow.CheckpointID{Counter: 1}, Created: 1_700_000_000_000_000, MaxParallelism: 128, Mode: manifest.ExactlyOnce,
		Operators: []manifest.Operator{{ID: "in", Parallelism: 1, Positions: []manifest.Position{{Split: "0 of 1", Offset: 9}}}}}
	data, err := manifest.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	s.must(t, coordinator.Command{SavepointAdded: &coordinator.Snapshot{Name: name, Manifest: data}})
}

func TestJobs(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	send(t, a.url, "GET", "/v1/jobs", nil).want(t, 200, "[]")
	id := submit(t, a.url, generated)
	send(t, a.url, "POST", "/v1/jobs", api.Submission{Spec: generated}).want(t, 409, "stop it first")
	s.deploy(t, id)
	send(t, a.url, "GET", "/v1/jobs", nil).want(t, 200, `"name":"gen"`, `"status":"running"`, `"namespace":"default"`, `"parallelism":1`)
	for _, ref := range []string{id, "gen"} {
		send(t, a.url, "GET", "/v1/jobs/"+ref, nil).want(t, 200, `"rows_in":7`, `"agent":"press-1"`, `"first_rejected":"no JSON"`, `"max_parallelism":128`, `"watermark":"2023-11-14T22:13:20.000000Z"`)
	}
	send(t, a.url, "GET", "/v1/jobs/other", nil).want(t, 404, "there is gen")
	send(t, a.url, "POST", "/v1/jobs/gen/rescale", map[string]int{"parallelism": 500}).want(t, 422, "max_parallelism 128")
	send(t, a.url, "POST", "/v1/jobs/gen/rescale", map[string]int{"parallelism": 0}).want(t, 422, "parallelism")
	send(t, a.url, "POST", "/v1/jobs/gen/rescale", map[string]int{"parallelism": 9}).want(t, 409, "needs 9 slots with parallelism 9, and can have 8", "runs on")
	send(t, a.url, "POST", "/v1/jobs/gen/rescale", map[string]int{"parallelism": 3}).want(t, 200, `"parallelism":3`)
	send(t, a.url, "GET", "/v1/jobs", nil).want(t, 200, `"parallelism":3`)
	send(t, a.url, "POST", "/v1/jobs/gen/savepoints", nil).want(t, 201, "sp-asked")
	send(t, a.url, "POST", "/v1/jobs/gen/savepoints", api.Saving{Request: "r1"}).want(t, 201, "sp-asked")
	send(t, a.url, "GET", "/v1/jobs/gen/spec", nil).want(t, 200, "name: gen")
	s.savepoint(t, "sp-1")
	for range 2 { // asked twice it is the same
		send(t, a.url, "POST", "/v1/jobs/gen/stop", nil).want(t, 200, `{"savepoint":"sp-1"}`)
	}
	send(t, a.url, "POST", "/v1/jobs/gen/stop?drain=maybe", nil).want(t, 422, "drain")
	send(t, a.url, "DELETE", "/v1/savepoints/sp-1", nil).want(t, 204)
	send(t, a.url, "POST", "/v1/jobs/gen/stop", nil).want(t, 409, "savepoint sp-1, with which it stopped, was deleted")
	if shown := send(t, a.url, "GET", "/v1/jobs/gen", nil).want(t, 200, `"status":"stopped"`); strings.Contains(shown.body, "sp-1") {
		t.Errorf("a savepoint that was deleted is shown: %s", shown.body)
	}
	next := submit(t, a.url, generated)
	if next == id {
		t.Error("an id is given twice")
	}
	send(t, a.url, "GET", "/v1/jobs/gen", nil).want(t, 200, next) // the live one
	send(t, a.url, "POST", "/v1/jobs/gen/cancel", nil).want(t, 200, `"status":"cancelled"`)
	send(t, a.url, "POST", "/v1/jobs/gen/cancel", nil).want(t, 200, `"status":"cancelled"`)
	send(t, a.url, "POST", "/v1/jobs/"+next+"/stop", nil).want(t, 409, "it is cancelled")
	send(t, a.url, "DELETE", "/v1/jobs/"+next, nil).want(t, 204)
	send(t, a.url, "GET", "/v1/jobs/"+next, nil).want(t, 404)
}

// The same request twice is one job, whatever became of it.
func TestSubmitTwice(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	sub := api.Submission{Spec: generated, Request: "r1"}
	first := send(t, a.url, "POST", "/v1/jobs", sub).want(t, 201)
	send(t, a.url, "POST", "/v1/jobs/gen/cancel", nil).want(t, 200)
	if again := send(t, a.url, "POST", "/v1/jobs", sub).want(t, 201); again.body != first.body {
		t.Errorf("%s, then %s", first.body, again.body)
	}
}

// A job may be kept at a site that comes some day: that it is not there is said.
func TestReplicatedNowhereYet(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	s.away["depot"] = nil
	spec := "replicate_to: [depot, nowhere]\n" + generated
	send(t, a.url, "POST", "/v1/check", api.Dry{Submission: api.Submission{Spec: spec}}).want(t, 200, "no site nowhere is known yet", "nobody of site depot is seen now")
	send(t, a.url, "POST", "/v1/jobs", api.Submission{Spec: spec}).want(t, 201, "no site nowhere is known yet")
}

// What sites keep of each other's jobs is shown with the job, the sites and the numbers.
func TestReplicasAreShown(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	id := submit(t, a.url, generated)
	s.replicas = []api.Replica{
		{Job: id, Name: "gen", From: "hall", To: "depot", Snapshot: "chk-1", Restorable: true, Entries: 12},
		{Job: "j8-hall", Name: "new", From: "hall", To: "depot", Why: "site depot says nothing of it", Unknown: true},
		{Job: "j7-depot", Name: "door", From: "depot", To: "hall", Why: "nothing is complete yet", Entries: 3, Time: 1500},
	}
	send(t, a.url, "GET", "/v1/jobs/gen", nil).want(t, 200, `"replicas":[{"job":"`+id, `"lag_entries":12`)
	send(t, a.url, "GET", "/metrics", nil).want(t, 200, `tidemark_replica_lag_entries{from="hall",job="`+id+`",to="depot"} 12`, `tidemark_replica_restorable{from="depot",job="j7-depot",to="hall"} 0`)
	send(t, a.url, "GET", "/v1/sites", nil).want(t, 200, `"lag_to":"12 entries, more is not known of 1 of 2 jobs, 1 of 2 jobs not restorable"`, `"lag_from":"3 entries, 1.5s, 1 of 1 jobs not restorable"`)
	all := send(t, a.url, "GET", "/metrics", nil).want(t, 200, `tidemark_replica_restorable{from="hall",job="j8-hall",to="depot"} 0`, `tidemark_replica_lag_seconds{from="depot",job="j7-depot",to="hall"} 1.5`,
		`tidemark_replica_lag_bytes{from="depot",job="j7-depot",to="hall"} 0`)
	for _, unknown := range []string{`lag_seconds{from="hall"`, `lag_bytes{from="hall"`, `lag_entries{from="hall",job="j8-hall"`} {
		if strings.Contains(all.body, unknown) {
			t.Errorf("%s is not known, and is told", unknown)
		}
	}
}

func TestSubmitRefused(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	s.savepoint(t, "sp-1")
	for name, c := range map[string]struct {
		in     any
		status int
		says   []string
	}{
		"all errors at once":  {api.Submission{Spec: "name: x\nsorces: {}\nsinks: 3\n", File: "my.yaml"}, 422, []string{"my.yaml:2", "my.yaml:3", "errors"}},
		"empty":               {api.Submission{}, 422, []string{"the file is empty; a job has name"}},
		"unknown key":         {`{"spec":"name: x","speed":3}`, 422, []string{"speed"}},
		"no JSON":             {`name: x`, 400, nil},
		"a plain password":    {api.Submission{Spec: strings.ReplaceAll(metered, "PASSWORD", "hunter2")}, 422, []string{"stores no secrets", "${file:PATH}"}},
		"a password that set": {api.Submission{Spec: strings.ReplaceAll(metered, "PASSWORD", "${env:X}"), Set: []string{"sources.readings.mqtt.password=hunter2"}}, 422, []string{"stores no secrets"}},
		"no such savepoint":   {api.Submission{Spec: generated, From: "sp-9"}, 404, []string{"there is sp-1"}},
		"does not fit":        {api.Submission{Spec: strings.ReplaceAll(generated, "in", "other"), From: "sp-1"}, 422, nil},
		"stdin":               {api.Submission{Spec: "name: x\nsources: {in: {file: {path: '-'}, format: text}}\nsinks: [{id: out, from: in, blackhole: {}}]\n"}, 422, []string{"stdin"}},
		"no such feed":        {api.Submission{Spec: "name: x\nsources: {in: {feed: plant, format: text}}\nsinks: [{id: out, from: in, blackhole: {}}]\n"}, 422, []string{"feed create"}},
	} {
		r := send(t, a.url, "POST", "/v1/jobs", c.in)
		if strings.Contains(r.body, "hunter2") {
			t.Errorf("%s: a secret is shown: %s", name, r.body)
		}
		t.Run(name, func(t *testing.T) { r.want(t, c.status, c.says...) })
	}
	a.View(func(st *coordinator.State) {
		if len(st.Jobs) > 0 {
			t.Error("a job was made")
		}
	})
}

// A job's own source makes a feed, with references to secrets only.
func TestSubmitFeed(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	id := submit(t, a.url, strings.ReplaceAll(metered, "PASSWORD", "${env:PW}"))
	a.View(func(st *coordinator.State) {
		f := st.Feeds[id+".readings"]
		if f == nil || f.Replicas != 2 || !f.Degrade {
			t.Fatalf("%+v", f)
		}
		for _, says := range []string{`"username": "edge"`, `"${env:PW}"`, `"plant/metered.readings"`} {
			if !bytes.Contains(f.Config, []byte(says)) {
				t.Errorf("it does not say %s: %s", says, f.Config)
			}
		}
	})
	send(t, a.url, "GET", "/v1/jobs/metered", nil).want(t, 200, id+".readings")
	send(t, a.url, "GET", "/v1/feeds/"+id+".readings", nil).want(t, 200, `"readers":["metered"]`, `"when_short":"degrade"`)
	send(t, a.url, "DELETE", "/v1/feeds/"+id+".readings", nil).want(t, 409, "belongs to job")
	send(t, a.url, "GET", "/v1/feeds/metered.readings", nil).want(t, 200, id+".readings")
	send(t, a.url, "GET", "/v1/feeds/metered.other", nil).want(t, 404, "there is "+id+".readings")
	send(t, a.url, "POST", "/v1/jobs/metered/cancel", nil).want(t, 200)
	send(t, a.url, "GET", "/v1/feeds", nil).want(t, 200, `"state":"stopped"`, "is cancelled: `tidemark job forget "+id+"` deletes it")
}

func TestCheck(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	s.savepoint(t, "sp-1")
	send(t, a.url, "POST", "/v1/check", api.Submission{Spec: generated}).want(t, 200, `"ok":true`, `"operators":2`)
	send(t, a.url, "POST", "/v1/check", api.Submission{Spec: generated, From: "sp-1"}).want(t, 200, `"restore":{`)
	send(t, a.url, "POST", "/v1/check", api.Submission{Spec: "name: x"}).want(t, 422, "not valid")
	send(t, a.url, "POST", "/v1/check", api.Submission{Spec: generated, From: "gen"}).want(t, 404, "no savepoint or job", "there is sp-1")
}

func TestSavepoints(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	s.savepoint(t, "sp-1")
	send(t, a.url, "GET", "/v1/savepoints", nil).want(t, 200, `"id":"sp-1"`, `"created":"2023-11-14T22:13:20Z"`)
	send(t, a.url, "GET", "/v1/savepoints/sp-1", nil).want(t, 200, `"offset":9`)
	send(t, a.url, "GET", "/v1/savepoints/sp-9", nil).want(t, 404, "there is sp-1")
	send(t, a.url, "GET", "/v1/savepoints/gen%2Fchk-1", nil).want(t, 404, "no job")
	send(t, a.url, "POST", "/v1/savepoints/sp-1/verify", nil).want(t, 200, `"ok":true`)
	send(t, a.url, "GET", "/v1/state/sp-1?operator=in&state=positions", nil).want(t, 200, `{"split":"0 of 1","offset":9,"ended":false}`)
	send(t, a.url, "GET", "/v1/state/sp-1?operator=in&state=other", nil).want(t, 404, "positions")
	send(t, a.url, "GET", "/v1/state/sp-1", nil).want(t, 422, "operator")
	x := send(t, a.url, "GET", "/v1/savepoints/sp-1/export", nil).want(t, 200)
	send(t, a.url, "POST", "/v1/savepoints/import?as=sp-2", x.body).want(t, 201, `"id":"sp-2"`)
	send(t, a.url, "POST", "/v1/savepoints/import", x.body).want(t, 409)
	send(t, a.url, "POST", "/v1/savepoints/import", "no archive").want(t, 422, "savepoint export")
	send(t, a.url, "GET", "/v1/state/sp-1/diff/sp-2", nil).want(t, 200)
	send(t, a.url, "DELETE", "/v1/savepoints/sp-2", nil).want(t, 204)
	send(t, a.url, "DELETE", "/v1/savepoints/sp-2", nil).want(t, 404, "there is sp-1")
	send(t, a.url, "DELETE", "/v1/savepoints/gen%2Fchk-1", nil).want(t, 422, "lets them go itself")
	send(t, a.url, "GET", "/v1/jobs/gen/checkpoints", nil).want(t, 404)
	submit(t, a.url, generated)
	send(t, a.url, "GET", "/v1/jobs/gen/checkpoints", nil).want(t, 200, "[]")
	send(t, a.url, "GET", "/v1/savepoints/gen", nil).want(t, 404, "no checkpoint yet")
}

func TestFeeds(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	f := api.NewFeed{Name: "plant", Broker: "mqtt://b:1883", Topics: []string{"plant/#"}, QoS: 1, Lanes: 4, Password: "${env:PW}", Username: "edge"}
	send(t, a.url, "POST", "/v1/feeds", f).want(t, 201, `"lanes":4`, `"client_id":"plant/plant"`)
	send(t, a.url, "POST", "/v1/feeds", f).want(t, 409, "there already")
	send(t, a.url, "GET", "/v1/feeds", nil).want(t, 200, `"state":"never opened"`)
	for _, name := range []string{"plant.at.hall", "j7.in", "3"} { // no job could read it
		named := f
		named.Name = name
		send(t, a.url, "POST", "/v1/feeds", named).want(t, 422, "a feed cannot be called")
	}
	f.Name, f.Password = "b", "hunter2"
	send(t, a.url, "POST", "/v1/feeds", f).want(t, 422, "stores no secrets")
	f.Password, f.KeepAge = "", 1<<62
	send(t, a.url, "POST", "/v1/feeds", f).want(t, 422, "keep_age_ms")
	f.KeepAge, f.Lanes = 0, 9999
	send(t, a.url, "POST", "/v1/feeds", f).want(t, 422, `"detail":"lanes: expected number`, "The request is not as")
	f.Lanes, f.Broker = 1, "xx"
	if r := send(t, a.url, "POST", "/v1/feeds", f).want(t, 422, "unknown scheme"); strings.Count(r.body, "feed ") != 1 {
		t.Error("it says more than once which feed:", r.body)
	}
	send(t, a.url, "POST", "/v1/jobs", api.Submission{Spec: "name: x\nsources: {in: {feed: plant, format: text, event_time: ingestion}}\nsinks: [{id: out, from: in, blackhole: {}}]\n"}).want(t, 201)
	send(t, a.url, "DELETE", "/v1/feeds/plant", nil).want(t, 409, "stop the job first")
	send(t, a.url, "POST", "/v1/jobs/x/cancel", nil).want(t, 200)
	send(t, a.url, "DELETE", "/v1/feeds/plant", nil).want(t, 204)
	send(t, a.url, "DELETE", "/v1/feeds/plant", nil).want(t, 404, "no feed")
	send(t, a.url, "GET", "/v1/feeds/plant", nil).want(t, 404, "no feed")
}

// A job with two slot groups has two slots on an agent that runs both.
func TestFreeSlots(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	id := submit(t, a.url, strings.Replace(generated, "blackhole: {}", "blackhole: {}, slot_group: other", 1))
	places := []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "in"}, Node: "n1"}, {Subtask: dataflow.SubtaskID{Task: "out"}, Node: "n1"}}
	s.must(t, coordinator.Command{JobDeployed: &coordinator.JobDeployed{Job: coordinator.JobID(id), Attempt: 1, Term: 1, Places: places}})
	send(t, a.url, "GET", "/v1/members", nil).want(t, 200, `"free":2`, `"free":4`)
	s.must(t, coordinator.Command{JobBecame: &coordinator.JobBecame{Job: coordinator.JobID(id), Attempt: 1, Status: coordinator.Running}})
	send(t, a.url, "POST", "/v1/jobs/gen/rescale", map[string]int{"parallelism": 8}).want(t, 409, "needs 9 slots with parallelism 8, and can have 8")
	send(t, a.url, "POST", "/v1/jobs/gen/rescale", map[string]int{"parallelism": 7}).want(t, 200)
}

func TestSite(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	send(t, a.url, "GET", "/v1/site", nil).want(t, 200, `"leader":"press-1"`, `"agents":2`, `"voters":2`, `"mesh":"plant"`)
	send(t, a.url, "GET", "/v1/sites", nil).want(t, 200, `"site":"hall","self":true,"leader":"press-1"`, `"site":"depot"`, `"why":"not reached"`)
	send(t, a.url, "GET", "/v1/members", nil).want(t, 200, `"role":"leader"`, `"free":4`, `"addr":"10.0.0.2:7071"`)
	send(t, a.url, "DELETE", "/v1/members/press-9", nil).want(t, 404, "press-1, press-2")
	send(t, a.url, "DELETE", "/v1/members/press-2", nil).want(t, 409, "--force")
	send(t, a.url, "DELETE", "/v1/members/press-1?force=true", nil).want(t, 409, "leads")
	send(t, a.url, "DELETE", "/v1/members/press-2?force=true", nil).want(t, 204)
	send(t, a.url, "GET", "/v1/site", nil).want(t, 200, `"agents":1`)
	send(t, a.url, "POST", "/v1/tokens", api.NewToken{TTL: 1000, Uses: 2}).want(t, 201, "tm1-secret-1", `"uses":2`, `"state":"good"`)
	list := send(t, a.url, "GET", "/v1/tokens", nil).want(t, 200, `"id":"t1"`, `"state":"good"`)
	if strings.Contains(list.body, "secret") {
		t.Error("a list shows secrets")
	}
	send(t, a.url, "DELETE", "/v1/tokens/t1", nil).want(t, 204)
	send(t, a.url, "GET", "/v1/tokens", nil).want(t, 200, "revoked")
	send(t, a.url, "DELETE", "/v1/tokens/t9", nil).want(t, 404)
	send(t, a.url, "POST", "/v1/tokens", api.NewToken{Uses: -1}).want(t, 422, "uses")
	send(t, a.url, "POST", "/v1/members/self/leave", nil).want(t, 204)
	<-a.left
}

// Tokens are made, and judged, by the agent's time, which is of 2023 here, and not by
// the machine's. None is made for a site that may not be founded.
func TestTokensByTheAgentsTime(t *testing.T) {
	s := siteNamed(t, "hall", coordinator.Level)
	s.must(t, coordinator.Command{LevelRaised: &coordinator.LevelRaised{Level: coordinator.Level}})
	a := s.agent(t, "n1", "")
	want := []string{`"created":"2023-11-14T22:13:20Z"`, `"expires":"2023-11-14T22:13:21Z"`, `"state":"good"`}
	send(t, a.url, "POST", "/v1/tokens", api.NewToken{TTL: 1000, Uses: 2}).want(t, 201, want...)
	send(t, a.url, "POST", "/v1/sites", api.NewSite{Mesh: "plant", Site: "depot", Token: "f1", Hash: make([]byte, 32), Sealed: []byte{1}, TTL: 1000}).want(t, 201, want...)
	s.away["mill"] = &member{}
	send(t, a.url, "POST", "/v1/sites", api.NewSite{Mesh: "plant", Site: "mill", Token: "f2", Hash: make([]byte, 32), Sealed: []byte{1}}).want(t, 409, "site mill is there already")
	list := send(t, a.url, "GET", "/v1/tokens", nil).want(t, 200)
	if strings.Count(list.body, `"state":"good"`) != 2 {
		t.Error(list.body)
	}
}

// Any agent takes any request; without a leader nothing is done.
func TestForward(t *testing.T) {
	s := newSite(t)
	one, two := s.agent(t, "n1", ""), s.agent(t, "n2", "secret")
	auth := []string{"Authorization", "Bearer secret"}
	send(t, two.url, "POST", "/v1/jobs", api.Submission{Spec: generated}, auth...).want(t, 201)
	send(t, two.url, "GET", "/v1/jobs/gen", nil, auth...).want(t, 200, `"status":"created"`)
	send(t, two.url, "GET", "/v1/jobs/gen?stale=true", nil, auth...).want(t, 200, `"subtasks":[]`)
	send(t, two.url, "GET", "/v1/savepoints/gen%2Fchk-1", nil, auth...).want(t, 404, "no checkpoint") // escapes stay
	send(t, two.url, "POST", "/v1/members/self/leave", nil, auth...).want(t, 204)
	<-two.left
	s.leads("n2") // and the other passes on to it
	send(t, one.url, "GET", "/v1/site", nil).want(t, 200, `"leader":"press-2"`)
	s.leads("")
	for _, path := range []string{"/v1/jobs", "/v1/site"} {
		r := send(t, one.url, "GET", path, nil).want(t, 503, "no leader", "nothing was done")
		if r.header.Get("Retry-After") == "" {
			t.Error("it does not say when to ask again")
		}
		send(t, one.url, "GET", path+"?stale=true", nil).want(t, 200)
	}
	s.leads("n2") // one hop only: n1 is asked by an agent that thinks it leads
	r := send(t, one.url, "GET", "/v1/jobs", nil, "X-Tidemark-Hop", "n2").want(t, 503, "is changing")
	if r.header.Get("Retry-After") == "" {
		t.Error("it does not say when to ask again")
	}
}

func TestWho(t *testing.T) {
	s := newSite(t)
	open, closed := s.agent(t, "n1", ""), s.agent(t, "n1", "secret")
	send(t, open.url, "GET", "/v1/jobs", nil, "Host", "evil.example").want(t, 403, "not this machine")
	send(t, open.url, "POST", "/v1/members/self/leave", nil, "Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site").want(t, 403, `"detail":"a page of another origin`)
	send(t, open.url, "PUT", "/v1/jobs", nil).want(t, 405, "GET, POST")
	for _, shown := range []string{"", "Bearer ", "Bearer other", "secret", "Basic secret"} {
		send(t, closed.url, "GET", "/v1/jobs", nil, "Authorization", shown).want(t, 401, "TIDEMARK_TOKEN")
	}
	send(t, closed.url, "GET", "/v1/jobs", nil, "Authorization", "Bearer secret").want(t, 200)
	send(t, closed.url, "GET", "/healthz", nil).want(t, 200, "true")
	send(t, closed.url, "GET", "/metrics", nil).want(t, 401)
	send(t, closed.url, "GET", "/readyz", nil, "Authorization", "Bearer secret").want(t, 200, `"ready":true`)
	send(t, open.url, "GET", "/v2/jobs", nil).want(t, 404, "/openapi.json")
	send(t, open.url, "GET", "/v1/jobs?order=name", nil).want(t, 422, "order")
	send(t, open.url, "POST", "/v1/jobs", strings.Repeat("x", 5<<20)).want(t, 413, "bytes")
	s.leads("")
	send(t, open.url, "GET", "/readyz", nil).status503(t)
}

func (r reply) status503(t *testing.T) {
	t.Helper()
	if r.status != http.StatusServiceUnavailable || !strings.Contains(r.body, "no leader") {
		t.Errorf("status %d: %s", r.status, r.body)
	}
}

func TestMetrics(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	id := submit(t, a.url, generated)
	s.deploy(t, id)
	all := send(t, a.url, "GET", "/metrics", nil).want(t, 200,
		`tidemark_mirror_lag_entries{feed="line.at.depot"} 0`, `tidemark_mirror_connected{feed="new.at.depot"} 0`,
		`tidemark_operator_in_rows_total{job="`+id+`",name="gen",operator="in",subtask="in/0"} 7`, `tidemark_log_end{feed="plant"} 12`,
		`tidemark_job_status{job="`+id+`",name="gen",status="running"} 1`, `tidemark_subtask_watermark_lag_seconds`, `tidemark_attempt_prepare_seconds{job="`+id+`",name="gen",phase="restore"} 1.5`,
		`tidemark_attempt_fetched_bytes{job="`+id+`"`, "tidemark_raft_is_leader 1", "go_goroutines",
		`tidemark_quic_sent_bytes_total{class="data",peer="press-1"} 111`, `tidemark_quic_lost_packets_total{class="data",peer="press-1"} 4`, `tidemark_quic_received_bytes_total{class="control",peer="n9"} 6`, `tidemark_quic_connections{class="data",peer="press-1"} 2`, `tidemark_quic_rtt_seconds{class="data",peer="press-1"} 0.005`,
		"tidemark_raft_command_seconds_total 0.01", "tidemark_raft_leader_contact_seconds", "tidemark_gossip_health_score 1", "tidemark_wan_raw_bytes_total 900", "tidemark_wan_packed_bytes_total 300")
	if strings.Contains(all.body, `lag_seconds{feed="line.at.depot"} 0`) || strings.Contains(all.body, `_lag_entries{feed="new.at.depot"}`) {
		t.Errorf("a source that is silent is followed: %s", all.body)
	}
	send(t, s.agent(t, "n2", "").url, "GET", "/metrics", nil).want(t, 200, "tidemark_raft_is_leader 0")
}

// docs/METRICS.md names all metrics, and none that is not there.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "METRICS.md"))
	if err != nil {
		t.Fatal(err)
	}
	written, there := make(map[string]bool), make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| `tidemark_") {
			continue
		}
		for _, name := range regexp.MustCompile("`(tidemark_[a-z_]+)`").FindAllStringSubmatch(strings.Split(line, "|")[1], -1) {
			written[name[1]] = true
		}
	}
	for _, name := range api.MetricNames() {
		there[name] = true
		if !written[name] {
			t.Errorf("%s is not in METRICS.md", name)
		}
	}
	for name := range written {
		if !there[name] {
			t.Errorf("METRICS.md has %s, which is not there", name)
		}
	}
}

// Every operation has an id, a summary, and problems for its errors.
func TestOpenAPI(t *testing.T) {
	a := newSite(t).agent(t, "n1", "")
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string         `json:"operationId"`
			Summary     string         `json:"summary"`
			Responses   map[string]any `json:"responses"`
		}
	}
	r := send(t, a.url, "GET", "/openapi.json", nil).want(t, 200)
	if err := json.Unmarshal([]byte(r.body), &doc); err != nil {
		t.Fatal(err)
	}
	n := 0
	for path, methods := range doc.Paths {
		for method, o := range methods {
			n++
			if o.Summary == "" || o.OperationID == "" || len(o.Responses) == 0 {
				t.Errorf("%s %s: %+v", method, path, o)
			}
		}
	}
	if n < 30 {
		t.Errorf("%d operations", n)
	}
}

// Events come through another agent as they happen; the stream ends with the job.
func TestWatch(t *testing.T) {
	s := newSite(t)
	s.agent(t, "n1", "")
	two := s.agent(t, "n2", "")
	id := submit(t, two.url, generated)
	c, err := api.NewClient(two.url, "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = c.Watch(t.Context(), "gen", func(e api.EventLine) error {
		got = append(got, e.What+" "+e.Text)
		switch len(got) {
		case 1:
			s.tell(api.Event{Job: "j999", What: "job", Text: "another's"})
			s.tell(api.Event{Job: coordinator.JobID(id), What: "checkpoint", Text: "one"})
		case 2:
			s.must(t, coordinator.Command{JobBecame: &coordinator.JobBecame{Job: coordinator.JobID(id), Status: coordinator.Failed, Why: "no disk"}})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "job created|checkpoint one|end failed: no disk"; strings.Join(got, "|") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	stop := errors.New("enough")
	if err := c.Watch(t.Context(), "other", func(api.EventLine) error { return stop }); err == nil || !strings.Contains(err.Error(), "no job") {
		t.Error(err)
	}
}

// A client tells nobody there from an answer, and hands on what an agent says.
func TestClient(t *testing.T) {
	a := newSite(t).agent(t, "n1", "secret")
	nobody, err := api.NewClient("127.0.0.1:1", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.Jobs(t.Context()); !errors.Is(err, api.ErrNoAgent) {
		t.Error(err)
	}
	c, err := api.NewClient(a.url+"/", "secret")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Submit(t.Context(), api.Submission{Spec: "name: x"}); err == nil {
		t.Error("an invalid job was taken")
	} else if p := new(api.Problem); !errors.As(err, &p) || !p.Invalid() || len(p.Errors) == 0 {
		t.Error(err)
	}
	if _, err := c.Savepoint(t.Context(), "a/b"); err == nil || !strings.Contains(err.Error(), `no job "a"`) {
		t.Error(err)
	}
	if _, err := c.Import(t.Context(), io.LimitReader(zeros{}, 10<<20), ""); err == nil || !strings.Contains(err.Error(), "export") {
		t.Error(err)
	}
	for _, addr := range []string{"", "ftp://x", "http://", "::"} {
		if _, err := api.NewClient(addr, ""); err == nil {
			t.Errorf("%q is taken", addr)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Whatever is submitted gets an answer that says what is wrong, or an id.
func FuzzSubmit(f *testing.F) {
	for _, s := range []string{generated, metered, "", "name: x", `{"spec":"name: x"}`, "name: [\n", "sources: {in: {mqtt: {broker: ':'}}}"} {
		b, _ := json.Marshal(api.Submission{Spec: s})
		f.Add(string(b))
		f.Add(s)
	}
	s := newSite(f)
	h := api.New(&member{site: s, self: "n1"}, api.Options{Inside: true}) // one for all: it takes much longer than an input
	f.Fuzz(func(t *testing.T, body string) {
		s.begin(t)
		r := post(h, "/v1/jobs", body)
		if r.Code >= 500 || r.Code < 200 || r.Code >= 400 && !strings.Contains(r.Body.String(), `"detail"`) {
			t.Errorf("%d: %s", r.Code, r.Body)
		}
	})
}
