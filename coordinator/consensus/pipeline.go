package consensus

import (
	"sync"

	"github.com/hashicorp/raft"
)

// pipeline carries entries to a follower, several requests at a time. The
// library's own may stand for ever: it stops to take answers at the first that
// refuses, and when two more requests are on their way by then, its sender waits
// for room that nobody makes. That follower gets no entries any more, and the
// node cannot end. Here the sender is told after such an answer.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	once    sync.Once
	closed  chan struct{}
}

var _ raft.AppendPipeline = (*pipeline)(nil)

func newPipeline(inner raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.pass() // ends with Close, or a refusal
	return p
}

// AppendEntriesPipeline begins to send entries to a follower.
func (c *contacts) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := c.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return newPipeline(inner), nil
}

// Consumer gives the answers in the order of the requests.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close ends all requests that are on their way.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}

func (p *pipeline) pass() {
	for {
		select {
		case f := <-p.AppendPipeline.Consumer():
			select {
			case p.answers <- f:
			case <-p.closed:
				return
			}
			// As the library sees it; of a request that failed the answer is empty.
			if answer := f.Response(); !answer.Success || answer.Term > f.Request().Term {
				_ = p.AppendPipeline.Close() // never fails
				return
			}
		case <-p.closed:
			return
		}
	}
}
