// Package work is what an agent of a simulated site does besides deciding: it
// runs attempts (executor.go, subtask.go, channel.go, shares.go, sinks.go), and
// owns and copies the logs of feeds (feed.go, owner.go). It stands for
// agent/executor with dataflow/runtime, agent/channel, agent/durable and
// agent/feed; what these drive is real.
//
// It is told by worker.Effects what to do, and tells worker.Events. It knows no
// consensus and no leader.
package work

import (
	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/lease"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

const (
	ms  = world.Ms
	sec = world.Sec
)

// Setting is what the agents of a site have in common.
type Setting struct {
	Site  mesh.Site
	Judge *judge.Judge
	Peers func() []*world.Node // all machines of the site
	// Sources are the agents of another site that a machine sees; nil: there is no
	// other site.
	Sources func(site mesh.Site, from *world.Node) []*world.Node

	parsed map[string]*spec
}

// NewSetting makes that of a site.
func NewSetting(site mesh.Site, j *judge.Judge, peers func() []*world.Node) *Setting {
	return &Setting{Site: site, Judge: j, Peers: peers, parsed: make(map[string]*spec)}
}

// Config is what an agent's process has besides its work.
type Config struct {
	*world.Proc
	*Setting
	Lease *lease.Lease
	State func() *coordinator.State
	Heard func() uint64      // the term of the leader's last message
	Tell  func(worker.Event) // tells the worker, after what is under way
}

// Agent is the work in a process.
type Agent struct {
	Config
	exec  *executor
	feeds *feeds
}

// New begins with what is on the process's disk.
func New(cfg Config) *Agent {
	p := &Agent{Config: cfg}
	p.exec, p.feeds = newExecutor(p), newFeeds(p)
	p.Serve("channel", func(st *world.Stream, from *world.Proc) {
		st.At(1, func(m any) { p.exec.accept(st, from.ID, m) }, func() {})
	})
	p.Serve("log", func(st *world.Stream, _ *world.Proc) {
		st.At(1, func(m any) { p.feeds.take(st, m.(logHello)) }, func() {})
	})
	p.Serve("mirror", func(st *world.Stream, _ *world.Proc) {
		st.At(1, func(m any) { p.feeds.serveMirror(st, m.(mirrorHello)) }, func() {})
	})
	p.Answer("part", func(ask any, reply func(any)) { reply(p.Disk.Parts[ask.(store.Digest)]) })
	p.Answer("push", func(ask any, reply func(any)) { p.exec.takeParts(ask.(pushed), reply) })
	return p
}

// Do performs an effect of the worker.
func (p *Agent) Do(f worker.Effect) {
	if f.Own != nil || f.Follow != nil || f.Seal != nil || f.Rest != nil || f.Drop != nil {
		p.feeds.do(f)
		return
	}
	p.exec.do(f)
}

// Logs are the copies of logs on the disk, as a process that starts says it.
func (p *Agent) Logs() []coordinator.LogNow { return p.feeds.logs() }

// Forget leaves all: the process is dead.
func (p *Agent) Forget() { p.exec.forget() }

// permit is the right to act on the world.
type permit struct{ p *Agent }

func (p permit) Err() error {
	if p.p.W.Bugs.IgnoreLease {
		return nil
	}
	return p.p.Lease.Err()
}
