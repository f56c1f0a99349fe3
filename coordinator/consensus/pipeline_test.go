package consensus

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// fullPipeline has no room for a request until answers are taken.
type fullPipeline struct {
	answers chan raft.AppendFuture
	closed  chan struct{}
}

func (p *fullPipeline) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	<-p.closed
	return nil, raft.ErrPipelineShutdown
}
func (p *fullPipeline) Consumer() <-chan raft.AppendFuture { return p.answers }
func (p *fullPipeline) Close() error {
	close(p.closed)
	return nil
}

// answered is a request with its answer.
type answered struct {
	raft.AppendFuture
	request  raft.AppendEntriesRequest
	response raft.AppendEntriesResponse
}

func (a *answered) Request() *raft.AppendEntriesRequest   { return &a.request }
func (a *answered) Response() *raft.AppendEntriesResponse { return &a.response }

// Who takes answers stops at the first that refuses; who sends is told, though it
// waits for room.
func TestPipelineEndsAfterARefusal(t *testing.T) {
	for name, last := range map[string]*answered{
		"refused":     {},
		"newer term":  {response: raft.AppendEntriesResponse{Success: true, Term: 2}, request: raft.AppendEntriesRequest{Term: 1}},
		"not refused": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &fullPipeline{answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
				p := newPipeline(inner)
				sent := make(chan error, 1)
				go func() {
					_, err := p.AppendEntries(nil, nil)
					sent <- err
				}()
				good := &answered{response: raft.AppendEntriesResponse{Success: true, Term: 1}, request: raft.AppendEntriesRequest{Term: 1}}
				for _, f := range []*answered{good, last} {
					if f == nil {
						continue
					}
					inner.answers <- f
					if got := <-p.Consumer(); got != f {
						t.Errorf("%v came out", got)
					}
				}
				if synctest.Wait(); last == nil {
					if len(sent) > 0 {
						t.Error("a pipeline ended that nobody ended")
					}
					_ = p.Close()
				}
				if err := <-sent; !errors.Is(err, raft.ErrPipelineShutdown) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}
