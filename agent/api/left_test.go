package api_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
)

// left is what the session of a feed may have beside its filters, as the site has it.
func (s *site) left(t *testing.T, name string) string {
	t.Helper()
	f := s.machine.State().Feeds[name]
	if f == nil {
		t.Fatalf("no feed %s", name)
	}
	c, err := feed.ParseConfig(name, f.Config)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(c.Left)
	return strings.Join(c.Left, " ")
}

// A job that goes on with a feed, with other filters, has it remember those of before,
// once all agents can read that.
func TestFiltersThatAreTakenOut(t *testing.T) {
	for level, wants := range map[uint32]bool{coordinator.GoesOnLevel: false, coordinator.SettledLevel: true} {
		s := newSite(t)
		for _, n := range []coordinator.Agent{{Node: "n1", Name: "press-1"}, {Node: "n2", Name: "press-2"}} {
			n.Host, n.Slots, n.Level = string(n.Node), 4, level
			s.must(t, coordinator.Command{AgentJoined: &n})
		}
		s.must(t, coordinator.Command{LevelRaised: &coordinator.LevelRaised{Level: level}})
		a := s.agent(t, "n1", "")
		spec := strings.ReplaceAll(metered, "PASSWORD", "${env:PW}")
		id := submit(t, a.url, spec)
		name := id + ".readings" // as long as jobs go on with it
		for n, c := range []struct{ topics, left string }{{"[oil/+]", "plant/+/t"}, {"[plant/+/t, oil/+, gas/#]", ""}, {"[gas/#]", "oil/+ plant/+/t"}} {
			if n == 0 {
				s.saves(t, id, "sp")
			}
			send(t, a.url, "POST", "/v1/jobs/metered/cancel", nil).want(t, 200)
			next := api.Submission{Spec: strings.ReplaceAll(spec, "[plant/+/t]", c.topics), From: "sp"}
			send(t, a.url, "POST", "/v1/jobs", next).want(t, 201)
			if !wants {
				c.left = ""
			}
			if got := s.left(t, name); got != c.left {
				t.Errorf("level %d, %s: left %q, want %q", level, c.topics, got, c.left)
			}
		}
	}
}

// So has a job that begins anew with the session of one that has ended, and a shared feed
// with that of a job.
func TestFiltersOfASessionThatIsUsedAgain(t *testing.T) {
	s := newer(t)
	a := s.agent(t, "n1", "")
	spec := strings.ReplaceAll(metered, "PASSWORD", "${env:PW}")
	submit(t, a.url, spec)
	send(t, a.url, "POST", "/v1/jobs/metered/cancel", nil).want(t, 200)
	id := submit(t, a.url, strings.ReplaceAll(spec, "[plant/+/t]", "[oil/+]"))
	if got := s.left(t, id+".readings"); got != "plant/+/t" {
		t.Errorf("left %q", got)
	}
	send(t, a.url, "POST", "/v1/jobs/metered/cancel", nil).want(t, 200)
	client := "plant/hall/metered.readings"
	send(t, a.url, "POST", "/v1/feeds", api.NewFeed{Name: "gas", Broker: "mqtt://broker.plant:1883", ClientID: client, Topics: []string{"gas/#"}}).want(t, 201)
	if got := s.left(t, "gas"); got != "oil/+ plant/+/t" {
		t.Errorf("left %q", got)
	}
	send(t, a.url, "POST", "/v1/feeds", api.NewFeed{Name: "other", Broker: "mqtt://other.plant:1883", ClientID: client, Topics: []string{"gas/#"}}).want(t, 201)
	if got := s.left(t, "other"); got != "oil/+ plant/+/t" { // it may be the same one by another address
		t.Errorf("left %q at another broker", got)
	}
}

// A job that goes on with a feed under another client id has nothing of the old one's;
// at another broker it has, as it may come back to the first.
func TestFiltersOfAnotherClient(t *testing.T) {
	for with, want := range map[string]string{"broker: mqtt://other.plant:1883": "plant/+/t", "client_id: other": ""} {
		s := newer(t)
		a := s.agent(t, "n1", "")
		spec := strings.ReplaceAll(metered, "PASSWORD", "${env:PW}")
		id := submit(t, a.url, spec)
		s.saves(t, id, "sp")
		send(t, a.url, "POST", "/v1/jobs/metered/cancel", nil).want(t, 200)
		set := "sources.readings.mqtt." + strings.Replace(with, ": ", "=", 1)
		send(t, a.url, "POST", "/v1/jobs", api.Submission{Spec: strings.ReplaceAll(spec, "[plant/+/t]", "[oil/+]"), Set: []string{set}, From: "sp"}).want(t, 201)
		if got := s.left(t, id+".readings"); got != want {
			t.Errorf("%s: left %q, want %q", with, got, want)
		}
	}
}

// A job that moves with other filters has its feed remember those that it had.
func TestFiltersThatAMoveTakesOut(t *testing.T) {
	s := newer(t)
	a := s.agent(t, "n1", "")
	s.away["depot"] = siteNamed(t, "depot", coordinator.Level).agent(t, "n1", "").member
	id := submit(t, a.url, strings.ReplaceAll(metered, "PASSWORD", "${env:PW}"))
	send(t, a.url, "POST", "/v1/jobs/metered/migrate", api.Migration{To: "depot", DryRun: true, Set: []string{"sources.readings.mqtt.topics=[oil/+]"}}).want(t, 202)
	all := a.wishes[len(a.wishes)-1].Dry.Configs
	if len(all) != 1 {
		t.Fatalf("%+v", all)
	}
	c, err := feed.ParseConfig(all[0].Feed, all[0].Config)
	if err != nil || all[0].Feed != id+".readings" || !slices.Equal(c.Left, []string{"plant/+/t"}) || !slices.Equal(c.Topics, []string{"oil/+"}) {
		t.Errorf("%+v, %v", c, err)
	}
}
