package node

import (
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Who asks for the wrong thing again and again is told of once a minute.
func TestWrongQuestionsAreToldNowAndThen(t *testing.T) {
	var now dataflow.Time
	var said []string
	a := astray{now: func() dataflow.Time { return now }, tell: func(s string) { said = append(said, s) }}
	for range 130 {
		a.asked(mesh.Peer{Node: "x", Site: "south"}, "GET", "/v1/jobs/"+strings.Repeat("x", 1000))
		now = now.Add(dataflow.Second)
	}
	if len(said) != 3 || strings.Contains(said[0], "besides") || !strings.Contains(said[1], "59 were asked besides") || !strings.Contains(said[2], "59 were asked besides") {
		t.Errorf("%d times: %q", len(said), said)
	}
	if slices.ContainsFunc(said, func(s string) bool {
		return len(s) > 500 || !strings.Contains(s, "agent x of site south asked for GET /v1/jobs/x")
	}) {
		t.Errorf("%q", said)
	}
}
