package api_test

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// What was said of a feed that was deleted is not told of the next of its name, however
// soon that is made.
func TestAFeedOfTheSameName(t *testing.T) {
	s := newer(t)
	a := s.agent(t, "n1", "")
	const at = "/v1/feeds/line3"
	begin := func(epoch uint64) {
		t.Helper()
		s.must(t, coordinator.Command{LogEpochBegun: &coordinator.LogEpochBegun{Feed: "line3", Term: 1, Log: coordinator.LogEpoch{Epoch: epoch, Owner: "n1", Members: []mesh.NodeID{"n1"}, Forgotten: epoch - 1, Starts: []int64{0}}}})
	}
	made := func() (made uint64) {
		t.Helper()
		send(t, a.url, "POST", "/v1/feeds", api.NewFeed{Name: "line3", Broker: "mqtt://b:1883", Topics: []string{"t/+"}, Replicas: 1}).want(t, 201)
		(&member{site: s, self: "n1"}).View(func(st *coordinator.State) { made = st.Feeds["line3"].Made })
		return made
	}
	first := made()
	begin(first)
	s.logs = []coordinator.LogStatus{{Feed: "line3", Epoch: first, End: 900, Broker: "connected"}}
	send(t, a.url, "GET", at, nil).want(t, 200, `"state":"connected"`, `"entries":900`)
	send(t, a.url, "DELETE", at, nil).want(t, 204)
	next := made()
	send(t, a.url, "GET", at, nil).want(t, 200, `"state":"never opened"`, `"entries":0`)
	begin(next)
	send(t, a.url, "GET", at, nil).want(t, 200, `"state":"nothing was heard of it"`, `"entries":0`)
	s.logs = append(s.logs, coordinator.LogStatus{Feed: "line3", Epoch: next, End: 3, Broker: "connected"})
	send(t, a.url, "GET", at, nil).want(t, 200, `"state":"connected"`, `"entries":3`)
}
