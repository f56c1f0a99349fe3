//go:build hosts

package hosts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// node is an agent on a host: its folder outlives its processes.
type node struct {
	*host
	*process // of the last start
	name     string
	dir      string
	args     []string
	program  string   // tidemark, or another build of it
	env      []string // K=V, of its processes
	via      *node    // whom it asks to let it join; nil: it is the founder
}

// site is agents that know each other, and a broker that all reach.
type site struct {
	*lan
	nodes  []*node
	token  string
	broker *mosquitto
}

const (
	linkPort   = 7071
	brokerPort = 1883
)

// newSite founds a site with its first agent and lets n-1 others join it.
func newSite(t *testing.T, n int, args ...string) *site {
	t.Helper()
	s := plan(t, n, args...)
	s.found(t)
	s.open(t)
	return s
}

// plan is a site of which nothing runs yet.
func plan(t *testing.T, n int, args ...string) *site {
	t.Helper()
	return planOn(t, newLAN(t, n), "n", args...)
}

// planOn is plan with names that begin with a prefix, on a lan.
func planOn(t *testing.T, l *lan, prefix string, args ...string) *site {
	t.Helper()
	s := &site{lan: l}
	for i, h := range s.hosts {
		a := &node{host: h, name: fmt.Sprintf("%s%d", prefix, i+1), dir: t.TempDir(), args: args, program: tidemark}
		if i > 0 {
			a.via = s.nodes[0]
		}
		s.nodes = append(s.nodes, a)
	}
	return s
}

// found makes the mesh, in the first agent's folder.
func (s *site) found(t *testing.T) {
	t.Helper()
	first := s.nodes[0]
	var made struct {
		Token string `json:"token"`
	}
	decode(t, first.cli(t, "init", "--data-dir", first.data(), "--name", first.name, "--mesh", "test", "--site", "plant", "--output", "json"), &made)
	if s.token = made.Token; s.token == "" {
		t.Fatal("init printed no token")
	}
}

// open starts all agents, and waits until the site is as it shall be.
func (s *site) open(t *testing.T) {
	t.Helper()
	for _, a := range s.nodes {
		a.start(t, s)
	}
	s.awaitWhole(t)
}

// awaitWhole waits until all agents are there, with all votes given.
func (s *site) awaitWhole(t *testing.T) {
	t.Helper()
	s.awaitMembers(t, len(s.nodes))
	n := len(s.nodes)
	s.awaitVoters(t, min(5, n-(n+1)%2))
}

func (a *node) data() string { return filepath.Join(a.dir, "data") }

// start starts the agent's process; one that has not joined joins.
func (a *node) start(t *testing.T, s *site) {
	t.Helper()
	args := append([]string{"netns", "exec", a.ns, "env"}, a.env...)
	args = append(args, a.program, "agent", "--name", a.name, "--data-dir", a.data(), "--bind", fmt.Sprintf("%s:%d", a.ip, linkPort), "--http", "127.0.0.1:7070")
	if a.via != nil {
		args = append(args, "--join", fmt.Sprintf("%s:%d", a.via.ip, linkPort), "--token", s.token)
	}
	a.process = launch(t, a.dir, nil, "ip", append(args, a.args...)...)
}

// cli runs a verb on the agent's host and returns what it printed; it must do.
func (a *node) cli(t *testing.T, args ...string) []byte {
	t.Helper()
	out, stderr, code := a.try(args...)
	if code != 0 {
		t.Fatalf("on %s: tidemark %s: exit code %d\n%s%s", a.name, strings.Join(args, " "), code, out, stderr)
	}
	return out
}

// try runs a verb on the agent's host.
func (a *node) try(args ...string) (stdout []byte, stderr string, code int) {
	c := exec.Command("ip", append([]string{"netns", "exec", a.ns, tidemark}, args...)...)
	var out, errs bytes.Buffer
	c.Dir, c.Stdout, c.Stderr = a.dir, &out, &errs
	_ = c.Run() // the exit code says it
	return out.Bytes(), errs.String(), c.ProcessState.ExitCode()
}

// kill is kill -9.
func (a *node) kill(t *testing.T) {
	t.Helper()
	a.signal(t, syscall.SIGKILL)
	a.exit(t)
}

func decode(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
}

// lines decodes JSON lines.
func decodeLines[T any](t *testing.T, text []byte) []T {
	t.Helper()
	var all []T
	for line := range bytes.Lines(text) {
		var one T
		decode(t, line, &one)
		all = append(all, one)
	}
	return all
}

// memberShown is a line of member list.
type memberShown struct {
	Node   string `json:"node"`
	Name   string `json:"name"`
	Status string `json:"status"`
	Role   string `json:"role"` // leader, voter, non-voter
}

// members asks an agent; nil if it does not answer.
func (a *node) members(t *testing.T) []memberShown {
	t.Helper()
	out, _, code := a.try("member", "list", "--output", "json")
	if code != 0 {
		return nil
	}
	return decodeLines[memberShown](t, out)
}

// awaitMembers waits until every agent that runs sees n alive members with a
// leader among them.
func (s *site) awaitMembers(t *testing.T, n int) {
	t.Helper()
	for _, a := range s.nodes {
		if a.process == nil || a.ended() {
			continue
		}
		await(t, fmt.Sprintf("%d members on %s", n, a.name), func() bool {
			alive, leaders := 0, 0
			for _, m := range a.members(t) {
				if m.Status == "alive" {
					alive++
					if m.Role == "leader" {
						leaders++
					}
				}
			}
			return alive == n && leaders == 1
		}, func() string { return fmt.Sprintf("%+v\n%s", a.members(t), tail(a.output())) })
	}
}

// awaitVoters waits until every agent that runs knows of so many voters: a site
// whose founder is still its only voter does not outlive the founder.
func (s *site) awaitVoters(t *testing.T, want int) {
	t.Helper()
	for _, a := range s.nodes {
		if a.process == nil || a.ended() {
			continue
		}
		await(t, fmt.Sprintf("%d voters on %s", want, a.name), func() bool {
			voters := 0
			for _, m := range a.members(t) {
				if m.Role == "leader" || m.Role == "voter" {
					voters++
				}
			}
			return voters == want
		}, func() string { return fmt.Sprintf("%+v\n%s", a.members(t), tail(a.output())) })
	}
}

func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// leader is the agent that leads, as one that runs says.
func (s *site) leader(t *testing.T) *node {
	t.Helper()
	var found *node
	await(t, "a leader", func() bool {
		for _, a := range s.nodes {
			if a.process == nil || a.ended() {
				continue
			}
			for _, m := range a.members(t) {
				for _, b := range s.nodes {
					if m.Role == "leader" && m.Name == b.name && !b.ended() {
						found = b
						return true
					}
				}
			}
		}
		return false
	}, func() string { return "" })
	return found
}

// jobShown is job show.
type jobShown struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Status   string `json:"status"`
	Why      string `json:"why"`
	Attempt  uint64 `json:"attempt"`
	Restarts int    `json:"restarts"`
	Subtasks []struct {
		Subtask string `json:"subtask"`
		Agent   string `json:"agent"` // its name
	} `json:"subtasks"`
}

// job asks any agent that answers.
func (s *site) job(t *testing.T, name string) (j jobShown, ok bool) {
	t.Helper()
	for _, a := range s.nodes {
		if a.process == nil || a.ended() {
			continue
		}
		if out, _, code := a.try("job", "show", name, "--output", "json"); code == 0 {
			decode(t, out, &j)
			return j, true
		}
	}
	return j, false
}

// awaitJob waits until a job is at a status.
func (s *site) awaitJob(t *testing.T, name, status string) jobShown {
	t.Helper()
	var j jobShown
	await(t, fmt.Sprintf("job %s to be %s", name, status), func() bool {
		var ok bool
		j, ok = s.job(t, name)
		return ok && j.Status == status
	}, func() string { return fmt.Sprintf("%+v\n%s", j, s.said()) })
	return j
}

// said is the end of what every agent said.
func (s *site) said() string {
	var b strings.Builder
	for _, a := range s.nodes {
		fmt.Fprintf(&b, "--- %s\n%s\n", a.name, tail(a.output()))
	}
	return b.String()
}

// submit submits a job through an agent and returns its id.
func (a *node) submit(t *testing.T, text string, args ...string) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, "job.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(a.cli(t, append([]string{"job", "submit", "job.yaml"}, args...)...)))
}

// startBroker starts a broker that all hosts reach at the switch, and a way to it
// from outside.
func (s *site) startBroker(t *testing.T) *relay {
	t.Helper()
	m := newMosquitto(t, raised+persistent)
	m.on, m.port = s.sw, brokerPort
	m.configure(t, s.sw.ip, raised+persistent)
	m.start(t)
	s.broker = m
	return newRelayBy(t, m.addr(), s.sw.dial)
}

// file is what all agents' files of one sink hold together.
func (s *site) file(t *testing.T, name string) []byte {
	t.Helper()
	var all []byte
	for _, a := range s.nodes {
		b, err := os.ReadFile(filepath.Join(a.data(), "out", name))
		if err == nil {
			all = append(all, b...)
		} else if !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return all
}
