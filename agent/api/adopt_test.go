package api_test

import (
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// newer makes a site of agents that know what this program does.
func newer(t *testing.T) *site {
	s := newSite(t)
	for _, n := range []coordinator.Agent{{Node: "n1", Name: "press-1"}, {Node: "n2", Name: "press-2"}} {
		n.Host, n.Slots, n.Level = string(n.Node), 4, coordinator.Level
		s.must(t, coordinator.Command{AgentJoined: &n})
	}
	s.must(t, coordinator.Command{LevelRaised: &coordinator.LevelRaised{Level: coordinator.Level}})
	return s
}

// saves has a job take a savepoint in which its source `readings` stands.
func (s *site) saves(t *testing.T, id, name string) {
	m := manifest.Manifest{Kind: manifest.Savepoint, Name: name, Job: "metered", Created: 1_700_000_000_000_000, MaxParallelism: 128, Mode: manifest.ExactlyOnce,
		ID:        dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "hall", Attempt: 1}, Counter: 1},
		Operators: []manifest.Operator{{ID: "readings", Parallelism: 1, Positions: []manifest.Position{{Split: "lane 0", Offset: 9}}}}}
	data, err := manifest.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	s.must(t, coordinator.Command{JobDeployed: &coordinator.JobDeployed{Job: coordinator.JobID(id), Attempt: 1, Term: 1, Places: []coordinator.Place{{Subtask: dataflow.SubtaskID{Task: "readings"}, Node: "n1"}}}})
	s.must(t, coordinator.Command{JobBecame: &coordinator.JobBecame{Job: coordinator.JobID(id), Attempt: 1, Status: coordinator.Running}})
	s.must(t, coordinator.Command{CheckpointDone: &coordinator.CheckpointDone{Attempt: 1, Savepoint: &coordinator.Snapshot{Name: name, Job: coordinator.JobID(id), ID: m.ID, Manifest: data}}})
}

// A job from a savepoint takes over the feed of the one before, with its session;
// where it cannot, the answer says what to do, and the dry run says the same.
func TestAdopt(t *testing.T) {
	s := newer(t)
	a := s.agent(t, "n1", "")
	spec := strings.ReplaceAll(metered, "PASSWORD", "${env:PW}")
	id := submit(t, a.url, spec)
	s.saves(t, id, "sp-1")
	next := strings.ReplaceAll(spec, "name: metered", "name: metered2")
	both := func(sub api.Submission, says ...string) {
		t.Helper()
		send(t, a.url, "POST", "/v1/jobs", sub).want(t, 422, says...)
		send(t, a.url, "POST", "/v1/check", sub).want(t, 200, append(says, `"ok":false`)...)
	}
	both(api.Submission{Spec: next, From: "sp-1"}, "feed "+id+".readings", "job stop metered", "feed create")
	files := strings.ReplaceAll(generated, "blackhole: {}", "file: {path: x.jsonl}")
	writes := submit(t, a.url, files)
	s.saves(t, writes, "sp-2")
	both(api.Submission{Spec: strings.ReplaceAll(files, "name: gen", "name: gen2"), From: "sp-2", AllowNonRestored: true}, "x.jsonl", "another path")
	send(t, a.url, "POST", "/v1/jobs/metered/cancel", nil).want(t, 200)
	lanes := strings.ReplaceAll(next, "qos: 1", "qos: 1, lanes: 4")
	both(api.Submission{Spec: lanes, From: "sp-1"}, "1 lanes for ever", "4 are asked for")
	send(t, a.url, "POST", "/v1/feeds", api.NewFeed{Name: "plant", Broker: "mqtt://b:1883", Topics: []string{"plant/#"}}).want(t, 201)
	shared := "name: x\nsources: {readings: {feed: plant, format: text, event_time: ingestion}}\nsinks: [{id: out, from: readings, blackhole: {}}]\n"
	both(api.Submission{Spec: shared, From: "sp-1", AllowNonRestored: true}, "the log of feed "+id+".readings, and not of feed plant")

	send(t, a.url, "POST", "/v1/check", api.Submission{Spec: next, From: "sp-1"}).want(t, 200, `"ok":true`)
	send(t, a.url, "POST", "/v1/jobs", api.Submission{Spec: next, From: "sp-1"}).want(t, 201)
	send(t, a.url, "GET", "/v1/feeds/"+id+".readings", nil).want(t, 200, `"client_id":"plant/hall/metered.readings"`, `"readers":["metered2"]`)
	other := submit(t, a.url, spec) // a new one of the first name must not end the session of the second
	send(t, a.url, "GET", "/v1/feeds/"+other+".readings", nil).want(t, 200, `"client_id":"plant/hall/metered.readings-2"`)
}

// A job that was cancelled, and left no savepoint, is given up: the next of its name has its
// session, however often that is done.
func TestASessionThatIsGivenUp(t *testing.T) {
	s := newer(t)
	a := s.agent(t, "n1", "")
	spec := strings.ReplaceAll(metered, "PASSWORD", "${env:PW}")
	for range 3 {
		id := submit(t, a.url, spec)
		send(t, a.url, "GET", "/v1/feeds/"+id+".readings", nil).want(t, 200, `"client_id":"plant/hall/metered.readings"`)
		send(t, a.url, "POST", "/v1/jobs/metered/cancel", nil).want(t, 200)
	}
	id := submit(t, a.url, spec)
	s.saves(t, id, "sp-1")
	send(t, a.url, "POST", "/v1/jobs/metered/cancel", nil).want(t, 200)
	id = submit(t, a.url, spec)
	send(t, a.url, "GET", "/v1/feeds/"+id+".readings", nil).want(t, 200, `"client_id":"plant/hall/metered.readings-2"`)
}

// The session of a job that has ended waits for one that goes on with it: what the broker
// keeps for it nobody else takes. Where somebody has it all the same the answer says who.
func TestAKeptSessionIsGivenToNobody(t *testing.T) {
	s := newer(t)
	a := s.agent(t, "n1", "")
	spec := strings.ReplaceAll(metered, "PASSWORD", "${env:PW}")
	id := submit(t, a.url, spec)
	s.saves(t, id, "sp-1")
	send(t, a.url, "POST", "/v1/jobs/metered/cancel", nil).want(t, 200)
	fresh := submit(t, a.url, spec)
	send(t, a.url, "GET", "/v1/feeds/"+fresh+".readings", nil).want(t, 200, `"client_id":"plant/hall/metered.readings-2"`)
	next := api.Submission{Spec: strings.ReplaceAll(spec, "name: metered", "name: metered2"), From: "sp-1"}
	send(t, a.url, "POST", "/v1/check", next).want(t, 200, `"ok":true`)
	send(t, a.url, "POST", "/v1/jobs", next).want(t, 201)
	send(t, a.url, "GET", "/v1/feeds/"+id+".readings", nil).want(t, 200, `"client_id":"plant/hall/metered.readings"`, `"readers":["metered2"]`)

	mine := func(name, broker string) string {
		return strings.NewReplacer("name: metered", "name: "+name, "qos: 1", "qos: 1, client_id: mine", "mqtt://broker.plant:1883", broker).Replace(spec)
	}
	id = submit(t, a.url, mine("m1", "mqtt://broker.plant:1883"))
	s.saves(t, id, "sp-2")
	send(t, a.url, "POST", "/v1/jobs/m1/cancel", nil).want(t, 200)
	submit(t, a.url, mine("m1", "mqtt://broker.plant:1883")) // who names it has it
	for _, again := range []api.Submission{{Spec: strings.ReplaceAll(mine("m2", "mqtt://broker.plant"), ", client_id: mine", ""), From: "sp-2"}, {Spec: mine("m2", "tcp://Broker.plant"), From: "sp-2"}} {
		says := []string{"readings", "client id", "mine", "of job", "(m1), which is created", "throw each other out", "tidemark job stop m1", "give this one a client_id", "feed create"}
		send(t, a.url, "POST", "/v1/check", again).want(t, 200, append(says, `"ok":false`)...)
		send(t, a.url, "POST", "/v1/jobs", again).want(t, 422, says...)
	}
	send(t, a.url, "POST", "/v1/jobs", api.Submission{Spec: mine("m2", "mqtt://broker.depot:1883"), From: "sp-2"}).want(t, 201)
}

// No two feeds have one client id at one broker, whoever named it.
func TestOneClientIDIsOneFeeds(t *testing.T) {
	s := newer(t)
	a := s.agent(t, "n1", "")
	mine := func(name, broker string) api.Submission {
		return api.Submission{Spec: strings.NewReplacer("PASSWORD", "${env:PW}", "name: metered", "name: "+name, "qos: 1", "qos: 1, client_id: mine", "mqtt://broker.plant:1883", broker).Replace(metered)}
	}
	refused := func(sub api.Submission, says ...string) {
		t.Helper()
		says = append(says, "client id", "mine", "throw each other out")
		send(t, a.url, "POST", "/v1/check", sub).want(t, 422, says...)
		send(t, a.url, "POST", "/v1/jobs", sub).want(t, 422, says...)
	}
	send(t, a.url, "POST", "/v1/jobs", mine("m1", "mqtt://b:1883")).want(t, 201)
	refused(mine("m2", "mqtt://b:1883"), "job stop m1")
	refused(mine("m2", "tcp://B"), "job stop m1")
	send(t, a.url, "POST", "/v1/jobs", mine("m2", "mqtt://c:1883")).want(t, 201)
	send(t, a.url, "POST", "/v1/jobs", mine("m3", "mqtt://b:1884")).want(t, 201)

	plant := api.NewFeed{Name: "plant", Broker: "mqtt://b", Topics: []string{"plant/#"}, QoS: 1, ClientID: "mine"}
	send(t, a.url, "POST", "/v1/feeds", plant).want(t, 422, "job stop m1")
	send(t, a.url, "POST", "/v1/jobs/m1/cancel", nil).want(t, 200)
	send(t, a.url, "POST", "/v1/feeds", plant).want(t, 201)
	refused(mine("m1", "mqtt://b:1883"), "feed plant", "feed: plant", "tidemark feed delete plant")
	plant.Name, plant.ClientID = "other", ""
	send(t, a.url, "POST", "/v1/feeds", plant).want(t, 201, `"client_id":"plant/hall/other"`)
	twice := strings.NewReplacer("PASSWORD", "${env:PW}", "qos: 1", "qos: 1, client_id: twice").Replace(metered)
	two := strings.Replace(twice, "  readings:", "  more:", 1)
	two = two[strings.Index(two, "  more:"):strings.Index(two, "sinks:")]
	twice = strings.Replace(twice, "sinks:", two+"sinks:", 1) + "  - {id: out2, from: more, blackhole: {}}\n"
	send(t, a.url, "POST", "/v1/jobs", api.Submission{Spec: twice}).want(t, 422, "that of source", "too")
}

// Where a source stood in a shared feed that was deleted it stands nowhere: not in the
// feed that has the name now. It does not matter whether the job of before is remembered.
func TestASavepointOfAFeedThatIsMadeAgain(t *testing.T) {
	s := newer(t)
	a := s.agent(t, "n1", "")
	plant := api.NewFeed{Name: "plant", Broker: "mqtt://b:1883", Topics: []string{"plant/#"}}
	send(t, a.url, "POST", "/v1/feeds", plant).want(t, 201)
	spec := "name: x\nsources: {readings: {feed: plant, format: text, event_time: ingestion}}\nsinks: [{id: out, from: readings, blackhole: {}}]\n"
	id := submit(t, a.url, spec)
	s.saves(t, id, "sp-1")
	next := strings.ReplaceAll(spec, "name: x", "name: y")
	goesOn := func() {
		t.Helper()
		send(t, a.url, "POST", "/v1/check", api.Submission{Spec: next, From: "sp-1"}).want(t, 200, `"ok":true`)
	}
	goesOn()
	send(t, a.url, "POST", "/v1/jobs/x/cancel", nil).want(t, 200)
	goesOn()
	send(t, a.url, "DELETE", "/v1/feeds/plant", nil).want(t, 204)
	send(t, a.url, "POST", "/v1/feeds", plant).want(t, 201)
	for _, forgotten := range []bool{false, true} {
		if forgotten {
			s.must(t, coordinator.Command{JobForgotten: &coordinator.JobForgotten{Job: coordinator.JobID(id)}})
		}
		says := []string{"readings", "the log of a feed that was deleted, and feed plant was made since", "give the source another id"}
		send(t, a.url, "POST", "/v1/jobs", api.Submission{Spec: next, From: "sp-1", AllowNonRestored: true}).want(t, 422, says...)
		send(t, a.url, "POST", "/v1/check", api.Submission{Spec: next, From: "sp-1"}).want(t, 200, append(says, `"ok":false`)...)
		anew := strings.ReplaceAll(next, "readings", "others")
		send(t, a.url, "POST", "/v1/check", api.Submission{Spec: anew, From: "sp-1", AllowNonRestored: true}).want(t, 200, `"ok":true`)
	}
}

// A job whose session stayed at another site has a mirror, which no other job takes over.
func TestAMirrorIsNotAdopted(t *testing.T) {
	s := newer(t)
	a := s.agent(t, "n1", "")
	spec := strings.ReplaceAll(metered, "PASSWORD", "${env:PW}")
	m := manifest.Manifest{Kind: manifest.Savepoint, Name: "sp-b", Job: "metered", Created: 1_700_000_000_000_000, MaxParallelism: 128, Mode: manifest.ExactlyOnce,
		ID:        dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "b", Attempt: 1}, Counter: 1},
		Operators: []manifest.Operator{{ID: "readings", Parallelism: 1, Positions: []manifest.Position{{Split: "lane 0", Offset: 9}}}}}
	data, err := manifest.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	s.must(t, coordinator.Command{ReplicaOffered: &coordinator.ReplicaOffered{From: "b", Epoch: 1, Job: coordinator.MovingJob{ID: "j1-b", Name: "metered",
		Feeds: []coordinator.MovingFeed{{Name: "j1-b.readings", Config: []byte("{}")}}}}})
	s.must(t, coordinator.Command{SavepointAdded: &coordinator.Snapshot{Name: "sp-b", Job: "j1-b", ID: m.ID, Manifest: data}})
	sub := api.Submission{Spec: spec, From: "sp-b"}
	send(t, a.url, "POST", "/v1/jobs", sub).want(t, 422, "feed j1-b.readings", "whose session stayed at site b", "move a job back")
	send(t, a.url, "POST", "/v1/check", sub).want(t, 200, "whose session stayed at site b", `"ok":false`)
}

// Where an agent is of an older program the answer names it.
func TestAdoptTooEarly(t *testing.T) {
	s := newSite(t)
	a := s.agent(t, "n1", "")
	spec := strings.ReplaceAll(metered, "PASSWORD", "${env:PW}")
	id := submit(t, a.url, spec)
	s.saves(t, id, "sp-1")
	send(t, a.url, "POST", "/v1/jobs/metered/cancel", nil).want(t, 200)
	send(t, a.url, "POST", "/v1/jobs", api.Submission{Spec: spec, From: "sp-1"}).want(t, 422, "press-1, press-2", "newer program")
	send(t, a.url, "POST", "/v1/jobs", api.Submission{Spec: generated, Overwrite: true}).want(t, 409, "press-1, press-2")
}
