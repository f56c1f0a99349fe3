package consensus

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// list is a Machine that remembers all commands.
type list struct {
	mu  sync.Mutex // guards all
	all []string
}

func (l *list) Apply(index uint64, command []byte) any {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprintf("%d %s", index, command))
	return "did " + string(command)
}

func (l *list) Snapshot() func(io.Writer) error {
	all := l.commands()
	return func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Join(all, "\n"))
		return err
	}
}

func (l *list) Restore(r io.Reader) error {
	var all []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		all = append(all, lines.Text())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = all
	return lines.Err()
}

func (l *list) commands() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// agents are nodes of a site on a simulated network; all runs in the bubble of a
// synctest.Test.
type agents struct {
	t   *testing.T
	dir string
	net *simnet.Net
	all map[mesh.NodeID]*agent
}

type agent struct {
	*Node
	list *list
	net  *simnet.Transport
	mu   sync.Mutex // guards events and terms
	told []Event
}

func newAgents(t *testing.T) *agents {
	s := &agents{t: t, dir: t.TempDir(), net: simnet.New(), all: make(map[mesh.NodeID]*agent)}
	t.Cleanup(func() {
		for id := range s.all {
			s.kill(id)
		}
	})
	return s
}

// open starts an agent, with the folder that it had before.
func (s *agents) open(id mesh.NodeID, change ...func(*Options)) *agent {
	s.t.Helper()
	a, err := s.try(id, change...)
	must(s.t, err)
	return a
}

func (s *agents) try(id mesh.NodeID, change ...func(*Options)) (*agent, error) {
	a := &agent{list: &list{}, net: s.net.New(id, "plant")}
	o := Options{Dir: filepath.Join(s.dir, string(id)), Transport: a.net, Self: id, Site: "plant", Machine: a.list, Reserve: testReserve,
		Events: func(e Event) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.told = append(a.told, e)
		}}
	for _, c := range change {
		c(&o)
	}
	var err error
	if a.Node, err = Open(o); err != nil {
		must(s.t, a.net.Close())
		return nil, err
	}
	a.net.Start()
	s.all[id] = a
	return a, nil
}

func founder(o *Options) { o.Founder = true }

// healthy says of all agents that they are there.
func healthy(ids ...mesh.NodeID) func(*Options) {
	return func(o *Options) {
		o.Health = func() (all []Candidate) {
			for _, id := range ids {
				all = append(all, Candidate{Node: id, Host: string(id), Alive: true})
			}
			return all
		}
	}
}

// kill closes an agent without ceremony.
func (s *agents) kill(id mesh.NodeID) {
	a := s.all[id]
	delete(s.all, id)
	if err := a.Close(); err != nil {
		s.t.Errorf("%s: close: %v", id, err)
	}
	must(s.t, a.net.Close())
}

// until waits for something, for a minute of virtual time.
func (s *agents) until(what string, ok func() bool) {
	s.t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	for id, a := range s.all {
		s.t.Logf("%s: %+v %v", id, a.Stats(), a.Members())
		a.mu.Lock()
		for _, e := range a.told[max(0, len(a.told)-10):] {
			s.t.Logf("  %v", e)
		}
		a.mu.Unlock()
	}
	s.t.Fatalf("never: %s", what)
}

// leader waits until one of some agents, none: all, leads and has told so.
func (s *agents) leader(of ...mesh.NodeID) *agent {
	s.t.Helper()
	var found *agent
	s.until("a leader", func() bool {
		for id, a := range s.all {
			if len(of) > 0 && !slices.Contains(of, id) {
				continue
			}
			if a.Verify(soon(s.t)) == nil {
				found = a
				return true
			}
		}
		return false
	})
	return found
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (s *agents) propose(a *agent, commands ...string) {
	s.t.Helper()
	for _, c := range commands {
		if _, r, err := a.Propose(soon(s.t), []byte(c)); err != nil || r != "did "+c {
			s.t.Fatalf("%s: propose %s: %v, %v", a.Self(), c, r, err)
		}
	}
}

// voters makes a group of agents that all vote, a the founder.
func (s *agents) voters(ids ...mesh.NodeID) {
	s.t.Helper()
	for i, id := range ids {
		s.open(id, healthy(ids...), func(o *Options) { o.Founder = i == 0 })
	}
	first := s.leader()
	for _, id := range ids[1:] {
		must(s.t, first.AddNonvoter(soon(s.t), id))
	}
	s.until("all vote", func() bool { return first.Stats().Voters == len(ids) })
}

// same waits until all have applied the same commands, the last of which is
// this one.
func (s *agents) same(last string) {
	s.t.Helper()
	s.until("all have applied "+last, func() bool {
		var first []string
		for _, a := range s.all {
			got := a.list.commands()
			if len(got) == 0 || !strings.HasSuffix(got[len(got)-1], " "+last) {
				return false
			}
			if first == nil {
				first = got
			}
			if !slices.Equal(first, got) {
				return false
			}
		}
		return true
	})
}
