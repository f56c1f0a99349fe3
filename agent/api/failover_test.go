package api_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
)

// keep puts what is kept of a job of hall into a state.
func keep(t *testing.T, a *agent, id coordinator.JobID, name string, reads ...string) {
	t.Helper()
	m := coordinator.MovingJob{ID: id, Namespace: "default", Name: name, Spec: []byte(generated), Reads: reads}
	for _, f := range reads {
		m.Feeds = append(m.Feeds, coordinator.MovingFeed{Name: f, Config: []byte("{}")})
	}
	a.must(t, coordinator.Command{ReplicaOffered: &coordinator.ReplicaOffered{Job: m, From: "hall", Epoch: 1}})
}

// A failover goes to the site that is to have the job, whoever is asked, and without a
// leader of the site that is lost; it finds the job by what is kept there, and says what
// may be lost.
func TestFailover(t *testing.T) {
	hall, depot := twoSites(t)
	keep(t, depot, "j7-hall", "cold", "line3")
	keep(t, depot, "j8-hall", "warm")
	keep(t, depot, "j9-hall", "warm")
	depot.over = leader.FailedOver{From: "hall", Epoch: 2, Snapshot: "chk-1-hall-1-4", Heard: 1_700_000_000_000_000, Logs: 1, Lag: coordinator.Lag{Rows: 12, Bytes: 345, Time: 2_000_000}}
	says := []string{`"text":["j7-hall, job \"cold\": goes on at site depot, at epoch 2"`, `12 entries of its logs (345 bytes, 2s) are not here, as site hall said last (2023-11-14T22:13:20Z): they are lost`,
		`it reads line3.at.hall here in the place of line3, with a session of its own (client id plant/depot/line3.at.hall)`}
	path := "/v1/jobs/cold/failover"
	send(t, depot.url, "POST", path, api.Failover{To: "depot"}).want(t, 200, says...)
	send(t, hall.url, "POST", path+"?site=depot", api.Failover{To: "depot"}).want(t, 200, says...)
	hall.leads("")
	send(t, hall.url, "POST", "/v1/jobs/j7-hall/failover", api.Failover{To: "depot", Force: true}).want(t, 200, says...)
	send(t, hall.url, "POST", path, api.Failover{To: "hall"}).want(t, 503, "the site has no leader")
	hall.leads("n1")
	if w := depot.taken; len(w) != 3 || w[1].Job != "j7-hall" || w[1].Force || !w[2].Force || w[2].Dry {
		t.Errorf("wished for %+v", w)
	}
	depot.over.Lag, depot.over.Needs = coordinator.Lag{}, errors.New("site hall is reached")
	r := send(t, depot.url, "POST", path, api.Failover{To: "depot", DryRun: true}).want(t, 200, "would go on", "all that was in its logs is here, as site hall said last", `"needs_force":"site hall is reached"`)
	if strings.Contains(r.body, `"gap"`) {
		t.Error(r.body)
	}
	depot.over.Gap = "the log of feed line3.at.hall ends at 0 in lane 0 here, and the job would go on from 7"
	send(t, depot.url, "POST", path, api.Failover{To: "depot", DryRun: true}).want(t, 200, `"gap":"the log of feed line3.at.hall ends at 0 in lane 0 here`, "would go on from 7: it cannot go on from that checkpoint")
	depot.over.Heard, depot.over.Gap = 0, ""
	send(t, depot.url, "POST", path, api.Failover{To: "depot", DryRun: true}).want(t, 200, "how much of its logs is missing here is not known")
	depot.over.Logs = 0
	if r := send(t, depot.url, "POST", path, api.Failover{To: "depot", DryRun: true}); strings.Contains(r.body, "its logs") {
		t.Errorf("of a job without a log: %s", r.body)
	}
	if !depot.taken[3].Dry || strings.Contains(r.body, "refused") {
		t.Error(r.body, depot.taken)
	}

	send(t, depot.url, "POST", path, api.Failover{To: "hall"}).want(t, 404, `nothing is kept at site hall of a job \"cold\", nor of any other job`)
	send(t, depot.url, "POST", path, api.Failover{To: "nowhere"}).want(t, 404, `no site \"nowhere\" is known here`)
	send(t, depot.url, "POST", path, api.Failover{}).want(t, 409, "this is site depot")
	send(t, depot.url, "POST", path+"?site=depot", api.Failover{To: "hall"}).want(t, 409, "this is site depot")
	send(t, depot.url, "POST", path, `{"to": 7}`).want(t, 422, "to")
	send(t, depot.url, "POST", "/v1/jobs/warm/failover", api.Failover{To: "depot"}).want(t, 409, `\"warm\" is the name of several jobs: which one of j8-hall, j9-hall?`)
	send(t, depot.url, "POST", "/v1/jobs/none/failover", api.Failover{To: "depot"}).want(t, 404, "what could go on here is cold (j7-hall), warm (j8-hall), warm (j9-hall)")
	send(t, depot.url, "GET", "/v1/jobs/cold", nil).want(t, 404, "site hall has it", "job failover j7-hall --to depot --dry-run")
	depot.refuses = errors.New("no checkpoint of it is complete here")
	send(t, depot.url, "POST", path, api.Failover{To: "depot"}).want(t, 409, "no checkpoint of it is complete here")
	depot.refuses, hall.away["depot"] = nil, nil
	send(t, hall.url, "POST", path, api.Failover{To: "depot"}).want(t, 409, "site depot is to answer this, and is not reached")
}

// What waits for a person is said with what that one can do.
func TestIsolatedAndQuarantined(t *testing.T) {
	hall, _ := twoSites(t)
	id := hall.run(t, "cold")
	hall.must(t, coordinator.Command{LeaderBegan: &coordinator.LeaderBegan{Term: 2, Node: "n1", Isolated: []coordinator.JobID{id}}})
	verb := `\"tidemark job failover ` + string(id) + ` --to hall --force\"`
	send(t, hall.url, "GET", "/v1/jobs/cold", nil).want(t, 200, `"isolated":true`, `"status":"restarting"`, `if one of those is gone for good: `+verb)
	hall.over = leader.FailedOver{From: "hall", Epoch: 2}
	send(t, hall.url, "POST", "/v1/jobs/cold/failover", api.Failover{To: "hall", Force: true}).want(t, 200, "goes on at site hall, at epoch 2", "it has no checkpoint, and begins afresh")
	hall.must(t, coordinator.Command{JobQuarantined: &coordinator.JobQuarantined{Job: id, Epoch: 1, Other: "depot"}})
	send(t, hall.url, "GET", "/v1/jobs", nil).want(t, 200, `"status":"quarantined"`, "site depot has it too, at the same epoch", verb)
	hall.must(t, coordinator.Command{Move: &coordinator.MoveCommand{Fenced: &coordinator.JobFenced{Job: id, Epoch: 2, Owner: "depot", Since: 1_700_000_000_000_000}}})
	send(t, hall.url, "GET", "/v1/jobs/cold?stale=true", nil).want(t, 200, `"status":"moved"`, `"site":"depot"`,
		"site depot has had it since 2023-11-14T22:13:20Z, at epoch 2; this site heard of it at 2023-11-14T22:13:20Z, and ended its copy")
}

// What is kept of a job of another site is dropped where that is asked, also while the
// job's site is lost; the job itself is not touched.
func TestDropKept(t *testing.T) {
	hall, depot := twoSites(t)
	keep(t, depot, "j7-hall", "cold", "line3")
	keep(t, depot, "j8-hall", "warm")
	keep(t, depot, "j9-hall", "warm")
	send(t, depot.url, "DELETE", "/v1/replicas/warm", nil).want(t, 409, "which one of j8-hall, j9-hall?")
	send(t, depot.url, "DELETE", "/v1/replicas/none", nil).want(t, 404, "cold")
	send(t, hall.url, "DELETE", "/v1/replicas/cold", nil).want(t, 404)
	hall.leads("")
	send(t, depot.url, "DELETE", "/v1/replicas/cold", nil).want(t, 204)
	send(t, depot.url, "DELETE", "/v1/replicas/j9-hall", nil).want(t, 204)
	depot.View(func(st *coordinator.State) {
		if len(st.Replicas) != 1 || st.Replicas["j8-hall"] == nil || st.Feeds["line3.at.hall"] != nil {
			t.Errorf("left: %v, %v", st.Replicas, st.Feeds)
		}
	})
	send(t, depot.url, "DELETE", "/v1/replicas/cold", nil).want(t, 404, "there is warm")
}
