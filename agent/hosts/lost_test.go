//go:build hosts

package hosts

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// failoverShown is what a failover says.
type failoverShown struct {
	Checkpoint string   `json:"checkpoint"`
	Taken      string   `json:"taken"`
	Entries    int64    `json:"lag_entries"`
	Heard      string   `json:"heard"`
	Text       []string `json:"text"`
}

// TestHostsTwoSitesLost: a site is lost, and its job goes on at the other one,
// from what is kept there. When the lost one comes back its copy is fenced. As
// nothing was under way when the site was lost, everything is exact.
func TestHostsTwoSitesLost(t *testing.T) {
	t.Parallel()
	s := newKept(t)

	for _, a := range s.plant.nodes {
		a.kill(t)
	}
	end := s.numbers.flow(t, load) // the broker keeps them
	began := time.Now()
	f := s.failover(t, s.depot)
	s.depot.awaitJob(t, "numbers", "running")
	s.caughtUp(t)
	t.Logf("failover: rows came again %v after the loss; %v", time.Since(began).Round(time.Millisecond), f.Text)

	for _, a := range s.plant.nodes {
		a.start(t, s.plant)
	}
	s.awaitFenced(t, s.plant)
	s.awaitSeen(t)
	s.caughtUp(t)
	s.awaitOnly(t, s.depot)
	e := s.move(t, "numbers", s.depot, "move", 0, false) // and back home
	end()
	s.finish(t, "numbers", e.at)
}

// newKept is two sites with a job of the plant's of which the depot has everything.
func newKept(t *testing.T) *twoSites {
	t.Helper()
	s := newTwoSites(t, far, "numbers")
	end := s.numbers.flow(t, load)
	await(t, "rows", func() bool { return s.results.count() > 5*load }, s.said)
	end()
	s.caughtUp(t)
	s.keepsAll(t, s.depot)
	return s
}

// keepsAll waits until a site would lose nothing if the other one were lost now,
// while nothing is published: all rows are before a checkpoint that was taken now.
func (s *twoSites) keepsAll(t *testing.T, at *site) {
	t.Helper()
	now := time.Now().UTC().Add(time.Second).Format("2006-01-02T15:04:05Z") // to the second, as it is said
	var f failoverShown
	awaitFor(t, 3*time.Minute, "everything to be kept at the other site", func() bool {
		f = failoverShown{}
		status := s.ask(at, http.MethodPost, "/v1/jobs/numbers/failover", map[string]any{"to": s.name(at), "dry_run": true}, &f)
		return status == http.StatusOK && f.Checkpoint != "" && f.Taken > now && f.Heard != ""
	}, func() string { return fmt.Sprintf("since %s: %+v\n%s", now, f, s.said()) })
}

// failover has a site take the job, as soon as that is not refused any more.
func (s *twoSites) failover(t *testing.T, at *site) (f failoverShown) {
	t.Helper()
	status := 0
	awaitFor(t, 3*time.Minute, "the job to be taken", func() bool {
		status = s.ask(at, http.MethodPost, "/v1/jobs/numbers/failover", map[string]any{"to": s.name(at)}, &f)
		return status == http.StatusOK
	}, func() string { return fmt.Sprintf("status %d\n%s", status, s.said()) })
	return f
}

// awaitOnly waits until it is settled who has the job, which must be at: some agents
// have only just come back, and may not answer yet.
func (s *twoSites) awaitOnly(t *testing.T, at *site) {
	t.Helper()
	text := ""
	await(t, "the job to be at the "+s.name(at)+", and nowhere else", func() bool {
		var who *site
		if who, text = s.where("numbers"); who == s.other(at) {
			t.Fatalf("it runs at the other site: %s", text)
		}
		return who == at
	}, func() string { return text + "\n" + s.said() })
}

// awaitFenced waits until a site that is back knows that another one has its job.
func (s *twoSites) awaitFenced(t *testing.T, x *site) {
	t.Helper()
	var all []struct {
		jobShown
		Site     string `json:"site"`
		Isolated bool   `json:"isolated"`
		Hint     string `json:"hint"`
	}
	isolated := false
	awaitFor(t, 3*time.Minute, "the lost site to say that its job is elsewhere", func() bool {
		all = nil
		if s.ask(x, http.MethodGet, "/v1/jobs", nil, &all) != http.StatusOK || len(all) != 1 {
			return false
		}
		if j := all[0]; j.Isolated && !isolated {
			isolated = true
			t.Logf("it is isolated: %s; %s; %s", j.Status, j.Why, j.Hint)
		}
		return all[0].Status == "moved"
	}, func() string { return fmt.Sprintf("%+v\n%s", all, s.said()) })
	j := all[0]
	if j.Site != s.name(s.other(x)) || j.Why == "" {
		t.Errorf("it does not say who has the job, and why: %+v", j)
	}
	t.Logf("it is %s, at %s: %s", j.Status, j.Site, j.Why)
}
