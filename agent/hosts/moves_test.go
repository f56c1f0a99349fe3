//go:build hosts

package hosts

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// moves is how often a job moves. TIDEMARK_MOVES is the long tier's, which also
// cuts the wan for longer than anybody waits.
func moves(t *testing.T, usual int) (n int, long bool) {
	t.Helper()
	text := os.Getenv("TIDEMARK_MOVES")
	if text == "" {
		return usual, false
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("TIDEMARK_MOVES=%s is no number of moves", text)
	}
	return n, true
}

// load is how many numbers come in a second: a sink that publishes exactly once
// takes some hundred, on a machine that has other things to do.
const load = 100

// TestHostsTwoSitesMoves: a job goes back and forth between two sites while
// numbers come and agents of both are killed, leaders too, over a line that is
// slow and loses packets. What the broker heard from it in the end is exact, and
// so are its files.
func TestHostsTwoSitesMoves(t *testing.T) { backAndForth(t, "move", 3) }

// TestHostsTwoSitesStay: the same, and the session of its source stays where it
// was.
func TestHostsTwoSitesStay(t *testing.T) { backAndForth(t, "stay", 2) }

func backAndForth(t *testing.T, feed string, usual int) {
	t.Parallel()
	n, _ := moves(t, usual)
	s := newTwoSites(t, far, "numbers")
	end := s.numbers.flow(t, load)
	at := s.plant
	for done, tries := 0, 0; done < n; tries++ {
		if tries > 3*n {
			t.Fatalf("%d moves of %d in %d tries", done, n, tries)
		}
		e := s.move(t, "numbers", at, feed, tries, tries > 0)
		if e.at != at {
			done++
		}
		at = e.at
	}
	end()
	s.finish(t, "numbers", at)
}

// move moves the job, to the end; with faults agents are killed meanwhile.
func (s *twoSites) move(t *testing.T, job string, at *site, feed string, number int, faults bool) ended {
	t.Helper()
	began, there, back := time.Now(), s.wan.pipes[0].counted(), s.wan.pipes[1].counted()
	m := s.begin(t, job, at, feed)
	var due []time.Duration // when somebody is killed
	var killed []string
	if faults {
		for range 1 + s.rng.IntN(2) {
			due = append(due, time.Duration(s.rng.Int64N(int64(6*time.Second))))
		}
		slices.Sort(due)
	}
	e := s.settle(t, job, m, at, func(m moveShown) {
		if len(due) > 0 && time.Since(began) > due[0] && len(s.dead) == 0 {
			due = due[1:]
			who := s.victim(t)
			killed = append(killed, fmt.Sprintf("%s %v after the beginning, while %s", who.name, time.Since(began).Round(10*time.Millisecond), m.Phase))
			s.kill(t, who, 3*time.Second)
		}
	})
	s.caughtUp(t)
	extra := fmt.Sprintf("; on the wan %.1f and %.1f MB", float64(s.wan.pipes[0].counted().bytes-there.bytes)/1e6, float64(s.wan.pipes[1].counted().bytes-back.bytes)/1e6)
	if len(killed) > 0 {
		extra += "; killed: " + strings.Join(killed, ", ")
	}
	s.tellMove(t, number+1, e, s.results.gap(began), extra)
	return e
}

// victim is an agent to kill: every other time one that leads.
func (s *twoSites) victim(t *testing.T) *node {
	t.Helper()
	x := s.both()[s.rng.IntN(2)]
	if s.rng.IntN(2) == 0 {
		return x.leader(t)
	}
	return x.nodes[s.rng.IntN(len(x.nodes))]
}

// cutPhase is a phase of a move in which the wan is cut.
type cutPhase struct {
	phase  string
	target bool   // it is the target's
	ends   string // what becomes of the move if the cut outlasts everybody's patience
}

var cutPhases = []cutPhase{
	{"copying", false, "aborted"},
	{"halting", false, "aborted"},
	{"offered", false, "aborted"},
	{"prepared", true, ""}, // handed over if the source heard it
	{"handed-over", false, "handed-over"},
}

// TestHostsTwoSitesCut: the wan is cut in the middle of each phase of a move, and
// heals. The move ends as docs/MIGRATION.md says, and everything is exact.
func TestHostsTwoSitesCut(t *testing.T) {
	t.Parallel()
	_, long := moves(t, 0)
	s := newTwoSites(t, far, "numbers")
	end := s.numbers.flow(t, load)
	at := s.plant
	for i, p := range cutPhases {
		at = s.cutMove(t, at, i, p, false)
		if long {
			at = s.cutMove(t, at, i, p, true)
		}
	}
	end()
	s.finish(t, "numbers", at)
}

// cutMove moves the job, with the wan cut as soon as a phase is seen. It tries
// again with a slower line if the phase was over too soon.
func (s *twoSites) cutMove(t *testing.T, at *site, number int, p cutPhase, long bool) *site {
	t.Helper()
	delay := far.delay
	for tries := 1; ; tries++ {
		began := time.Now()
		s.wan.slow(delay)
		m := s.begin(t, "numbers", at, "move")
		hit := s.cutIn(t, at, m, p)
		if hit {
			s.hold(t, at, m, p, long)
		}
		s.wan.heal()
		s.wan.slow(far.delay)
		e := s.settle(t, "numbers", m, at, nil)
		s.caughtUp(t)
		s.tellMove(t, number+1, e, s.results.gap(began), fmt.Sprintf("; the wan was cut in %s: %v, with %v each way", p.phase, hit, delay))
		from := at
		at = e.at
		switch {
		case !hit && tries == 12:
			t.Fatalf("%s was over too soon, again and again", p.phase)
		case !hit:
			delay = min(3*delay, time.Second) // longer, if the phase waits for the other site at all
			continue
		case long && p.ends != "" && (e.at == from) != (p.ends == "aborted"):
			t.Errorf("cut for long in %s: the move ended at %s: %+v", p.phase, s.name(e.at), e.moveShown)
		case p.phase == "handed-over" && e.at == from:
			t.Errorf("it was handed over, and is at %s", s.name(e.at))
		case e.at == from && e.Phase == "aborted" && !slices.ContainsFunc([]string{"nothing was heard of", "did not have everything", "did not stop", "were not sealed"}, func(why string) bool { return strings.Contains(e.Why, why) }):
			t.Errorf("aborted: %q", e.Why)
		}
		return at
	}
}

// cutIn waits for a phase, and cuts the wan in it.
func (s *twoSites) cutIn(t *testing.T, from *site, m moveShown, p cutPhase) (hit bool) {
	t.Helper()
	x := from
	if p.target {
		x = s.other(from)
	}
	var now moveShown
	awaitFor(t, 5*time.Minute, "the move to be "+p.phase, func() bool {
		var ok bool
		if now, ok = s.record(x, m.ID); !ok {
			return false
		}
		hit = now.Phase == p.phase && (!now.Over || p.phase == "handed-over")
		return hit || now.Over
	}, func() string { return fmt.Sprintf("%+v\n%s", now, s.said()) })
	if hit {
		s.wan.cut()
	}
	return hit
}

// record is what a site has of a move: what the target has, too, and not only what
// the source says of it.
func (s *twoSites) record(x *site, id string) (m moveShown, ok bool) {
	var all []moveShown
	s.ask(x, http.MethodGet, "/v1/moves", nil, &all)
	for _, m := range all {
		if m.ID == id {
			return m, true
		}
	}
	return m, false
}

// hold waits while the wan is cut: until there is something to see of it.
func (s *twoSites) hold(t *testing.T, from *site, m moveShown, p cutPhase, long bool) {
	t.Helper()
	var now moveShown
	see := func(x *site, what string, ok func() bool) {
		awaitFor(t, 5*time.Minute, what, func() (there bool) {
			now, there = s.record(x, m.ID)
			return there && ok()
		}, func() string { return fmt.Sprintf("%+v\n%s", now, s.said()) })
	}
	to := s.other(from)
	switch {
	case p.phase == "prepared" || p.phase == "handed-over":
		doubt := func() bool { return now.Doubt || now.Phase == "receiving" || now.Over } // prepared may not have come to be
		see(to, "the target to be in doubt", doubt)
		if long && p.ends == "" {
			see(from, "the source to decide", func() bool { return now.Over })
		}
	case long && p.ends == "aborted":
		see(from, "the source to give up", func() bool { return now.Over })
	default:
		<-time.After(5 * time.Second) // what happens meanwhile is up to the sites
	}
}
