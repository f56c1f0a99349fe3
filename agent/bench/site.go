package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
	jobfile "github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// siteTime is how long a site may take for what it does at once.
const siteTime = 30 * time.Second

// agentPart says what an agent is that is a process of its own.
type agentPart struct {
	Name, Dir, Bind string
	Join, Token     string // of all but the founder
	Site            string // of the founder of another site
	Slots           int
	Labels          map[string]string
}

// startAgent runs an agent until the parent goes away. Every order is answered
// with where it is and what it costs.
func startAgent(ctx context.Context, p agentPart) (func(order) (report, error), func() error, error) {
	c := config.Default()
	c.Name, c.DataDir, c.Bind, c.Slots, c.Labels, c.HTTP.Bind = p.Name, p.Dir, p.Bind, p.Slots, p.Labels, "127.0.0.1:0"
	if p.Join != "" {
		c.Join, c.Token = []string{p.Join}, p.Token
	}
	if p.Site != "" {
		c.Site = p.Site
	}
	if err := c.Check(); err != nil {
		return nil, nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	n, err := node.Start(ctx, node.Options{Config: c, Version: "bench", Level: coordinator.Level, Secrets: jobfile.Resolver{}})
	if err != nil {
		stop()
		return nil, nil, err
	}
	obey := func(order) (report, error) {
		return report{CPU: processorTime(), Resident: resident(), Link: n.Link(), HTTP: n.HTTP()}, nil
	}
	return obey, func() error { stop(); return n.Wait() }, nil
}

// agentProcess is an agent of a testSite.
type agentProcess struct {
	*child
	name       string
	link, http string
	killed     bool
}

// testSite is a site on loopback, each agent of which is a process.
type testSite struct {
	dir    string
	agents []*agentProcess
	client *api.Client // of the first agent
}

// openSite starts a site; the first agent founds it, and leads. Only Slots and
// Labels need be set.
func openSite(ctx context.Context, agents ...agentPart) (s *testSite, err error) {
	s = &testSite{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "tidemark-bench-"); err != nil {
		return s, err
	}
	var token string
	for i, p := range agents {
		p.Name = fmt.Sprintf("n%d", i+1)
		p.Dir = filepath.Join(s.dir, p.Name)
		if p.Bind, err = freePorts(); err != nil {
			return s, err
		}
		if i == 0 {
			_, t, err := node.Found(p.Dir, "bench", mesh.Site("bench"), time.Now())
			if err != nil {
				return s, err
			}
			token = t.String()
		} else {
			p.Join, p.Token = s.agents[0].link, token
		}
		if err := s.start(ctx, p); err != nil {
			return s, err
		}
	}
	return s, s.settled(ctx)
}

func (s *testSite) start(ctx context.Context, p agentPart) error {
	c, err := startChild(ctx, part{Role: "agent", Agent: &p})
	if err != nil {
		return err
	}
	a := &agentProcess{child: c, name: p.Name}
	s.agents = append(s.agents, a)
	r, err := c.tell(order{})
	if err != nil {
		return err
	}
	a.link, a.http = r.Link, r.HTTP
	if s.client == nil {
		s.client, err = api.NewClient("http://"+a.http, "")
	}
	return err
}

// settled waits until all agents belong to the site and have the role that they
// will keep: up to five are voters, an odd number.
func (s *testSite) settled(ctx context.Context) error {
	voters := min(5, (len(s.agents)-1)/2*2+1)
	return await(ctx, func() (bool, error) {
		i, err := s.client.Site(ctx, false)
		return err == nil && i.Agents == len(s.agents) && i.Voters == voters, nil
	})
}

// await asks until it is so.
func await(ctx context.Context, ok func() (bool, error)) error { return awaitFor(ctx, siteTime, ok) }

func awaitFor(ctx context.Context, most time.Duration, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if is, err := ok(); is || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("a site of the benchmark does not get as far as it should: %w", ctx.Err())
		}
	}
}

// running submits a job, and waits until it runs.
func (s *testSite) running(ctx context.Context, spec string) (string, error) {
	j, err := s.client.Submit(ctx, api.Submission{Spec: spec, Request: rand.Text()}) // once, whoever leads meanwhile
	var problem *api.Problem
	if errors.As(err, &problem) {
		err = fmt.Errorf("%w: %s", err, strings.Join(problem.Errors, "; "))
	}
	if err != nil {
		return "", err
	}
	var why string
	err = await(ctx, func() (bool, error) {
		d, err := s.client.Job(ctx, j.ID)
		why = fmt.Sprintf("job %s is %s: %s", d.Name, d.Status, d.Why)
		switch {
		case err != nil:
			return false, err
		case d.Status == statusFailed:
			return false, errors.New(why)
		}
		return d.Status == statusRunning, nil
	})
	if err != nil {
		err = fmt.Errorf("%w; %s", err, why)
	}
	return j.ID, err
}

// The statuses of a job, as the API says them.
const (
	statusRunning = "running"
	statusFailed  = "failed"
)

// agent is the one with a name.
func (s *testSite) agent(name string) *agentProcess {
	for _, a := range s.agents {
		if a.name == name {
			return a
		}
	}
	return nil
}

// kill ends an agent as kill -9 does.
func (a *agentProcess) kill() (time.Time, error) {
	a.killed = true
	at := time.Now()
	if err := a.cmd.Process.Kill(); err != nil {
		return at, err
	}
	_ = a.cmd.Wait() // killed: always an error; closes the pipes
	return at, nil
}

func (s *testSite) close() (err error) {
	for _, a := range s.agents {
		if !a.killed {
			err = errors.Join(err, a.child.close())
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Ports of a benchmark are below those that systems give to whoever asks for any,
// and to outgoing connections: nobody gets one by chance between the look and the
// start of who is to have it.
const leastPort, mostPort = 18000, 32000

// freePorts is an address of loopback whose port and the two after nobody has:
// gossip takes these, UDP and TCP.
func freePorts() (string, error) {
	for range 1000 {
		at := fmt.Sprintf("127.0.0.1:%d", leastPort+mrand.IntN((mostPort-leastPort)/4)*4)
		if free(at) && free(config.GossipOf(at)) && free(config.WANOf(at)) {
			return at, nil
		}
	}
	return "", fmt.Errorf("no three free ports side by side on 127.0.0.1 between %d and %d", leastPort, mostPort)
}

// free tells whether nobody has a port, UDP and TCP.
func free(at string) bool {
	udp, err := net.ListenPacket("udp", at)
	if err != nil {
		return false
	}
	tcp, err := net.Listen("tcp", at)
	if err == nil {
		_ = tcp.Close()
	}
	_ = udp.Close()
	return err == nil
}
