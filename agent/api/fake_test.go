package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/executor"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/link"
	"github.com/tidemark-mesh/tidemark/store"
)

// site is a site in memory: one replicated state, on which the agent called n1
// leads, until told otherwise.
type site struct {
	mu       sync.Mutex // guards what follows
	machine  *jobmanager.Machine
	index    uint64
	leader   mesh.NodeID
	parts    map[store.Digest][]byte
	subs     map[chan api.Event]bool
	urls     map[mesh.NodeID]string // of the servers inside
	tokens   int
	name     mesh.Site
	level    uint32 // of its agents
	replicas []api.Replica
	away     map[mesh.Site]*member // who leads other sites; nil: it is not reached
	wishes   []leader.Migrate
	told     []api.MoveTold
	refuses  error // every wish about a move
	taken    []leader.Failover
	over     leader.FailedOver // what comes of them
	logs     []coordinator.LogStatus
}

// member is an agent of it.
type member struct {
	*site
	self mesh.NodeID
	left chan struct{}
}

var _ api.Backend = (*member)(nil)

func newSite(t testing.TB) *site {
	return siteNamed(t, "hall", 1)
}

func siteNamed(t testing.TB, name mesh.Site, level uint32) *site {
	s := &site{name: name, level: level, away: make(map[mesh.Site]*member), leader: "n1", parts: make(map[store.Digest][]byte), subs: make(map[chan api.Event]bool), urls: make(map[mesh.NodeID]string)}
	s.begin(t)
	return s
}

// begin puts a new state in the place of what there is.
func (s *site) begin(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	s.machine, s.index = jobmanager.New(), 0
	s.mu.Unlock()
	for _, c := range []coordinator.Command{
		{SiteFounded: &coordinator.SiteFounded{Mesh: "plant", Site: s.name}},
		{AgentJoined: &coordinator.Agent{Node: "n1", Name: "press-1", Host: "a", Slots: 4, Level: s.level, Link: "10.0.0.1:7071"}},
		{AgentJoined: &coordinator.Agent{Node: "n2", Name: "press-2", Host: "b", Slots: 4, Level: s.level, Link: "10.0.0.2:7071"}},
		{LeaderBegan: &coordinator.LeaderBegan{Term: 1, Node: "n1"}},
	} {
		s.must(t, c)
	}
}

func (s *site) must(t testing.TB, c coordinator.Command) coordinator.JobID {
	t.Helper()
	r := s.apply(c)
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	return r.Job
}

func (s *site) apply(c coordinator.Command) jobmanager.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Level = c.Needs()
	if c.At == 0 {
		c.At = 1_700_000_000_000_000
	}
	s.index++
	r, _ := s.machine.Apply(s.index, &c)
	return r
}

func (s *site) leads(n mesh.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leader = n
}

func (s *site) tell(e api.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.subs {
		ch <- e
	}
}

func (m *member) Self() mesh.NodeID { return m.self }

func (m *member) Leader() mesh.NodeID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader
}

func (m *member) View(f func(*coordinator.State)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.machine.State())
}

func (m *member) Current(context.Context) error {
	if m.Leader() != m.self {
		return api.ErrNotLeader
	}
	return nil
}

func (m *member) Sites(context.Context) []api.Site {
	return []api.Site{{Site: "hall", Self: true, Leader: "press-1", Answers: true}, {Site: "depot", Why: "not reached"}}
}

func (m *member) Members() (all []api.Member) {
	m.View(func(st *coordinator.State) {
		for _, id := range []mesh.NodeID{"n1", "n2"} {
			a := st.Agents[id]
			if a == nil {
				continue
			}
			role := "voter"
			if id == m.leader {
				role = "leader"
			}
			all = append(all, api.Member{Role: role, Member: mesh.Member{Node: id, Name: a.Name, Site: st.Site, Slots: a.Slots, Host: a.Host, Link: a.Link, Status: mesh.Alive}})
		}
	})
	return all
}

func (m *member) Propose(ctx context.Context, c coordinator.Command) (coordinator.JobID, error) {
	if err := m.Current(ctx); err != nil {
		return "", err
	}
	r := m.apply(c)
	if told := c.JobTold; r.Err == nil && told != nil && told.Cancel { // as the leader's machine does
		return r.Job, m.apply(coordinator.Command{JobBecame: &coordinator.JobBecame{Job: told.Job, Attempt: m.attempt(told.Job), Status: coordinator.Cancelled}}).Err
	}
	return r.Job, r.Err
}

func (m *member) attempt(id coordinator.JobID) (n uint64) {
	m.View(func(st *coordinator.State) {
		if j := st.Jobs[id]; j != nil {
			n = j.Attempt
		}
	})
	return n
}

// Ask stops a job with the savepoint sp-1 that a test has put there.
func (m *member) Ask(ctx context.Context, w leader.Wish) (leader.Answer, error) {
	if err := m.Current(ctx); err != nil {
		return leader.Answer{}, err
	}
	if w.Migrate != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.wishes = append(m.wishes, *w.Migrate)
		return leader.Answer{Move: "m9-" + coordinator.MoveID(m.name)}, m.refuses
	}
	if w.Failover != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.taken = append(m.taken, *w.Failover)
		return leader.Answer{FailedOver: &m.over}, m.refuses
	}
	if w.Savepoint != nil {
		return leader.Answer{Savepoint: "sp-asked"}, nil
	}
	if _, err := m.Propose(ctx, coordinator.Command{JobTold: w.Stop}); err != nil {
		return leader.Answer{}, err
	}
	_, err := m.Propose(ctx, coordinator.Command{JobBecame: &coordinator.JobBecame{Job: w.Stop.Job, Attempt: m.attempt(w.Stop.Job), Status: coordinator.Stopped, Savepoint: "sp-1"}})
	return leader.Answer{Savepoint: "sp-1"}, err
}

func (m *member) Statuses(job coordinator.JobID) []coordinator.SubtaskStatus {
	if m.Leader() != m.self {
		return nil
	}
	ref := coordinator.AttemptRef{Job: job, Token: dataflow.FencingToken{Epoch: 1, Site: "hall", Attempt: 1}}
	return []coordinator.SubtaskStatus{{AttemptRef: ref, Subtask: dataflow.SubtaskID{Task: "in"}, Watermark: 1_700_000_000_000_000, Arrival: 1_700_000_001_000_000,
		Operators: []coordinator.OperatorCounters{{Operator: "in", In: 7, Out: 6, Rejected: 1, First: "no JSON"}}}}
}

func (m *member) Logs() []coordinator.LogStatus { return m.logs }

func (m *member) Here() ([]coordinator.SubtaskStatus, []coordinator.LogStatus, int64) {
	return m.Statuses("j5"), []coordinator.LogStatus{{Feed: "plant", End: 12, Bytes: 99, Broker: "connected"},
		{Feed: "line.at.depot", End: 12, Of: &coordinator.MirrorOf{End: 12, Heard: 1_700_000_000_000_000}}, // in 2023
		{Feed: "new.at.depot", End: 12, Of: &coordinator.MirrorOf{}}}, 1 << 30
}

func (m *member) Preparations() []executor.Preparation {
	ref := coordinator.AttemptRef{Job: "j5", Token: dataflow.FencingToken{Epoch: 1, Site: "hall", Attempt: 1}}
	return []executor.Preparation{{AttemptRef: ref, From: "chk-1", Parts: 2, Bytes: 99, Fetched: 7, Phases: []executor.Phase{{Name: "restore", Took: 1500 * time.Millisecond}}}}
}

func (m *member) Network() api.Network {
	n1 := mesh.Peer{Node: "n1"}
	return api.Network{
		Links: []link.ConnStats{
			{Peer: n1, Class: "data", RTT: 2 * time.Millisecond, BytesSent: 10, BytesReceived: 20, PacketsLost: 1, Streams: 3},
			{Peer: n1, Class: "data", RTT: 5 * time.Millisecond, BytesSent: 1, BytesReceived: 2, Streams: 4},
		},
		Totals: []link.Total{ // of one more connection, that has ended, and of a node to which there is none
			{Node: "n1", Class: "data", BytesSent: 111, BytesReceived: 222, PacketsLost: 4},
			{Node: "n9", Class: "control", BytesSent: 5, BytesReceived: 6},
		},
		Raft:   consensus.Stats{Term: 3, Last: 17, Committed: 16, Voters: 3, FileBytes: 4096, Contact: time.Unix(1_700_000_000, 0), Changes: 2, Commands: 4, Waited: 10 * time.Millisecond},
		Gossip: 1, Raw: 900, Packed: 300,
	}
}

func (m *member) SiteSeen(site mesh.Site) (known, seen bool) {
	to, known := m.away[site]
	return known, to != nil
}

func (m *member) Unfounded(site mesh.Site) error {
	if m.away[site] != nil {
		return fmt.Errorf("site %s is there already", site)
	}
	return nil
}

func (m *member) OtherSites() (all []mesh.Site) {
	for _, site := range slices.Sorted(maps.Keys(m.away)) {
		if m.away[site] != nil {
			all = append(all, site)
		}
	}
	return all
}

// PassSite has the other site's leader answer what came as if over the mesh.
func (m *member) PassSite(r *http.Request, site mesh.Site) (*http.Response, error) {
	to := m.away[site]
	if to == nil {
		return nil, fmt.Errorf("site %s: %w", site, api.ErrUnreached)
	}
	w := httptest.NewRecorder()
	api.New(to, api.Options{Version: "test", Inside: true}).ServeHTTP(w, r)
	return w.Result(), nil
}

func (m *member) Told() []api.MoveTold { return m.told }

func (m *member) Replicas() []api.Replica { return m.replicas }

func (m *member) CallLeader(ctx context.Context) (net.Conn, error) {
	m.mu.Lock()
	url, there := m.urls[m.leader]
	m.mu.Unlock()
	if !there {
		return nil, api.ErrNoLeader
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(url, "http://"))
}

func (m *member) OpenPart(_ context.Context, p store.Part, _ []coordinator.PartCopies) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.parts[p.Digest]
	if !ok {
		return nil, fmt.Errorf("part %v: %w", p.Digest, store.ErrMissing)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (m *member) PutPart(_ context.Context, write func(io.Writer) error) (store.Part, []mesh.NodeID, error) {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return store.Part{}, nil, err
	}
	p := store.Part{Digest: sha256.Sum256(b.Bytes()), Size: int64(b.Len())}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts[p.Digest] = b.Bytes()
	return p, []mesh.NodeID{m.self}, nil
}

func (m *member) Now() time.Time { return time.UnixMicro(1_700_000_000_000_000) }

func (m *member) NewToken() (string, coordinator.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens++
	return fmt.Sprintf("tm1-secret-%d", m.tokens), coordinator.Token{ID: fmt.Sprintf("t%d", m.tokens), Hash: make([]byte, 32), Created: 1_700_000_000_000_000, Uses: -1, Expires: dataflow.MaxTime}, nil
}

func (m *member) Leave(context.Context) error { close(m.left); return nil }

func (m *member) Remove(ctx context.Context, n mesh.NodeID) error {
	_, err := m.Propose(ctx, coordinator.Command{AgentLeft: &coordinator.AgentLeft{Node: n}})
	return err
}

func (m *member) Subscribe(ctx context.Context) <-chan api.Event {
	ch := make(chan api.Event, 16)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subs[ch] = true
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.subs, ch)
		close(ch)
	})
	return ch
}

func (m *member) Health() api.Health {
	if m.Leader() == "" {
		return api.Health{Why: []string{"no leader"}}
	}
	return api.Health{Ready: true, Applied: 4, Lease: true}
}

// agent serves a member to users and to other agents.
type agent struct {
	*member
	url string
}

func (s *site) agent(t *testing.T, self mesh.NodeID, token string) *agent {
	m := &member{site: s, self: self, left: make(chan struct{})}
	inside := httptest.NewServer(api.New(m, api.Options{Version: "test", Inside: true}))
	outside := httptest.NewServer(api.New(m, api.Options{Version: "test", Token: token}))
	t.Cleanup(outside.Close)
	t.Cleanup(inside.Close)
	s.mu.Lock()
	s.urls[self] = inside.URL
	s.mu.Unlock()
	return &agent{m, outside.URL}
}

// reply is what came of a request.
type reply struct {
	status int
	header http.Header
	body   string
}

// send sends a request; of a map or struct the body is JSON, of a string that.
func send(t *testing.T, url, method, path string, in any, headers ...string) reply {
	t.Helper()
	var body io.Reader
	switch v := in.(type) {
	case nil:
	case string:
		body = strings.NewReader(v)
	default:
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

// want checks the status, and that the body says each of the texts.
func (r reply) want(t *testing.T, status int, says ...string) reply {
	t.Helper()
	if r.status != status {
		t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	for _, s := range says {
		if !strings.Contains(r.body, s) {
			t.Errorf("it does not say %q: %s", s, r.body)
		}
	}
	if status >= 400 && !strings.HasPrefix(r.header.Get("Content-Type"), "application/problem+json") {
		t.Errorf("an error as %s", r.header.Get("Content-Type"))
	}
	return r
}

// post asks a handler in this goroutine.
func post(h http.Handler, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
