//go:build hosts

package hosts

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// twoSites are two sites of three agents with a wan between them, a broker that
// both reach by another way, and a job that counts numbers.
type twoSites struct {
	plant, depot *site
	wan          *wan
	core         *host // where the broker is
	broker       *mosquitto
	numbers      *numbers
	results      *subscriber
	rng          *rand.Rand
	clients      map[*node]*http.Client
	dead         map[*node]time.Time // agents that were killed, and when each is to start again
	kills        int
	rebuilt      string // the name under which the plant was founded again; empty: it was not
}

// stateKeys makes about 5 MB of state.
const stateKeys = 20_000

// newTwoSites starts both sites; the job runs, and its state is full.
func newTwoSites(t *testing.T, l line, name string) *twoSites {
	t.Helper()
	lans := [2]*lan{newSubnet(t, 3, "10.77.1"), newSubnet(t, 3, "10.77.2")}
	s := &twoSites{rng: rand.New(rand.NewPCG(seed(t), 11)), clients: make(map[*node]*http.Client), dead: make(map[*node]time.Time)}
	s.plant, s.depot = planOn(t, lans[0], "p", "--slots", "2"), planOn(t, lans[1], "d", "--slots", "2")
	s.wan = newWAN(t, lans[0], lans[1], l, seed(t))
	s.startBroker(t)
	for _, a := range s.nodes() { // what is to be seen here is no disk's speed
		if err := os.MkdirAll(a.data(), 0o755); err != nil {
			t.Fatal(err)
		}
		mount(t, a.data(), "1g")
	}
	for _, x := range s.both() {
		sink := x.nodes[2]
		sink.args = append(slices.Clip(sink.args), "--label", "sink=here")
	}
	s.plant.found(t)
	s.plant.open(t)
	s.foundDepot(t)
	s.results = subscribeBy(t, s.core.dial, s.broker.addr(), "results")
	s.numbers = newNumbers(t, stateKeys, s.core.dial, s.broker.addr())
	s.plant.nodes[0].submit(t, strings.Replace(numbersJob(s.broker.url(), stateKeys, "plant, depot"), "name: numbers", "name: "+name, 1))
	s.plant.awaitJob(t, name, "running")
	s.plant.awaitSubscribed(t)
	s.numbers.fill(t)
	return s
}

func (s *twoSites) both() []*site { return []*site{s.plant, s.depot} }

func (s *twoSites) nodes() []*node { return append(slices.Clone(s.plant.nodes), s.depot.nodes...) }

func (s *twoSites) other(x *site) *site {
	if x == s.plant {
		return s.depot
	}
	return s.plant
}

func (s *twoSites) name(x *site) string {
	switch {
	case x == s.depot:
		return "depot"
	case s.rebuilt != "":
		return s.rebuilt
	}
	return "plant"
}

// startBroker starts the broker on a host between the sites.
func (s *twoSites) startBroker(t *testing.T) {
	t.Helper()
	s.core = &host{ns: fmt.Sprintf("tm%d-%d-core", os.Getpid(), lans.Add(1)), ip: "10.77.9.1"}
	command(t, "ip", "netns", "add", s.core.ns)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", s.core.ns).Run() })
	s.core.must(t, "ip", "link", "set", "lo", "up")
	for i, x := range s.both() {
		here, there := fmt.Sprintf("10.77.%d.1", 9+i), fmt.Sprintf("10.77.%d.2", 9+i)
		dev := fmt.Sprintf("c%d", i)
		s.core.must(t, "ip", "link", "add", dev, "type", "veth", "peer", "name", "core", "netns", x.sw.ns)
		s.core.must(t, "ip", "addr", "add", here+"/30", "dev", dev)
		s.core.must(t, "ip", "link", "set", dev, "up")
		x.sw.must(t, "ip", "addr", "add", there+"/30", "dev", "core")
		x.sw.must(t, "ip", "link", "set", "core", "up")
		x.sw.must(t, "ip", "route", "replace", s.core.ip+"/32", "via", here)
		s.core.must(t, "ip", "route", "add", strings.TrimSuffix(x.sw.ip, ".1")+".0/24", "via", there)
	}
	m := newMosquitto(t, raised)
	m.on, m.port = s.core, brokerPort
	m.configure(t, s.core.ip, raised)
	m.start(t)
	s.broker = m
}

// foundDepot founds the second site through the first one.
func (s *twoSites) foundDepot(t *testing.T) {
	t.Helper()
	var made struct {
		Token string `json:"token"`
	}
	p, d := s.plant.nodes[0], s.depot.nodes[0]
	decode(t, p.cli(t, "site", "create", "depot", "--data-dir", p.data(), "--output", "json"), &made)
	s.depot.token, d.via = made.Token, p
	d.args = append(slices.Clip(d.args), "--site", "depot")
	d.start(t, s.depot)
	await(t, "the depot to be founded", func() bool {
		out, _, code := d.try("token", "create", "--ttl", "1h", "--uses", "2", "--output", "json")
		return code == 0 && json.Unmarshal(out, &made) == nil
	}, s.depot.said)
	s.depot.token = made.Token
	for _, a := range s.depot.nodes[1:] {
		a.via = d
		a.start(t, s.depot)
	}
	s.depot.awaitWhole(t)
	s.awaitSeen(t)
}

// awaitSeen waits until each site's leader hears the other one.
func (s *twoSites) awaitSeen(t *testing.T) {
	t.Helper()
	for _, x := range s.both() {
		await(t, s.name(x)+" to reach the other site", func() bool {
			var all []struct {
				Answers bool `json:"answers"`
			}
			if s.ask(x, http.MethodGet, "/v1/sites", nil, &all) != http.StatusOK {
				return false
			}
			n := 0
			for _, one := range all {
				if one.Answers {
					n++
				}
			}
			return n == 2
		}, s.said)
	}
}

func (s *twoSites) said() string { return s.plant.said() + s.depot.said() }

// ask asks the agents of a site one after the other until one gives an answer
// that is one of the site; the status is 0 if nobody does.
func (s *twoSites) ask(x *site, method, path string, body, into any) (status int) {
	for _, a := range x.nodes {
		if a.process == nil || a.ended() {
			continue
		}
		var text []byte
		if body != nil {
			text, _ = json.Marshal(body)
		}
		status, text = s.client(a).do(method, path, text)
		if status != 0 && status < 500 {
			if into != nil && status < 300 && json.Unmarshal(text, into) != nil {
				return 0
			}
			return status
		}
	}
	return 0
}

// do makes a request; the status is 0 without an answer.
func (c caller) do(method, path string, body []byte) (status int, text []byte) {
	req, err := http.NewRequest(method, "http://127.0.0.1:7070"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := c.Do(req)
	if err != nil {
		return 0, nil
	}
	defer answer.Body.Close()
	if text, err = io.ReadAll(answer.Body); err != nil {
		return 0, nil
	}
	return answer.StatusCode, text
}

// caller calls an agent's API.
type caller struct{ *http.Client }

func (s *twoSites) client(a *node) caller {
	if s.clients[a] == nil {
		s.clients[a] = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) { return a.dial(addr) }}}
	}
	return caller{s.clients[a]}
}

// moveShown is a move as the API says it.
type moveShown struct {
	ID       string `json:"id"`
	Job      string `json:"job"`
	From     string `json:"from"`
	To       string `json:"to"`
	Phase    string `json:"phase"`
	Over     bool   `json:"over"`
	Doubt    bool   `json:"in_doubt"`
	Why      string `json:"why"`
	Bytes    int64  `json:"bytes"`
	Pause    int64  `json:"pause_us"`
	PauseOff int64  `json:"pause_off_us"`
	Steps    []struct {
		At   string `json:"at"`
		Text string `json:"text"`
	} `json:"steps"`
}

// begin orders a move, and does so until a site says that it is on record.
func (s *twoSites) begin(t *testing.T, job string, from *site, feed string) moveShown {
	t.Helper()
	var m moveShown
	want := map[string]string{"to": s.name(s.other(from)), "feed": feed, "request": fmt.Sprint("r", s.rng.Uint64())}
	status := 0
	await(t, "a move to begin", func() bool {
		s.revive(t)
		status = s.ask(from, http.MethodPost, "/v1/jobs/"+job+"/migrate", want, &m)
		return status == http.StatusAccepted
	}, func() string { return fmt.Sprintf("status %d\n%s", status, s.said()) })
	return m
}

// kill kills an agent, and has it started again up to so much later.
func (s *twoSites) kill(t *testing.T, a *node, most time.Duration) {
	t.Helper()
	a.kill(t)
	s.kills++
	s.dead[a] = time.Now().Add(time.Duration(s.rng.Int64N(int64(most))))
}

// revive starts the agents whose time has come.
func (s *twoSites) revive(t *testing.T) {
	t.Helper()
	for _, x := range s.both() {
		for _, a := range x.nodes {
			if due, dead := s.dead[a]; dead && time.Now().After(due) {
				a.start(t, x)
				delete(s.dead, a)
			}
		}
	}
}

// where is who has the job, if that is settled: one site runs it, and no move of
// it is undecided at either.
func (s *twoSites) where(job string) (at *site, text string) {
	for _, x := range s.both() {
		var j jobShown
		var open []moveShown
		if s.ask(x, http.MethodGet, "/v1/moves", nil, &open) != http.StatusOK {
			return nil, s.name(x) + " does not answer"
		}
		for _, m := range open {
			if !m.Over {
				return nil, fmt.Sprintf("%s: %s %s", s.name(x), m.ID, m.Phase)
			}
		}
		var all []jobShown
		if s.ask(x, http.MethodGet, "/v1/jobs", nil, &all) != http.StatusOK {
			return nil, s.name(x) + " does not answer"
		}
		for _, j = range all {
			if j.Name != job || j.Status == "moved" {
				continue
			}
			if text += s.name(x) + ": " + j.Status + " "; j.Status == "running" {
				if at != nil {
					return nil, "both run it"
				}
				at = x
			}
		}
	}
	return at, text
}

// ended is what became of a move.
type ended struct {
	moveShown
	at   *site
	took time.Duration
}

// settle waits until a move is over and the job runs at one site; meanwhile is
// called again and again, with what is known of the move at its source.
func (s *twoSites) settle(t *testing.T, job string, m moveShown, from *site, meanwhile func(moveShown)) ended {
	t.Helper()
	began, text := time.Now(), ""
	e := ended{moveShown: m}
	awaitFor(t, 5*time.Minute, "move "+m.ID+" to be over", func() bool {
		var now moveShown
		if s.ask(from, http.MethodGet, "/v1/moves/"+m.ID, nil, &now) == http.StatusOK {
			e.moveShown = now
		}
		if meanwhile != nil {
			meanwhile(e.moveShown)
		}
		s.revive(t)
		e.at, text = s.where(job)
		return e.at != nil
	}, func() string { return fmt.Sprintf("%s; last seen: %+v\n%s", text, e.moveShown, s.said()) })
	e.took = time.Since(began)
	await(t, "the pause to be told", func() bool { // the source says it once it has heard of the first row
		var now moveShown
		if s.ask(from, http.MethodGet, "/v1/moves/"+m.ID, nil, &now) == http.StatusOK {
			e.moveShown = now
		}
		return e.at == from || e.Pause > 0 || time.Since(began) > e.took+5*time.Second // a leader that is gone took it along
	}, s.said)
	return e
}

// caughtUp waits until rows come out that were published after this was called.
func (s *twoSites) caughtUp(t *testing.T) {
	t.Helper()
	want := s.numbers.published() - stateKeys
	got := 0
	awaitFor(t, 5*time.Minute, "rows to come out", func() bool {
		s.revive(t)
		got = s.results.count()
		return got >= want
	}, func() string { return fmt.Sprintf("%d of %d\n%s", got, want, s.said()) })
}

// finish stops the job, and compares all that came out with what must.
func (s *twoSites) finish(t *testing.T, job string, at *site) {
	t.Helper()
	await(t, "all agents to be started again", func() bool {
		s.revive(t)
		return len(s.dead) == 0
	}, s.said)
	s.caughtUp(t)
	await(t, "the job to stop", func() bool {
		_, _, code := at.nodes[0].try("job", "stop", job)
		return code == 0
	}, s.said)
	s.numbers.compare(t, "published", s.results.heard())
	var files []string
	for _, x := range s.both() {
		files = append(files, strings.Split(strings.TrimSpace(string(x.file(t, "rows.jsonl"))), "\n")...)
	}
	files = slices.DeleteFunc(files, func(line string) bool { return line == "" })
	s.numbers.compare(t, "in files", files)
	there, back := s.wan.carried()
	t.Logf("%d rows exact; killed %d agents; the wan: from the plant %v; from the depot %v", s.results.count(), s.kills, there, back)
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// tellMove logs how a move ended.
func (s *twoSites) tellMove(t *testing.T, n int, e ended, gap time.Duration, extra string) {
	t.Helper()
	var steps []string
	for _, step := range e.Steps {
		steps = append(steps, step.Text)
	}
	t.Logf("move %d (%s, %s to %s): %s%s after %v, %d bytes, pause %v give or take %v, longest gap at the broker %v%s\n    %s", n, e.ID, e.From, e.To, e.Phase,
		because(e.Why), e.took.Round(time.Millisecond), e.Bytes, time.Duration(e.Pause)*time.Microsecond, time.Duration(e.PauseOff)*time.Microsecond, gap.Round(time.Millisecond), extra,
		strings.Join(steps, "\n    "))
}
