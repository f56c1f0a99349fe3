package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// Every verb has an example that begins with its own name, and says what it is.
func TestExamples(t *testing.T) {
	var each func(c *cobra.Command)
	each = func(c *cobra.Command) {
		if c.Short == "" || !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		for _, sub := range c.Commands() {
			if !sub.Hidden && sub.Name() != "completion" {
				each(sub)
			}
		}
	}
	each(newRoot(&terminal{}))
}

// answering is an agent that gives each path its answer.
func answering(t *testing.T, answers map[string]any) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, ok := answers[r.Method+" "+r.URL.EscapedPath()]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			v = map[string]any{"status": 404, "detail": "no such thing: " + r.Method + " " + r.URL.EscapedPath()}
		}
		if e, bad := v.(api.Problem); bad {
			w.WriteHeader(e.Status)
			v = map[string]any{"status": e.Status, "title": e.Title, "detail": e.Detail, "errors": []map[string]string{{"message": "job.yaml:3: wrong"}}}
		}
		_ = json.NewEncoder(w).Encode(v)
	}))
	t.Cleanup(s.Close)
	t.Setenv(addrVariable, s.URL)
	t.Setenv(folderVariable, "")
}

func TestMeshVerbs(t *testing.T) {
	answering(t, map[string]any{
		"POST /v1/jobs":                 api.Submitted{ID: "j7", Name: "gen", Notes: []string{"a note"}},
		"GET /v1/jobs":                  []api.Job{{ID: "j7", Name: "gen", Status: "running"}},
		"GET /v1/jobs/j7":               api.JobDetail{Job: api.Job{ID: "j7", Name: "gen", Status: "running"}},
		"POST /v1/jobs/j7/stop":         api.Savepointed{Savepoint: "sp-1"},
		"POST /v1/jobs/j7/cancel":       api.Job{ID: "j7", Name: "gen", Status: "cancelled"},
		"POST /v1/jobs/j7/rescale":      api.Job{ID: "j7", Name: "gen", Parallelism: 4},
		"GET /v1/members":               []api.Agent{{Name: "press-1", Role: "leader"}},
		"GET /v1/sites":                 []api.Site{{Site: "hall", Self: true, Answers: true, RoundTrip: 1200}, {Site: "depot", Why: "not reached"}},
		"POST /v1/tokens":               api.TokenMade{Token: "tm1-x"},
		"GET /v1/savepoints/gen%2Fchk1": api.Snapshot{ID: "chk1", Job: "gen"},
	})
	file := file(t, "job.yaml", "name: gen\n")
	for line, want := range map[string]string{
		"job submit " + file: "j7\n", "job list": "running", "job show j7": "running", "job stop j7": "sp-1\n", "member list": "press-1", "site list": "hall",
		"token create": "tm1-x\n", "savepoint show gen/chk1": "chk1", "job list --output json": `"id":"j7"`, "job show j7 --output json": `"subtasks"`,
	} {
		c := tidemark(t, "", strings.Fields(line)...)
		c.want(t, exitDone)
		if !strings.Contains(c.out, want) {
			t.Errorf("%s: %s", line, c.out)
		}
	}
	tidemark(t, "", "job", "cancel", "j7").want(t, exitDone, "cancelled")
	tidemark(t, "", "job", "rescale", "j7", "-p", "4").want(t, exitDone, "parallelism 4")
	tidemark(t, "", "job", "rescale", "j7").want(t, exitUsage, "-p N")
	tidemark(t, "", "job", "show", "j8").want(t, exitFailed, "no such thing")
	tidemark(t, "", "token", "create", "--ttl", "soon").want(t, exitUsage, "--ttl")
	tidemark(t, "", "token", "create", "--ttl", "500us").want(t, exitUsage, "--ttl")
	tidemark(t, "", "job", "list", "--addr", "http://x", "--state", "y").want(t, exitUsage, "one or the other")
}

func TestMeshRefuses(t *testing.T) {
	answering(t, map[string]any{"POST /v1/jobs": api.Problem{Status: 422, Title: "The job is not valid", Detail: "job.yaml: 1 error"}})
	tidemark(t, "name: x\n", "job", "submit", "-").want(t, exitFailed, "job.yaml:3: wrong", "job.yaml: 1 error")
	tidemark(t, strings.Repeat("\x00", maxJobFile), "job", "submit", "-").want(t, exitFailed, "a job has at most 1048576 bytes")
	answering(t, map[string]any{"POST /v1/tokens": api.Problem{Status: 422, Title: "The request is not as /openapi.json says", Detail: "uses: expected number <= 1000"}})
	tidemark(t, "", "token", "create", "--uses", "9999").want(t, exitUsage, "uses: expected number <= 1000", "Try: tidemark token create --help")
	t.Setenv(addrVariable, "http://127.0.0.1:1")
	tidemark(t, "", "job", "show", "x").want(t, exitFailed, "tidemark agent --dev", addrVariable)
	tidemark(t, "", "job", "list").want(t, exitFailed, "tidemark agent --dev", "--state DIR")
	t.Setenv(addrVariable, "ftp://x")
	tidemark(t, "", "job", "list").want(t, exitUsage, "--addr")
}

// Where neither an agent nor a folder was named, and none is where one would be, the
// call was wrong; an agent that was named and does not answer is a failure.
func TestNobodyNamed(t *testing.T) {
	var place placeFlag
	gone := fmt.Errorf("at the default address: %w", api.ErrNoAgent)
	if err := place.answered(gone); errors.As(err, new(usageError)) || !errors.Is(err, api.ErrNoAgent) {
		t.Error(err)
	}
	t.Setenv(addrVariable, "")
	if err := place.answered(gone); !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), folderVariable) {
		t.Error(err)
	}
	place.addr = "http://127.0.0.1:1"
	if err := place.answered(gone); errors.As(err, new(usageError)) {
		t.Error(err)
	}
}

func TestAgentUsage(t *testing.T) {
	tidemark(t, "", "agent", "--label", "x").want(t, exitUsage, "NAME=VALUE")
	tidemark(t, "", "agent", "--bind", "x").want(t, exitUsage, "host:port")
	tidemark(t, "", "agent", "--http", "0.0.0.0:7070").want(t, exitUsage, "http.cert")
	tidemark(t, "", "agent", "--data-dir", t.TempDir(), "--bind", "127.0.0.1:0", "--http", "127.0.0.1:0").want(t, exitFailed, "tidemark init")
	cfg := file(t, "agent.yaml", "name: a\nslots: 3\n")
	if c := tidemark(t, "", "agent", "--config", cfg, "--slots", "5", "--explain"); !strings.Contains(c.out, "slots:            5") || !strings.Contains(c.out, `"a"`) {
		t.Error(c.out, c.err)
	}
	dir := t.TempDir()
	c := tidemark(t, "", "init", "--data-dir", dir, "--name", "a", "--output", "json")
	c.want(t, exitDone)
	var made map[string]string
	if err := json.Unmarshal([]byte(c.out), &made); err != nil || made["token"] == "" || made["name"] != "a" || made["site"] != "main" {
		t.Error(err, c.out)
	}
	tidemark(t, "", "init", "--data-dir", dir).want(t, exitFailed, "already")
	tidemark(t, "", "site", "recover", "--data-dir", dir).want(t, exitFailed, "raft")
}

// Why a feed hears nothing stands below the table, and so does what can be done.
func TestFeedListSaysWhy(t *testing.T) {
	answering(t, map[string]any{"GET /v1/feeds": []api.Feed{
		{Name: "plant", State: "away: cannot reach b:1883: connection refused", Why: "the log has no room"},
		{Name: "j7.in", State: "stopped", Hint: "job j7 (gen) is stopped"}, {Name: "fine", State: "connected"},
	}})
	c := tidemark(t, "", "feed", "list")
	c.want(t, exitDone, "plant: away: cannot reach b:1883: connection refused; nothing is acknowledged: the log has no room\n", "j7.in: job j7 (gen) is stopped\n")
	if strings.Contains(c.out, "refused") || !strings.Contains(c.out, "│ away ") || strings.Contains(c.err, "fine") {
		t.Error(c.out, c.err)
	}
}
