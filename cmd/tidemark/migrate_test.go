package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// A move is shown step by step, and how it ends is the exit code.
func TestJobMigrate(t *testing.T) {
	begun := api.Move{ID: "m9-hall", Job: "j7-hall", Name: "cold", From: "hall", To: "depot", Phase: "copying", Since: "t0"}
	steps := []api.MoveStep{{At: "t1", Text: "copying, round 1: 4096 bytes in 2s"}, {At: "t2", Text: "halting, after 3s of copying"}}
	steps[0].Round, steps[0].Bytes, steps[0].Snapshot = 1, 4096, "c1"
	moved := begun
	moved.Phase, moved.Over, moved.Bytes, moved.Pause, moved.PauseOff, moved.Steps = "handed-over", true, 4096, 1_490_000, 12_000, steps
	stays := begun
	stays.Phase, stays.Over, stays.Why = "aborted", true, "the other site refuses it: no slots"
	late := moved
	late.Pause, late.Since = 0, "" // its record is gone
	for want, c := range map[string]struct {
		end  api.Move
		code int
	}{
		"pause 1.49s, give or take 12ms": {moved, exitDone}, "job cold stays at site hall: the move was aborted: the other site refuses it: no slots": {stays, exitFailed},
		"pause not known": {late, exitDone},
	} {
		answering(t, map[string]any{"POST /v1/jobs/cold/migrate": begun, "GET /v1/moves/m9-hall": c.end})
		r := tidemark(t, "", "job", "migrate", "cold", "--to", "depot")
		r.want(t, c.code)
		if !strings.Contains(r.out+r.err, want) || c.code == exitDone && strings.Count(r.out, "copying, round 1: 4096 bytes in 2s") != 1 {
			t.Errorf("want %q:\n%s%s", want, r.out, r.err)
		}
	}
	answering(t, map[string]any{"POST /v1/jobs/cold/migrate": begun, "GET /v1/moves/m9-hall": moved})
	if r := tidemark(t, "", "job", "migrate", "cold", "--to", "depot", "--output", "json"); !strings.Contains(r.out, `"text":"copying, round 1`) || !strings.Contains(r.out, `"pause_us":1490000`) {
		t.Error(r.out)
	}
	// Who answers at the end has counted nothing; the round that a new leader tells again counts once.
	moved.Bytes, moved.Steps = 0, append(steps, api.MoveStep{At: "t3", Text: "again", Anew: true}, api.MoveStep{At: "t4", Round: 1, Bytes: 4096, Snapshot: "c1"}, api.MoveStep{At: "t5", Round: 2, Bytes: 1024, Snapshot: "c2"})
	answering(t, map[string]any{"POST /v1/jobs/cold/migrate": begun, "GET /v1/moves/m9-hall": moved})
	if r := tidemark(t, "", "job", "migrate", "cold", "--to", "depot"); !strings.Contains(r.out, "from hall to depot: 5.0 KiB, pause") {
		t.Error(r.out, r.err)
	}
	// Nobody knows it any more: where the job is says how it ended.
	for site, code := range map[string]int{"depot": exitDone, "hall": exitFailed} {
		answering(t, map[string]any{"POST /v1/jobs/cold/migrate": begun, "GET /v1/jobs/j7-hall": api.JobDetail{Job: api.Job{ID: "j7-hall", Name: "cold", Site: site}}})
		tidemark(t, "", "job", "migrate", "cold", "--to", "depot").want(t, code)
	}
	answering(t, map[string]any{
		"POST /v1/jobs/cold/migrate":        api.Move{Job: "j7-hall", Name: "cold", To: "depot", Phase: "dry run"},
		"POST /v1/jobs/cold/migrate/cancel": stays,
		"POST /v1/jobs/warm/migrate/cancel": api.Problem{Status: 409, Detail: "it is too late"},
		"POST /v1/jobs/j7-hall/failover":    api.FailedOver{Text: []string{"goes on", "with a loss"}},
		"POST /v1/jobs/elsewhere/failover":  api.Problem{Status: 409, Detail: "site hall is reached"},
		"POST /v1/jobs/warm/failover":       api.FailedOver{Needs: "site hall is reached", Text: []string{"would go on"}},
		"POST /v1/jobs/none/failover":       api.FailedOver{Refused: "nothing is complete", Needs: "so", Text: []string{"would go on"}},
		"POST /v1/jobs/elsewhere/migrate":   api.Problem{Status: 409, Detail: "site depot is not reached now"},
	})
	tidemark(t, "", "job", "migrate", "cold", "--to", "depot", "--dry-run").want(t, exitDone, "site depot would take it")
	tidemark(t, "", "job", "migrate", "--cancel", "cold").want(t, exitDone, "stays at site hall")
	tidemark(t, "", "job", "migrate", "--cancel", "warm").want(t, exitFailed, "it is too late")
	tidemark(t, "", "job", "migrate", "elsewhere", "--to", "depot").want(t, exitFailed, "is not reached now")
	tidemark(t, "", "job", "failover", "j7-hall", "--to", "depot").want(t, exitDone, "goes on\nwith a loss\n")
	tidemark(t, "", "job", "failover", "elsewhere", "--to", "depot", "--force").want(t, exitFailed, "site hall is reached")
	tidemark(t, "", "job", "failover", "warm", "--to", "depot", "--dry-run").want(t, exitFailed, "would go on", "site hall is reached")
	tidemark(t, "", "job", "failover", "warm", "--to", "depot", "--dry-run", "--force").want(t, exitDone, "would go on")
	tidemark(t, "", "job", "failover", "none", "--to", "depot", "--dry-run", "--force").want(t, exitFailed, "would go on", "nothing is complete")
	tidemark(t, "", "job", "failover", "elsewhere").want(t, exitUsage, "--to SITE")
	tidemark(t, "", "job", "migrate", "cold").want(t, exitUsage, "--to SITE")
	tidemark(t, "", "job", "migrate", "cold", "--to", "depot", "--feed", "go").want(t, exitUsage, "move or stay")
	tidemark(t, "", "job", "migrate", "cold", "--to", "depot", "--cancel").want(t, exitUsage, "--cancel is by itself")
}

// Who interrupts the watching is told that the move goes on.
func TestJobMigrateInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			interrupt()
		}
		_ = json.NewEncoder(w).Encode(api.Move{ID: "m9-hall", Job: "j7-hall", Name: "cold", From: "hall", To: "depot", Phase: "copying", Since: "t0"})
	}))
	t.Cleanup(s.Close)
	c, err := api.NewClient(s.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	err = migrate(ctx, &terminal{out: new(strings.Builder), err: new(strings.Builder)}, c, "cold", api.Migration{To: "depot"})
	if err == nil || !strings.Contains(err.Error(), `move m9-hall goes on, and is copying. "tidemark job migrate --cancel j7-hall" gives it up`) {
		t.Error(err)
	}
}
